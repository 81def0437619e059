"""Routes of aliases: name a version, look the name up, move it, take the move back."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from service.api.audit import tell_audit
from service.api.dependencies import (
    IN_EVERY_JSON_ROUTE,
    IN_EVERY_ROUTE,
    AliasName,
    Door,
    IfNoneMatch,
    ModelId,
    Preconditions,
    json_of,
)
from service.api.documentation import json_body, operation
from service.api.examples import ALIAS, ALIAS_HISTORY
from service.api.responses import etag_of, json_response, tagged_response
from service.api.schemas import Alias, AliasHistory, AliasList, PutAlias
from service.domain.aliases import AliasView, IsCurrent
from service.errors import Conflict, NotFound, PreconditionFailed, StorageFull

router = APIRouter(dependencies=IN_EVERY_JSON_ROUTE)
without_content = APIRouter(dependencies=IN_EVERY_ROUTE)

TAG = "aliases"
OF_A_CHANGE = (NotFound, Conflict, PreconditionFailed, StorageFull)


async def condition_of(may_change: Preconditions) -> IsCurrent:
    """Return what the request's preconditions say of the alias as it stands."""

    def is_met(view: AliasView | None) -> bool:
        if may_change is None:
            return True
        return may_change(None if view is None else etag_of(Alias.of(view)))

    return is_met


Condition = Annotated[IsCurrent, Depends(condition_of)]


@router.get(
    "/models/{id}/aliases",
    **operation(
        "list_aliases",
        tag=TAG,
        summary="List the aliases of a model",
        description="Those that are set; `latest`, which moves by itself, is not among them.",
        answers={HTTPStatus.OK: (AliasList, {"aliases": [ALIAS]})},
        refusals=(NotFound,),
    ),
)
async def list_aliases(door: Door, model_id: ModelId) -> Response:
    views = await door.threads.look_up(door.aliases.list_aliases, model_id)
    return json_response(AliasList(aliases=list(map(Alias.of, views))))


@router.put(
    "/models/{id}/aliases/{alias}",
    **operation(
        "put_alias",
        tag=TAG,
        summary="Let an alias name a version",
        description=(
            "Sets the alias or moves it, in one step. `champion` answers when a request names no "
            "version. `If-Match` moves only the alias that was seen, `If-None-Match: *` only sets "
            "one that is not set."
        ),
        answers={HTTPStatus.OK: (Alias, ALIAS)},
        body=json_body(PutAlias),
        refusals=OF_A_CHANGE,
    ),
)
async def put_alias(
    request: Request,
    door: Door,
    model_id: ModelId,
    alias: AliasName,
    body: Annotated[PutAlias, Depends(json_of(PutAlias))],
    *,
    is_current: Condition,
) -> Response:
    tell_audit(request, version=str(body.version))
    view = await door.threads.look_up(
        door.aliases.put_alias, model_id, alias, body.version, is_current=is_current
    )
    return tagged_response(request, Alias.of(view))


@router.get(
    "/models/{id}/aliases/{alias}",
    **operation(
        "get_alias",
        tag=TAG,
        summary="Get the version that an alias names",
        answers={HTTPStatus.OK: (Alias, ALIAS), HTTPStatus.NOT_MODIFIED: (None, {})},
        refusals=(NotFound,),
    ),
)
async def get_alias(
    request: Request,
    door: Door,
    model_id: ModelId,
    alias: AliasName,
    if_none_match: IfNoneMatch = None,  # noqa: ARG001  # documents the header; read by the response
) -> Response:
    view = await door.threads.look_up(door.aliases.get_alias, model_id, alias)
    return tagged_response(request, Alias.of(view))


@without_content.delete(
    "/models/{id}/aliases/{alias}",
    **operation(
        "delete_alias",
        tag=TAG,
        summary="Delete an alias",
        description="The version stays, and so does the alias's history.",
        answers={HTTPStatus.NO_CONTENT: (None, {})},
        refusals=OF_A_CHANGE,
    ),
)
async def delete_alias(
    door: Door, model_id: ModelId, alias: AliasName, is_current: Condition
) -> Response:
    await door.threads.look_up(door.aliases.delete_alias, model_id, alias, is_current=is_current)
    return Response(status_code=HTTPStatus.NO_CONTENT)


@router.get(
    "/models/{id}/aliases/{alias}/history",
    **operation(
        "get_alias_history",
        tag=TAG,
        summary="Get the history of an alias",
        description="Kept when the alias is deleted; the newest thousand changes. That of `latest` "
        "is the versions that there are, each set when it was made.",
        answers={HTTPStatus.OK: (AliasHistory, ALIAS_HISTORY)},
        refusals=(NotFound,),
    ),
)
async def get_alias_history(door: Door, model_id: ModelId, alias: AliasName) -> Response:
    record = await door.threads.look_up(door.aliases.get_history, model_id, alias)
    return json_response(AliasHistory.of(model_id, record))


@router.post(
    "/models/{id}/aliases/{alias}/rollback",
    **operation(
        "rollback_alias",
        tag=TAG,
        summary="Roll an alias back",
        description=(
            "Back to the version that it named before; again, and it goes one further back. "
            "Versions deleted since are passed over. A deleted alias is set again."
        ),
        answers={HTTPStatus.OK: (Alias, ALIAS)},
        refusals=OF_A_CHANGE,
    ),
)
async def rollback_alias(
    request: Request,
    door: Door,
    model_id: ModelId,
    alias: AliasName,
    is_current: Condition,
) -> Response:
    view = await door.threads.look_up(
        door.aliases.roll_back, model_id, alias, is_current=is_current
    )
    tell_audit(request, version=str(view.version))
    return tagged_response(request, Alias.of(view))
