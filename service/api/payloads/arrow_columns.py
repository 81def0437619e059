"""Columns of Arrow to rows and back: what Arrow streams, Parquet and CSV have in common.

Only numbers are taken, and texts where a column holds labels. A missing number becomes NaN, which
is refused later with its place.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from service.api.payloads.values import DataAnswer, Value, columns_of, require_labels
from service.domain.data import ALL_OF_X, Label, Origin, Table
from service.errors import MAX_NAMED_ISSUES, InvalidInput, Issue

PORTION_ROWS = 65_536
CACHED_NUMBERS = 2**15
"""Turned at once, so that they are still in a processor's cache when they come to their rows."""
INDEX_COLUMN = re.compile(r"__index_level_\d+__")
"""What pandas adds for row labels; not looked at, like ``index`` in JSON."""
LABEL_KINDS = (
    pa.types.is_integer,
    pa.types.is_floating,
    pa.types.is_boolean,
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_string_view,
)


class Columns:
    """Which columns of a schema are features, which holds labels, and how their rows are read."""

    def __init__(self, schema: pa.Schema, label_place: int | None) -> None:
        self._label_place = label_place
        if label_place is not None:
            _require_label_type(schema.field(label_place).type, label_place)
        self._places = [
            place
            for place, name in enumerate(schema.names)
            if not INDEX_COLUMN.fullmatch(name) and place != label_place
        ]
        fields = [schema.field(place) for place in self._places]
        are_all = len(fields) == len(schema.names)
        self._origin = ALL_OF_X if are_all else Origin(columns=self._places)
        _require_numbers(fields, self._origin)
        self._names = tuple(str(field.name) for field in fields)
        self._rows_read = 0
        are_single = all(pa.types.is_float32(field.type) for field in fields)
        self._dtype = np.float32 if are_single else np.float64

    @property
    def places(self) -> list[int]:
        return self._places

    def head(self) -> Table:
        """Return the columns without rows."""
        X = np.empty((0, len(self._places)), dtype=self._dtype)
        return Table(X, self._names, origin=self._origin)

    def tables(self, batch: pa.RecordBatch) -> Iterator[Table]:
        """Yield the rows in portions."""
        labels = self._labels(batch)
        for begin in range(0, batch.num_rows, PORTION_ROWS):
            rows = batch.slice(begin, PORTION_ROWS)
            X = self._turned(rows)
            part = None if labels is None else labels[begin : begin + len(X)]
            yield Table(X, self._names, labels=part, origin=self._origin)
        self._rows_read += batch.num_rows

    def _turned(self, batch: pa.RecordBatch) -> NDArray[np.float64]:
        columns = [_numbers_of(batch.column(place)) for place in self._places]
        X = np.empty((batch.num_rows, len(columns)), dtype=self._dtype)
        step = max(1, CACHED_NUMBERS // len(columns))
        together = np.empty((len(columns), min(step, len(X))), dtype=self._dtype)
        for begin in range(0, len(X), step):
            rows = X[begin : begin + step]
            for place, column in enumerate(columns):
                together[place, : len(rows)] = column[begin : begin + step]
            rows[:] = together[:, : len(rows)].T
        return X

    def _labels(self, batch: pa.RecordBatch) -> list[Label] | None:
        place = self._label_place
        if place is None:
            return None
        column = batch.column(place)
        with refusals("table"):
            column.validate(full=True)  # an index beyond a dictionary would be read all the same
        return require_labels(
            _values_of(column), lambda row: f"#/X/{self._rows_read + row}/{place}"
        )


def _numbers_of(column: pa.Array) -> NDArray[np.generic]:
    """Return the numbers where they lie; with missing ones a copy, in which they are NaN.

    Arrow's own way loads pandas where that is installed.
    """
    present, numbers = column.buffers()
    kind, end = column.type.to_pandas_dtype(), column.offset + len(column)
    if not len(column):
        return np.empty(0, dtype=kind)
    values = np.frombuffer(numbers, dtype=kind, count=end)[column.offset :]
    if not column.null_count:
        return values
    flags = np.unpackbits(np.frombuffer(present, dtype=np.uint8), count=end, bitorder="little")
    return np.where(flags[column.offset :], values, np.nan)


def _values_of(column: pa.Array) -> list[object]:
    """Return the values, those of a dictionary without a copy for each row."""
    if not isinstance(column, pa.DictionaryArray):
        return list(column.to_pylist())
    words = column.dictionary.to_pylist()
    return [None if index is None else words[index] for index in column.indices.to_pylist()]


def _require_numbers(fields: list[pa.Field], origin: Origin) -> None:
    if not fields:
        raise InvalidInput("empty_data", "there must be at least one row and one column")
    wrong = [
        origin.column(place)
        for place, field in enumerate(fields)
        if not (pa.types.is_integer(field.type) or pa.types.is_floating(field.type))
    ]
    if wrong:
        detail = "every column must hold integers or floating-point numbers"
        raise InvalidInput(
            "invalid_data",
            detail,
            issues=[
                Issue(f"#/columns/{column}", "invalid_data", detail)
                for column in wrong[:MAX_NAMED_ISSUES]
            ],
        )


def _require_label_type(column_type: pa.DataType, place: int) -> None:
    value_type = column_type.value_type if pa.types.is_dictionary(column_type) else column_type
    if not any(is_kind(value_type) for is_kind in LABEL_KINDS):
        detail = "labels must be numbers, texts, true or false"
        raise InvalidInput(
            "invalid_data", detail, issues=[Issue(f"#/columns/{place}", "invalid_data", detail)]
        )


@contextmanager
def refusals(kind: str) -> Iterator[None]:
    """Turn what Arrow refuses inside the block into ``InvalidInput``, without its words."""
    try:
        yield
    except (pa.ArrowException, OSError, MemoryError, UnicodeDecodeError) as error:
        raise (_encrypted(kind) if "decrypt" in str(error) else not_whole(kind)) from error


def _encrypted(kind: str) -> InvalidInput:
    return InvalidInput("invalid_file", f"an encrypted {kind} can't be read here; decrypt it first")


def not_whole(kind: str) -> InvalidInput:
    return InvalidInput("invalid_file", f"the body is not a whole {kind}")


def batch_of(answer: DataAnswer) -> pa.RecordBatch:
    """Return the answer as columns; one row where it has no arrays."""
    columns = columns_of(answer)
    arrays = list(map(_column, columns.values()))
    metadata = {"model": answer.model, "version": str(answer.version)}
    return pa.record_batch(arrays, names=list(columns)).replace_schema_metadata(metadata)


def _column(value: Value) -> pa.Array:
    """Return the numbers, with what is not finite as missing; or one text, or one truth value.

    Of buffers: to make a column of an object Arrow loads pandas where that is installed.
    """
    if isinstance(value, str):
        text = value.encode()
        ends = np.array([0, len(text)], dtype=np.int32)
        return pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(ends), pa.py_buffer(text)])
    column = np.ascontiguousarray(np.atleast_1d(value))
    kind, present = pa.from_numpy_dtype(column.dtype), None
    if column.dtype.kind == "b":
        return pa.Array.from_buffers(kind, len(column), [present, _bits(column)])
    is_finite = np.isfinite(column)
    if not is_finite.all():
        present = _bits(is_finite)
    return pa.Array.from_buffers(kind, len(column), [present, pa.py_buffer(column)])


def _bits(flags: NDArray[np.bool_]) -> pa.Buffer:
    return pa.py_buffer(np.packbits(flags, bitorder="little"))


class Sink:
    """A file to write to, whose content is taken away as it grows."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._position = 0
        self.closed = False

    def write(self, data: bytes) -> int:
        self._parts.append(bytes(data))
        self._position += len(data)
        return len(data)

    def tell(self) -> int:
        return self._position

    def flush(self) -> None:
        """Do nothing: what is written is there."""

    def close(self) -> None:
        self.closed = True

    def take(self) -> bytes:
        taken = b"".join(self._parts)
        self._parts.clear()
        return taken
