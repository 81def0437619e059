"""Data as CSV (RFC 4180): rows of numbers, with a line of names or without.

The first line is names when it can't be read as a row of values; ``header=present`` or
``header=absent`` on the media type settles it. Arrow reads the numbers and the quotes.
"""

import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from service.api.payloads.arrow_columns import PORTION_ROWS, Columns, Sink, batch_of
from service.api.payloads.lines import Lines
from service.api.payloads.values import (
    Body,
    DataAnswer,
    DataPayload,
    Expected,
    StreamCodec,
    columns_of,
    read_whole,
    require_labels,
)
from service.domain.data import Table
from service.errors import MAX_NAMED_ISSUES, InvalidInput, Issue, MalformedRequest

MAX_HEADER_BYTES = 1024**2
HAS_NAMES: Mapping[str, bool | None] = {"present": True, "absent": False, "": None}
"""What the parameter ``header`` of the media type says of the first line."""
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
ROW_LENGTH = re.compile(r"CSV parse error: Row #\d+: Expected \d+ columns, got \d+")
NOT_A_NUMBER = re.compile(r"In CSV column #\d+: Row #\d+: CSV conversion error to double")
NOT_A_TEXT = re.compile(r"In CSV column #\d+: Row #\d+: CSV conversion error to string")
"""How Arrow says why it stopped; what follows there is the client's text."""
WHOLE_NUMBER = re.compile(r"[ \t]*[+-]?[0-9]{1,4000}[ \t]*")
"""Of no more digits than Python reads."""
NUMBER = re.compile(r"[ \t]*[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?[ \t]*")
OPEN_QUOTE = re.compile(
    rb"""(?:(?:"(?:[^"]|"")*+"[^,\r\n]*+|[^",\r\n][^,\r\n]*+|)[,\r\n])*+("(?:[^"]|"")*+)\Z"""
)
"""Whole fields, and one that begins with a quote and does not end: Arrow takes it for ended."""
TO_ASCII = bytes.maketrans(bytes(range(128, 256)), b"?" * 128)
"""Of rows that may not be UTF-8, as what Arrow tells of one must be."""


