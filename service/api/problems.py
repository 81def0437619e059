"""Refusals as ``application/problem+json`` (RFC 9457); the only place with their status numbers.

Nothing a client sent comes back in an answer: a default handler that echoes a NaN can't encode it
and one that echoes a large body answers with a larger one.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from http import HTTPStatus

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic_core import ErrorDetails
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import Scope

from service.errors import (
    MAX_NAMED_ISSUES,
    BodyTooLarge,
    Conflict,
    Forbidden,
    HeadTooLarge,
    InternalFailure,
    InvalidInput,
    Issue,
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

PROBLEM_MEDIA_TYPE = "application/problem+json"

STATUS_OF: Mapping[type[ServiceError], HTTPStatus] = {
    MalformedRequest: HTTPStatus.BAD_REQUEST,
    ModelUnnamed: HTTPStatus.BAD_REQUEST,
    Forbidden: HTTPStatus.FORBIDDEN,
    NotFound: HTTPStatus.NOT_FOUND,
    NotAcceptable: HTTPStatus.NOT_ACCEPTABLE,
    SlowRequest: HTTPStatus.REQUEST_TIMEOUT,
    Conflict: HTTPStatus.CONFLICT,
    PreconditionFailed: HTTPStatus.PRECONDITION_FAILED,
    BodyTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HeadTooLarge: HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    UnsupportedMediaType: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    UnsupportedEncoding: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    InvalidInput: HTTPStatus.UNPROCESSABLE_ENTITY,
    TooManyRequests: HTTPStatus.TOO_MANY_REQUESTS,
    Unavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    StorageFull: HTTPStatus.INSUFFICIENT_STORAGE,
    Unsupported: HTTPStatus.NOT_IMPLEMENTED,
    InternalFailure: HTTPStatus.INTERNAL_SERVER_ERROR,
}

STATUS_UNDER_V2: Mapping[type[ServiceError], HTTPStatus] = {
    **STATUS_OF,
    InvalidInput: HTTPStatus.BAD_REQUEST,
}
"""The Open Inference Protocol knows one status for all that is wrong with a request."""

RETRY_SECONDS: Mapping[type[ServiceError], int] = {TooManyRequests: 5, Unavailable: 30}
"""When to come back, where the refusal itself does not say."""

UNEXPECTED = InternalFailure(
    "internal_error", "The service failed unexpectedly; the request id finds it in the log."
)

MAX_DETAIL_LENGTH = 500
"""With this and the bound on issues an answer stays under 16 KiB."""

TELLABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}\Z")
"""A field's name that may stand in a pointer; any other part of a client's text may not."""

NOT_FOUND_CODES = {
    "models/{id}": "model_not_found",
    "versions/{n}": "version_not_found",
    "score/{metric}": "metric_not_found",
    "plots/{kind}": "plot_not_found",
    "jobs/{id}": "job_not_found",
}
"""By a part of the route's path: what is not there when the parameter in it can't be one."""

SENTENCES: Mapping[str, tuple[str, str]] = {
    "missing": ("missing_field", "this field is required"),
    "finite_number": ("non_finite_number", "must be a finite number"),
    "int_type": ("wrong_type", "must be a whole number"),
    "int_from_float": ("wrong_type", "must be a whole number"),
    "int_parsing": ("wrong_type", "must be a whole number"),
    "int_parsing_size": ("out_of_range", "must be a smaller number"),
    "float_type": ("wrong_type", "must be a number"),
    "float_parsing": ("wrong_type", "must be a number"),
    "bool_parsing": ("wrong_type", "must be true or false"),
    "bool_type": ("wrong_type", "must be true or false"),
    "literal_error": ("invalid_value", "must be one of {expected}"),
    "string_pattern_mismatch": ("invalid_value", "must match {pattern}"),
    "string_type": ("wrong_type", "must be a string"),
    "dict_type": ("wrong_type", "must be an object"),
    "string_too_short": ("invalid_value", "must have at least {min_length} characters"),
    "string_too_long": ("invalid_value", "must have at most {max_length} characters"),
    "too_long": ("invalid_value", "there may be at most {max_length}"),
    "enum": ("invalid_value", "must be one of {expected}"),
    "greater_than": ("out_of_range", "must be more than {gt}"),
    "greater_than_equal": ("out_of_range", "must be at least {ge}"),
    "less_than_equal": ("out_of_range", "must be at most {le}"),
}
"""Codes and sentences by Pydantic's names of what can be wrong; a test knows them all."""

