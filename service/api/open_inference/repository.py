"""Routes of ``/v2`` for who runs a model server: listing, loading, unloading, statistics."""

from collections.abc import Mapping
from typing import Annotated

from fastapi import APIRouter, Depends, Response

from service.api.dependencies import IN_EVERY_ROUTE, Door, ModelId
from service.api.open_inference import examples
from service.api.open_inference.bodies import read_control, refuse_other_sites
from service.api.open_inference.documentation import LOADING, control_body, described
from service.api.open_inference.schemas import (
    Duration,
    InferenceDurations,
    LoadParameters,
    ModelReadiness,
    ModelStatistics,
    RepositoryIndex,
    ServerStatistics,
    WantedIndex,
    indexed,
)
from service.api.open_inference.targets import on_model_and_version
from service.api.payloads.json_document import JsonValue
from service.api.questions import AimedAt
from service.api.responses import json_response
from service.domain.records import VersionRecord
from service.domain.served_models import ServedModels, Tally, VersionStatistics
from service.errors import Unsupported

statistics_router = APIRouter(dependencies=[*IN_EVERY_ROUTE, Depends(refuse_other_sites)])
router = APIRouter(dependencies=[*IN_EVERY_ROUTE, Depends(refuse_other_sites)])

Control = Annotated[Mapping[str, JsonValue], Depends(read_control)]

PHASES = {
    "queue": "queue",
    "compute_input": "parse",
    "compute_infer": "compute",
    "compute_output": "encode",
}
"""What the protocol calls the phases of ``Server-Timing``."""


@router.post(
    "/v2/repository/index",
    **described(
        "repository_index",
        summary="List every model",
        answer=RepositoryIndex,
        example=examples.INDEX,
        body=control_body(WantedIndex),
    ),
)
async def repository_index(door: Door, wanted: Control) -> Response:
    models = await door.threads.look_up(lambda: list(map(indexed, door.served.index())))
    only_ready = wanted.get("ready") is True
    return json_response(
        RepositoryIndex([model for model in models if model.state == "READY" or not only_ready])
    )


@router.post(
    "/v2/repository/models/{id}/load",
    **described(
        "load_model",
        summary="Load a model and answer for it",
        answer=ModelReadiness,
        example=examples.READY,
        body=control_body(LoadParameters),
        tag=LOADING,
    ),
)
async def load_model(door: Door, model_id: ModelId, wanted: Control) -> Response:
    require_no_config(wanted)
    await door.threads.look_up(door.served.load, model_id)
    return json_response(ModelReadiness(name=model_id, ready=True))


@router.post(
    "/v2/repository/models/{id}/unload",
    **described(
        "unload_model",
        summary="Answer for a model no more",
        description="Under `/v2`, by this process, until it is loaded or the process starts anew.",
        answer=ModelReadiness,
        example=examples.NOT_READY,
        body=control_body(LoadParameters),
        tag=LOADING,
    ),
)
async def unload_model(door: Door, model_id: ModelId, _: Control) -> Response:
    await door.threads.look_up(door.served.unload, model_id)
    return json_response(ModelReadiness(name=model_id, ready=False))


@statistics_router.get(
    "/v2/models/stats",
    **described(
        "server_statistics",
        summary="Count what every model was asked",
        answer=ServerStatistics,
        example=examples.STATISTICS,
    ),
)
async def server_statistics(door: Door) -> Response:
    return json_response(await door.threads.look_up(_statistics_of_all, door.served))


@on_model_and_version(
    statistics_router,
    "GET",
    "/stats",
    "model_statistics",
    summary="Count what a model was asked",
    answer=ServerStatistics,
    example=examples.STATISTICS,
)
async def model_statistics(door: Door, target: AimedAt) -> Response:
    version = await door.threads.look_up(door.served.version, target.model_id, target.version)
    return json_response(ServerStatistics(model_stats=[_statistics_of(door.served, version)]))


def require_no_config(wanted: Mapping[str, JsonValue]) -> None:
    parameters = wanted.get("parameters")
    given = parameters if isinstance(parameters, dict) else {}
    if any(name == "config" or name.startswith("file:") for name in given):
        raise Unsupported("not_supported", "A model is loaded as it was fitted, without a config.")


def _statistics_of_all(served: ServedModels) -> ServerStatistics:
    versions = [model.version for model in served.index()]
    return ServerStatistics(
        model_stats=[_statistics_of(served, version) for version in versions if version is not None]
    )


def _statistics_of(served: ServedModels, version: VersionRecord) -> ModelStatistics:
    counted = served.statistics(version)
    return ModelStatistics(
        name=version.model_id,
        version=str(version.number),
        last_inference=counted.last_asked_ms,
        inference_count=counted.rows,
        execution_count=counted.succeeded.count,
        inference_stats=_durations(counted),
        batch_stats=[],
    )


def _durations(counted: VersionStatistics) -> InferenceDurations:
    return InferenceDurations(
        success=_duration(counted.succeeded),
        fail=_duration(counted.failed),
        cache_hit=_duration(Tally()),
        cache_miss=_duration(Tally()),
        **{name: _duration(counted.phases.get(phase, Tally())) for name, phase in PHASES.items()},
    )


def _duration(tally: Tally) -> Duration:
    return Duration(count=tally.count, ns=tally.nanoseconds)
