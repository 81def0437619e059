"""Data as NumPy's NPY: one array a body. Nothing is ever unpickled.

An answer of one field is that array; one of several is an array with a field for each.
"""

import ast
import math
import re
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO

import numpy as np
from numpy.typing import NDArray

from service.api.payloads.incoming import Incoming
from service.api.payloads.values import Body, DataAnswer, DataPayload, Expected, RowReader
from service.domain.data import Table
from service.errors import InvalidInput

MAGIC = b"\x93NUMPY"
LENGTHS = {b"\x01\x00": "<H", b"\x02\x00": "<I", b"\x03\x00": "<I"}
"""By version: how the length of the header is written."""
LONGEST_LENGTH = max(map(struct.calcsize, LENGTHS.values()))
PREFIX_BYTES = 8
MAX_HEADER_BYTES = 10_000
MOST_HEAD_BYTES = PREFIX_BYTES + LONGEST_LENGTH + MAX_HEADER_BYTES
KEPT_HEADERS = 64
"""Clients send few different ones, each of them often; what they say is kept."""
NUMBERS = re.compile(r"[<>=|]?[iuf][0-9]{1,2}")
"""As types are described. NumPy knows other names, and warns of some."""
WRONG_LENGTH = "the number of its bytes is not what its header says"
PORTION_BYTES = 4 * 1024**2


@dataclass(frozen=True, slots=True)
class Header:
    dtype: np.dtype[np.float64]
    shape: tuple[int, int]
    is_fortran: bool

    @property
    def row_bytes(self) -> int:
        return self.dtype.itemsize * self.shape[1]

    @property
    def n_bytes(self) -> int:
        return self.row_bytes * self.shape[0]


