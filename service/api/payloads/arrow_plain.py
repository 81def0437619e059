"""Columns of numbers in an Arrow stream, read and written where they lie.

Most streams that are answered are one batch of doubles without gaps. Its columns stand one behind
the other, as the engine takes them, too; so do those of its answer. Clients send the same metadata
again and again, and what they say is kept. Whatever else there is in a stream is for Arrow itself.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
import pyarrow as pa

from service.api.payloads.arrow_columns import INDEX_COLUMN, batch_of
from service.api.payloads.arrow_messages import (
    BUFFERS,
    CONTINUATION,
    END,
    HEADER,
    NODES,
    PREFIX,
    RECORD_BATCH,
    SCHEMA,
    VERSION,
    FlatTable,
    Message,
)
from service.api.payloads.values import Body, DataAnswer, Expected, Value, columns_of
from service.domain.data import Table
from service.errors import InvalidInput

KEPT_METADATA = 64
MOST_METADATA_BYTES = 16 * 1024
"""What is longer is not kept."""
VERSIONS = (3, 4)
"""V4 and V5 of the format, which have the same batches of numbers."""
NUMBER_BYTES = 8
KINDS = ("d", "l")


@dataclass(frozen=True, slots=True)
class Layout:
    """Of a batch: where the numbers of its columns begin in its body."""

    n_rows: int
    places: tuple[int, ...]
    n_bytes: int
    """Of the body."""

    @property
    def stride(self) -> int | None:
        """Bytes from each column to the next; None where they differ or overlap."""
        steps = {after - before for before, after in pairwise(self.places)}
        step = steps.pop() if steps else NUMBER_BYTES * self.n_rows
        return None if steps or step < NUMBER_BYTES * self.n_rows else step


def table_in_place(body: Body, expected: Expected) -> Table | None:
    """Return the rows of a stream that is one batch of doubles without gaps, else None."""
    if expected.label_column is not None:
        return None
    whole = memoryview(body)
    head = _metadata(whole)
    names = None if head is None else _names(head)
    if head is None or names is None:
        return None
    begin = PREFIX.size + len(head)
    metadata = _metadata(whole[begin:])
    layout = None if metadata is None else _layout(metadata, len(names))
    if metadata is None or layout is None or layout.stride is None:
        return None
    begin += PREFIX.size + len(metadata)
    end = begin + layout.n_bytes
    is_all = len(whole) == end or (len(whole) == end + len(END) and whole[end:] == END)
    if not is_all or not _is_sound(head, metadata, layout.n_bytes):
        return None
    expected.admit(layout.n_rows, len(names))
    X = np.ndarray(
        (layout.n_rows, len(names)),
        np.float64,
        buffer=whole,
        offset=begin + layout.places[0],
        strides=(NUMBER_BYTES, layout.stride),
    )
    return Table(X, names) if X.flags.aligned else None


def pieces_in_place(answer: DataAnswer) -> Sequence[Body] | None:
    """Return an answer of finite numbers as a stream whose batch is its own columns, else None."""
    if not all(map(_is_plain, answer.values.values())):
        return None
    columns = {name: np.ascontiguousarray(value) for name, value in columns_of(answer).items()}
    n_rows = answer.n_rows
    if any(column.shape != (n_rows,) for column in columns.values()):
        return None
    kinds = tuple(column.dtype.char for column in columns.values())
    head, layout = _head(answer.model, answer.version, tuple(columns), kinds, n_rows)
    if layout is None:
        return None
    pieces: list[Body] = [head]
    at = 0
    for place, column in zip(layout.places, columns.values(), strict=True):
        pieces += [bytes(place - at), column.view(np.uint8).data]
        at = place + column.nbytes
    return [*pieces, bytes(layout.n_bytes - at), END]


def _metadata(whole: memoryview) -> bytes | None:
    """Return the metadata of the message that begins here."""
    if len(whole) < PREFIX.size:
        return None
    marker, n_bytes = PREFIX.unpack_from(whole)
    if marker != CONTINUATION or not 0 < n_bytes <= MOST_METADATA_BYTES:
        return None
    metadata = bytes(whole[PREFIX.size : PREFIX.size + n_bytes])
    return metadata if len(metadata) == n_bytes else None


@lru_cache(KEPT_METADATA)
def _names(metadata: bytes) -> tuple[str, ...] | None:
    """Return the names of the columns if a schema has nothing but doubles."""
    try:
        message = Message.of(metadata)
        if message.kind != SCHEMA or message.body_length or message.is_big_endian:
            return None
        schema = _schema(metadata)
        names = tuple(map(str, schema.names))
    except (InvalidInput, struct.error, pa.ArrowException, OSError, UnicodeDecodeError):
        return None
    are_doubles = all(map(pa.types.is_float64, schema.types))
    return None if not are_doubles or any(map(INDEX_COLUMN.fullmatch, names)) else names


def _schema(metadata: bytes) -> pa.Schema:
    return pa.ipc.read_schema(pa.py_buffer(_framed(metadata)))


def _framed(metadata: bytes) -> bytes:
    return PREFIX.pack(CONTINUATION, len(metadata)) + metadata


@lru_cache(KEPT_METADATA)
def _is_sound(schema: bytes, metadata: bytes, n_bytes: int) -> bool:
    """Say whether Arrow reads a batch with this metadata, whatever numbers are in it."""
    head = _framed(metadata)
    message = np.zeros(len(head) + n_bytes, dtype=np.uint8)  # pages that nobody looks at are none
    message[: len(head)] = np.frombuffer(head, dtype=np.uint8)
    try:
        pa.ipc.read_record_batch(pa.py_buffer(message), _schema(schema)).validate()
    except (pa.ArrowException, OSError, MemoryError):
        return False
    return True


@lru_cache(KEPT_METADATA)
def _layout(metadata: bytes, n_columns: int) -> Layout | None:
    """Return where a batch has its numbers of eight bytes, if none is missing."""
    try:
        message = Message.of(metadata)
        root = FlatTable.root_of(metadata)
        header = root.table(HEADER)
        is_known = root.number(VERSION, "<h") in VERSIONS
        if message.kind != RECORD_BATCH or message.is_compressed or not is_known or header is None:
            return None
        nodes, buffers = header.pairs(NODES), header.pairs(BUFFERS)
    except (InvalidInput, struct.error):
        return None
    n_rows, n_bytes = message.n_rows, message.body_length
    has_all = nodes == [(n_rows, 0)] * n_columns and len(buffers) == 2 * n_columns
    if not (n_rows and n_columns and has_all):
        return None
    least = NUMBER_BYTES * n_rows
    numbers = buffers[1::2]
    if not all(0 <= at <= at + least <= n_bytes and size >= least for at, size in numbers):
        return None
    return Layout(n_rows, tuple(at for at, _ in numbers), n_bytes)


@lru_cache(KEPT_METADATA)
def _head(
    model: str, version: int, names: tuple[str, ...], kinds: tuple[str, ...], n_rows: int
) -> tuple[bytes, Layout | None]:
    """Return all that comes before a batch's numbers, and where these belong behind it.

    None where there are too many columns to keep that.
    """
    values: dict[str, Value] = {
        name: np.zeros(n_rows, dtype=kind) for name, kind in zip(names, kinds, strict=True)
    }
    batch = batch_of(DataAnswer(model, version, values))
    written = batch.serialize()
    metadata = _metadata(memoryview(written))
    layout = None if metadata is None else _layout(metadata, len(names))
    if metadata is None:
        return b"", None
    begin = written[: PREFIX.size + len(metadata)]
    head = b"".join([batch.schema.serialize(), begin])
    return head, layout


def _is_plain(value: Value) -> bool:
    """Say whether it is an array of numbers, of which none is missing."""
    if not isinstance(value, np.ndarray) or value.dtype.char not in KINDS or not value.size:
        return False
    return value.dtype.char == "l" or bool(np.isfinite(value).all())
