"""What signatures ask for: ids from the path, queries, checked bodies."""

import re
import sys
from collections.abc import Awaitable, Callable, Iterator
from typing import Annotated, TypeVar, get_args, get_origin

from fastapi import Depends, Header, Path, Query, Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from pydantic import BeforeValidator, ValidationError

from service.api.negotiation import JSON, answers_json, content_type
from service.api.payloads.body import read_body
from service.api.payloads.json_document import parse_json
from service.api.problems import refusal_of_fields
from service.api.responses import names_tag
from service.api.schemas import LARGEST_VERSION, Body
from service.api.services import Services, services_of
from service.domain.identifiers import ID_PATTERN
from service.domain.inference import METRICS
from service.errors import InvalidInput, Issue

B = TypeVar("B", bound=Body)

MAX_CONTROL_BODY_BYTES = 1024**2
MAX_CONTROL_FIELDS = 64

WRITTEN_NUMBER = re.compile(r"(0|[1-9][0-9]*)\Z")
BEYOND_ALL_BOUNDS = str(2**63 - 1)
HUGE_NUMBER = re.compile(r"[0-9]{300,}(\.[0-9]*)?\Z")

QUERY_NAMES: dict[str, dict[str, bool]] = {}
"""By operation: its query parameters, and which may be given several times; filled as operations
are first used."""


async def door_of(request: Request) -> Services:
    return services_of(request)


Door = Annotated[Services, Depends(door_of)]

ModelId = Annotated[str, Path(alias="id", pattern=ID_PATTERN, description="The model's id.")]
AliasName = Annotated[
    str, Path(alias="alias", max_length=256, description="The alias, such as `champion`.")
]
JobId = Annotated[str, Path(alias="id", pattern=ID_PATTERN, description="The job's id.")]


def as_written(text: object) -> object:
    """Refuse numbers in other forms than their own, such as 01 and 1.0: one thing, one address.

    Huge ones are cut, for the bounds to refuse.
    """
    if not isinstance(text, str):
        return text
    if not WRITTEN_NUMBER.match(text):
        raise ValueError("must be a whole number, written in digits")
    return text if len(text) < len(BEYOND_ALL_BOUNDS) else BEYOND_ALL_BOUNDS


def cut_to_finite(text: object) -> object:
    """Take a wait beyond the range of a double for a long one."""
    is_huge = isinstance(text, str) and HUGE_NUMBER.match(text)
    return sys.float_info.max if is_huge else text


VersionNumber = Annotated[
    int,
    Path(alias="n", ge=1, le=LARGEST_VERSION, description="The version's number."),
    BeforeValidator(as_written),
]
Metric = Annotated[
    str,
    Path(
        pattern=f"^({'|'.join(METRICS)})$",
        description="The criterion.",
        json_schema_extra={"enum": list(METRICS)},
    ),
]
VersionQuery = Annotated[
    int | None,
    Query(
        alias="version",
        ge=1,
        le=LARGEST_VERSION,
        description="The version; without it `champion` if that alias is set, else the latest.",
    ),
    BeforeValidator(as_written),
]
AliasQuery = Annotated[
    str | None,
    Query(alias="alias", max_length=256, description="The alias that names the version."),
]
WaitQuery = Annotated[
    float | None,
    Query(
        alias="wait",
        ge=0,
        allow_inf_nan=False,
        description="Seconds to wait for the fit to end; more than the service allows is cut.",
    ),
    BeforeValidator(cut_to_finite),
]
PageSize = Annotated[
    int,
    Query(ge=1, le=1000, description="Items of a page at the most."),
    BeforeValidator(as_written),
]
PageToken = Annotated[
    str | None, Query(max_length=1024, description="`next_page_token` of the page before.")
]
IfMatch = Annotated[
    str | None, Header(description="Change only the copy that has this ETag; else 412.")
]
IfNoneMatch = Annotated[
    str | None, Header(description="Answer 304 if this ETag is still the current one.")
]
IfNoOther = Annotated[
    str | None,
    Header(
        alias="if-none-match",
        description="Change nothing that has this ETag, with `*` nothing that is there; else 412.",
    ),
]
Prefer = Annotated[
    str | None, Header(description="`respond-async`, or `wait=` seconds (RFC 7240).")
]


MayChange = Callable[[str | None], bool]
"""Says of a resource's ETag, None while there is none, whether the request is to change it."""


async def preconditions_of(
    request: Request, if_match: IfMatch = None, if_none_match: IfNoOther = None
) -> MayChange | None:
    """Return what a request that changes something demands (RFC 9110, 13.1); None for nothing."""
    if if_match is None and if_none_match is None:
        return None

    def are_met(tag: str | None) -> bool:
        if if_match is not None and (tag is None or not names_tag(request, "if-match", tag)):
            return False
        return if_none_match is None or tag is None or not names_tag(request, "if-none-match", tag)

    return are_met


Preconditions = Annotated[MayChange | None, Depends(preconditions_of)]


def json_of(body_type: type[B]) -> Callable[[Request], Awaitable[B]]:
    """Make the dependency that reads a control-plane body, strictly."""

    async def checked_body(request: Request) -> B:
        content_type(request, [JSON])
        max_bytes = min(MAX_CONTROL_BODY_BYTES, services_of(request).options.max_body_bytes)
        document = parse_json(bytes(await read_body(request, max_bytes=max_bytes)))
        if not isinstance(document, dict) or len(document) > MAX_CONTROL_FIELDS:
            detail = f"the body must be an object of at most {MAX_CONTROL_FIELDS} fields"
            raise InvalidInput(
                "invalid_parameter", detail, issues=[Issue("#", "wrong_type", detail)]
            )
        try:
            return body_type.model_validate(document)
        except ValidationError as error:
            errors = error.errors(include_url=False, include_input=False)
            raise refusal_of_fields(errors, document, body_type.model_fields) from error

    return checked_body


async def refuse_stray_query(request: Request) -> None:
    """Refuse a query parameter that would be ignored in silence: unknown here, or given twice."""
    route: APIRoute = request.scope["route"]
    may_repeat = query_names(route)
    given = [name for name, _ in request.query_params.multi_items()]
    if any(name not in may_repeat for name in given):
        takes = f"takes {', '.join(sorted(may_repeat))}" if may_repeat else "takes none"
        detail = f"there is no such query parameter here; this path {takes}"
        raise InvalidInput(
            "invalid_parameter", detail, issues=[Issue("#/query", "unknown_parameter", detail)]
        )
    for name in request.query_params:
        if given.count(name) > 1 and not may_repeat[name]:
            raise given_twice(name)


def given_twice(name: str) -> InvalidInput:
    detail = f"{name} may be given once"
    issue = Issue(f"#/query/{name}", "repeated_parameter", detail)
    return InvalidInput("invalid_parameter", detail, issues=[issue])


def query_names(route: APIRoute) -> dict[str, bool]:
    if route.unique_id not in QUERY_NAMES:
        QUERY_NAMES[route.unique_id] = dict(_query_names(route.dependant))
    return QUERY_NAMES[route.unique_id]


def _query_names(dependant: Dependant) -> Iterator[tuple[str, bool]]:
    for parameter in dependant.query_params:
        annotation = parameter.field_info.annotation
        choices = (annotation, *get_args(annotation))
        yield parameter.alias, any(get_origin(choice) is list for choice in choices)
    for dependency in dependant.dependencies:
        yield from _query_names(dependency)


IN_EVERY_ROUTE = [Depends(refuse_stray_query)]
IN_EVERY_JSON_ROUTE = [*IN_EVERY_ROUTE, Depends(answers_json)]