class CsvReader:
    room = None

    def __init__(self, expected: Expected) -> None:
        self._expected = expected
        self._lines = Lines()
        self._n_columns = 0
        self._feature_names: tuple[str, ...] | None = None
        self._label_place: int | None = None
        self._columns: Columns | None = None
        self._rows_read = 0

    def feed(self, data: Body) -> Iterator[Table]:
        for text in self._lines.feed(bytes(data)):
            yield from self._tables(text)

    def end(self) -> Iterator[Table]:
        for text in self._lines.end():
            yield from self._tables(text)

    def with_numbers_for_labels(self, table: Table) -> Table:
        """Return all rows: with labels that are numbers if every one of them is, texts if not."""
        place = self._label_place
        if table.labels is None or place is None:
            return table
        values = {label: _number_of(str(label)) for label in set(table.labels)}
        if None in values.values():
            return table
        numbers = [values[label] for label in table.labels]
        labels = require_labels(numbers, lambda row: f"#/X/{row}/{place}")
        return replace(table, labels=labels)

    def _tables(self, text: bytes) -> Iterator[Table]:
        rows = text if self._n_columns else self._behind_header(text)
        if not rows.strip():
            return
        self._expected.admit(self._rows_read + rows.count(b"\n"), self._n_columns)
        self._require_closed_quotes(rows)
        types = _of_numbers(self._n_columns)
        if self._label_place is not None:
            types[str(self._label_place)] = pa.string()
        try:
            table = _read(rows, types)
        except pa.ArrowInvalid as error:
            raise self._refusal(rows, types, str(error)) from error
        self._expected.admit(self._rows_read + table.num_rows, self._n_columns)
        if self._columns is None:
            self._columns = Columns(table.schema, self._label_place)
        for batch in table.to_batches(PORTION_ROWS):
            for portion in self._columns.tables(batch):
                self._rows_read += len(portion.X)
                yield replace(portion, feature_names=self._feature_names)

    def _require_closed_quotes(self, rows: bytes) -> None:
        # Quotes come in pairs in what is well-formed. Labels may hold one that is not.
        if rows.count(b'"') % 2 == 0 and self._label_place is None:
            return
        if (found := OPEN_QUOTE.match(rows)) is None:
            return
        row, column = _place_behind(rows[: found.start(1)])
        detail = "a quoted value must end with a quote"
        pointer = f"#/X/{self._rows_read + row}/{column}"
        raise InvalidInput("invalid_data", detail, issues=[Issue(pointer, "invalid_data", detail)])

    def _behind_header(self, text: bytes) -> bytes:
        """Return the rows behind the names, having learnt how many columns there are."""
        text = text.removeprefix(BYTE_ORDER_MARK)
        first, end = _first_record(text)
        self._n_columns = len(first)
        said = self._expected.parameters.get("header", "")
        if said not in HAS_NAMES:
            told = " or ".join(filter(None, HAS_NAMES))
            raise InvalidInput("invalid_parameter", f"the header of text/csv is {told}")
        has_names = HAS_NAMES[said]
        if has_names is None:
            has_names = not _is_numbers(text[:end], len(first))
        self._label_place = self._expected.label_place(first if has_names else None)
        if not has_names:
            return text
        self._feature_names = tuple(
            name for place, name in enumerate(first) if place != self._label_place
        )
        return text[end:]

    def _refusal(
        self, rows: bytes, types: Mapping[str, pa.DataType], said: str
    ) -> InvalidInput | MalformedRequest:
        if ROW_LENGTH.match(said):
            return InvalidInput(
                "ragged_rows",
                f"every row must have as many values as the first, {self._n_columns}",
                issues=[
                    Issue(f"#/X/{self._rows_read + row}", "ragged_rows", f"has {length} values")
                    for row, length in _other_lengths(rows, types)
                ],
            )
        if NOT_A_NUMBER.match(said):
            return InvalidInput(
                "invalid_data",
                "every value must be a number",
                issues=[
                    Issue(
                        f"#/X/{self._rows_read + row}/{column}", "invalid_data", "must be a number"
                    )
                    for row, column in islice(_not_numbers(rows, types), MAX_NAMED_ISSUES)
                ],
            )
        if NOT_A_TEXT.match(said):
            return MalformedRequest("not_utf8", "the body is not UTF-8")
        return InvalidInput("invalid_data", "the rows can't be read as CSV (RFC 4180)")


class CsvWriter:
    def __init__(self) -> None:
        self._has_begun = False

    def write(self, answer: DataAnswer) -> bytes:
        sink = Sink()
        if not self._has_begun:
            self._has_begun = True
            sink.write(_line(list(columns_of(answer))))
        pa_csv.write_csv(
            batch_of(answer),
            sink,
            pa_csv.WriteOptions(include_header=False, batch_size=PORTION_ROWS),
        )
        return sink.take()

    def end(self) -> bytes:
        return b""


class CsvCodec(StreamCodec):
    def decode(self, body: Body, expected: Expected) -> DataPayload:
        reader = CsvReader(expected)
        payload = read_whole(reader, body)
        return replace(payload, table=reader.with_numbers_for_labels(payload.table))


CODEC = CsvCodec("text/csv", CsvReader, CsvWriter, is_text=True)


def _first_record(text: bytes) -> tuple[list[str], int]:
    """Return the fields of the first record and where it ends."""
    head = text[:MAX_HEADER_BYTES]
    head = head.rpartition(b"\n")[0] or head if len(text) > len(head) else head
    try:
        source = io.StringIO(head.decode("utf-8"), newline="")
        for record in csv.reader(source):
            if record:
                return record, len(source.getvalue()[: source.tell()].encode())
    except UnicodeDecodeError:
        raise MalformedRequest("not_utf8", "the body is not UTF-8") from None
    except csv.Error:
        pass
    raise InvalidInput("invalid_data", "the first line can't be read as CSV (RFC 4180)")


