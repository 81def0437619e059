"""JSON with regular rows of numbers to an array, without an object for each number.

A SIMD parser reads the text and hands the numbers over as one buffer, three times as fast as a
parser that makes Python's numbers of them. What it does not check is that the rows are of one
length, that keys differ, and how deep it nests. So the bytes that structure the text are compared
with those that such a document must have; of a long text only those around the rows, and in the
rows, which are most of it, the commas between brackets are counted, 64 bytes at a time. Whatever
differs in anything is left to the plain way, which knows what to say about it.
"""

import numpy as np
import simdjson
from numpy.typing import NDArray

from service.api.payloads.json_document import JsonValue

LEAST_BYTES = 1024
"""A shorter body is read as fast by the plain parser."""
LONG_BYTES = 64 * 1024
"""Of a longer body the structure of the rows is not written out (measured: 60 µs to 4 for 8 KB, but
600 to 1,000 for 850)."""
STRUCTURE = b'[]{},:"\\'
NOT_STRUCTURE = bytes(byte for byte in range(256) if byte not in STRUCTURE)

OPENING, CLOSING, COMMA = b"[],"
WORD_BITS, WORD_SHIFT, WORD_REST = 64, 6, 63
ONE = np.uint64(1)

Fields = dict[str, JsonValue]


class NotRegular(Exception):
    """The text is anything but an object of one level with regular rows in it."""


def regular_rows(body: bytes, row_fields: tuple[str, ...]) -> tuple[Fields, NDArray[np.float64]]:
    """Return the fields, of the one with the rows only the name, and the rows.

    Raises ``NotRegular``, and for what is too short to gain from it.
    """
    if len(body) < LEAST_BYTES:
        raise NotRegular
    try:
        return _regular_rows(simdjson.Parser().parse(body), body, row_fields)
    except (ValueError, RuntimeError, TypeError, KeyError, IndexError) as error:
        raise NotRegular from error


def _regular_rows(
    document: object, body: bytes, row_fields: tuple[str, ...]
) -> tuple[Fields, NDArray[np.float64]]:
    if not isinstance(document, simdjson.Object):
        raise NotRegular
    names = list(document.keys())
    (row_field,) = [name for name in names if name in row_fields]
    rows = _array(document[row_field])
    shape = len(rows), len(_array(rows[0]))
    if not all(shape):
        raise NotRegular
    fields = {name: None if name == row_field else _plain(document[name]) for name in names}
    expected = {name: _structure_of(value) for name, value in fields.items()}
    expected[row_field] = b"[]"
    if len(body) < LONG_BYTES:
        structured = body
        expected[row_field] = _structure_of_rows(shape)
    else:
        begin, end = _place_of_rows(body, row_field, shape)
        structured = body[: begin + 1] + body[end:]
    whole = b"{" + b",".join([b'"":' + expected[name] for name in names]) + b"}"
    if len(fields) < len(names) or structured.translate(None, NOT_STRUCTURE) != whole:
        raise NotRegular
    return fields, np.frombuffer(rows.as_buffer(of_type="d"), dtype=np.float64).reshape(shape)


def _structure_of_rows(shape: tuple[int, int]) -> bytes:
    n_rows, n_columns = shape
    row = b"[" + b"," * (n_columns - 1) + b"]"
    return b"[" + b",".join([row] * n_rows) + b"]"


def _place_of_rows(body: bytes, name: str, shape: tuple[int, int]) -> tuple[int, int]:
    """Return where the outer brackets of regular rows are; of what is known to be JSON.

    The name may stand in a string before; then what is found is not what is looked for, and what
    is around it not what it should be.
    """
    n_rows, n_columns = shape
    begin = body.index(b"[", body.index(b'"%s"' % name.encode()))
    text = np.frombuffer(body, dtype=np.uint8)[begin:]
    closed = Marks(text == CLOSING).places()
    if len(closed) <= n_rows:
        raise NotRegular
    closed, end = closed[:n_rows], int(closed[n_rows])
    ordinals = np.arange(1, n_rows + 1)
    are_rows = (
        # At the end of a row as many others have begun as have ended: none stands in another.
        bool((Marks(text == OPENING).counted_before(closed) == ordinals + 1).all())
        and bool((Marks(text == COMMA).counted_before(closed) == n_columns * ordinals - 1).all())
        and not body[begin + int(closed[-1]) + 1 : begin + end].strip()
        and body.find(b"{", begin, begin + end) < 0
        and body.find(b'"', begin, begin + end) < 0
    )
    if not are_rows:
        raise NotRegular
    return begin, begin + end


class Marks:
    """Bytes of a text that are marked, as a bit each."""

    def __init__(self, are_marked: NDArray[np.bool_]) -> None:
        self._bits = np.zeros(len(are_marked) // WORD_BITS + 1, dtype=np.uint64)
        packed = np.packbits(are_marked, bitorder="little")
        self._bits.view(np.uint8)[: len(packed)] = packed

    def places(self) -> NDArray[np.int64]:
        """Return where they are: of each word its lowest, as long as there is one."""
        found = []
        words, left = np.flatnonzero(self._bits), self._bits
        left = left[words]
        while len(words):
            found.append(WORD_BITS * words + np.bitwise_count(~left & (left - ONE)))
            left &= left - ONE
            words, left = words[left != 0], left[left != 0]
        places: NDArray[np.int64] = np.concatenate(found) if found else words
        places.sort(kind="stable")
        return places

    def counted_before(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return how many there are before each of the places."""
        in_words = np.bitwise_count(self._bits)
        before = np.cumsum(in_words, dtype=np.int64) - in_words
        words = places >> WORD_SHIFT
        lower = self._bits[words] & ((ONE << (places & WORD_REST).view(np.uint64)) - ONE)
        counted: NDArray[np.int64] = before[words] + np.bitwise_count(lower)
        return counted


def _array(value: object) -> simdjson.Array:
    if not isinstance(value, simdjson.Array):
        raise NotRegular
    return value


def _plain(value: object) -> JsonValue:
    plain: JsonValue = value.as_list() if isinstance(value, simdjson.Array) else value  # type: ignore[assignment]  # no object: its structure would differ
    return plain


def _structure_of(value: JsonValue) -> bytes:
    if isinstance(value, str):
        return b'""'
    if not isinstance(value, list):
        return b""
    if all(isinstance(item, str) for item in value):
        return b"[" + b",".join([b'""'] * len(value)) + b"]"
    return b"[" + b"," * (len(value) - 1) + b"]"
