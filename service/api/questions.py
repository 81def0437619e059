"""What is asked of which model, and the way of a question from bytes to bytes.

``/models/{id}/predict``, ``/models/{id}/versions/{n}/predict`` and ``/predict`` are one handler
under three routes (``forms``). Each route's own dependency, an ``ask_…`` here, finds out what is
asked and leaves it in the request's state, where the handler's ``Question`` takes it from.
"""

import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial, reduce
from operator import add
from typing import Annotated

from fastapi import Depends, Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import WithJsonSchema

from service.api.arrivals import ArrivingRows, WholeBody, receive, receive_whole
from service.api.departures import ArrivingResponse
from service.api.dependencies import (
    AliasQuery,
    ModelId,
    VersionNumber,
    VersionQuery,
    given_twice,
)
from service.api.negotiation import accepted_type
from service.api.payloads import CODECS, codec_of
from service.api.payloads.body import waits_to_send
from service.api.payloads.values import BARE_FIELDS, Body, DataAnswer, DataPayload, RowWriter, Value
from service.api.services import Services, services_of
from service.api.turns import CALLER, require_time
from service.domain.data import Table
from service.domain.inference import Asked, FittedModel, Inference, Measured
from service.domain.records import VersionRecord
from service.errors import InvalidInput, Issue

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
        self.milliseconds[name] = self.milliseconds.get(name, 0.0) + 1000 * (now - self._last)
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
class Elsewhere:
    """The model of a bare form, as far as the request names it outside its body."""

    path: str
    """Of the bare form; its answer names the canonical one."""
    named: frozenset[str]
    version: int | None
    alias: str | None

    def target(self, inference: Inference, in_body: str | None) -> Target:
        named = {*self.named, *([in_body] if in_body else [])}
        return _target(inference.find_model(named), self.version, self.alias)


@dataclass(frozen=True, slots=True)
class AskedQuestion:
    request: Request
    target: Target | Elsewhere
    media_type: str
    """Of the answer."""
    services: Services
    stopwatch: Stopwatch = field(default_factory=Stopwatch)

    async def answer(self, verb: Verb) -> Response:
        """Read the rows, open the version, let ``verb`` answer, encode."""
        await self._require_answerable()
        whole = await receive_whole(self.request, extra_fields=self._extra_fields)
        return await self._whole_answer(verb, whole)

    async def answer_by_rows(self, verb: Verb) -> Response:
        """Answer likewise when ``verb`` says the same of a row whatever rows are beside it.

        Of many rows those that came first are answered while the others are on their way.
        """
        writer = codec_of(self.media_type).writer()
        if writer is None:
            return await self.answer(verb)
        await self._require_answerable()
        received = await receive(self.request, extra_fields=self._extra_fields)
        if isinstance(received, WholeBody):
            return await self._whole_answer(verb, received)
        return await self._arriving_answer(verb, received, writer)

    async def answer_in_sum(self, told: Callable[[Measured], Mapping[str, Value]]) -> Response:
        """Answer what is a sum over rows: of many rows the sums of those that came are kept."""
        await self._require_answerable()
        received = await receive(self.request, extra_fields=self._extra_fields)
        if isinstance(received, WholeBody):
            return await self._whole_answer(lambda fitted, X: told(fitted.score(X)), received)
        fitted = await self._opened_for_arriving()

        def scored(table: Table) -> Measured:
            measured = fitted.score(table)
            self.stopwatch.lap("compute")
            return measured

        sums = [part async for part in received.each(scored, self.stopwatch.lap)]
        require_time(CALLER.get())
        content = encoded(fitted.version, told(reduce(add, sums)), self.media_type)
        self.stopwatch.lap("encode")
        return data_response(content, self.media_type, self._headers(fitted.version))

    async def _require_answerable(self) -> None:
        """Refuse what the head alone decides to a client that waits for that with its body."""
        if not waits_to_send(self.request):
            return
        if isinstance(self.target, Target):
            target = self.target
        elif self.target.named:
            target = await self._target(None)
        else:  # the body may name it
            return
        await self.services.threads.look_up(
            self.services.inference.version, target.model_id, target.version, target.alias
        )

    async def _whole_answer(self, verb: Verb, whole: WholeBody) -> Response:
        """At once where that takes less than a hop to another thread, and else in one hop."""
        if whole.is_small:
            version, content = await self._small_answer(verb, whole.decode())
        else:
            self.stopwatch.lap("parse")
            version, content = await self.services.threads.compute(self._large_answer, verb, whole)
        return data_response(content, self.media_type, self._headers(version))

    async def _small_answer(
        self, verb: Verb, payload: DataPayload
    ) -> tuple[VersionRecord, Content]:
        self.stopwatch.lap("parse")
        target = await self._target(payload.model)
        services, aim = self.services, (target.model_id, target.version, target.alias)
        fitted = services.inference.at_hand(*aim)
        if fitted is not None and fitted.is_quick_for(payload.table):
            require_time(CALLER.get())
            return self._answered(fitted, verb, payload)
        return await services.threads.answer(
            payload.table.X.size, partial(self._opened_and_answered, aim, fitted, verb, payload)
        )

    def _large_answer(self, verb: Verb, whole: WholeBody) -> tuple[VersionRecord, Content]:
        self.stopwatch.lap("queue")
        if whole.codec.unfolds:
            return self._judged_answer(verb, whole)
        payload = whole.decode()
        target = self._found(payload.model)
        self.stopwatch.lap("parse")
        aim = target.model_id, target.version, target.alias
        fitted = self.services.inference.at_hand(*aim)
        return self._opened_and_answered(aim, fitted, verb, payload)

    def _judged_answer(self, verb: Verb, whole: WholeBody) -> tuple[VersionRecord, Content]:
        """Let the model refuse rows before they unfold; no such format names it in its body."""
        target = self._found(None)
        fitted = self.services.inference.open(target.model_id, target.version, target.alias)
        payload = whole.decode(fitted.require)
        self.stopwatch.lap("parse")
        return self._answered(fitted, verb, payload)

    def _opened_and_answered(
        self, aim: Asked, fitted: FittedModel | None, verb: Verb, payload: DataPayload
    ) -> tuple[VersionRecord, Content]:
        return self._answered(fitted or self.services.inference.open(*aim), verb, payload)

    def _answered(
        self, fitted: FittedModel, verb: Verb, payload: DataPayload
    ) -> tuple[VersionRecord, Content]:
        self.stopwatch.lap("queue")
        values = verb(fitted, payload.table)
        self.stopwatch.lap("compute")
        content = encoded(fitted.version, values, self.media_type)
        self.stopwatch.lap("encode")
        return fitted.version, content

    async def _arriving_answer(self, verb: Verb, rows: ArrivingRows, writer: RowWriter) -> Response:
        fitted = await self._opened_for_arriving()

        def written(table: Table) -> bytes:
            values = verb(fitted, table)
            self.stopwatch.lap("compute")
            part = writer.write(data_answer(fitted.version, values))
            self.stopwatch.lap("encode")
            return part

        parts = rows.each(written, self.stopwatch.lap)
        first = await anext(parts)  # what is wrong by now is still told as a problem
        require_time(CALLER.get())
        return ArrivingResponse(
            _joined(first, parts, writer),
            self.services,
            media_type=self.media_type,
            headers=self._headers(fitted.version),
        )

    async def _opened_for_arriving(self) -> FittedModel:
        require_time(CALLER.get())
        target = await self._target(None)
        return await self.services.threads.look_up(
            self.services.inference.open, target.model_id, target.version, target.alias
        )

    @property
    def _extra_fields(self) -> frozenset[str]:
        return BARE_FIELDS if isinstance(self.target, Elsewhere) else frozenset()

    async def _target(self, in_body: str | None) -> Target:
        if isinstance(self.target, Target):
            return self.target
        return await self.services.threads.look_up(self._found, in_body)

    def _found(self, in_body: str | None) -> Target:
        if isinstance(self.target, Target):
            return self.target
        return self.target.target(self.services.inference, in_body)

    def _headers(self, version: VersionRecord) -> dict[str, str]:
        headers = inference_headers(version, self.stopwatch)
        if isinstance(self.target, Elsewhere):
            headers["Content-Location"] = (
                f"/models/{version.model_id}/versions/{version.number}{self.target.path}"
            )
        return headers


