"""Data as NDJSON: a row a line, an array of numbers or an object of numbers by feature.

Lines are read together as one JSON array, after a look at the bytes that structure them has shown
that each line is one row.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import orjson
from numpy.typing import NDArray

from service.api.payloads.json_document import (
    BEYOND_DOUBLES,
    JsonValue,
    parse_json,
    places_beyond_doubles,
    with_stand_ins,
)
from service.api.payloads.json_format import dumps, labelled_matrix, matrix
from service.api.payloads.lines import Lines
from service.api.payloads.numerals import read_numbers, write_numbers
from service.api.payloads.values import (
    Body,
    DataAnswer,
    Expected,
    StreamCodec,
    Value,
)
from service.domain.data import Table, beside
from service.errors import InvalidInput, Issue, MalformedRequest

STRUCTURE = b'[]{}":\\\n'
NOT_STRUCTURE = bytes(byte for byte in range(256) if byte not in STRUCTURE)


class NdjsonReader:
    room = None

    def __init__(self, expected: Expected) -> None:
        self._lines = Lines()
        self._expected = expected
        self._rows_read = 0
        self._n_columns: int | None = None
        self._names: tuple[str, ...] | None = None
        self._label_place: int | None = None

    def feed(self, data: Body) -> Iterator[Table]:
        yield from map(self._table, self._lines.feed(bytes(data)))

    def end(self) -> Iterator[Table]:
        yield from map(self._table, self._lines.end())

    def _table(self, text: bytes) -> Table:
        lines = [line for line in text.split(b"\n") if line.strip()]
        self._expected.admit(self._rows_read + len(lines), self._n_columns or 1)
        X = _matrix_of_arrays(lines)
        if X is None or self._names is not None or self._n_columns not in (None, X.shape[1]):
            table = self._table_of(_rows(lines, self._rows_read, self._names))
        else:
            self._expected.label_place(None)
            table = Table(X)
        self._n_columns = len(self._names or ()) or table.X.shape[1]
        self._expected.admit(self._rows_read + len(lines), self._n_columns)
        self._rows_read += len(lines)
        return table

    def _table_of(self, rows: list[JsonValue]) -> Table:
        if not self._rows_read:
            self._names = tuple(rows[0]) if isinstance(rows[0], dict) else None
            self._label_place = self._expected.label_place(self._names)
        names, place = self._names, self._label_place
        if names is not None:
            rows = self._ordered(rows, names)
        if names is None or place is None:
            X = matrix(rows, "#/X", first_row=self._rows_read, n_columns=self._n_columns)
            return Table(X, names)
        X, labels = labelled_matrix(
            rows, "#/X", place=place, n_columns=len(names), first_row=self._rows_read
        )
        origin = beside(place, len(names))
        return Table(X, names[:place] + names[place + 1 :], labels=labels, origin=origin)

    def _ordered(self, rows: list[JsonValue], names: tuple[str, ...]) -> list[JsonValue]:
        """Return the values of objects in the order of the first one's names."""
        known = set(names)
        for number, row in enumerate(rows, self._rows_read):
            if not isinstance(row, dict) or row.keys() != known:
                detail = "every row must be an object with the names of the first"
                raise InvalidInput(
                    "feature_names_mismatch",
                    detail,
                    issues=[Issue(f"#/X/{number}", "feature_names_mismatch", detail)],
                )
        return [[row[name] for name in names] for row in rows if isinstance(row, dict)]


class NdjsonWriter:
    def write(self, answer: DataAnswer) -> bytes:
        names = list(answer.values)
        columns = [_texts(value) for value in answer.values.values()]
        if len(columns) == 1:
            begin = b"{" + dumps(names[0]) + b":"
            return begin + (b"}\n" + begin).join(columns[0]) + b"}\n" if columns[0] else b""
        heads = [dumps(name) + b":" for name in names]
        return b"".join(
            b"{" + b",".join(map(bytes.__add__, heads, row)) + b"}\n"
            for row in zip(*columns, strict=True)
        )

    def end(self) -> bytes:
        return b""


