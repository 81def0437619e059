"""The short way of the questions that are asked most.

``POST /models/{id}/predict`` with nothing in its query leaves FastAPI nothing to find out but the
route, after looking at the others, and the id. Doing that here takes a tenth of the time. Whatever
differs in anything goes the long way, which also knows what to say about it: a route that comes to
ask for more than it does today (a test watches them) is to be left to the long way, too.
"""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.forms import QUESTIONS
from service.api.problems import problem_response
from service.api.questions import AskedQuestion, Target, asked
from service.domain.identifiers import ID_PATTERN
from service.errors import ServiceError

PATH = re.compile(rf"/models/({ID_PATTERN.strip('^$')})(/[a-z_]+)\Z")

Answer = Callable[[AskedQuestion], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Way:
    """Where a request that is taken the short way leads."""

    route: APIRoute
    model_id: str

    async def response(self, request: Request) -> Response:
        answer: Answer = self.route.endpoint
        try:
            return await answer(asked(request, Target(self.model_id)))
        except ServiceError as error:
            return problem_response(error, request.scope)


class ShortWay:
    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        way = way_of(scope)
        if way is None:
            await self.app(scope, receive, send)
            return
        scope["route"] = way.route
        scope["path_params"] = {"id": way.model_id}
        response = await way.response(Request(scope, receive, send))
        await response(scope, receive, send)


def way_of(scope: Scope) -> Way | None:
    if scope["type"] != "http" or scope["method"] != "POST" or scope["query_string"]:
        return None
    found = PATH.match(scope["path"])
    route = QUESTIONS.get(found[2]) if found else None
    return Way(route, found[1]) if found and route else None
