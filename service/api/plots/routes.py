"""Routes of pictures: of what a version knows by GET, with rows by POST."""

from collections.abc import Callable
from dataclasses import fields
from functools import partial
from typing import Annotated, Literal

import orjson
from fastapi import APIRouter, Depends, Path, Query, Request, Response

from service.api import examples
from service.api.arrivals import read_payload
from service.api.dependencies import IN_EVERY_ROUTE, Door
from service.api.documentation import JsonObject, data_body
from service.api.forms import on_model_and_version
from service.api.negotiation import JSON, accepted_type
from service.api.payloads.values import DataPayload
from service.api.plots.schemas import Plot
from service.api.questions import (
    AimedAt,
    Stopwatch,
    Target,
    inference_headers,
)
from service.api.services import Services
from service.domain.inference import FittedModel
from service.domain.pictures import Palette, Picture, Style, Theme
from service.domain.picturing import KINDS, View
from service.domain.records import VersionRecord
from service.errors import InvalidInput, Issue, Unsupported

router = APIRouter(dependencies=IN_EVERY_ROUTE)

SVG = "image/svg+xml"
PNG = "image/png"
FORMATS: dict[str, Literal["svg", "png"]] = {SVG: "svg", PNG: "png"}
OFFERS = (*FORMATS, JSON)
IMAGES: JsonObject = {
    media_type: {"schema": {"$ref": "#/components/schemas/Image"}} for media_type in FORMATS
}

PlotKind = Annotated[
    str,
    Path(
        alias="kind",
        pattern=f"^({'|'.join(KINDS)})$",
        description="What is shown.",
        json_schema_extra={"enum": list(KINDS)},
    ),
]
FeaturesQuery = Annotated[
    str | None,
    Query(
        max_length=1024,
        description="The axes: one feature or two, by name or index, such as `0,2`. Without it, "
        "beyond two features, the plane of the first two principal components.",
    ),
]
PointsQuery = Annotated[
    int, Query(ge=1, le=10_000, description="Rows that are shown; of more a random part.")
]
StartsQuery = Annotated[int, Query(ge=1, le=100, description="Starts of k-means.")]
SeedQuery = Annotated[int, Query(ge=0, le=2**32 - 1, description="Seed of k-means.")]
WidthQuery = Annotated[int, Query(ge=480, le=2400, description="Pixels.")]
HeightQuery = Annotated[int, Query(ge=320, le=2400, description="Pixels.")]
PaletteQuery = Annotated[
    Palette,
    Query(description="Colours of the components; each can be told apart by the colour-blind."),
]
ThemeQuery = Annotated[Theme, Query(description="Of the paper.")]
JobQuery = Annotated[
    str | None,
    Query(max_length=63, description="The fit or selection whose version is meant."),
]


async def asked_view(
    features: FeaturesQuery = None,
    max_points: PointsQuery = 2000,
    n_init: StartsQuery = 10,
    random_state: SeedQuery = 0,
) -> View:
    wanted = None if features is None else tuple(features.split(","))
    if wanted is not None and len(wanted) > 2:
        detail = "name one or two features"
        raise InvalidInput(
            "invalid_parameter",
            detail,
            issues=[Issue("#/query/features", "invalid_value", detail)],
        )
    return View(wanted, max_points, n_init, random_state)


async def asked_style(
    request: Request,
    width: WidthQuery = 800,
    height: HeightQuery = 500,
    palette: PaletteQuery = "okabe-ito",
    theme: ThemeQuery = "light",
) -> Style | None:
    """Return how to draw; None for a client that asks for the numbers."""
    media_type = accepted_type(request, OFFERS)
    if media_type == JSON:
        return None
    return Style(FORMATS[media_type], width, height, palette, theme)


async def row_payload(request: Request) -> DataPayload:
    return await read_payload(request, extra_fields=frozenset())


Viewed = Annotated[View, Depends(asked_view)]
Styled = Annotated[Style | None, Depends(asked_style)]


@on_model_and_version(
    router,
    "GET",
    "/plots/{kind}",
    "get_plot",
    summary="Get a picture of what a version knows",
    description=(
        "Its clusters, their density, the convergence of its fit, the selection that chose it. As "
        "a picture or, with `Accept: application/json`, as the numbers that it shows."
    ),
    answer=Plot,
    example=examples.PLOT,
    also=IMAGES,
    refusals=(Unsupported,),
)
async def get_plot(
    door: Door,
    target: AimedAt,
    kind: PlotKind,
    view: Viewed,
    style: Styled,
    *,
    job: JobQuery = None,
) -> Response:
    return await shown(
        door,
        target if job is None else await made_by(door, job, target),
        partial(door.pictures.stored, kind, view=view),
        kind,
        style,
    )


@on_model_and_version(
    router,
    "POST",
    "/plots/{kind}",
    "plot_rows",
    summary="Get a picture of rows",
    description=(
        "The rows sent, as the version sees them: by label, by uncertainty, with their density, "
        "their responsibilities, or beside k-means."
    ),
    answer=Plot,
    example=examples.PLOT,
    also=IMAGES,
    body=data_body("Rows", examples.ROWS),
    refusals=(Unsupported,),
)
async def plot_rows(
    door: Door,
    target: AimedAt,
    payload: Annotated[DataPayload, Depends(row_payload)],
    kind: PlotKind,
    *,
    view: Viewed,
    style: Styled,
) -> Response:
    show = partial(door.pictures.of_rows, kind, table=payload.table, view=view)
    return await shown(door, target, show, kind, style)


async def made_by(door: Services, job_id: str, target: Target) -> Target:
    """Aim at the version that a job of this model made."""
    if target.version is not None or target.alias is not None:
        detail = "name the version by its number, by an alias or by its job, not by two of them"
        raise InvalidInput(
            "invalid_parameter", detail, issues=[Issue("#/query/job", "invalid_value", detail)]
        )
    number = await door.threads.look_up(door.fitting.version_made_by, job_id, target.model_id)
    return Target(target.model_id, number)


async def shown(
    door: Services,
    target: Target,
    show: Callable[[FittedModel], Picture],
    kind: str,
    style: Style | None,
) -> Response:
    """Open the version, find what there is to see, draw or encode: in one hop."""
    stopwatch = Stopwatch()

    def answered() -> tuple[VersionRecord, bytes]:
        stopwatch.lap("queue")
        fitted = door.inference.open(target.model_id, target.version, target.alias)
        if style is not None:
            door.pictures.require_painter()
        picture = show(fitted)
        stopwatch.lap("compute")
        if style is None:
            content = numbers_of(picture, kind, fitted.version)
        else:
            content = door.pictures.paint(picture, kind=kind, fitted=fitted, style=style)
        stopwatch.lap("encode")
        return fitted.version, content

    version, content = await door.threads.compute(answered)
    media_type = JSON if style is None else SVG if style.format == "svg" else PNG
    headers = {**inference_headers(version, stopwatch), "Vary": "Accept"}
    return Response(content, media_type=media_type, headers=headers)


def numbers_of(picture: Picture, kind: str, version: VersionRecord) -> bytes:
    values = {field.name: getattr(picture, field.name) for field in fields(picture)}
    whole = {
        "model": version.model_id,
        "version": version.number,
        "kind": kind,
        "space": version.preprocessing.space,
        **values,
    }
    return orjson.dumps(whole, option=orjson.OPT_SERIALIZE_NUMPY)
