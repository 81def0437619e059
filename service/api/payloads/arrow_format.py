"""Data as a stream of Arrow record batches (the IPC streaming format).

The messages are framed here, so that each is decoded as soon as it is whole and the rows that it
claims are known before; what is in a message is Arrow's own business. Compressed batches are
refused: what they unfold to is only known afterwards. A body may be compressed as a whole.
"""

from collections.abc import Iterator, Sequence

import pyarrow as pa

from service.api.payloads.arrow_columns import Columns, batch_of, not_whole, refusals
from service.api.payloads.arrow_messages import (
    CONTINUATION,
    DICTIONARY_BATCH,
    END,
    KIND,
    PREFIX,
    RECORD_BATCH,
    SCHEMA,
    Message,
)
from service.api.payloads.arrow_plain import pieces_in_place, table_in_place
from service.api.payloads.incoming import Incoming
from service.api.payloads.values import (
    Body,
    DataAnswer,
    DataPayload,
    Expected,
    StreamCodec,
)
from service.domain.data import Table
from service.errors import InvalidInput

MAX_METADATA_BYTES = 16 * 1024**2
MOST_RESERVED_BYTES = 2**30
"""For a message, by what it says; what is longer is joined when it is there."""


class ArrowReader:
    def __init__(self, expected: Expected) -> None:
        self._expected = expected
        self._incoming = Incoming()
        self._schema: pa.Schema | None = None
        self._columns: Columns | None = None
        self._kept: list[Body] | None = None
        """The messages of a stream whose labels have a dictionary: it may come after some rows."""
        self._foreign: Body | None = None
        """The message of a schema whose numbers are big-endian."""
        self._rows_read = 0
        self._is_over = False

    @property
    def room(self) -> memoryview | None:
        return self._incoming.room

    def feed(self, data: Body) -> Iterator[Table]:
        self._incoming.add(data)
        while (message := self._next_message()) is not None:
            yield from self._tables(message)

    def end(self) -> Iterator[Table]:
        if len(self._incoming) or self._columns is None:
            raise not_whole(KIND)
        if self._kept is not None:
            with refusals(KIND):
                batches = list(pa.ipc.open_stream(b"".join(self._kept)))
            for batch in batches:
                yield from self._columns.tables(batch)

    def _next_message(self) -> "Message | None":
        if len(self._incoming) < PREFIX.size:
            return None
        marker, n_metadata = PREFIX.unpack(self._incoming.peek(PREFIX.size))
        if self._is_over or marker != CONTINUATION or n_metadata > MAX_METADATA_BYTES:
            raise not_whole(KIND)
        if not n_metadata:
            self._is_over = True
            self._incoming.take(PREFIX.size)
            return self._next_message() if len(self._incoming) else None
        begin = PREFIX.size + n_metadata
        if len(self._incoming) < begin:
            return None
        message = Message.of(self._incoming.peek(begin)[PREFIX.size :])
        if len(self._incoming) < begin + message.body_length:
            self._announce(message)
            if message.body_length <= MOST_RESERVED_BYTES:
                with refusals(KIND):
                    self._incoming.reserve(begin + message.body_length)
            return None
        with refusals(KIND):
            content = self._incoming.take(begin + message.body_length)
        return message.with_content(content)

    def _announce(self, message: "Message") -> None:
        """Refuse what is too large before it has arrived."""
        if message.kind == RECORD_BATCH and self._columns is not None:
            self._expected.admit(self._rows_read + message.n_rows, len(self._columns.places))

    def _tables(self, message: "Message") -> Iterator[Table]:
        if message.kind == SCHEMA and self._schema is None:
            with refusals(KIND):
                self._schema = pa.ipc.read_schema(pa.py_buffer(message.content))
                names = self._schema.names  # not in UTF-8, maybe
            self._foreign = message.content if message.is_big_endian else None
            place = self._expected.label_place(names)
            self._columns = Columns(self._schema, place)
            if place is not None and pa.types.is_dictionary(self._schema.types[place]):
                self._kept = [message.content]
            return
        kinds = {RECORD_BATCH} if self._kept is None else {RECORD_BATCH, DICTIONARY_BATCH}
        if self._columns is None or message.kind not in kinds:
            raise not_whole(KIND)
        if message.is_compressed:
            raise InvalidInput(
                "invalid_data",
                "compressed record batches are not taken; compress the body as a whole instead",
            )
        self._announce(message)
        self._rows_read += message.n_rows
        if self._kept is not None:
            self._kept.append(message.content)
            return
        with refusals(KIND):
            batch = self._batch(message.content)
            batch.validate()
        yield from self._columns.tables(batch)

    def _batch(self, content: Body) -> pa.RecordBatch:
        if self._foreign is None:
            return pa.ipc.read_record_batch(pa.py_buffer(content), self._schema)
        whole = b"".join([self._foreign, content])  # bytes are only swapped in a stream
        return pa.ipc.open_stream(whole).read_next_batch()


class ArrowWriter:
    def __init__(self) -> None:
        self._has_begun = False

    def write(self, answer: DataAnswer) -> bytes:
        schema, batch = _messages(answer)
        if self._has_begun:
            return bytes(batch)
        self._has_begun = True
        return b"".join([schema, batch])

    def end(self) -> bytes:
        return END


class ArrowCodec(StreamCodec):
    """Reads and writes columns of doubles where they lie, if that is all there is."""

    def decode(self, body: Body, expected: Expected) -> DataPayload:
        table = table_in_place(body, expected)
        return super().decode(body, expected) if table is None else DataPayload(table)

    def pieces(self, answer: DataAnswer) -> Sequence[Body]:
        plain = pieces_in_place(answer)
        if plain is not None:
            return plain
        return [*(memoryview(message) for message in _messages(answer)), END]


CODEC = ArrowCodec("application/vnd.apache.arrow.stream", ArrowReader, ArrowWriter)


def _messages(answer: DataAnswer) -> tuple[pa.Buffer, pa.Buffer]:
    """Return the message of the schema and that of the rows."""
    batch = batch_of(answer)
    return batch.schema.serialize(), batch.serialize()
