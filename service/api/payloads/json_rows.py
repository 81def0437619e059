"""JSON with regular rows of numbers to an array, without an object for each number.

A SIMD parser reads the text and hands the numbers over as one buffer, three times as fast as a
parser that makes Python's numbers of them. What it does not check is that the rows are of one
length, that keys differ, and how deep it nests: so the bytes that structure the text are compared
with those that such a document must have. Whatever differs in anything is left to the plain way,
which knows what to say about it.
"""

import numpy as np
import simdjson
from numpy.typing import NDArray

from service.api.payloads.json_document import JsonValue

LEAST_BYTES = 4096
"""A shorter body is read as fast by the plain parser."""
STRUCTURE = b'[]{},:"\\'
NOT_STRUCTURE = bytes(byte for byte in range(256) if byte not in STRUCTURE)

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
    expected[row_field] = _structure_of_rows(*shape)
    whole = b"{" + b",".join(b'"":' + expected[name] for name in names) + b"}"
    if len(fields) < len(names) or body.translate(None, NOT_STRUCTURE) != whole:
        raise NotRegular
    return fields, np.frombuffer(rows.as_buffer(of_type="d"), dtype=np.float64).reshape(shape)


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


def _structure_of_rows(n_rows: int, n_columns: int) -> bytes:
    row = b"[" + b"," * (n_columns - 1) + b"]"
    return b"[" + b",".join([row] * n_rows) + b"]"