class NpyReader:
    room = None

    def __init__(self, expected: Expected) -> None:
        self._expected = expected
        self._incoming = Incoming()
        self._header: Header | None = None
        self._rows_read = 0

    def feed(self, data: Body) -> Iterator[Table]:
        self._incoming.add(data)
        if self._header is None:
            self._header = self._take_header()
        header = self._header
        if header is not None:
            yield from self._whole_rows(header)

    def end(self) -> Iterator[Table]:
        header = self._header
        if header is None or self._rows_read < header.shape[0] or len(self._incoming):
            raise _not_whole(WRONG_LENGTH)
        yield from ()

    def _take_header(self) -> Header | None:
        if len(self._incoming) < PREFIX_BYTES + LONGEST_LENGTH:
            return None
        header, n_bytes = _header_of(self._incoming.peek(MOST_HEAD_BYTES))
        if header is None:
            return None
        self._expected.admit(*header.shape)
        if self._expected.n_bytes not in (None, n_bytes + header.n_bytes):
            raise _not_whole(WRONG_LENGTH)
        self._incoming.take(n_bytes)
        return header

    def _whole_rows(self, header: Header) -> Iterator[Table]:
        rows_left = header.shape[0] - self._rows_read
        n_rows = min(rows_left, len(self._incoming) // header.row_bytes)
        if len(self._incoming) > header.row_bytes * rows_left:
            raise _not_whole("it holds more bytes than its header says")
        if not n_rows or (header.is_fortran and n_rows < header.shape[0]):
            return
        self._rows_read += n_rows
        yield Table(_array(self._incoming.take(n_rows * header.row_bytes), header, n_rows))


class NpyCodec:
    media_type = "application/x-npy"
    is_text = False
    unfolds = False

    def decode(self, body: Body, expected: Expected) -> DataPayload:
        header, n_bytes = _header_of(body)
        if header is None or len(body) - n_bytes != header.n_bytes:
            raise _not_whole(WRONG_LENGTH)
        expected.label_place(None)  # it has no names
        expected.admit(*header.shape)
        content = memoryview(body)[n_bytes:]
        return DataPayload(Table(_array(content, header, header.shape[0])))

    def reader(self, expected: Expected) -> RowReader:
        return NpyReader(expected)

    def writer(self) -> None:
        """Return None: the header tells the number of rows."""

    def encode(self, answer: DataAnswer) -> bytes:
        return b"".join(self.pieces(answer))

    def pieces(self, answer: DataAnswer) -> Sequence[Body]:
        return _head_and_content(answer)

    def encode_in_parts(self, answer: DataAnswer) -> Iterator[bytes]:
        head, content = _head_and_content(answer)
        yield head
        for begin in range(0, len(content), PORTION_BYTES):
            yield bytes(content[begin : begin + PORTION_BYTES])


CODEC = NpyCodec()


def _head_and_content(answer: DataAnswer) -> tuple[bytes, memoryview]:
    array = _one_array(answer)
    head = BytesIO()
    np.lib.format.write_array_header_1_0(head, np.lib.format.header_data_from_array_1_0(array))
    return head.getvalue(), array.reshape(-1).view(np.uint8).data


def _one_array(answer: DataAnswer) -> NDArray[np.void] | NDArray[np.float64] | NDArray[np.int64]:
    arrays = {name: np.asarray(value) for name, value in answer.values.items()}
    if len(arrays) == 1:
        return np.ascontiguousarray(next(iter(arrays.values())))
    fields = [(name, array.dtype, array.shape[1:]) for name, array in arrays.items()]
    rows = np.empty(answer.n_rows, dtype=fields)
    for name, array in arrays.items():
        rows[name] = array
    return rows


def _header_of(body: Body) -> tuple[Header | None, int]:
    """Return the header and its length; None as long as it is not whole."""
    prefix = bytes(body[:12])
    length_form = LENGTHS.get(prefix[len(MAGIC) : PREFIX_BYTES])
    if not prefix.startswith(MAGIC) or length_form is None:
        raise _not_whole("it does not begin like one")
    begin = PREFIX_BYTES + struct.calcsize(length_form)
    if len(prefix) < begin:
        raise _not_whole("it ends in its header")
    (length,) = struct.unpack_from(length_form, prefix, PREFIX_BYTES)
    if length > MAX_HEADER_BYTES:
        raise _not_whole("its header is too long")
    if len(body) < begin + length:
        return None, 0
    return _parsed(bytes(body[begin : begin + length])), begin + length


@lru_cache(KEPT_HEADERS)
def _parsed(text: bytes) -> Header:
    try:
        fields = ast.literal_eval(text.decode("utf-8").strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
        raise _not_whole("its header can't be read") from error
    if not isinstance(fields, dict) or set(fields) != {"descr", "fortran_order", "shape"}:
        raise _not_whole("its header does not have the fields it should have")
    is_fortran = fields["fortran_order"]
    if not isinstance(is_fortran, bool):
        raise _not_whole("its header does not tell the order of its numbers")
    return Header(_dtype(fields["descr"]), _shape(fields["shape"]), is_fortran)


def _dtype(described: object) -> np.dtype[np.float64]:
    if isinstance(described, str) and NUMBERS.fullmatch(described):
        with suppress(TypeError):  # of a size that there is not
            return np.dtype(described)
    raise InvalidInput(
        "invalid_data", "the array must hold integers or floating-point numbers, nothing else"
    )


def _shape(described: object) -> tuple[int, int]:
    if not isinstance(described, tuple) or not all(
        type(length) is int and 0 <= length < 2**48 for length in described
    ):
        raise _not_whole("its header does not tell a shape")
    if len(described) != 2:
        raise InvalidInput(
            "invalid_data",
            f"the array has {len(described)} dimensions but must have two (rows, columns); "
            "a single row is X[np.newaxis], a single column X[:, np.newaxis]",
        )
    n_rows, n_columns = described
    if not math.prod(described):
        raise InvalidInput("empty_data", "there must be at least one row and one column")
    return n_rows, n_columns


def _array(content: Body, header: Header, n_rows: int) -> NDArray[np.float64]:
    flat = np.frombuffer(content, dtype=header.dtype)
    n_columns = header.shape[1]
    X = flat.reshape(n_columns, n_rows).T if header.is_fortran else flat.reshape(n_rows, n_columns)
    kept = np.float32 if header.dtype == np.float32 else np.float64
    with np.errstate(over="ignore"):  # wider numbers become infinite, and are refused as that
        return np.ascontiguousarray(X, dtype=kept)


def _not_whole(why: str) -> InvalidInput:
    return InvalidInput("invalid_file", f"the body is not a whole NPY file: {why}")
