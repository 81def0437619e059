"""Headers of requests and answers, for ``openapi.json``: what they say, and who sends them when."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from service.api.codes import Described
from service.api.documentation import Json
from service.api.middleware import MAX_SECONDS_LENGTH, SECONDS
from service.api.open_inference.bodies import LENGTH_HEADER
from service.api.problems import RETRY_SECONDS, STATUS_OF
from service.domain.fitting import FAILURE_KINDS
from service.errors import Conflict, InvalidInput, ServiceError

TAGGED = frozenset({"Model", "Alias", "Version"})
"""Schemas of answers that have an entity tag."""
RETRIED = frozenset({STATUS_OF[kind].value for kind in RETRY_SECONDS})
ENDS_OF_FITS: tuple[type[ServiceError], ...] = (Conflict, InvalidInput, *FAILURE_KINDS.values())
FIT_FAILURES = frozenset(STATUS_OF[kind].value for kind in ENDS_OF_FITS)
"""How a fit without a result is answered."""


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer of an operation, by its status and the name of its schema."""

    operation: Described
    status: int
    schema: str | None

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300

    @property
    def is_inference(self) -> bool:
        return self.is_success and (self.operation.asks or infers(self.operation))

    @property
    def is_tagged(self) -> bool:
        is_artifact = self.operation.path.endswith("/artifact")
        return self.status == 304 or (
            self.is_success and (self.schema in TAGGED or (is_artifact and self.status == 200))
        )

    @property
    def is_job_begun(self) -> bool:
        return self.status == 202 and self.operation.trains

    @property
    def is_fitted(self) -> bool:
        return self.status == 200 and self.operation.trains

    @property
    def is_of_a_key(self) -> bool:
        """Say whether the answer may be kept: what is made, and how a fit ended."""
        is_kept = self.is_success or (self.operation.trains and self.status in FIT_FAILURES)
        return is_kept and "idempotency-key" in self.operation.parameters


When = Callable[[Answered], bool]


@dataclass(frozen=True, slots=True)
class SentHeader:
    """A header of answers; it may be there ``sometimes``, and is where it is ``always``."""

    name: str
    description: str
    schema: Mapping[str, Json]
    always: When
    sometimes: When


def infers(operation: Described) -> bool:
    return operation.path.endswith("/infer")


def never(_: Answered) -> bool:
    return False


TEXT: Mapping[str, Json] = {"type": "string"}
WHOLE: Mapping[str, Json] = {"type": "integer", "minimum": 0}

SENT = (
    SentHeader(
        "X-Request-Id",
        "The request's own, where it is well-formed, or one made here; it finds the log.",
        TEXT,
        always=lambda _: True,
        sometimes=never,
    ),
    SentHeader(
        "Retry-After",
        "Seconds after which to ask again.",
        WHOLE,
        always=lambda answer: answer.status in RETRIED or answer.is_job_begun,
        sometimes=never,
    ),
    SentHeader(
        "Location",
        "The path of what was made: a model, or the job to ask for.",
        TEXT,
        always=lambda answer: (
            answer.status == 201
            or answer.is_job_begun
            or (answer.is_success and answer.operation.path.endswith("/cancel"))
        ),
        sometimes=never,
    ),
    SentHeader(
        "Content-Location",
        "The canonical path of the answer, with the version's number; of a fit, its version.",
        TEXT,
        always=lambda answer: answer.is_success and answer.operation.is_bare,
        sometimes=lambda answer: answer.is_fitted,
    ),
    SentHeader(
        "ETag",
        "The state that is answered; for `If-Match` and `If-None-Match`.",
        TEXT,
        always=lambda answer: answer.is_tagged,
        sometimes=never,
    ),
    SentHeader(
        "Link",
        'The next page, as `rel="next"`; not there with the last one.',
        TEXT,
        always=never,
        sometimes=lambda answer: answer.is_success and "page_token" in answer.operation.parameters,
    ),
    SentHeader(
        "GMM-Model-Version",
        "The number of the version that answers.",
        {"type": "integer", "minimum": 1},
        always=lambda answer: answer.is_inference,
        sometimes=lambda answer: (
            answer.is_fitted and "validate_only" in answer.operation.parameters
        ),
    ),
    SentHeader(
        "GMM-Space",
        "The space that densities and criteria are of: `original`, or the preprocessed one.",
        TEXT,
        always=lambda answer: answer.is_inference,
        sometimes=never,
    ),
    SentHeader(
        "Server-Timing",
        "Milliseconds of the phases that there were: `parse`, `queue`, `compute`, `encode`.",
        TEXT,
        always=lambda answer: answer.is_inference,
        sometimes=never,
    ),
    SentHeader(
        "Idempotency-Replayed",
        "`true` when this is the answer that an earlier request under the key had.",
        {"type": "string", "const": "true"},
        always=never,
        sometimes=lambda answer: answer.is_of_a_key,
    ),
    SentHeader(
        "Preference-Applied",
        "What of `Prefer` was heeded: `respond-async`, or `wait=` with the seconds.",
        TEXT,
        always=never,
        sometimes=lambda answer: answer.is_success and "prefer" in answer.operation.parameters,
    ),
    SentHeader(
        "Accept-Encoding",
        "How a body may be compressed, with `unsupported_encoding`.",
        TEXT,
        always=never,
        sometimes=lambda answer: answer.status == 415,
    ),
    SentHeader(
        "Content-Disposition",
        "A name for the file.",
        TEXT,
        always=lambda answer: answer.status == 200 and answer.operation.path.endswith("/artifact"),
        sometimes=never,
    ),
    SentHeader(
        "Inference-Header-Content-Length",
        "Bytes of the JSON part, when tensors follow it.",
        WHOLE,
        always=never,
        sometimes=lambda answer: answer.is_inference and infers(answer.operation),
    ),
)


@dataclass(frozen=True, slots=True)
class HeededHeader:
    """A header of requests that no handler has in its signature."""

    name: str
    description: str
    schema: Mapping[str, Json]
    is_heeded: Callable[[Described], bool]


HEEDED = (
    HeededHeader(
        "X-Request-Id",
        "An id of your own for the request: up to 128 letters, digits and `._:/+=@~-`. Another "
        "one is replaced, not refused.",
        TEXT,
        is_heeded=lambda _: True,
    ),
    HeededHeader(
        "Request-Timeout",
        "Seconds for which the answer is of use, as a decimal number. When they have passed before "
        "it is begun, it is 503 `deadline_exceeded`.",
        {
            "type": "string",
            "pattern": f"^({SECONDS.pattern.removesuffix(chr(92) + 'Z')})$",
            "maxLength": MAX_SECONDS_LENGTH,
        },
        is_heeded=lambda operation: operation.asks or infers(operation),
    ),
    HeededHeader(
        LENGTH_HEADER.title(),
        "Bytes of the JSON part, when tensors follow it; 0 when all of the body is the one input.",
        WHOLE,
        is_heeded=infers,
    ),
)
