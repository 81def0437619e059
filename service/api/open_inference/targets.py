"""The two forms of a model's paths under ``/v2``: the version that answers by default, or one."""

from collections.abc import Callable
from typing import Literal, TypeVar

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel

from service.api.dependencies import ModelId
from service.api.open_inference.documentation import JsonObject, described
from service.api.questions import Target, target_version

Handler = TypeVar("Handler", bound=Callable[..., object])


async def target_default(request: Request, model_id: ModelId) -> None:
    request.state.target = Target(model_id)


FORMS = (
    ("/v2/models/{id}", "", "", target_default),
    ("/v2/models/{id}/versions/{n}", "_with_version", " with one version", target_version),
)
"""Path, what tells the operation's id and its summary from the first's, and its dependency."""


def on_model_and_version(
    router: APIRouter,
    method: Literal["GET", "POST"],
    path: str,
    operation_id: str,
    *,
    summary: str,
    description: str = "",
    answer: type[BaseModel],
    example: JsonObject,
    body: JsonObject | None = None,
    also: JsonObject | None = None,
) -> Callable[[Handler], Handler]:
    """Register a handler under its two paths."""

    def register(handler: Handler) -> Handler:
        for prefix, suffix, remark, aim in FORMS:
            router.api_route(
                prefix + path,
                methods=[method],
                dependencies=[Depends(aim)],
                **described(
                    operation_id + suffix,
                    summary=summary + remark,
                    description=description,
                    answer=answer,
                    example=example,
                    body=body,
                    also=also,
                ),
            )(handler)
        return handler

    return register
