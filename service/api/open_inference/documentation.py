"""What the decorator of a route under ``/v2`` says for ``openapi.json``, refusals included."""

from collections.abc import Mapping
from http import HTTPStatus

from pydantic import BaseModel

from service.api.documentation import Operation
from service.api.negotiation import JSON
from service.api.open_inference.schemas import OpenInferenceError
from service.api.problems import STATUS_UNDER_V2
from service.errors import (
    BodyTooLarge,
    Forbidden,
    HeadTooLarge,
    InvalidInput,
    MalformedRequest,
    NotFound,
    ServiceError,
    SlowRequest,
    Unavailable,
    Unsupported,
    UnsupportedMediaType,
)

JsonObject = Mapping[str, object]

TAG = "open inference"
LOADING = "model repository"
"""Tag of what changes something; the others only read, although rows are sent by POST."""
OF_ANY_ROUTE: tuple[type[ServiceError], ...] = (
    InvalidInput,
    NotFound,
    Forbidden,
    SlowRequest,
    HeadTooLarge,
    Unavailable,
)
OF_A_BODY: tuple[type[ServiceError], ...] = (
    MalformedRequest,
    BodyTooLarge,
    UnsupportedMediaType,
    Unsupported,
)
OCTETS = "application/octet-stream"
AS_BYTES: JsonObject = {OCTETS: {"schema": {"$ref": "#/components/schemas/Tensors"}}}
"""The content of a body with tensors as bytes, as ``also`` of one in JSON."""


def described(
    operation_id: str,
    *,
    summary: str,
    description: str = "",
    answer: type[BaseModel],
    example: object,
    body: JsonObject | None = None,
    also: JsonObject | None = None,
    tag: str = TAG,
) -> Operation:
    """Describe an operation; ``also`` is the content of bodies both ways in other media types."""
    others = also or {}
    kinds = OF_ANY_ROUTE + (() if body is None else OF_A_BODY)
    statuses = sorted({STATUS_UNDER_V2[kind] for kind in kinds})
    return Operation(
        operation_id=operation_id,
        tags=[tag],
        summary=summary,
        description=description,
        status_code=HTTPStatus.OK.value,
        responses={
            HTTPStatus.OK.value: {
                "description": HTTPStatus.OK.phrase,
                "model": answer,
                "content": {JSON: {"example": example}, **others},
            },
            **{status.value: _refusal(status) for status in statuses},
        },
        openapi_extra={} if body is None else {"requestBody": {"content": {**body, **others}}},
    )


def control_body(model: type[BaseModel]) -> JsonObject:
    """Describe a body; ``service.openapi`` adds the class to the components."""
    return {
        JSON: {
            "schema": {"$ref": f"#/components/schemas/{model.__name__}"},
            "example": model.model_json_schema()["examples"][0],
        }
    }


def _refusal(status: HTTPStatus) -> dict[str, object]:
    return {
        "description": status.phrase,
        "content": {
            JSON: {
                "schema": {"$ref": f"#/components/schemas/{OpenInferenceError.__name__}"},
                "example": {"error": "What happened, and what to try."},
            }
        },
    }
