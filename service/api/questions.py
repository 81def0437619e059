"""What is asked of which model, and the way of a question from bytes to bytes.

``/models/{id}/predict``, ``/models/{id}/versions/{n}/predict`` and ``/predict`` are one handler
under three routes (``forms``). Each route's own dependency, an ``ask_…`` here, finds out what is
asked and leaves it in the request's state, where the handler's ``Question`` takes it from.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated

import numpy as np
from fastapi import Depends, Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import WithJsonSchema

from service.api.dependencies import AliasQuery, ModelId, VersionNumber, VersionQuery
from service.api.negotiation import accepted_type, content_type
from service.api.payloads import CODECS, REMARK, codec_of
from service.api.payloads.body import read_body
from service.api.payloads.values import BARE_FIELDS, DataAnswer, DataPayload, Expected, Value
from service.api.services import Services, services_of
from service.domain.data import Table
from service.domain.inference import FittedModel
from service.domain.records import VersionRecord
from service.errors import InvalidInput, Issue

LARGE_BODY_BYTES = 64 * 1024
"""Decoding more than this takes longer than a hop to another thread."""
LARGE_TABLE_NUMBERS = 20_000
"""Rows of more numbers than this take a turn among the few computing threads."""

ONE_TEXT = WithJsonSchema({"type": "string"})
"""For clients there is one; it is read as a list so that two are seen to disagree."""

LARGE_ANSWER_NUMBERS = 200_000
"""An answer of more numbers than this is made and sent in parts."""

Content = bytes | Iterator[bytes]
Verb = Callable[[FittedModel, Table], Mapping[str, Value]]


@dataclass(slots=True)
class Stopwatch:
    """Durations by the names of ``Server-Timing``."""

    milliseconds: dict[str, float] = field(default_factory=dict)
    _last: float = field(default_factory=time.perf_counter)

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.milliseconds[name] = 1000 * (now - self._last)
        self._last = now

    def header(self) -> str:
        return ", ".join(f"{name};dur={ms:.3f}" for name, ms in self.milliseconds.items())


@dataclass(frozen=True, slots=True)
class Target:
    model_id: str
    version: int | None = None
    alias: str | None = None
    """With neither: the champion, or the latest."""


@dataclass(frozen=True, slots=True)
class AskedQuestion:
    services: Services
    target: Target
    payload: DataPayload
    stopwatch: Stopwatch
    media_type: str
    """Of the answer."""
    bare_path: str | None
    """The path of a bare form; its answer names the canonical one."""

    async def answer(self, verb: Verb) -> Response:
        """Open the version, let ``verb`` answer, encode: in one hop to another thread."""
        threads = self.services.threads
        is_large = self.payload.table.X.size > LARGE_TABLE_NUMBERS
        run = threads.compute if is_large else threads.look_up
        version, content = await run(self._answered, verb)
        return data_response(content, self.media_type, self._headers(version))

    def _answered(self, verb: Verb) -> tuple[VersionRecord, Content]:
        self.stopwatch.lap("queue")
        fitted = self.services.inference.open(
            self.target.model_id, self.target.version, self.target.alias
        )
        values = verb(fitted, self.payload.table)
        self.stopwatch.lap("compute")
        content = encoded(fitted.version, values, self.media_type)
        self.stopwatch.lap("encode")
        return fitted.version, content

    def _headers(self, version: VersionRecord) -> dict[str, str]:
        headers = inference_headers(version, self.stopwatch)
        if self.bare_path is not None:
            headers["Content-Location"] = (
                f"/models/{version.model_id}/versions/{version.number}{self.bare_path}"
            )
        return headers


async def question_of(request: Request) -> AskedQuestion:
    # There is none when a parameter was refused; then FastAPI does not call the handler.
    question: AskedQuestion = request.scope["state"].get("question")
    return question


Question = Annotated[AskedQuestion, Depends(question_of)]


async def ask_latest(
    request: Request, model_id: ModelId, version: VersionQuery = None, alias: AliasQuery = None
) -> None:
    await _ask(request, _target(model_id, version, alias))


async def ask_version(request: Request, model_id: ModelId, number: VersionNumber) -> None:
    await _ask(request, Target(model_id, number))


async def ask_bare(
    request: Request,
    *,
    model: Annotated[list[str] | None, Query(description="The model's id."), ONE_TEXT] = None,
    version: VersionQuery = None,
    alias: AliasQuery = None,
    gmm_model: Annotated[list[str] | None, Header(description="The model's id."), ONE_TEXT] = None,
) -> None:
    stopwatch = Stopwatch()
    media_type = accepted_type(request, CODECS)
    payload = await read_payload(request, extra_fields=BARE_FIELDS)
    named = {name for name in (*(model or ()), payload.model, *(gmm_model or ())) if name}
    stopwatch.lap("parse")
    services = services_of(request)
    found = await services.threads.look_up(services.inference.find_model, named)
    request.state.question = AskedQuestion(
        services, _target(found, version, alias), payload, stopwatch, media_type, request.url.path
    )


async def _ask(request: Request, target: Target) -> None:
    stopwatch = Stopwatch()
    media_type = accepted_type(request, CODECS)
    payload = await read_payload(request, extra_fields=frozenset())
    stopwatch.lap("parse")
    request.state.question = AskedQuestion(
        services_of(request), target, payload, stopwatch, media_type, None
    )


async def read_payload(request: Request, *, extra_fields: frozenset[str]) -> DataPayload:
    """Read and decode a data body, a large one in another thread."""
    services = services_of(request)
    sent = content_type(request, CODECS, remark=REMARK)
    codec = codec_of(sent.media_type)
    body = await read_body(request, max_bytes=services.options.max_bytes(is_text=codec.is_text))
    admit = services.limits.require_table
    decode = partial(codec.decode, body, Expected(extra_fields, sent.parameters, admit))
    if len(body) < LARGE_BODY_BYTES:
        return decode()
    return await services.threads.compute(decode)


async def target_latest(
    request: Request, model_id: ModelId, version: VersionQuery = None, alias: AliasQuery = None
) -> None:
    request.state.target = _target(model_id, version, alias)


async def target_version(request: Request, model_id: ModelId, number: VersionNumber) -> None:
    request.state.target = Target(model_id, number)


async def target_of(request: Request) -> Target:
    target: Target = request.scope["state"].get("target")  # as above
    return target


AimedAt = Annotated[Target, Depends(target_of)]


def _target(model_id: str, version: int | None, alias: str | None) -> Target:
    if version is not None and alias is not None:
        detail = "name the version by its number or by an alias, not by both"
        raise InvalidInput(
            "invalid_parameter", detail, issues=[Issue("#/query/alias", "invalid_value", detail)]
        )
    return Target(model_id, version, alias)


def encoded(version: VersionRecord, values: Mapping[str, Value], media_type: str) -> Content:
    answer = DataAnswer(version.model_id, version.number, values, version.feature_names)
    n_numbers = sum(value.size for value in values.values() if isinstance(value, np.ndarray))
    codec = codec_of(media_type)
    if n_numbers > LARGE_ANSWER_NUMBERS:
        return codec.encode_in_parts(answer)
    return codec.encode(answer)


def data_response(content: Content, media_type: str, headers: Mapping[str, str]) -> Response:
    if isinstance(content, bytes):
        return Response(content, media_type=media_type, headers=dict(headers))
    # Each part is made in another thread, when the one before is on its way to the client.
    return StreamingResponse(content, media_type=media_type, headers=headers)


def inference_headers(version: VersionRecord, stopwatch: Stopwatch) -> dict[str, str]:
    return {
        "GMM-Model-Version": str(version.number),
        "Server-Timing": stopwatch.header(),
        "Cache-Control": "no-store",
    }
