"""Data as Parquet. A file ends with what tells its columns, so it is read when it is there.

Decoding asks for memory by the number of rows and columns, which the end of the file tells and
which is judged first; what else a file says about its sizes is not relied on.
"""

from collections.abc import Iterator, Sequence
from tempfile import SpooledTemporaryFile
from weakref import finalize

import pyarrow as pa
import pyarrow.parquet as pq

from service.api.payloads.arrow_columns import (
    PORTION_ROWS,
    Columns,
    Sink,
    batch_of,
    not_whole,
    refusals,
)
from service.api.payloads.spool import close, writing
from service.api.payloads.values import (
    Body,
    DataAnswer,
    DataPayload,
    Expected,
    StreamCodec,
    whole_table,
)
from service.domain.data import Table

KIND = "Parquet file"
MAX_THRIFT_BYTES = 16 * 1024**2
MAX_THRIFT_ITEMS = 1_000_000
PORTION_NUMBERS = 2**22
"""Decoded at once, of however many columns."""
MAX_BYTES_IN_MEMORY = 32 * 1024**2


class ParquetReader:
    """Lays a larger file onto the disk until it is there."""

    room = None

    def __init__(self, expected: Expected) -> None:
        self._expected = expected
        self._n_bytes = 0
        self._file = SpooledTemporaryFile(MAX_BYTES_IN_MEMORY, dir=expected.spool.directory)  # noqa: SIM115  # closed by the next line
        finalize(self, close, self._file)

    def feed(self, data: Body) -> Iterator[Table]:
        self._n_bytes += len(data)
        if self._n_bytes > MAX_BYTES_IN_MEMORY:
            self._expected.spool.require_room(len(data))
        with writing():
            self._file.write(data)
        yield from ()

    def end(self) -> Iterator[Table]:
        try:
            with writing():
                self._file.seek(0)
            yield from _tables(self._file, self._expected)
        finally:
            close(self._file)


class ParquetWriter:
    def __init__(self) -> None:
        self._sink = Sink()
        self._file: pq.ParquetWriter | None = None

    def write(self, answer: DataAnswer) -> bytes:
        batch = batch_of(answer)
        if self._file is None:
            self._file = pq.ParquetWriter(self._sink, batch.schema)
        self._file.write_batch(batch)
        return self._sink.take()

    def end(self) -> bytes:
        if self._file is not None:
            self._file.close()
        return self._sink.take()


class ParquetCodec(StreamCodec):
    def decode(self, body: Body, expected: Expected) -> DataPayload:
        return DataPayload(whole_table(_tables(pa.BufferReader(pa.py_buffer(body)), expected)))


CODEC = ParquetCodec("application/vnd.apache.parquet", ParquetReader, ParquetWriter, unfolds=True)


def _tables(source: object, expected: Expected) -> Iterator[Table]:
    with refusals(KIND):
        file = _opened(source)
        label_place = expected.label_place(file.schema_arrow.names)
        columns = Columns(file.schema_arrow, label_place)
        if label_place is not None:
            # A text that a million rows share is in the file once, and in memory too.
            file = _opened(source, dictionaries=[file.schema_arrow.names[label_place]])
        n_rows = file.metadata.num_rows
    if n_rows < 0:
        raise not_whole(KIND)
    n_columns = len(columns.places)
    expected.admit(n_rows, n_columns)
    expected.admit_like(columns.head(), n_rows)
    batches = file.iter_batches(
        min(PORTION_ROWS, PORTION_NUMBERS // n_columns or 1), use_threads=False
    )
    rows_read = 0
    while True:
        with refusals(KIND):
            batch = next(batches, None)
        if batch is None:
            break
        rows_read += batch.num_rows
        expected.admit(rows_read, n_columns)
        yield from columns.tables(batch)
    if rows_read != n_rows:
        raise not_whole(KIND)


def _opened(source: object, *, dictionaries: Sequence[str] = ()) -> pq.ParquetFile:
    return pq.ParquetFile(
        source,
        thrift_string_size_limit=MAX_THRIFT_BYTES,
        thrift_container_size_limit=MAX_THRIFT_ITEMS,
        read_dictionary=list(dictionaries),
    )
