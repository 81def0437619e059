"""``create_app``: the application from its services, with every route and every guard."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import cache

import anyio
from fastapi import FastAPI
from starlette.middleware import Middleware

from service import __version__
from service.api import (
    aliases,
    analyses,
    events,
    fits,
    health,
    inference,
    jobs,
    known,
    models,
    open_inference,
    reference,
    selections,
    ui,
    versions,
)
from service.api.audit import Audit
from service.api.middleware import (
    AccessLog,
    HeadAsGet,
    KnownCaller,
    LastResort,
    RequestIdentity,
    SoundHead,
    WholeUnderHttp10,
)
from service.api.payloads import load_codecs
from service.api.plots import routes as plots
from service.api.problems import install_problems
from service.api.services import Services
from service.errors import ServiceError
from service.extras import load_installed
from service.openapi import canonical_json, openapi_document

logger = logging.getLogger(__name__)

ROUTERS = (
    models.router,
    models.without_content,
    fits.router,
    selections.router,
    inference.router,
    analyses.router,
    plots.router,
    known.router,
    known.in_data_formats,
    versions.router,
    versions.without_json,
    aliases.router,
    aliases.without_content,
    jobs.router,
    events.router,
    health.router,
    reference.router,
    ui.router,
    *open_inference.ROUTERS,
)


def create_app(services: Services) -> FastAPI:
    app = new_app()
    app.state.services = services
    app.state.contract = contract
    return app


@cache
def contract() -> bytes:
    """Return the OpenAPI document as it is committed and served; it follows from the code alone."""
    return canonical_json(openapi_document(new_app()))


def new_app() -> FastAPI:
    """Return the application with its routes, not yet with anything to stand on."""
    app = FastAPI(
        title="gmm-service",
        version=__version__,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=serving,
        middleware=[
            Middleware(RequestIdentity),
            Middleware(AccessLog),
            Middleware(Audit),
            Middleware(LastResort),
            Middleware(SoundHead),
            Middleware(WholeUnderHttp10),
            Middleware(HeadAsGet),
            Middleware(KnownCaller),
        ],
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    install_problems(app)
    for router in ROUTERS:
        # All in one list: a router that is included matches what comes to it twice more.
        app.router.routes.extend(router.routes)
    return app


@asynccontextmanager
async def serving(app: FastAPI) -> AsyncIterator[None]:
    services: Services = app.state.services
    await services.threads.look_up(load_codecs)
    await services.threads.look_up(services.fitting.recover)
    services.lifecycle.begin_serving()
    async with anyio.create_task_group() as upkeep:
        upkeep.start_soon(recovering, services)
        if services.options.preload_extras:
            upkeep.start_soon(services.threads.look_up, load_installed)
        services.start()  # last, so that nobody who asks waits for the cores that workers take
        try:
            yield
        finally:
            upkeep.cancel_scope.cancel()
            services.lifecycle.begin_draining()
            with anyio.CancelScope(shield=True):
                await services.threads.look_up(services.close, services.drain_seconds_left())


async def recovering(services: Services) -> None:
    """Take over, again and again, what another process over the same jobs left when it died."""
    while True:
        await anyio.sleep(services.options.recovery_seconds)
        try:
            with suppress(ServiceError):  # logged
                await services.threads.look_up(services.fitting.recover)
        except OSError:  # such as too many open files; the next time may do better
            logger.exception("recovery_failed")
