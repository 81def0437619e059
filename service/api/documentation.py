"""What a route's decorator says of it beyond its path: for ``openapi.json``, hence for clients."""

from collections.abc import Mapping
from enum import Enum
from http import HTTPStatus
from typing import TypedDict

from pydantic import BaseModel

from service.api.negotiation import JSON
from service.api.payloads import FORMATS
from service.api.problems import PROBLEM_MEDIA_TYPE, STATUS_OF
from service.api.schemas import Body, DataAnswerFields, Problem
from service.errors import (
    BodyTooLarge,
    HeadTooLarge,
    InvalidInput,
    MalformedRequest,
    NotAcceptable,
    ServiceError,
    SlowRequest,
    Unavailable,
    UnsupportedMediaType,
)

JsonObject = Mapping[str, object]
Json = dict[str, "Json"] | list["Json"] | str | int | float | bool | None

NULL = "\N{SYMBOL FOR NULL}"

OTHER_FORMATS: JsonObject = {
    each.media_type: {"schema": {"$ref": "#/components/schemas/Columns"}}
    for each in FORMATS
    if each.media_type != JSON
}
"""Those that the extra ``formats`` brings included: the contract is one for all installations."""

OF_ANY_ROUTE = (
    InvalidInput,
    MalformedRequest,
    NotAcceptable,
    SlowRequest,
    HeadTooLarge,
    Unavailable,
)
OF_A_BODY = (BodyTooLarge, UnsupportedMediaType)


class Operation(TypedDict):
    """The keyword arguments of a route's decorator."""

    operation_id: str
    tags: list[str | Enum]
    summary: str
    description: str
    status_code: int
    responses: dict[int | str, dict[str, object]]
    openapi_extra: dict[str, object]


def operation(
    operation_id: str,
    *,
    tag: str,
    summary: str,
    description: str = "",
    answers: Mapping[HTTPStatus, tuple[type[BaseModel] | None, JsonObject]],
    also: JsonObject | None = None,
    body: JsonObject | None = None,
    refusals: tuple[type[ServiceError], ...] = (),
) -> Operation:
    """Describe an operation; the first of ``answers`` is the usual one.

    An answer is a class with an example of it; without a class, content by media type, if any.
    ``also`` is the content of the usual answer in other media types than JSON, ``body`` that of
    the request, both by media type.
    """
    usual = next(iter(answers))
    kinds = {*refusals, *OF_ANY_ROUTE, *(OF_A_BODY if body is not None else ())}
    problems = _titles_by_status(kinds)
    return Operation(
        operation_id=operation_id,
        tags=[tag],
        summary=summary,
        description=description,
        status_code=usual.value,
        responses={
            **{
                status.value: _success(status, *answer, (also or {}) if status == usual else {})
                for status, answer in answers.items()
            },
            **{status.value: _problem(problems[status]) for status in sorted(problems)},
        },
        openapi_extra=(
            {} if body is None else {"requestBody": {"required": True, "content": dict(body)}}
        ),
    )


def json_body(body: type[Body]) -> JsonObject:
    """Describe a control-plane body; ``service.openapi`` adds the class to the components."""
    examples = body.model_json_schema()["examples"]
    return {
        JSON: {
            "schema": {"$ref": f"#/components/schemas/{body.__name__}"},
            "example": examples[0],
        }
    }


def data_body(schema_name: str, example: JsonObject) -> JsonObject:
    """Describe a data body in every format there is."""
    return {
        JSON: {"schema": {"$ref": f"#/components/schemas/{schema_name}"}, "example": example},
        **OTHER_FORMATS,
    }


def _success(
    status: HTTPStatus, model: type[BaseModel] | None, example: JsonObject, also: JsonObject
) -> dict[str, object]:
    described: dict[str, object] = {"description": status.phrase}
    if model is not None:
        is_data = issubclass(model, DataAnswerFields)
        described["model"] = model
        described["content"] = {
            JSON: {"example": with_nulls_marked(example)},
            **(OTHER_FORMATS if is_data else {}),
            **also,
        }
    elif example:
        described["content"] = example
    return described


def with_nulls_marked(node: object) -> object:
    """Write null as ``NULL``: FastAPI drops every null on the way to the document.

    ``service.openapi`` writes it back.
    """
    match node:
        case None:
            return NULL
        case Mapping():
            return {name: with_nulls_marked(value) for name, value in node.items()}
        case list():
            return [with_nulls_marked(value) for value in node]
    return node


def _titles_by_status(kinds: set[type[ServiceError]]) -> dict[HTTPStatus, list[str]]:
    titles: dict[HTTPStatus, list[str]] = {}
    for kind, status in STATUS_OF.items():
        if kind in kinds:
            titles.setdefault(status, []).append(kind.title)
    return titles


def _problem(titles: list[str]) -> dict[str, object]:
    """Describe a refusal; ``service.openapi`` names its codes."""
    return {
        "description": ", or ".join(titles),
        "content": {
            PROBLEM_MEDIA_TYPE: {"schema": {"$ref": f"#/components/schemas/{Problem.__name__}"}}
        },
    }


def problem_example(title: str, status: HTTPStatus, code: str, detail: str) -> dict[str, Json]:
    return {
        "type": f"urn:gmm-service:problem:{code}",
        "title": title,
        "status": status.value,
        "detail": detail,
        "instance": "urn:gmm-service:request:0f5b2c",
        "code": code,
        "request_id": "0f5b2c",
        "errors": [],
    }
