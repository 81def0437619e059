"""Columns of Arrow to rows and back: what Arrow streams, Parquet and CSV have in common.

Only numbers are taken. A missing value becomes NaN, which is refused later with its place.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pyarrow as pa

from service.api.payloads.values import DataAnswer, Value, columns_of
from service.domain.data import Table
from service.errors import MAX_NAMED_ISSUES, InvalidInput, Issue

PORTION_ROWS = 65_536
INDEX_COLUMN = re.compile(r"__index_level_\d+__")
"""What pandas adds for row labels; not looked at, like ``index`` in JSON."""


class Columns:
    """Which columns of a schema are features, and how their rows are read."""

    def __init__(self, schema: pa.Schema) -> None:
        self._places = [
            place for place, name in enumerate(schema.names) if not INDEX_COLUMN.fullmatch(name)
        ]
        fields = [schema.field(place) for place in self._places]
        _require_numbers(fields)
        self._names = tuple(str(field.name) for field in fields)
        are_single = all(pa.types.is_float32(field.type) for field in fields)
        self._dtype = np.float32 if are_single else np.float64

    @property
    def places(self) -> list[int]:
        return self._places

    def tables(self, batch: pa.RecordBatch) -> Iterator[Table]:
        """Yield the rows in portions that stay in a processor's cache while they are turned."""
        for begin in range(0, batch.num_rows, PORTION_ROWS):
            rows = batch.slice(begin, PORTION_ROWS)
            X = np.empty((rows.num_rows, len(self._places)), dtype=self._dtype)
            for column, place in enumerate(self._places):
                X[:, column] = rows.column(place).to_numpy(zero_copy_only=False)
            yield Table(X, self._names)


def _require_numbers(fields: list[pa.Field]) -> None:
    if not fields:
        raise InvalidInput("empty_data", "there must be at least one row and one column")
    wrong = [
        column
        for column, field in enumerate(fields)
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


@contextmanager
def refusals(kind: str) -> Iterator[None]:
    """Turn what Arrow refuses inside the block into ``InvalidInput``, without its words."""
    try:
        yield
    except (pa.ArrowException, OSError, MemoryError, UnicodeDecodeError) as error:
        raise not_whole(kind) from error


def not_whole(kind: str) -> InvalidInput:
    return InvalidInput("invalid_file", f"the body is not a whole {kind}")


def batch_of(answer: DataAnswer) -> pa.RecordBatch:
    """Return the answer as columns; one row where it has no arrays."""
    columns = columns_of(answer)
    arrays = list(map(_column, columns.values()))
    metadata = {"model": answer.model, "version": str(answer.version)}
    return pa.record_batch(arrays, names=list(columns)).replace_schema_metadata(metadata)


def _column(value: Value) -> pa.Array:
    """Return the numbers, with what is not finite as missing."""
    column = np.atleast_1d(value)
    missing = None if column.dtype.kind != "f" else ~np.isfinite(column)
    return pa.array(column, mask=missing if missing is not None and missing.any() else None)


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
