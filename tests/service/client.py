"""The whole application driven in this process, over a memory registry, without a socket."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import httpx
import orjson
from anyio.from_thread import BlockingPortal, start_blocking_portal
from fastapi import FastAPI

from service.adapters.answer_store_memory import MemoryAnswerStore
from service.adapters.audit_memory import MemoryAuditTrail
from service.adapters.job_store_memory import MemoryJobStore
from service.adapters.registry_memory import MemoryRegistry
from service.adapters.runner_inline import InlineRunner
from service.api.services import Services
from service.domain.ports import AnswerStore, AuditTrail, JobRunner, JobStore, ModelRegistry
from service.main import create_app
from service.settings import Settings
from service.wiring import Stores, assemble

JSON_HEADERS = {"content-type": "application/json"}


@dataclass(frozen=True, slots=True)
class Client:
    """A client whose calls look synchronous; several threads may use it at once."""

    http: httpx.AsyncClient
    portal: BlockingPortal
    app: FastAPI
    services: Services

    def send(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        call = partial(self.http.request, method, path, content=body, headers=headers)
        return self.portal.call(call)

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> httpx.Response:
        return self.send("GET", path, headers=headers)

    def delete(self, path: str, headers: Mapping[str, str] | None = None) -> httpx.Response:
        return self.send("DELETE", path, headers=headers)

    def put(
        self, path: str, body: object, headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        return self.send_json("PUT", path, body, headers)

    def post(
        self, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        return self.send_json("POST", path, body, headers)

    def patch(
        self, path: str, body: object, headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        return self.send_json("PATCH", path, body, headers)

    def send_json(
        self, method: str, path: str, body: object, headers: Mapping[str, str] | None
    ) -> httpx.Response:
        content = orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
        return self.send(method, path, body=content, headers={**JSON_HEADERS, **(headers or {})})


@contextmanager
def serving(
    settings: Settings | None = None,
    *,
    registry: ModelRegistry | None = None,
    jobs: JobStore | None = None,
    runner: JobRunner | None = None,
    answers: AnswerStore | None = None,
    audit: AuditTrail | None = None,
) -> Iterator[Client]:
    """Serve from the start of the application's life to its end."""
    chosen = runner or InlineRunner()
    services = assemble(
        settings or Settings(),
        registry or MemoryRegistry(),
        Stores(
            jobs=jobs or MemoryJobStore(),
            answers=answers or MemoryAnswerStore(),
            audit=audit or MemoryAuditTrail(),
        ),
        chosen,
        chosen.close,
    )
    with asking(services) as client:
        yield client


@contextmanager
def asking(services: Services) -> Iterator[Client]:
    """Serve by these services, as above."""
    with start_blocking_portal() as portal:
        app = create_app(services)
        with portal.wrap_async_context_manager(app.router.lifespan_context(app)):
            transport = httpx.ASGITransport(app)
            http = httpx.AsyncClient(transport=transport, base_url="http://service")
            with portal.wrap_async_context_manager(http):
                yield Client(http, portal, app, services)
