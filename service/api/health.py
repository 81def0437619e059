"""Routes that tell of the service itself. On the event loop, so that no work delays them."""

from http import HTTPStatus

from fastapi import APIRouter, Request, Response

from service.api.dependencies import IN_EVERY_ROUTE, Door
from service.api.documentation import operation
from service.api.responses import json_response
from service.api.schemas import Health, ServiceVersion

router = APIRouter(dependencies=IN_EVERY_ROUTE)

TAG = "service"


@router.get(
    "/livez",
    **operation(
        "livez",
        tag=TAG,
        summary="Say that the process answers",
        answers={HTTPStatus.OK: (Health, {"status": "live"})},
    ),
)
async def livez() -> Response:
    return json_response(Health(status="live"))


@router.get(
    "/readyz",
    **operation(
        "readyz",
        tag=TAG,
        summary="Say whether requests are taken",
        description="503 while starting or draining, without a usable registry, or when no process "
        "for fits gets ready.",
        answers={HTTPStatus.OK: (Health, {"status": "ready"})},
    ),
)
async def readyz(door: Door) -> Response:
    door.lifecycle.require_serving()
    await door.threads.look_up(door.catalogue.check_usable)
    door.fitting.check_usable()
    return json_response(Health(status="ready"))


@router.get(
    "/version",
    **operation(
        "version",
        tag=TAG,
        summary="Tell the service's version",
        answers={HTTPStatus.OK: (ServiceVersion, {"name": "gmm-service", "version": "0.1.0"})},
    ),
)
async def version(request: Request) -> Response:
    return json_response(ServiceVersion(name=request.app.title, version=request.app.version))
