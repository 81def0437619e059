"""Data as JSON: ``X``, ``instances``, or ``columns`` with ``data`` (pandas ``orient="split"``).

Rows are checked in passes over whole columns of types, never as one object a number.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice

import numpy as np
import orjson
from numpy.typing import NDArray

from service.api.payloads.json_document import JsonValue, parse_json
from service.api.payloads.json_rows import STAND_IN, NotRegular, key_before_array, parse_apart
from service.api.payloads.numerals import FEW_NUMBERS, write_numbers
from service.api.payloads.values import (
    PART_NUMBERS,
    Body,
    DataAnswer,
    DataPayload,
    Expected,
    JsonSchema,
    RowWriter,
    Value,
    require_labels,
)
from service.domain.data import Label, Origin, Table, beside, require_as_many
from service.errors import MAX_NAMED_ISSUES, InvalidInput, Issue

ROW_FIELDS = ("X", "instances", "data")
NAMES_OF = {"X": "feature_names", "instances": "feature_names", "data": "columns"}
"""The field with the names of the columns, by that of the rows."""
ORIGINS = {field: Origin(field, names) for field, names in NAMES_OF.items()}
KEY_OF_ROWS = key_before_array(*ROW_FIELDS)
NUMBERS = frozenset({int, float})
"""Exact types: a bool is an int to ``isinstance``."""

MAX_FIELDS = 64
"""A body with more fields than this is refused without naming them."""


class JsonWriter:
    """Of answers of one field: several stand one after the other, not row by row."""

    def __init__(self) -> None:
        self._has_begun = False

    def write(self, answer: DataAnswer) -> bytes:
        ((name, value),) = answer.values.items()
        rows = _text(value)[1:-1]
        if self._has_begun:
            return b"".join([b",", rows])
        self._has_begun = True
        return b"".join([_head(answer), b",", dumps(name), b":[", rows])

    def end(self) -> bytes:
        return b"]}"


class JsonCodec:
    media_type = "application/json"
    is_text = True
    unfolds = False

    def decode(self, body: Body, expected: Expected) -> DataPayload:
        document, rows = _read(body, has_labels_in_rows=expected.label_column is not None)
        if rows is not None and len(document) == 1:
            expected.admit(*rows.shape)
            return DataPayload(Table(rows, origin=ORIGINS[next(iter(document))]))
        field = _row_field(document)
        _require_known_fields(document, field, expected.extra_fields)
        origin = ORIGINS[field]
        names, labels = _feature_names(document, origin.names), _labels(document)
        place = expected.label_place(names, origin.names)
        if rows is not None:
            X = rows
        elif place is None or names is None:
            X = matrix(document[field], f"#/{field}")
        else:
            _require_as_many(len(names), document[field], origin)
            X, labels = labelled_matrix(
                document[field], f"#/{field}", place=place, n_columns=len(names)
            )
            origin = beside(place, len(names), origin)
            names = names[:place] + names[place + 1 :]
        expected.admit(*X.shape)
        return DataPayload(
            table=Table(X, names, labels=labels, origin=origin),
            sample_weight=_sample_weight(document),
            model=_model(document),
        )

    def encode(self, answer: DataAnswer) -> bytes:
        return b"".join(self.pieces(answer))

    def pieces(self, answer: DataAnswer) -> Sequence[Body]:
        if answer.n_numbers < FEW_NUMBERS:  # as write_numbers does it, but in one go
            values = {name: contiguous(value) for name, value in answer.values.items()}
            return (dumps({"model": answer.model, "version": answer.version, **values}),)
        texts = ((b",", dumps(name), b":", _text(value)) for name, value in answer.values.items())
        return [_head(answer), *chain.from_iterable(texts), b"}"]

    def encode_in_parts(self, answer: DataAnswer) -> Iterator[bytes]:
        yield _head(answer)
        for name, value in answer.values.items():
            yield b"," + dumps(name) + b":"
            if isinstance(value, np.ndarray):
                yield from _array_in_parts(value)
            else:
                yield dumps(value)
        yield b"}"

    def reader(self, expected: Expected) -> None:
        """Return None: the rows may stand behind what says how to read them."""

    def writer(self) -> RowWriter:
        return JsonWriter()


CODEC = JsonCodec()


def _read(
    body: Body, *, has_labels_in_rows: bool
) -> tuple[dict[str, JsonValue], NDArray[np.float64] | None]:
    """Return the document, and its rows if they could be read without an object for each number."""
    if not has_labels_in_rows:
        try:
            return _with_rows_apart(body)
        except NotRegular:
            pass
    document = parse_json(bytes(body))
    if not isinstance(document, dict):
        raise _invalid("#", "wrong_type", "the body must be a JSON object")
    return document, None


def _with_rows_apart(body: Body) -> tuple[dict[str, JsonValue], NDArray[np.float64]]:
    document, rows = parse_apart(body, KEY_OF_ROWS)
    is_whole = isinstance(document, dict) and STAND_IN in map(document.get, ROW_FIELDS)
    if not isinstance(document, dict) or not is_whole or rows.ndim < 2:
        raise NotRegular
    return document, rows


def request_schema(*, extra_fields: frozenset[str]) -> JsonSchema:
    names = [*ROWS_SCHEMA, *(name for name in EXTRA_SCHEMA if name in extra_fields)]
    schemas = {**ROWS_SCHEMA, **EXTRA_SCHEMA}
    return {
        "type": "object",
        "description": "Rows as `X`, as `instances`, or as `columns` with `data`: exactly one.",
        "properties": {name: schemas[name] for name in names},
        "oneOf": [{"required": [name]} for name in ROW_FIELDS],
        "additionalProperties": False,
    }


def dumps(value: object) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def contiguous(value: Value) -> object:
    """Return what orjson writes: no other arrays; a contiguous one is not copied."""
    return np.ascontiguousarray(value) if isinstance(value, np.ndarray) else value


def _head(answer: DataAnswer) -> bytes:
    return dumps({"model": answer.model, "version": answer.version}).removesuffix(b"}")


def _text(value: Value) -> bytes | memoryview:
    return write_numbers(value) if isinstance(value, np.ndarray) else dumps(value)


def _array_in_parts(array: NDArray[np.float64] | NDArray[np.int64]) -> Iterator[bytes]:
    step = max(1, PART_NUMBERS * len(array) // max(1, array.size))
    for begin in range(0, len(array), step):
        yield b"," if begin else b"["
        yield bytes(write_numbers(array[begin : begin + step])[1:-1])
    yield b"]" if len(array) else b"[]"


NUMBER_ROWS: JsonSchema = {
    "type": "array",
    "minItems": 1,
    "items": {"type": "array", "minItems": 1, "items": {"type": "number"}},
}
STRINGS: JsonSchema = {"type": "array", "items": {"type": "string"}}
ROWS_SCHEMA: dict[str, JsonSchema] = {
    "X": {**NUMBER_ROWS, "description": "Rows of finite numbers, all of one length."},
    "instances": {**NUMBER_ROWS, "description": "The same under another name."},
    "columns": {**STRINGS, "description": "The names of the columns of `data`."},
    "data": {**NUMBER_ROWS, "description": "Rows, with `columns`."},
    "index": {
        "type": "array",
        "items": {},
        "description": "Row labels that pandas sends along with `data`; not looked at.",
    },
}
EXTRA_SCHEMA: dict[str, JsonSchema] = {
    "sample_weight": {
        "type": "array",
        "items": {"type": "number", "minimum": 0},
        "description": "One weight for each row.",
    },
    "feature_names": {**STRINGS, "description": "Names of the columns of `X`."},
    "model": {"type": "string", "description": "The model's id."},
    "labels": {
        "type": "array",
        "items": {"type": ["number", "string", "boolean"]},
        "description": "The true label of each row, to compare with. Numbers are equal by value; "
        "true and false equal no number and no text.",
    },
}


def _row_field(document: dict[str, JsonValue]) -> str:
    present = [name for name in ROW_FIELDS if name in document]
    if not present:
        raise _invalid(
            "#",
            "missing_field",
            'the rows are missing: send "X", "instances", or "columns" and "data"',
        )
    if len(present) > 1:
        raise _invalid("#", "invalid_value", f"send the rows once, not as {' and '.join(present)}")
    return present[0]


def _require_known_fields(
    document: dict[str, JsonValue], field: str, extra_fields: frozenset[str]
) -> None:
    if len(document) == 1:
        return
    known = {field} | extra_fields
    if field == "data":
        known = (known | {"columns", "index"}) - {"feature_names"}
    unknown = document.keys() - known
    if unknown:
        tellable = sorted(
            name for name in unknown if name.isidentifier() and len(name) < MAX_FIELDS
        )
        others = ", ".join(sorted(known - {field}))
        detail = "there is no such field here; " + (
            f"beside {field} there may be: {others}" if others else f"{field} stands alone"
        )
        pointers = [f"#/{name}" for name in tellable if name.isascii()] or ["#"]
        raise InvalidInput(
            "invalid_parameter",
            detail,
            issues=[
                Issue(pointer, "unknown_field", detail) for pointer in pointers[:MAX_NAMED_ISSUES]
            ],
        )


def matrix(
    rows: JsonValue, pointer: str, *, first_row: int = 0, n_columns: int | None = None
) -> NDArray[np.float64]:  # (n_samples, n_features)
    """Return rows of numbers as an array.

    In a part of a longer table, ``first_row`` is the number of its first row there and
    ``n_columns`` how many values a row has.
    """
    if not isinstance(rows, list):
        raise _invalid(pointer, "wrong_type", "must be a list of rows")
    if set(map(type, rows)) - {list}:
        raise _wrong_rows(rows, pointer, first_row)
    lists: list[list[JsonValue]] = rows  # type: ignore[assignment]  # the line above made sure
    if not lists or not lists[0]:
        raise InvalidInput("empty_data", "there must be at least one row and one column")
    width = n_columns or len(lists[0])
    if set(map(len, lists)) != {width}:
        raise _ragged(lists, width, pointer, first_row)
    flat = list(chain.from_iterable(lists))
    _require_numbers(flat, lambda i: f"{pointer}/{first_row + i // width}/{i % width}")
    return np.array(flat, dtype=np.float64).reshape(len(lists), width)


def labelled_matrix(
    rows: JsonValue, pointer: str, *, place: int, n_columns: int, first_row: int = 0
) -> tuple[NDArray[np.float64], list[Label]]:
    """Return rows of ``n_columns`` values as an array, and apart from it what is at ``place``."""
    X = matrix(_with_zero(rows, place), pointer, first_row=first_row, n_columns=n_columns)
    whole: list[list[JsonValue]] = rows  # type: ignore[assignment]  # the line above made sure
    labels = [row[place] for row in whole]
    known = require_labels(labels, lambda index: f"{pointer}/{first_row + index}/{place}")
    return np.delete(X, place, axis=1), known


def _with_zero(rows: JsonValue, place: int) -> JsonValue:
    """Put a number where the labels are, and leave all else to be checked."""
    if not isinstance(rows, list):
        return rows
    return [
        [*row[:place], 0, *row[place + 1 :]] if isinstance(row, list) and place < len(row) else row
        for row in rows
    ]


def _require_numbers(values: list[JsonValue], pointer_of: Callable[[int], str]) -> None:
    if set(map(type, values)) <= NUMBERS:
        return
    wrong = (index for index, value in enumerate(values) if type(value) not in NUMBERS)
    issues = [_not_a_number(values[i], pointer_of(i)) for i in islice(wrong, MAX_NAMED_ISSUES)]
    raise InvalidInput(issues[0].code, f"{issues[0].pointer}: {issues[0].detail}", issues=issues)


def _not_a_number(value: JsonValue, pointer: str) -> Issue:
    if value is None:
        return Issue(pointer, "non_finite_number", "null is not a number; impute missing values")
    return Issue(pointer, "invalid_data", "must be a number")


def _wrong_rows(rows: list[JsonValue], pointer: str, first_row: int) -> InvalidInput:
    wrong = (index for index, row in enumerate(rows, first_row) if type(row) is not list)
    return InvalidInput(
        "invalid_data",
        "the rows must be lists of numbers; a single row is [[…]], a single column [[…], […]]",
        issues=[
            Issue(f"{pointer}/{index}", "invalid_data", "must be a list of numbers")
            for index in islice(wrong, MAX_NAMED_ISSUES)
        ],
    )


def _ragged(
    rows: list[list[JsonValue]], n_columns: int, pointer: str, first_row: int
) -> InvalidInput:
    lengths = ((index, len(row)) for index, row in enumerate(rows, first_row))
    wrong = ((index, length) for index, length in lengths if length != n_columns)
    return InvalidInput(
        "ragged_rows",
        f"every row must have as many values as the first, {n_columns}",
        issues=[
            Issue(f"{pointer}/{index}", "ragged_rows", f"has {length} values")
            for index, length in islice(wrong, MAX_NAMED_ISSUES)
        ],
    )


def _require_as_many(n_names: int, rows: JsonValue, origin: Origin) -> None:
    """Refuse another number of names than the first row has values, if it is a row of some."""
    match rows:
        case [[_, *_] as first, *_]:
            require_as_many(n_names, len(first), origin)


def _feature_names(document: dict[str, JsonValue], field: str) -> tuple[str, ...] | None:
    if field not in document:
        return None
    names = document[field]
    if not isinstance(names, list):
        raise _invalid(f"#/{field}", "wrong_type", "must be a list of names")
    for index, name in enumerate(names):
        # pandas numbers the columns of a frame that has no names
        is_number = field == "columns" and type(name) is int
        if not (isinstance(name, str) or is_number):
            raise _invalid(f"#/{field}/{index}", "wrong_type", "a name must be a string")
    return tuple(map(str, names))


def _sample_weight(document: dict[str, JsonValue]) -> NDArray[np.float64] | None:
    if "sample_weight" not in document:
        return None
    weight = document["sample_weight"]
    if not isinstance(weight, list):
        raise _invalid("#/sample_weight", "wrong_type", "must be a list of numbers")
    _require_numbers(weight, lambda index: f"#/sample_weight/{index}")
    return np.array(weight, dtype=np.float64)


def _labels(document: dict[str, JsonValue]) -> list[Label] | None:
    if "labels" not in document:
        return None
    labels = document["labels"]
    if not isinstance(labels, list):
        raise _invalid("#/labels", "wrong_type", "must be a list of labels")
    return require_labels(labels, lambda index: f"#/labels/{index}")


def _model(document: dict[str, JsonValue]) -> str | None:
    if "model" not in document:
        return None
    model = document["model"]
    if not isinstance(model, str):
        raise _invalid("#/model", "wrong_type", "must be a model's id")
    return model


def _invalid(pointer: str, code: str, detail: str) -> InvalidInput:
    return InvalidInput("invalid_parameter", detail, issues=[Issue(pointer, code, detail)])
