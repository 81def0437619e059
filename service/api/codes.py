"""The codes of refusals: what each means, of which kind it is, and what can be answered with it.

``service.openapi`` names them under the responses of every operation. A test finds each code in
the sources that is not here.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus

from service.api.problems import STATUS_OF
from service.errors import (
    BodyTooLarge,
    Conflict,
    HeadTooLarge,
    InternalFailure,
    InvalidInput,
    MalformedRequest,
    ModelUnnamed,
    NotAcceptable,
    NotFound,
    PreconditionFailed,
    ServiceError,
    SlowRequest,
    StorageFull,
    TooManyRequests,
    Unavailable,
    Unsupported,
    UnsupportedEncoding,
    UnsupportedMediaType,
)

ROWS = frozenset({"Rows", "RowsOfModel", "TrainingData", "LabelledRows"})
WITHOUT_STORAGE = frozenset({"/livez", "/version"})
QUESTIONS = "inference"
"""Tag of what is asked of a version."""


@dataclass(frozen=True, slots=True)
class Described:
    """An operation of the document, as far as its refusals and headers follow from it."""

    method: str
    path: str
    tag: str
    parameters: frozenset[str]
    """Their names, those of headers in lower case."""
    bodies: frozenset[str]
    """Names of the schemas of the request's body."""

    @property
    def takes_rows(self) -> bool:
        return not ROWS.isdisjoint(self.bodies)

    @property
    def trains(self) -> bool:
        return "TrainingData" in self.bodies

    @property
    def is_bare(self) -> bool:
        return "RowsOfModel" in self.bodies

    @property
    def asks(self) -> bool:
        return self.tag == QUESTIONS

    @property
    def changes(self) -> bool:
        return not self.asks and self.method != "get"


When = Callable[[Described], bool]


def anywhere(_: Described) -> bool:
    return True


def under(*parts: str) -> When:
    """Say yes where the path has one of these parts."""
    return lambda operation: any(part in operation.path for part in parts)


def with_parameter(*names: str) -> When:
    return lambda operation: not operation.parameters.isdisjoint(names)


def with_body(operation: Described) -> bool:
    return bool(operation.bodies)


def with_rows(operation: Described) -> bool:
    return operation.takes_rows


def training(operation: Described) -> bool:
    return operation.trains


def bare(operation: Described) -> bool:
    return operation.is_bare


def changing(operation: Described) -> bool:
    return operation.changes


def stored(operation: Described) -> bool:
    return operation.path not in WITHOUT_STORAGE


def of_a_model(operation: Described) -> bool:
    return operation.is_bare or "/models/{id}" in operation.path


def of_a_version(operation: Described) -> bool:
    names_one = not operation.parameters.isdisjoint({"n", "version", "job"})
    return names_one or "PutAlias" in operation.bodies


def without_number(operation: Described) -> bool:
    return operation.asks and "n" not in operation.parameters


def computed(operation: Described) -> bool:
    return operation.takes_rows or "SampleRequest" in operation.bodies


def analysed(operation: Described) -> bool:
    return operation.trains or any(
        part in operation.path for part in ("/diagnostics", "/compare", "/plots")
    )


def ready(operation: Described) -> bool:
    return operation.path == "/readyz"


def ready_to_fit(operation: Described) -> bool:
    return operation.trains or ready(operation)


def writing(operation: Described) -> bool:
    return operation.changes or ready(operation)


Codes = Mapping[str, tuple[str, When]]
"""What a code means, and where it can be."""

