"""Routes of what a version knows without rows: its parameters, its scores at the fit, draws."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from service.api import examples
from service.api.dependencies import IN_EVERY_JSON_ROUTE, IN_EVERY_ROUTE, Door, Metric, json_of
from service.api.documentation import json_body
from service.api.forms import on_model_and_version
from service.api.inference import every_criterion, one_criterion
from service.api.negotiation import JSON, accepted_type
from service.api.payloads import CODECS
from service.api.payloads.values import Value
from service.api.questions import (
    AimedAt,
    Content,
    Stopwatch,
    Target,
    data_response,
    encoded,
    inference_headers,
)
from service.api.schemas import (
    MetricAnswer,
    Parameters,
    SampleAnswer,
    SampleRequest,
    ScoreAnswer,
)
from service.api.services import Services
from service.domain.inference import FittedModel
from service.domain.records import FitSummary, VersionRecord

router = APIRouter(dependencies=IN_EVERY_JSON_ROUTE)
in_data_formats = APIRouter(dependencies=IN_EVERY_ROUTE)


@on_model_and_version(
    router,
    "GET",
    "/score",
    "get_training_scores",
    summary="Get every criterion of the training data",
    description="As stored at the fit.",
    answer=ScoreAnswer,
    example=examples.SCORE,
)
async def get_training_scores(door: Door, target: AimedAt) -> Response:
    return await _stored(door, target, every_criterion)


@on_model_and_version(
    router,
    "GET",
    "/score/{metric}",
    "get_training_score",
    summary="Get one criterion of the training data",
    description="As stored at the fit.",
    answer=MetricAnswer,
    example=examples.METRIC,
)
async def get_training_score(door: Door, target: AimedAt, metric: Metric) -> Response:
    return await _stored(door, target, partial(one_criterion, metric))


@on_model_and_version(
    router,
    "GET",
    "/parameters",
    "get_parameters",
    summary="Get the parameters",
    answer=Parameters,
    example=examples.PARAMETERS,
)
async def get_parameters(door: Door, target: AimedAt) -> Response:
    return await _asked(door, target, JSON, parameters_of)


@on_model_and_version(
    in_data_formats,
    "POST",
    "/sample",
    "sample",
    summary="Draw rows",
    description="The same seed draws the same rows from the same version.",
    answer=SampleAnswer,
    example=examples.SAMPLE,
    body=json_body(SampleRequest),
)
async def sample(
    request: Request,
    door: Door,
    target: AimedAt,
    body: Annotated[SampleRequest, Depends(json_of(SampleRequest))],
) -> Response:
    media_type = accepted_type(request, CODECS)
    return await _asked(door, target, media_type, partial(drawn, body))


def parameters_of(fitted: FittedModel) -> dict[str, Value]:
    mixture = fitted.mixture
    return {
        "space": fitted.version.preprocessing.space,
        "covariance_type": mixture.covariance_type,
        "weights": mixture.weights,
        "means": mixture.means,
        "covariances": mixture.covariances,
        "precisions": mixture.precisions,
        "precisions_cholesky": mixture.precisions_cholesky,
        **fitted.transform_arrays,
    }


def drawn(body: SampleRequest, fitted: FittedModel) -> dict[str, Value]:
    X, labels = fitted.sample(body.n_samples, body.random_state)
    return {"X": X, "labels": labels}


async def _stored(
    door: Services, target: Target, values_of: Callable[[FitSummary], Mapping[str, Value]]
) -> Response:
    stopwatch = Stopwatch()
    version = await door.threads.look_up(
        door.inference.version, target.model_id, target.version, target.alias
    )
    stopwatch.lap("compute")
    content = encoded(version, values_of(version.summary), JSON)
    stopwatch.lap("encode")
    return data_response(content, JSON, inference_headers(version, stopwatch))


async def _asked(
    door: Services,
    target: Target,
    media_type: str,
    values_of: Callable[[FittedModel], Mapping[str, Value]],
) -> Response:
    stopwatch = Stopwatch()

    def answered() -> tuple[VersionRecord, Content]:
        stopwatch.lap("queue")
        fitted = door.inference.open(target.model_id, target.version, target.alias)
        values = values_of(fitted)
        stopwatch.lap("compute")
        content = encoded(fitted.version, values, media_type)
        stopwatch.lap("encode")
        return fitted.version, content

    version, content = await door.threads.compute(answered)
    return data_response(content, media_type, inference_headers(version, stopwatch))