ALTERNATIVES = re.compile(r"\^\(([a-z_|-]+)\)\$")
"""A pattern that is a list of words."""

Location = tuple[str | int, ...]
Problem = dict[str, object]


def install_problems(app: FastAPI) -> None:
    """Answer every refusal, FastAPI's and Starlette's own included, in the one shape."""

    @app.exception_handler(ServiceError)
    async def refused(request: Request, error: ServiceError) -> Response:
        return problem_response(error, request.scope)

    @app.exception_handler(RequestValidationError)
    async def invalid_parameters(request: Request, error: RequestValidationError) -> Response:
        route: APIRoute = request.scope["route"]
        return problem_response(_refusal_of_parameters(error, route.path), request.scope)

    @app.exception_handler(HTTPException)
    async def unrouted(request: Request, error: HTTPException) -> Response:
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            return _method_not_allowed(request)
        return problem_response(
            NotFound("not_found", "There is nothing under this path; see /docs."), request.scope
        )


def problem_response(error: ServiceError, scope: Scope) -> Response:
    scope.setdefault("state", {})["problem_code"] = error.code
    retry_after = error.retry_after_seconds or RETRY_SECONDS.get(type(error))
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    if isinstance(error, UnsupportedEncoding):
        headers["Accept-Encoding"] = ", ".join(error.supported)  # RFC 9110, 12.5.3
    if is_open_inference(scope):
        return _open_inference_response(error.detail, STATUS_UNDER_V2[type(error)], headers)
    return _response(problem_of(error, request_id_of(scope)), status_of(error), headers)


def is_open_inference(scope: Scope) -> bool:
    path: str = scope["path"]
    return path == "/v2" or path.startswith("/v2/")


def status_of(error: ServiceError) -> HTTPStatus:
    return STATUS_OF.get(type(error), HTTPStatus.INTERNAL_SERVER_ERROR)


def problem_of(error: ServiceError, request_id: str | None = None) -> Problem:
    """Return the problem's fields; without a request, as part of a job, it has no instance."""
    return _problem(
        error.code,
        title=error.title,
        status=status_of(error),
        detail=error.detail,
        issues=error.issues,
        request_id=request_id,
    )


def request_id_of(scope: Scope) -> str | None:
    request_id = scope.get("state", {}).get("request_id")
    return request_id if isinstance(request_id, str) else None


def problem_code_of(scope: Scope) -> str | None:
    """Return the code of the problem that the request was answered with, if it was."""
    code = scope.get("state", {}).get("problem_code")
    return code if isinstance(code, str) else None


def _problem(
    code: str,
    *,
    title: str,
    status: HTTPStatus,
    detail: str,
    issues: Sequence[Issue],
    request_id: str | None,
) -> Problem:
    problem: Problem = {
        "type": f"urn:gmm-service:problem:{code}",
        "title": title,
        "status": status.value,
        "detail": detail[:MAX_DETAIL_LENGTH],
        "instance": None if request_id is None else f"urn:gmm-service:request:{request_id}",
        "code": code,
        "request_id": request_id,
        "errors": [
            {
                "pointer": issue.pointer,
                "code": issue.code,
                "detail": issue.detail[:MAX_DETAIL_LENGTH],
            }
            for issue in issues[:MAX_NAMED_ISSUES]
        ],
    }
    return problem


def _response(problem: Problem, status: HTTPStatus, headers: Mapping[str, str]) -> Response:
    return Response(
        orjson.dumps(problem),
        status_code=status,
        media_type=PROBLEM_MEDIA_TYPE,
        headers={"Cache-Control": "no-store", **headers},
    )


def _open_inference_response(
    detail: str, status: HTTPStatus, headers: Mapping[str, str]
) -> Response:
    """Answer in the one shape that clients of that protocol read (no charset, no problem)."""
    return Response(
        orjson.dumps({"error": detail[:MAX_DETAIL_LENGTH]}),
        status_code=status,
        media_type="application/json",
        headers={"Cache-Control": "no-store", **headers},
    )