KINDS: Mapping[type[ServiceError], Codes] = {
    MalformedRequest: {
        "malformed_request": ("The head or the length of the request is not sound.", anywhere),
        "malformed_json": ("The body is no JSON.", with_body),
        "duplicate_key": ("A JSON object has a key twice.", with_body),
        "nesting_too_deep": ("The JSON is nested too deep.", with_body),
        "not_utf8": ("The text is not UTF-8.", with_body),
        "malformed_encoding": ("The compressed body can't be unpacked.", with_body),
    },
    ModelUnnamed: {
        "model_required": ("No model is named, and there is not just one that is fitted.", bare),
        "model_ambiguous": ("The request names two different models.", bare),
    },
    NotFound: {
        "model_not_found": ("There is no such model.", of_a_model),
        "version_not_found": ("The model has no such version.", of_a_version),
        "alias_not_found": ("The model has no such alias.", with_parameter("alias")),
        "job_not_found": (
            "There is no such job.",
            lambda operation: "/jobs/" in operation.path or "job" in operation.parameters,
        ),
        "metric_not_found": ("There is no such criterion.", with_parameter("metric")),
        "plot_not_found": ("There is no such picture.", with_parameter("kind")),
    },
    NotAcceptable: {
        "not_acceptable": ("There is no answer in the formats of `Accept`.", anywhere),
    },
    SlowRequest: {
        "request_too_slow": ("The request did not come in in time.", anywhere),
    },
    Conflict: {
        "model_exists": (
            "A model of that id exists already.",
            lambda operation: "CreateModel" in operation.bodies,
        ),
        "model_not_fitted": ("The model has no version yet.", without_number),
        "fit_in_progress": ("The model is being fitted, and `on_conflict` is `reject`.", training),
        "fit_cancelled": ("The fit was cancelled while it was waited for.", training),
        "fit_interrupted": ("The fit was cut off by a shutdown.", training),
        "version_aliased": (
            "An alias names the version, which is not deleted then.",
            lambda operation: operation.method == "delete" and "n" in operation.parameters,
        ),
        "alias_reserved": ("`latest` moves by itself.", under("/aliases/{alias}")),
        "too_many_aliases": (
            "The model has as many aliases as there may be.",
            lambda operation: operation.changes and "/aliases/{alias}" in operation.path,
        ),
        "nothing_to_roll_back_to": ("The alias named nothing before.", under("/rollback")),
        "concurrent_update": (
            "Other changes kept coming between.",
            lambda operation: "UpdateModel" in operation.bodies,
        ),
        "request_in_progress": (
            "The first request under the key is not answered yet.",
            with_parameter("idempotency-key"),
        ),
        "no_selection": (
            "The version was not chosen by a selection.",
            lambda operation: operation.method == "get" and "kind" in operation.parameters,
        ),
    },
    PreconditionFailed: {
        "precondition_failed": ("The condition of the request does not hold.", anywhere),
        "revision_mismatch": ("Another change came between.", under("/models/{id}")),
    },
    BodyTooLarge: {
        "body_too_large": ("The body has more bytes than are taken.", with_body),
    },
    HeadTooLarge: {
        "head_too_large": ("The request line and headers are too long.", anywhere),
    },
    UnsupportedMediaType: {
        "unsupported_media_type": ("The body is in no format that is read here.", with_body),
    },
    UnsupportedEncoding: {
        "unsupported_encoding": ("The body is compressed in a way not known here.", with_body),
    },
    InvalidInput: {
        "invalid_parameter": ("A parameter or a field is wrong; `errors` says which.", anywhere),
        "non_finite_number": ("A number is not finite, or beyond a double.", with_body),
        "empty_data": ("There are no rows.", with_rows),
        "ragged_rows": ("Rows differ in length.", with_rows),
        "invalid_data": ("Something is there where a number belongs.", with_rows),
        "invalid_file": ("The file is not in the format that it claims.", with_rows),
        "dimension_mismatch": ("Columns, names or weights are not as many as needed.", with_rows),
        "feature_names_mismatch": ("Names are missing or not those of the model.", with_rows),
        "value_out_of_range": ("Squares of values leave the range of a double.", with_rows),
        "too_few_samples": ("There are fewer rows than this takes.", analysed),
        "singular_covariance": ("A covariance is not positive definite.", analysed),
        "work_budget_exceeded": ("This takes more work or memory than is allowed.", computed),
        "idempotency_mismatch": (
            "The key came before with another payload.",
            with_parameter("idempotency-key"),
        ),
        "rows_required": (
            "This picture shows rows: send them by POST.",
            lambda operation: operation.method == "get" and "kind" in operation.parameters,
        ),
        "rows_not_shown": (
            "This picture shows no rows: GET it.",
            lambda operation: operation.method == "post" and "kind" in operation.parameters,
        ),
    },
    TooManyRequests: {
        "fit_queue_full": ("As many fits wait as the queue takes.", training),
        "too_many_keys": (
            "As many keys are kept as there may be in a day.",
            with_parameter("idempotency-key"),
        ),
        "too_many_streams": ("As many streams are open as there may be.", under("/events")),
    },
    Unavailable: {
        "overloaded": ("More is asked than can be computed.", anywhere),
        "deadline_exceeded": ("The time of `Request-Timeout` had passed.", anywhere),
        "draining": ("The service is shutting down.", anywhere),
        "too_many_connections": ("As many connections are open as are taken.", anywhere),
        "starting": ("The service is starting.", ready_to_fit),
        "storage_failed": ("What is stored can't be read or written.", stored),
        "registry_missing": ("There is no registry where it should be.", stored),
        "registry_format_unknown": ("The registry is of a later release.", stored),
        "model_corrupt": ("What is stored of the model fails its integrity check.", of_a_model),
        "registry_read_only": ("The registry can't be written.", writing),
        "database_read_only": ("The database of the jobs can't be written.", writing),
        "no_worker": ("No process for fits gets ready.", ready_to_fit),
        "storage_full": ("The disk is full.", ready),
        "out_of_memory": ("The fit needed more memory than it may take.", training),
        "time_limit_exceeded": ("The fit took longer than it may take.", training),
        "worker_died": ("The fit's process ended before the fit did.", training),
        "worker_unresponsive": ("The fit's process fell silent.", training),
    },
    StorageFull: {
        "storage_full": ("The disk is full.", anywhere),
    },
    Unsupported: {
        "extra_not_installed": ("This takes an extra that is not installed.", anywhere),
    },
    InternalFailure: {
        "internal_error": ("The service failed unexpectedly.", training),
        "worker_protocol": ("The fit's process said what makes no sense.", training),
    },
}
"""Those that a client of the native API can meet; under ``/v2`` answers have no codes."""

PLACES: tuple[str, ...] = (
    "missing_field",
    "unknown_field",
    "unknown_parameter",
    "repeated_parameter",
    "missing_feature",
    "unknown_feature",
    "wrong_type",
    "invalid_value",
    "out_of_range",
    "invalid_parameter",
    "non_finite_number",
    "invalid_data",
    "ragged_rows",
    "dimension_mismatch",
    "feature_names_mismatch",
    "value_out_of_range",
    "too_few_samples",
    "work_budget_exceeded",
)
"""What can be wrong with one place of a request."""

Found = tuple[type[ServiceError], str, str]
"""A kind, one of its codes, and what that means."""


def codes_under(operation: Described, status: HTTPStatus) -> list[Found]:
    """Return what an operation can be refused with under a status."""
    return [
        (kind, code, meaning)
        for kind, codes in KINDS.items()
        if STATUS_OF[kind] is status
        for code, (meaning, can_be) in codes.items()
        if can_be(operation)
    ]


def every_code() -> Iterator[str]:
    """Yield each once, in the order of the kinds."""
    yield from dict.fromkeys(code for codes in KINDS.values() for code in codes)
