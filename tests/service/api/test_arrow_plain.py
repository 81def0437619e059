"""Columns of an Arrow stream that are read and written where they lie, beside Arrow itself."""

import io
import struct
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from service.api.payloads import codec_of
from service.api.payloads.arrow_format import ArrowReader
from service.api.payloads.arrow_plain import pieces_in_place, table_in_place
from service.api.payloads.values import DataAnswer, Expected, Value, read_whole
from service.errors import InvalidInput, ServiceError
from tests.service.api.wire import ARROW, table_of, to_arrow

NAMES = ("a", "b", "c")
rng = np.random.default_rng(0)
X = rng.normal(size=(1003, 3))


def written(table: pa.Table, **options: object) -> bytes:
    file = io.BytesIO()
    with pa.ipc.new_stream(file, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as stream:
        stream.write_table(table)
    return file.getvalue()


@pytest.mark.parametrize("n_rows", [1, 7, 8, 9, 1003, 70_000])
@pytest.mark.parametrize("n_columns", [1, 2, 9])
def test_rows_are_read_where_they_lie(n_rows: int, n_columns: int) -> None:
    rows = rng.normal(size=(n_rows, n_columns))
    body = to_arrow(rows)
    table = table_in_place(body, Expected())
    assert table is not None
    np.testing.assert_array_equal(table.X, rows)
    assert np.shares_memory(table.X, np.frombuffer(body, dtype=np.uint8))
    assert table.feature_names == tuple(f"c{column}" for column in range(n_columns))


@pytest.mark.parametrize("end", [b"", struct.pack("<II", 0xFFFFFFFF, 0)])
def test_a_stream_may_end_without_saying_so(end: bytes) -> None:
    body = to_arrow(X)
    table = table_in_place(body.removesuffix(struct.pack("<II", 0xFFFFFFFF, 0)) + end, Expected())
    assert table is not None
    np.testing.assert_array_equal(table.X, X)


def other_streams() -> Mapping[str, bytes]:
    table = table_of(X, NAMES)
    gap = pa.table({"a": [1.0, None], "b": [1.0, 2.0]})
    numbers = pa.table({"a": pa.array([1.0, 2.0], pa.float32()), "b": [1, 2]})
    index = table_of(X, ("a", "b", "__index_level_0__"))
    return {
        "a gap": written(gap),
        "other numbers": written(numbers),
        "an index": written(index),
        "several batches": to_arrow(X, NAMES, batch_rows=100),
        "no rows": written(table.slice(0, 0)),
    }


@pytest.mark.parametrize("kind", sorted(other_streams()))
def test_anything_else_is_left_to_arrow(kind: str) -> None:
    assert table_in_place(other_streams()[kind], Expected()) is None


@pytest.mark.parametrize("version", [pa.ipc.MetadataVersion.V4, pa.ipc.MetadataVersion.V5])
def test_both_versions_of_the_format_are_read(version: pa.ipc.MetadataVersion) -> None:
    body = written(table_of(X, NAMES), metadata_version=version)
    assert table_in_place(body, Expected()) is not None
    np.testing.assert_array_equal(codec_of(ARROW).decode(body, Expected()).table.X, X)


def test_what_labels_are_asked_of_is_left_to_arrow() -> None:
    body = to_arrow(X, NAMES)
    assert table_in_place(body, Expected(label_column="a")) is None


def test_too_many_rows_are_refused() -> None:
    def admit(n_rows: int, n_columns: int) -> None:
        raise InvalidInput("work_budget_exceeded", f"{n_rows} {n_columns}")

    with pytest.raises(InvalidInput, match="1003 3"):
        table_in_place(to_arrow(X, NAMES), Expected(admit=admit))


def in_place(body: bytes) -> object:
    try:
        table = table_in_place(body, Expected())
    except ServiceError as error:
        return error.code
    return None if table is None else np.ascontiguousarray(table.X).tobytes()


def told(body: bytes) -> object:
    """Return what Arrow itself makes of a body: rows, or a refusal's code."""
    try:
        return read_whole(ArrowReader(Expected()), body).table.X.tobytes()
    except ServiceError as error:
        return error.code


@pytest.mark.parametrize("seed", range(4))
def test_a_damaged_stream_is_read_as_arrow_reads_it_or_left_to_it(seed: int) -> None:
    """Whichever byte of the metadata is another: what is read in place is what Arrow reads."""
    body = to_arrow(X[:9], NAMES)
    n_metadata = len(body) - 9 * 3 * 8
    changed = np.random.default_rng(seed)
    n_read = 0
    for place in range(n_metadata):
        damaged = bytearray(body)
        damaged[place] ^= int(changed.integers(1, 256))
        found = in_place(bytes(damaged))
        if found is not None:
            n_read += 1
            assert found == told(bytes(damaged))
    assert n_read > 0


@pytest.mark.parametrize("n_bytes", [0, 4, 8, 100, 500, -9])
def test_a_stream_that_is_cut_off_is_left_to_arrow(n_bytes: int) -> None:
    assert table_in_place(to_arrow(X, NAMES)[:n_bytes], Expected()) is None


def by_arrow(answer: DataAnswer, columns: Mapping[str, NDArray[np.generic]]) -> bytes:
    schema = pa.schema([(name, pa.from_numpy_dtype(each.dtype)) for name, each in columns.items()])
    schema = schema.with_metadata({"model": answer.model, "version": str(answer.version)})
    file = io.BytesIO()
    with pa.ipc.new_stream(file, schema) as stream:
        stream.write_batch(pa.record_batch(list(map(pa.array, columns.values())), schema=schema))
    return file.getvalue()


@pytest.mark.parametrize("n_rows", [1, 7, 8, 1003, 10_000])
@pytest.mark.parametrize("order", ["C", "F"])
def test_answers_are_those_that_arrow_writes(n_rows: int, order: str) -> None:
    resp = np.asarray(rng.random((n_rows, 3)), order="C" if order == "C" else "F")
    labels, density = rng.integers(0, 9, n_rows), rng.normal(size=n_rows)
    answers: list[tuple[dict[str, Value], dict[str, NDArray[np.generic]]]] = [
        ({"labels": labels}, {"labels": labels}),
        ({"log_likelihood": density}, {"log_likelihood": density}),
        (
            {"probabilities": resp, "labels": labels},
            {**{f"probabilities_{k}": resp[:, k] for k in range(3)}, "labels": labels},
        ),
    ]
    for values, columns in answers:
        answer = DataAnswer("groups", 12, values)
        pieces = pieces_in_place(answer)
        assert pieces is not None
        assert b"".join(pieces) == codec_of(ARROW).encode(answer) == by_arrow(answer, columns)


def test_columns_that_stand_by_themselves_are_not_copied() -> None:
    resp = np.asfortranarray(rng.random((1000, 3)))
    pieces = pieces_in_place(DataAnswer("m", 1, {"probabilities": resp}))
    assert pieces is not None
    shared = [
        np.shares_memory(np.frombuffer(piece, dtype=np.uint8), resp) for piece in pieces if piece
    ]
    assert sum(shared) == 3


@pytest.mark.parametrize(
    "values",
    [
        {"log_likelihood": np.array([1.0, np.nan])},
        {"log_likelihood": np.array([1.0, np.inf])},
        {"bic": 1.0},
        {"labels": np.array([1, 2], dtype=np.int32)},
        {"X": rng.random((3, 2000))},
        {"labels": np.array([1, 2]), "other": np.array([1.0])},
    ],
    ids=["nan", "infinity", "one number", "narrow", "many columns", "lengths"],
)
def test_other_answers_are_left_to_arrow(values: dict[str, Value]) -> None:
    assert pieces_in_place(DataAnswer("m", 1, values)) is None
