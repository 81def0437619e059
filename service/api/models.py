"""Routes of models: declare, list, look at, change, delete."""

from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from service.api.dependencies import (
    IN_EVERY_JSON_ROUTE,
    IN_EVERY_ROUTE,
    Door,
    IfNoneMatch,
    MayChange,
    ModelId,
    PageSize,
    PageToken,
    Preconditions,
    json_of,
)
from service.api.documentation import json_body, operation
from service.api.examples import MODEL
from service.api.idempotency import Once, fingerprint_of_body
from service.api.responses import etag_of, json_response, next_link, tagged_response
from service.api.schemas import CreateModel, Model, ModelList, UpdateModel
from service.domain.catalogue import ModelOrder, ModelView
from service.errors import (
    Conflict,
    InvalidInput,
    Issue,
    NotFound,
    PreconditionFailed,
    StorageFull,
    TooManyRequests,
)

router = APIRouter(dependencies=IN_EVERY_JSON_ROUTE)
without_content = APIRouter(dependencies=IN_EVERY_ROUTE)

TAG = "models"
LabelQuery = Annotated[
    list[str],
    Query(max_length=16, description="`key:value`; of several all must hold."),
]


@router.post(
    "/models",
    **operation(
        "create_model",
        tag=TAG,
        summary="Declare a model",
        description="Declares what a later fit will do; a fit then carries only data.",
        answers={HTTPStatus.CREATED: (Model, MODEL)},
        body=json_body(CreateModel),
        refusals=(Conflict, TooManyRequests, StorageFull),
    ),
)
async def create_model(
    request: Request,
    door: Door,
    body: Annotated[CreateModel, Depends(json_of(CreateModel))],
    once: Once,
) -> Response:
    async def create(token: str) -> Response:
        view = await door.threads.look_up(
            door.catalogue.create_model, body.id or None, body.change(), uid=token
        )
        return tagged_response(
            request,
            Model.of(view),
            status=HTTPStatus.CREATED,
            headers={"Location": f"/models/{view.record.id}"},
        )

    return await once.answer(partial(fingerprint_of_body, body), create)


@router.get(
    "/models",
    **operation(
        "list_models",
        tag=TAG,
        summary="List models",
        description='A page at a time; `Link: rel="next"` leads to the next one. A model whose '
        "stored record fails its integrity check is left out, and so a page may be shorter; asked "
        "for by its id it is answered with 503 `model_corrupt`.",
        answers={HTTPStatus.OK: (ModelList, {"models": [MODEL], "next_page_token": None})},
    ),
)
async def list_models(
    request: Request,
    door: Door,
    *,
    label: LabelQuery = [],  # noqa: B006  # FastAPI copies it
    order_by: ModelOrder = ModelOrder.ID,
    page_size: PageSize = 50,
    page_token: PageToken = None,
) -> Response:
    page = await door.threads.look_up(
        door.catalogue.list_models,
        labels=list(map(_label, label)),
        order=order_by,
        page_size=page_size,
        page_token=page_token,
    )
    body = ModelList(models=list(map(Model.of, page.items)), next_page_token=page.next_token)
    return json_response(body, headers=next_link(request, page.next_token))


@router.get(
    "/models/{id}",
    **operation(
        "get_model",
        tag=TAG,
        summary="Get a model",
        answers={HTTPStatus.OK: (Model, MODEL), HTTPStatus.NOT_MODIFIED: (None, {})},
        refusals=(NotFound,),
    ),
)
async def get_model(
    request: Request,
    door: Door,
    model_id: ModelId,
    if_none_match: IfNoneMatch = None,  # noqa: ARG001  # documents the header; read by the response
) -> Response:
    view = await door.threads.look_up(door.catalogue.get_model, model_id)
    return tagged_response(request, Model.of(view))


@router.patch(
    "/models/{id}",
    **operation(
        "update_model",
        tag=TAG,
        summary="Change a model",
        description="Changes what the body names; what is so already stays as it is, the ETag too. "
        "Versions keep what they were fitted with.",
        answers={HTTPStatus.OK: (Model, MODEL)},
        body=json_body(UpdateModel),
        refusals=(NotFound, Conflict, PreconditionFailed, StorageFull),
    ),
)
async def update_model(
    request: Request,
    door: Door,
    model_id: ModelId,
    body: Annotated[UpdateModel, Depends(json_of(UpdateModel))],
    may_change: Preconditions,
) -> Response:
    view = await door.threads.look_up(
        door.catalogue.update_model,
        model_id,
        body.change(),
        is_current=_condition(may_change),
    )
    return tagged_response(request, Model.of(view))


@without_content.delete(
    "/models/{id}",
    **operation(
        "delete_model",
        tag=TAG,
        summary="Delete a model",
        description="With all its versions; running fits are cancelled.",
        answers={HTTPStatus.NO_CONTENT: (None, {})},
        refusals=(NotFound, PreconditionFailed),
    ),
)
async def delete_model(door: Door, model_id: ModelId, may_change: Preconditions) -> Response:
    await door.threads.look_up(
        door.catalogue.delete_model, model_id, is_current=_condition(may_change)
    )
    return Response(status_code=HTTPStatus.NO_CONTENT)


def _condition(may_change: MayChange | None) -> Callable[[ModelView], bool] | None:
    return None if may_change is None else lambda view: may_change(etag_of(Model.of(view)))


def _label(text: str) -> tuple[str, str]:
    key, colon, value = text.partition(":")
    if not (key and colon):
        detail = "label must be key:value"
        raise InvalidInput(
            "invalid_parameter", detail, issues=[Issue("#/query/label", "invalid_value", detail)]
        )
    return key, value