def _method_not_allowed(request: Request) -> Response:
    status = HTTPStatus.METHOD_NOT_ALLOWED
    allowed = ", ".join(sorted(_allowed_methods(request)))
    detail = f"This path takes {allowed}."
    if is_open_inference(request.scope):
        return _open_inference_response(detail, status, {"Allow": allowed})
    problem = _problem(
        "method_not_allowed",
        title="Method not allowed",
        status=status,
        detail=detail,
        issues=(),
        request_id=request_id_of(request.scope),
    )
    return _response(problem, status, {"Allow": allowed})


def _allowed_methods(request: Request) -> Iterator[str]:
    """Yield the methods of every route of this path; Starlette names those of the first only."""
    seen: set[str] = set()
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
        scope = dict(request.scope) | {"method": method}
        if any(route.matches(scope)[0] is Match.FULL for route in request.app.routes):
            seen.add(method)
    yield from seen
    if "GET" in seen:
        yield "HEAD"


def _refusal_of_parameters(error: RequestValidationError, path: str) -> ServiceError:
    errors = error.errors()
    impossible = {f"{{{wrong['loc'][-1]}}}" for wrong in errors if wrong["loc"][0] == "path"}
    for part, code in NOT_FOUND_CODES.items():
        if part in path and part.partition("/")[2] in impossible:
            return NotFound(code, _absence_of(code.removesuffix("_not_found"), errors))
    issues = [
        Issue(f"#/{'/'.join(map(str, wrong['loc'][:2]))}", *_code_and_detail(wrong))
        for wrong in errors[:MAX_NAMED_ISSUES]
    ]
    return InvalidInput("invalid_parameter", _sentence(issues), issues=issues)


def _absence_of(thing: str, errors: Sequence[ErrorDetails]) -> str:
    """Tell that there is no such thing; and which there are, where they are few."""
    patterns = [str(wrong.get("ctx", {}).get("pattern")) for wrong in errors]
    known = next(filter(None, map(ALTERNATIVES.fullmatch, patterns)), None)
    there_are = "" if known is None else f"; there are {known[1].replace('|', ', ')}"
    return f"There is no such {thing}{there_are}."


def refusal_of_fields(
    errors: Sequence[ErrorDetails], root: object, fields: Iterable[str]
) -> InvalidInput:
    """Tell Pydantic's errors about ``root`` without the values they are about.

    ``fields`` are those that there may be.
    """
    issues = [_issue_of(error, root, fields) for error in errors[:MAX_NAMED_ISSUES]]
    return InvalidInput("invalid_parameter", _sentence(issues), issues=issues)


def _sentence(issues: Sequence[Issue]) -> str:
    if not issues:
        return "a parameter is wrong"
    first = issues[0]
    return first.detail if first.pointer == "#" else f"{first.pointer}: {first.detail}"


def _issue_of(error: ErrorDetails, root: object, fields: Iterable[str]) -> Issue:
    pointer = _pointer(error["loc"], root, error["type"])
    if error["type"] == "extra_forbidden":
        detail = f"there is no such field here; there may be: {', '.join(fields)}"
        return Issue(pointer, "unknown_field", detail)
    return Issue(pointer, *_code_and_detail(error))


def _pointer(location: Location, root: object, kind: str) -> str:
    """Point as deep as the location exists in the document and may be told."""
    pointer, value = "#", root
    for step in location:
        match value:
            case dict() if step in value and TELLABLE_NAME.match(str(step)):
                value = value[step]
            case list() if isinstance(step, int) and step < len(value):
                value = value[step]
            case _ if kind != "missing" or step != location[-1]:
                break
        pointer += f"/{step}"
    return pointer


def _code_and_detail(error: ErrorDetails) -> tuple[str, str]:
    kind = error["type"]
    if kind == "value_error":  # raised by a check of ours
        return "invalid_value", error["msg"].removeprefix("Value error, ")
    code, sentence = SENTENCES.get(kind, ("invalid_value", "can't be this"))
    return code, sentence.format_map(error.get("ctx", {}))