CODEC = StreamCodec("application/x-ndjson", NdjsonReader, NdjsonWriter, is_text=True)


def _texts(value: Value) -> list[bytes]:
    """Return the JSON of each row; of what is no array the one that it is."""
    if not isinstance(value, np.ndarray):
        return [dumps(value)]
    if not len(value):
        return []
    inside = bytes(write_numbers(value)[1:-1])
    if value.ndim == 1:
        return inside.split(b",")
    return [b"[" + row + b"]" for row in inside[1:-1].split(b"],[")]


def _matrix_of_arrays(lines: list[bytes]) -> NDArray[np.float64] | None:
    """Return lines that are arrays of numbers, all of one length, and nothing else."""
    text = b"\n".join(lines)
    if text.translate(None, NOT_STRUCTURE) != b"\n".join([b"[]"] * len(lines)):
        return None
    read = read_numbers(b"[" + text.replace(b"\n", b",") + b"]}", 0)
    return None if read is None else read[0]


def _rows(lines: list[bytes], first_row: int, names: tuple[str, ...] | None) -> list[JsonValue]:
    """Return the rows; with ``names`` those of the first row, where that came before."""
    text = b"\n".join(lines)
    structure = text.translate(None, NOT_STRUCTURE)
    are_arrays = structure == b"\n".join([b"[]"] * len(lines))
    if not are_arrays and not _are_alike(structure, len(lines)):
        return _one_by_one(lines, first_row, names)
    try:
        rows = orjson.loads(b"[" + text.replace(b"\n", b",") + b"]")
    except orjson.JSONDecodeError:
        rows = []  # which line it is, is found out line by line
    if are_arrays and len(rows) == len(lines):
        return list(rows)
    n_keys = structure.partition(b"\n")[0].count(b":")
    if len(rows) == len(lines) and all(map(n_keys.__eq__, map(len, rows))):
        return list(rows)
    return _one_by_one(lines, first_row, names)


def _one_by_one(
    lines: list[bytes], first_row: int, names: tuple[str, ...] | None
) -> list[JsonValue]:
    rows: list[JsonValue] = []
    for number, line in enumerate(lines, first_row):
        try:
            rows.append(_row(line, number))
        except InvalidInput as error:
            columns = names or _names_of(lines[0])
            issues = [
                Issue(f"#/X/{number}{column}", error.code, BEYOND_DOUBLES)
                for column in _columns_beyond_doubles(line, columns)
            ]
            raise InvalidInput(error.code, error.detail, issues=issues) from error
    return rows


def _names_of(line: bytes) -> Sequence[str]:
    row = with_stand_ins(line)
    return list(row) if isinstance(row, dict) else ()


def _columns_beyond_doubles(line: bytes, names: Sequence[str]) -> Iterator[str]:
    """Yield the ends of pointers into a row: of a column, or nothing where it is in none."""
    for place in places_beyond_doubles(with_stand_ins(line)):
        match place:
            case (int(column), *_):
                yield f"/{column}"
            case (str(name), *_) if name in names:
                yield f"/{names.index(name)}"
            case _:
                yield ""


def _are_alike(structure: bytes, n_lines: int) -> bool:
    """Say whether every line is a flat object with as many keys as the first."""
    first = structure.partition(b"\n")[0]
    keys = first.count(b":")
    return first == b"{" + b'"":' * keys + b"}" and structure == b"\n".join([first] * n_lines)


def _row(line: bytes, number: int) -> JsonValue:
    try:
        return parse_json(line)
    except MalformedRequest as error:
        # A row is one line: only the column is of use.
        detail = f"row {number + 1}: {error.detail.replace('line 1, ', '')}"
        raise MalformedRequest(error.code, detail) from error
