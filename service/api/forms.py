"""The forms of a path: by model, by version, and bare; one handler under several routes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Literal, TypeVar

from fastapi import APIRouter, Depends
from fastapi.routing import APIRoute
from pydantic import BaseModel

from service.api.documentation import data_body, operation
from service.api.examples import ROWS, ROWS_OF_MODEL
from service.api.questions import (
    Verb,
    ask_bare,
    ask_latest,
    ask_version,
    target_latest,
    target_version,
)
from service.errors import Conflict, ModelUnnamed, NotFound, ServiceError, StorageFull

Handler = TypeVar("Handler", bound=Callable[..., object])
JsonObject = Mapping[str, object]

TAG = "inference"


@dataclass(frozen=True, slots=True)
class Form:
    prefix: str
    suffix: str
    """What tells its operation ids from the first form's."""
    remark: str
    ask: Callable[..., object]
    """Dependency that reads the rows and leaves the question in the request's state."""
    target: Callable[..., object] | None
    """The same for what carries no rows; the bare form has no such paths."""
    body_schema: str
    example: JsonObject


FORMS = (
    Form("/models/{id}", "", "", ask_latest, target_latest, "Rows", ROWS),
    Form(
        "/models/{id}/versions/{n}",
        "_with_version",
        " with one version",
        ask_version,
        target_version,
        "Rows",
        ROWS,
    ),
    Form("", "_bare", ", the model named elsewhere", ask_bare, None, "RowsOfModel", ROWS_OF_MODEL),
)


@dataclass(frozen=True, slots=True)
class FrequentQuestion:
    """A question of a model whose handler takes nothing but the question."""

    route: APIRoute
    verb: Verb


FREQUENT: dict[str, FrequentQuestion] = {}
"""By the end of their path; for ``short_way``."""


def on_every_form(
    router: APIRouter,
    path: str,
    operation_id: str,
    *,
    summary: str,
    description: str = "",
    answer: type[BaseModel],
    example: JsonObject,
    verb: Verb | None = None,
) -> Callable[[Handler], Handler]:
    """Register a handler of a question about rows under its three paths.

    ``verb`` is all that it asks of the rows, if the question is to be answered the short way, too.
    """

    def register(handler: Handler) -> Handler:
        for form in FORMS:
            router.post(
                form.prefix + path,
                dependencies=[Depends(form.ask)],
                **operation(
                    operation_id + form.suffix,
                    tag=TAG,
                    summary=summary + form.remark,
                    description=description,
                    answers={HTTPStatus.OK: (answer, example)},
                    body=data_body(form.body_schema, form.example),
                    refusals=(NotFound, Conflict, ModelUnnamed, StorageFull),
                ),
            )(handler)
            if form.ask is ask_latest and verb is not None:
                FREQUENT[path] = FrequentQuestion(route_of(router), verb)
        return handler

    return register


def route_of(router: APIRouter) -> APIRoute:
    """Return the route that was registered last."""
    route = router.routes[-1]
    if not isinstance(route, APIRoute):
        raise TypeError("a router of operations has no other routes")
    return route


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
    also: JsonObject | None = None,
    body: JsonObject | None = None,
    refusals: tuple[type[ServiceError], ...] = (),
) -> Callable[[Handler], Handler]:
    """Register a handler under its two paths; ``also`` is the answer in other media types."""
    of_rows = () if body is None else (StorageFull,)

    def register(handler: Handler) -> Handler:
        for form in FORMS:
            if form.target is None:
                continue
            router.api_route(
                form.prefix + path,
                methods=[method],
                dependencies=[Depends(form.target)],
                **operation(
                    operation_id + form.suffix,
                    tag=TAG,
                    summary=summary + form.remark,
                    description=description,
                    answers={HTTPStatus.OK: (answer, example)},
                    also=also,
                    body=body,
                    refusals=(NotFound, Conflict, *of_rows, *refusals),
                ),
            )(handler)
        return handler

    return register
