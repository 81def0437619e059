"""Writes down every request that changes something, or is refused to, before it is answered.

Ids and outcomes only: never what a request carried. The trail is read on the service's machine,
by ``gmm-service audit``, and not over HTTP.
"""

import logging
import re
from collections.abc import Mapping

from fastapi.routing import APIRoute
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.problems import problem_code_of, request_id_of
from service.api.services import Services
from service.domain.identifiers import is_legal_alias
from service.domain.records import AuditEntry
from service.errors import ServiceError

logger = logging.getLogger(__name__)

CHANGING_METHODS = frozenset({"POST", "PUT", "PATCH", "DELETE"})
TAGS_OF_QUESTIONS = frozenset({"inference", "open inference"})
"""Operations under these only read, although rows are sent by POST."""
TOLD = "told_to_audit"
NAME_OF_VERSION = re.compile(r"[0-9]{1,9}\Z")
MADE = re.compile(
    r"/models/(?P<model_id>[^/]+)(/versions/(?P<version>[^/]+))?\Z|/jobs/(?P<job_id>[^/]+)\Z"
)
"""What an answer's Location or Content-Location leads to."""


class Audit:
    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] not in CHANGING_METHODS:
            await self.app(scope, receive, send)
            return

        async def send_noted(message: Message) -> None:
            if message["type"] == "http.response.start" and changes_something(scope):
                await _note(scope, message)
            await send(message)

        await self.app(scope, receive, send_noted)


def changes_something(scope: Scope) -> bool:
    """Tell by the route that was found; what is not known to be a question counts."""
    route = scope.get("route")
    if not isinstance(route, APIRoute) or scope["method"] not in (route.methods or ()):
        return False
    return TAGS_OF_QUESTIONS.isdisjoint(route.tags)


def tell_audit(request: Request, **facts: str) -> None:
    """Add what neither the path nor the answer names: ``model_id`` or ``version``."""
    request.scope["state"].setdefault(TOLD, {}).update(facts)


async def _note(scope: Scope, start: Message) -> None:
    services: Services = scope["app"].state.services
    try:
        await services.threads.look_up(services.audit.note, _entry_of(scope, start))
    except ServiceError as error:
        # It has happened, and the client must hear of it.
        logger.warning("audit_failed", extra={"code": error.code})


def _entry_of(scope: Scope, start: Message) -> AuditEntry:
    route: APIRoute = scope["route"]
    names = {
        **_named_by(scope["path_params"], route.path),
        **_made(Headers(raw=start["headers"])),
        **scope["state"].get(TOLD, {}),
    }
    version = names.get("version", "")
    return AuditEntry(
        action=route.unique_id,
        actor=scope["client"][0] if scope.get("client") else "unknown",
        status=start["status"],
        code=problem_code_of(scope),
        model_id=names.get("model_id"),
        version=int(version) if NAME_OF_VERSION.match(version) else None,
        alias=names.get("alias"),
        job_id=names.get("job_id"),
        request_id=request_id_of(scope),
    )


def _named_by(path_params: Mapping[str, str], path: str) -> dict[str, str]:
    """Return what the path names; a text of the client's that can't be a name is not kept."""
    id_of = "job_id" if path.startswith("/jobs/") else "model_id"
    facts = {"id": id_of, "n": "version", "alias": "alias"}
    return {
        facts[parameter]: text
        for parameter, text in path_params.items()
        if parameter in facts and is_legal_alias(text)
    }


def _made(headers: Headers) -> dict[str, str]:
    facts: dict[str, str] = {}
    for header in ("content-location", "location"):
        found = MADE.match(headers.get(header, ""))
        if found is not None:
            facts |= {name: text for name, text in found.groupdict().items() if text is not None}
    return facts