def _place_behind(rows: bytes) -> tuple[int, int]:
    """Return the row and column of the value that follows."""
    text = rows.decode("utf-8", "replace")
    records = [record for record in csv.reader(io.StringIO(text, newline="")) if record]
    if not text or text[-1] in "\r\n":
        return len(records), 0
    return len(records) - 1, len(records[-1]) - 1


def _of_numbers(n_columns: int) -> dict[str, pa.DataType]:
    return {str(column): pa.float64() for column in range(n_columns)}


def _number_of(text: str) -> int | float | None:
    """Return the number that a text is, a whole one exactly; None where it is none."""
    if WHOLE_NUMBER.fullmatch(text):
        return int(text)
    return float(text) if NUMBER.fullmatch(text) else None


def _is_numbers(record: bytes, n_columns: int) -> bool:
    """Say whether a record can be read as a row of values."""
    try:
        _read(record, _of_numbers(n_columns))
    except pa.ArrowInvalid:
        return False
    return True


def _other_lengths(rows: bytes, types: Mapping[str, pa.DataType]) -> list[tuple[int, int]]:
    """Return the first rows with more or fewer values than columns, and how many they have."""
    found: list[tuple[int, int]] = []

    def note(row: pa_csv.InvalidRow) -> str:
        found.append((row.number - 1, row.actual_columns))
        return "skip" if len(found) < MAX_NAMED_ISSUES else "error"

    with suppress(pa.ArrowInvalid):
        _read(rows.translate(TO_ASCII), dict.fromkeys(types, pa.binary()), note)
    return found


def _not_numbers(rows: bytes, types: Mapping[str, pa.DataType]) -> Iterator[tuple[int, int]]:
    """Yield the rows and columns of the values that Arrow does not read as numbers."""
    texts = _read(rows, dict.fromkeys(types, pa.binary()))
    columns = [int(name) for name, kind in types.items() if kind == pa.float64()]
    features = texts.select(columns)
    for begin in range(0, len(features), PORTION_ROWS):
        for index in _not_numbers_among(_row_by_row(features.slice(begin, PORTION_ROWS))):
            row, place = divmod(index, len(columns))
            yield begin + row, columns[place]


def _row_by_row(texts: pa.Table) -> pa.Array:
    """Return the values of all columns in one."""
    order = np.arange(len(texts) * texts.num_columns).reshape(texts.num_columns, -1).T
    places = pa.py_buffer(np.ascontiguousarray(order))
    values = pa.chunked_array([chunk for column in texts.columns for chunk in column.chunks])
    by_row = values.take(pa.Array.from_buffers(pa.int64(), order.size, [None, places]))
    return by_row.combine_chunks()


def _not_numbers_among(texts: pa.Array, first: int = 0) -> Iterator[int]:
    """Yield which can't be read: halve them until each is alone."""
    if _are_numbers(texts):
        return
    half = len(texts) // 2
    if half:
        yield from _not_numbers_among(texts.slice(0, half), first)
        yield from _not_numbers_among(texts.slice(half), first + half)
    else:
        yield first


def _are_numbers(texts: pa.Array) -> bool:
    sink = pa.BufferOutputStream()
    batch = pa.record_batch([texts], names=["0"])
    try:  # to write is refused, too, where bytes are no text
        pa_csv.write_csv(batch, sink, pa_csv.WriteOptions(include_header=False))
        _read(sink.getvalue(), _of_numbers(1))
    except pa.ArrowInvalid:
        return False
    return True


def _read(
    rows: bytes | pa.Buffer,
    types: Mapping[str, pa.DataType],
    on_other_length: Callable[[pa_csv.InvalidRow], str] | None = None,
) -> pa.Table:
    return pa_csv.read_csv(
        pa.py_buffer(rows),
        read_options=pa_csv.ReadOptions(
            use_threads=False, column_names=list(types), block_size=max(1024, len(rows) + 1)
        ),
        # An empty line of one column is a missing value, not nothing.
        parse_options=pa_csv.ParseOptions(
            ignore_empty_lines=len(types) > 1, invalid_row_handler=on_other_length
        ),
        convert_options=pa_csv.ConvertOptions(column_types=types),
    )


def _line(names: Sequence[str]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(names)
    return text.getvalue().encode()
