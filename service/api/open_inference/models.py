"""Routes of ``/v2`` about one model: what it is, whether it is ready, and inference."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial

from fastapi import APIRouter, Depends, Request, Response

from service.api.arrivals import LARGE_BODY_BYTES
from service.api.dependencies import IN_EVERY_ROUTE, Door
from service.api.negotiation import JSON
from service.api.open_inference import examples
from service.api.open_inference.bodies import (
    LENGTH_HEADER,
    json_length_of,
    max_bytes_of,
    refuse_other_sites,
)
from service.api.open_inference.documentation import AS_BYTES, OCTETS, control_body
from service.api.open_inference.schemas import (
    InferenceAnswer,
    InferenceRequest,
    ModelMetadata,
    ModelReadiness,
    TensorMetadata,
)
from service.api.open_inference.targets import on_model_and_version
from service.api.open_inference.tensors import (
    INPUT,
    InferenceCall,
    answer_of,
    call_of,
    shapes_of,
    tensors_of,
)
from service.api.payloads.body import read_body, waits_to_send
from service.api.questions import (
    AimedAt,
    Content,
    Stopwatch,
    Target,
    data_response,
    inference_headers,
)
from service.api.responses import json_response
from service.domain.inference import FittedModel
from service.domain.records import VersionRecord
from service.domain.served_models import ServedModels
from service.errors import ServiceError

router = APIRouter(dependencies=[*IN_EVERY_ROUTE, Depends(refuse_other_sites)])

PLATFORM = "gmm"


@on_model_and_version(
    router,
    "GET",
    "",
    "model_metadata",
    summary="Describe a model's tensors",
    answer=ModelMetadata,
    example=examples.MODEL,
)
async def model_metadata(door: Door, target: AimedAt) -> Response:
    return json_response(await door.threads.look_up(_metadata, door.served, target))


@on_model_and_version(
    router,
    "GET",
    "/ready",
    "model_ready",
    summary="Say whether a model answers",
    description="As far as is known: the parameters of a version are read and checked when it is "
    "first asked or loaded. One that failed its integrity check is not ready until its file is "
    "mended.",
    answer=ModelReadiness,
    example=examples.READY,
)
async def model_ready(door: Door, target: AimedAt) -> Response:
    door.lifecycle.require_serving()
    await door.threads.look_up(door.served.ready_version, target.model_id, target.version)
    return json_response(ModelReadiness(name=target.model_id, ready=True))


@on_model_and_version(
    router,
    "POST",
    "/infer",
    "model_infer",
    summary="Ask a model",
    description="With `Inference-Header-Content-Length` the JSON part of that many bytes is "
    "followed by tensors as raw little-endian bytes, in order; 0 says that all of the body is the "
    "one input. Values in JSON are rounded to the datatype, and refused beyond its range. "
    f"An answer with binary outputs is `{OCTETS}` with the same header. The body may be "
    "compressed.",
    answer=InferenceAnswer,
    example=examples.ANSWER,
    body=control_body(InferenceRequest),
    also=AS_BYTES,
)
async def model_infer(request: Request, door: Door, target: AimedAt) -> Response:
    stopwatch = Stopwatch()
    json_length = json_length_of(request)
    max_bytes = max_bytes_of(door.options, json_length)
    if waits_to_send(request):
        await door.threads.look_up(door.served.version, target.model_id, target.version)
    body = await read_body(request, max_bytes=max_bytes, words_at=json_length or 0)
    read = partial(call_of, body, json_length)
    if len(body) >= LARGE_BODY_BYTES:
        stopwatch.lap("parse")
        answer = partial(_read_and_answered, door.served, target, read, stopwatch)
        version, content, json_part = await door.threads.compute(answer)
    else:
        try:
            call = read()
        except ServiceError:
            await door.threads.look_up(_count_unread, door.served, target, stopwatch)
            raise
        stopwatch.lap("parse")
        version, content, json_part = await door.threads.answer(
            call.X.size, partial(_answered, door.served, target, call, stopwatch)
        )
    return _response(version, content, json_part, stopwatch)


def _read_and_answered(
    served: ServedModels, target: Target, read: Callable[[], InferenceCall], stopwatch: Stopwatch
) -> tuple[VersionRecord, Content, int | None]:
    stopwatch.lap("queue")
    try:
        call = read()
    except ServiceError:
        _count_unread(served, target, stopwatch)
        raise
    stopwatch.lap("parse")
    return _answered(served, target, call, stopwatch)


def _count_unread(served: ServedModels, target: Target, stopwatch: Stopwatch) -> None:
    """Count a question that can't be read as a failure of the version that it was for."""
    stopwatch.lap("parse")
    with suppress(ServiceError):  # none that answers; what is wrong with the question is told
        version = served.version(target.model_id, target.version)
        served.count_refusal(version, stopwatch.milliseconds)


def _answered(
    served: ServedModels, target: Target, call: InferenceCall, stopwatch: Stopwatch
) -> tuple[VersionRecord, Content, int | None]:
    stopwatch.lap("queue")
    fitted = served.open(target.model_id, target.version)
    try:
        content, json_length = _computed(fitted, call, stopwatch)
    except ServiceError:
        served.count_refusal(fitted.version, stopwatch.milliseconds)
        raise
    served.count_answer(fitted.version, len(call.X), stopwatch.milliseconds)
    return fitted.version, content, json_length


def _computed(
    fitted: FittedModel, call: InferenceCall, stopwatch: Stopwatch
) -> tuple[Content, int | None]:
    tensors = tensors_of(call, fitted)
    stopwatch.lap("compute")
    content, json_length = answer_of(call, fitted.version.model_id, fitted.version.number, tensors)
    stopwatch.lap("encode")
    return content, json_length


def _response(
    version: VersionRecord, content: Content, json_length: int | None, stopwatch: Stopwatch
) -> Response:
    headers = inference_headers(version, stopwatch)
    if json_length is None:
        return data_response(content, JSON, headers)
    return data_response(content, OCTETS, {**headers, LENGTH_HEADER: str(json_length)})


def _metadata(served: ServedModels, target: Target) -> ModelMetadata:
    version = served.version(target.model_id, target.version)
    numbers = [version.number] if target.version else served.versions(target.model_id)
    n_features = version.summary.n_features
    return ModelMetadata(
        name=target.model_id,
        versions=list(map(str, numbers)),
        platform=PLATFORM,
        inputs=[TensorMetadata(name=INPUT, datatype="FP64", shape=[-1, n_features])],
        outputs=[
            TensorMetadata(name=name, datatype=datatype, shape=shape)
            for name, datatype, shape in shapes_of(version.options.n_components)
        ],
    )
