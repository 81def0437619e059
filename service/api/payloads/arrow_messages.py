"""The messages of an Arrow IPC stream: how they are framed, and what their metadata claims."""

import struct
from dataclasses import dataclass, replace

from service.api.payloads.arrow_columns import not_whole
from service.api.payloads.values import Body

KIND = "Arrow IPC stream"
PAIR = struct.Struct("<qq")
CONTINUATION = 0xFFFFFFFF
PREFIX = struct.Struct("<II")
END = PREFIX.pack(CONTINUATION, 0)
SCHEMA, DICTIONARY_BATCH, RECORD_BATCH = 1, 2, 3
"""Kinds of a message: MessageHeader of the format's Message.fbs."""
VERSION, HEADER_TYPE, HEADER, BODY_LENGTH = range(4)
"""Fields of a Message, in their order there."""
LENGTH, NODES, BUFFERS, COMPRESSION = range(4)
"""Fields of a RecordBatch."""
ENDIANNESS = 0
"""Field of a Schema."""
LITTLE = 0
DATA = 1
"""Field of a DictionaryBatch: a RecordBatch."""


@dataclass(frozen=True, slots=True)
class Message:
    kind: int
    body_length: int
    n_rows: int = 0
    is_compressed: bool = False
    is_big_endian: bool = False
    """Of a schema: the numbers that follow are."""
    content: Body = b""

    @classmethod
    def of(cls, metadata: bytes) -> "Message":
        try:
            message = FlatTable.root_of(metadata)
            kind = message.number(HEADER_TYPE, "<B")
            header = message.table(HEADER)
            n_rows, is_compressed, is_big_endian = 0, False, False
            if kind == SCHEMA and header is not None:
                is_big_endian = header.number(ENDIANNESS, "<h") != LITTLE
            if kind == DICTIONARY_BATCH and header is not None:
                header = header.table(DATA)
            if kind in {DICTIONARY_BATCH, RECORD_BATCH} and header is not None:
                n_rows = header.number(LENGTH, "<q") if kind == RECORD_BATCH else 0
                is_compressed = header.table(COMPRESSION) is not None
            body_length = message.number(BODY_LENGTH, "<q")
        except struct.error as error:
            raise not_whole(KIND) from error
        if n_rows < 0 or body_length < 0:
            raise not_whole(KIND)
        return cls(kind, body_length, n_rows, is_compressed, is_big_endian)

    def with_content(self, content: Body) -> "Message":
        return replace(self, content=content)


@dataclass(frozen=True, slots=True)
class FlatTable:
    """A table of a FlatBuffer: just enough to learn how much a message claims to hold."""

    data: bytes
    place: int

    @classmethod
    def root_of(cls, data: bytes) -> "FlatTable":
        return cls(data, struct.unpack_from("<I", data)[0])

    def number(self, field: int, form: str) -> int:
        at = self._field(field)
        return 0 if at is None else int(struct.unpack_from(form, self.data, at)[0])

    def pairs(self, field: int) -> list[tuple[int, int]]:
        """Return a vector of structures that are two numbers of eight bytes each."""
        at = self._field(field)
        if at is None:
            return []
        begin = at + int(struct.unpack_from("<I", self.data, at)[0])
        (count,) = struct.unpack_from("<I", self.data, begin)
        end = begin + 4 + PAIR.size * count
        if end > len(self.data):
            raise struct.error
        return [(int(a), int(b)) for a, b in PAIR.iter_unpack(self.data[begin + 4 : end])]

    def table(self, field: int) -> "FlatTable | None":
        at = self._field(field)
        if at is None:
            return None
        return FlatTable(self.data, at + int(struct.unpack_from("<I", self.data, at)[0]))

    def _field(self, field: int) -> int | None:
        vtable = self.place - int(struct.unpack_from("<i", self.data, self.place)[0])
        if vtable < 0:
            raise struct.error
        (size,) = struct.unpack_from("<H", self.data, vtable)
        entry = 4 + 2 * field
        if entry >= size:
            return None
        (offset,) = struct.unpack_from("<H", self.data, vtable + entry)
        return self.place + int(offset) if offset else None
