"""Routes of ``/v2`` that tell of the server."""

from fastapi import APIRouter, Depends, Request, Response

from service.api.dependencies import IN_EVERY_ROUTE, Door
from service.api.open_inference import examples
from service.api.open_inference.bodies import refuse_other_sites
from service.api.open_inference.documentation import described
from service.api.open_inference.schemas import ServerHealth, ServerMetadata
from service.api.responses import json_response

router = APIRouter(dependencies=[*IN_EVERY_ROUTE, Depends(refuse_other_sites)])

EXTENSIONS = ["binary_tensor_data", "model_repository", "statistics"]


@router.get(
    "/v2",
    **described(
        "server_metadata",
        summary="Describe the server",
        answer=ServerMetadata,
        example=examples.SERVER,
    ),
)
async def server_metadata(request: Request) -> Response:
    app = request.app
    return json_response(ServerMetadata(name=app.title, version=app.version, extensions=EXTENSIONS))


@router.get(
    "/v2/health/live",
    **described(
        "server_live",
        summary="Say that the server answers",
        answer=ServerHealth,
        example=examples.HEALTH,
    ),
)
async def server_live(door: Door) -> Response:
    return json_response(ServerHealth(live=True, ready=door.lifecycle.is_serving))


@router.get(
    "/v2/health/ready",
    **described(
        "server_ready",
        summary="Say whether the server takes requests",
        answer=ServerHealth,
        example=examples.HEALTH,
    ),
)
async def server_ready(door: Door) -> Response:
    door.lifecycle.require_serving()
    await door.threads.look_up(door.catalogue.check_usable)
    return json_response(ServerHealth(live=True, ready=True))
