"""Rows on their way in: read whole while they are few, portion by portion when they are not."""

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

from fastapi import Request

from service.api.landing import Landing, landing_of
from service.api.negotiation import content_type
from service.api.payloads import CODECS, REMARK, codec_of
from service.api.payloads.body import body_chunks, known_length, read_body
from service.api.payloads.spool import ArraySpool
from service.api.payloads.values import (
    Body,
    Codec,
    DataPayload,
    Expected,
    RowReader,
    admit_any,
    whole_table,
)
from service.api.services import Services, services_of
from service.domain.data import Table
from service.errors import InvalidInput

T = TypeVar("T")

LARGE_BODY_BYTES = 128 * 1024
"""Less text than this is answered sooner than threads wake each other: requests of 85 KB came to
1,850 a second on the loop, and to 770 in threads. More would hold up the loop."""
LARGE_BINARY_BODY_BYTES = 1024**2
"""The same of what is numbers already."""
FEW_ROWS = 4096
"""Fewer are put together with those behind them: each hop to a thread has its price."""
PORTION_BYTES = 1024**2
"""A body of more than this is read in portions of this, where its format allows it."""


@dataclass(frozen=True, slots=True)
class WholeBody:
    """A body that is there, and not decoded yet."""

    codec: Codec
    body: Body
    expected: Expected

    @property
    def is_small(self) -> bool:
        return is_decoded_at_once(len(self.body), self.codec)

    def decode(self, admit_like: Callable[[Table, int], None] = admit_any) -> DataPayload:
        return self.codec.decode(self.body, replace(self.expected, admit_like=admit_like))


@dataclass(frozen=True, slots=True)
class ArrivingRows:
    """A body whose beginning is there."""

    reader: RowReader
    head: Body
    rest: AsyncIterator[Body]
    landing: Landing | None
    """Of the rest, where it can be received into a place."""
    services: Services

    async def each(
        self, work: Callable[[Table], T], lap: Callable[[str], None] = lambda _: None
    ) -> AsyncIterator[T]:
        """Yield what ``work`` makes of each portion of rows, in a computing thread.

        ``lap`` is told the name of each step before ``work`` when it ends.
        """
        compute = self.services.threads.go_on
        n_rows = 0

        def made_behind(table: Table) -> T:
            nonlocal n_rows
            placed = table.behind(n_rows)
            n_rows += len(table.X)
            return work(placed)

        async for tables in self._portions():
            lap("parse")
            while (made := await compute(_next_made, tables, made_behind, lap)) is not None:
                yield made
        if not n_rows:
            raise InvalidInput("empty_data", "there must be at least one row and one column")

    async def spooled(self) -> Table:
        """Return all rows as an array on the disk."""
        with ArraySpool(self.services.options.spool) as spool:

            def append(table: Table) -> bytes:
                spool.append(table)
                return b""

            async for _ in self.each(append):
                pass
            return spool.table()

    async def _portions(self) -> AsyncIterator[Iterator[Table]]:
        yield self.reader.feed(self.head)
        held: list[Body] = []
        self._tell_room()
        async for chunk in self.rest:
            held.append(chunk)
            if sum(map(len, held)) >= PORTION_BYTES:
                yield self.reader.feed(_joined(held))
                held.clear()
                self._tell_room()
        yield self.reader.feed(_joined(held))
        yield self.reader.end()

    def _tell_room(self) -> None:
        """Have the next bytes received where the reader wants them, if they are many."""
        room = self.reader.room
        if self.landing is not None and room is not None and len(room) >= PORTION_BYTES:
            self.landing.into(room)


async def read_payload(
    request: Request, *, extra_fields: frozenset[str], label_column: str | None = None
) -> DataPayload:
    """Read and decode a data body, a large one in another thread."""
    codec, expected = _announced(request, extra_fields)
    expected = replace(expected, label_column=label_column)
    return await _decoded(request, await _whole_body(request, codec, expected))


async def receive_whole(request: Request, *, extra_fields: frozenset[str]) -> WholeBody:
    """Read a data body."""
    return await _whole_body(request, *_announced(request, extra_fields))


async def receive(request: Request, *, extra_fields: frozenset[str]) -> WholeBody | ArrivingRows:
    """Read a body, of a large one only the beginning, if its format can be read in portions."""
    codec, expected = _announced(request, extra_fields)
    services = services_of(request)
    in_portions = Expected(
        extra_fields,
        expected.parameters,
        services.limits.require_shape,
        services.options.spool,
        n_bytes=known_length(request),
    )
    reader = codec.reader(in_portions)
    if reader is None:
        return await _whole_body(request, codec, expected)
    chunks = body_chunks(request, max_bytes=services.options.max_stream_bytes)
    landing = None if "content-encoding" in request.headers else landing_of(request.scope)
    head: Body = b""
    async for chunk in chunks:
        head = _joined([head, chunk]) if head else chunk
        if len(head) > PORTION_BYTES:
            return ArrivingRows(reader, head, chunks, landing, services)
    return WholeBody(codec, head, expected)


def is_decoded_at_once(n_bytes: int, codec: Codec) -> bool:
    """Tell whether a body is decoded sooner than handed to another thread."""
    if codec.unfolds:
        return False
    return n_bytes < (LARGE_BODY_BYTES if codec.is_text else LARGE_BINARY_BODY_BYTES)


async def read_training_payload(request: Request, *, extra_fields: frozenset[str]) -> DataPayload:
    """Read a data body of any size; rows that are too many for memory go to the disk."""
    received = await receive(request, extra_fields=extra_fields)
    if isinstance(received, WholeBody):
        return await _decoded(request, received)
    return DataPayload(await received.spooled())


def _announced(request: Request, extra_fields: frozenset[str]) -> tuple[Codec, Expected]:
    sent = content_type(request, CODECS, remark=REMARK)
    admit = services_of(request).limits.require_table
    return codec_of(sent.media_type), Expected(extra_fields, sent.parameters, admit)


async def _whole_body(request: Request, codec: Codec, expected: Expected) -> WholeBody:
    max_bytes = services_of(request).options.max_bytes(is_text=codec.is_text)
    return WholeBody(codec, await read_body(request, max_bytes=max_bytes), expected)


async def _decoded(request: Request, whole: WholeBody) -> DataPayload:
    if whole.is_small:
        return whole.decode()
    return await services_of(request).threads.compute(whole.decode)


def _joined(chunks: list[Body]) -> Body:
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _next_made(
    tables: Iterator[Table], work: Callable[[Table], T], lap: Callable[[str], None]
) -> T | None:
    lap("queue")
    gathered: list[Table] = []
    n_rows = 0
    for table in tables:
        gathered.append(table)
        n_rows += len(table.X)
        if n_rows >= FEW_ROWS:
            break
    lap("parse")
    return work(whole_table(gathered)) if gathered else None