async def _joined(
    first: bytes, parts: AsyncIterator[bytes], writer: RowWriter
) -> AsyncIterator[bytes]:
    yield first
    async for part in parts:
        yield part
    yield writer.end()


async def question_of(request: Request) -> AskedQuestion:
    # There is none when a parameter was refused; then FastAPI does not call the handler.
    question: AskedQuestion = request.scope["state"].get("question")
    return question


Question = Annotated[AskedQuestion, Depends(question_of)]


async def ask_latest(
    request: Request, model_id: ModelId, version: VersionQuery = None, alias: AliasQuery = None
) -> None:
    request.state.question = asked(request, _target(model_id, version, alias))


async def ask_version(request: Request, model_id: ModelId, number: VersionNumber) -> None:
    request.state.question = asked(request, Target(model_id, number))


async def ask_bare(
    request: Request,
    *,
    model: Annotated[list[str] | None, Query(description="The model's id."), ONE_TEXT] = None,
    version: VersionQuery = None,
    alias: AliasQuery = None,
    gmm_model: Annotated[list[str] | None, Header(description="The model's id."), ONE_TEXT] = None,
) -> None:
    if model is not None and len(set(model)) < len(model):
        raise given_twice("model")
    named = frozenset(name for name in (*(model or ()), *(gmm_model or ())) if name)
    request.state.question = asked(request, Elsewhere(request.url.path, named, version, alias))


def asked(request: Request, target: Target | Elsewhere) -> AskedQuestion:
    return AskedQuestion(request, target, accepted_type(request, CODECS), services_of(request))


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


def data_answer(version: VersionRecord, values: Mapping[str, Value]) -> DataAnswer:
    return DataAnswer(version.model_id, version.number, values, version.feature_names)


def encoded(version: VersionRecord, values: Mapping[str, Value], media_type: str) -> Content:
    answer = data_answer(version, values)
    codec = codec_of(media_type)
    if answer.n_numbers > LARGE_ANSWER_NUMBERS:
        return codec.encode_in_parts(answer)
    return codec.encode(answer)


def pieces_of(
    version: VersionRecord, values: Mapping[str, Value], media_type: str
) -> Sequence[Body] | None:
    """Return the answer in the pieces that it is made of; None where it is one of many parts."""
    answer = data_answer(version, values)
    if answer.n_numbers > LARGE_ANSWER_NUMBERS:
        return None
    return codec_of(media_type).pieces(answer)


def data_response(content: Content, media_type: str, headers: Mapping[str, str]) -> Response:
    if isinstance(content, bytes):
        return Response(content, media_type=media_type, headers=dict(headers))
    # Each part is made in another thread, when the one before is on its way to the client.
    return StreamingResponse(content, media_type=media_type, headers=headers)


def inference_headers(version: VersionRecord, stopwatch: Stopwatch) -> dict[str, str]:
    return {
        "GMM-Model-Version": str(version.number),
        "GMM-Space": version.preprocessing.space,
        "Server-Timing": stopwatch.header(),
        "Cache-Control": "no-store",
    }
