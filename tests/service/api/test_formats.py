"""Every format of data bodies, both ways, against the libraries that usually write and read it."""

import base64
import io
import math
import pickle
import struct
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray
from pyarrow.parquet import encryption

from service.api.payloads import CODECS, codec_of, lines, parquet_format
from service.api.payloads.arrow_messages import HEADER, FlatTable
from service.api.payloads.lines import Lines
from service.api.payloads.values import DataAnswer, Expected, whole_table
from service.errors import InvalidInput, MalformedRequest
from service.settings import Settings
from tests.service.api.wire import (
    ARROW,
    CSV,
    JSON,
    NDJSON,
    NPY,
    PARQUET,
    TO_BYTES,
    TO_NAMED_BYTES,
    Columns,
    columns_in,
    flattened,
    table_of,
    to_arrow,
    to_csv,
    to_json,
    to_ndjson,
    to_npy,
    to_parquet,
)
from tests.service.client import Client, serving
from tests.service.rows import ONE_OF_EACH, TWO_GROUPS

X = np.array(ONE_OF_EACH)
PATHS = ["predict", "predict_proba", "score_samples", "score", "score/bic"]
IN_PORTIONS = [NDJSON, NPY, CSV, ARROW, PARQUET]

tables = arrays(
    np.float64,
    array_shapes(min_dims=2, max_dims=2, max_side=6),
    elements=st.floats(allow_nan=False, allow_infinity=False),
)


@pytest.mark.parametrize("media_type", CODECS)
@settings(deadline=None)
@given(table=tables)
def test_a_table_is_read_as_it_was_written(media_type: str, table: NDArray[np.float64]) -> None:
    read = codec_of(media_type).decode(TO_BYTES[media_type](table), Expected()).table

    assert np.array_equal(read.X, table)
    assert read.X.flags.c_contiguous or all(column.flags.c_contiguous for column in read.X.T)
    assert read.X.flags.aligned


@pytest.mark.parametrize("media_type", IN_PORTIONS)
@settings(deadline=None)
@given(table=tables, cuts=st.lists(st.integers(0, 2000), max_size=8))
def test_a_table_that_arrives_in_pieces_is_the_same(
    media_type: str, table: NDArray[np.float64], cuts: list[int]
) -> None:
    body = TO_BYTES[media_type](table)
    reader = codec_of(media_type).reader(Expected())
    assert reader is not None
    places = sorted({0, *(cut % len(body) for cut in cuts), len(body)})

    portions = [
        portion for begin, end in pairwise(places) for portion in reader.feed(body[begin:end])
    ]

    assert np.array_equal(whole_table([*portions, *reader.end()]).X, table)


@pytest.mark.parametrize("media_type", IN_PORTIONS)
@settings(deadline=None)
@given(table=tables)
def test_an_answer_is_read_as_it_was_written(media_type: str, table: NDArray[np.float64]) -> None:
    labels = np.arange(len(table))
    answer = DataAnswer("m", 1, {"X": table, "labels": labels})
    codec = codec_of(media_type)

    columns = columns_in(media_type, codec.encode(answer))

    expected = {f"X_{place}": column.tolist() for place, column in enumerate(table.T)}
    assert columns == {**expected, "labels": labels.tolist()}
    assert columns_in(media_type, b"".join(codec.encode_in_parts(answer))) == columns


@pytest.mark.parametrize("sent", TO_BYTES)
@pytest.mark.parametrize("path", PATHS)
def test_every_format_is_answered_like_json(fitted: Client, path: str, sent: str) -> None:
    expected = fitted.post(f"/models/groups/{path}", {"X": ONE_OF_EACH}).json()

    for target in (f"/models/groups/{path}", f"/models/groups/versions/1/{path}", f"/{path}"):
        response = fitted.send(
            "POST", target, body=TO_BYTES[sent](X), headers={"content-type": sent}
        )
        assert response.json() == expected


@pytest.mark.parametrize("wanted", IN_PORTIONS)
@pytest.mark.parametrize("path", PATHS)
def test_every_format_answers_what_json_answers(fitted: Client, path: str, wanted: str) -> None:
    expected = fitted.post(f"/models/groups/{path}", {"X": ONE_OF_EACH}).json()

    response = fitted.post(f"/models/groups/{path}", {"X": ONE_OF_EACH}, {"accept": wanted})

    assert response.headers["content-type"].partition(";")[0] == wanted
    assert response.headers["gmm-model-version"] == "1"
    answered = columns_in(wanted, response.content)
    values = [value for name, value in expected.items() if name not in ("model", "version")]
    columns = {
        str(place): value if isinstance(value, list) else [value]
        for place, value in enumerate(values)
    }
    assert with_none_for_nan(answered) == list(flattened(columns).values())


@pytest.mark.parametrize("wanted", IN_PORTIONS)
def test_a_fit_answers_in_every_format_with_its_figures_in_one_row(wanted: str) -> None:
    headers = {"accept": wanted, "idempotency-key": "once"}
    with serving() as client:
        client.post("/models", {"id": "groups", "n_components": 2})
        response, again = (
            client.post("/models/groups/fit", {"X": TWO_GROUPS}, headers) for _ in range(2)
        )
        answered = columns_in(wanted, response.content)
        expected = client.get(f"/jobs/{answered['job'][0]}").json()["result"]

    assert response.headers["content-type"].partition(";")[0] == wanted
    assert response.headers["gmm-model-version"] == "1"
    figures = {name: value for name, value in expected.items() if not isinstance(value, list)}
    del figures["model"], figures["version"]
    assert list(answered) == list(figures)
    assert with_none_for_nan(answered) == [[value] for value in figures.values()]

    assert again.headers["idempotency-replayed"] == "true"
    assert again.headers["content-type"] == response.headers["content-type"]
    assert again.content == response.content


def test_a_fit_that_goes_on_is_answered_as_a_job_whatever_is_accepted(held_client: Client) -> None:
    path = "/models/groups/fit?wait=0"
    response = held_client.post(path, {"X": TWO_GROUPS}, {"accept": CSV})
    assert (response.status_code, response.headers["content-type"]) == (202, JSON)
    assert response.json()["status"] in ("queued", "running")


def test_an_estimate_is_answered_as_json_only(groups: Client) -> None:
    path = "/models/groups/fit?validate_only=true"
    response = groups.post(path, {"X": TWO_GROUPS}, {"accept": CSV})
    assert (response.status_code, response.json()["code"]) == (406, "not_acceptable")


def with_none_for_nan(columns: Columns) -> list[list[object]]:
    """Return the columns; NPY has no missing value but those that are no numbers."""
    return [
        [
            None if isinstance(value, float) and not math.isfinite(value) else value
            for value in column
        ]
        for column in columns.values()
    ]


@pytest.mark.parametrize("wanted", [JSON, NDJSON, CSV, ARROW, PARQUET, NPY])
def test_aicc_that_has_no_value_is_null_and_in_npy_infinite(fitted: Client, wanted: str) -> None:
    """The mixture has eleven parameters, more than there are rows."""
    asked = {"X": TWO_GROUPS}
    answer = fitted.post("/models/groups/score", asked, {"accept": wanted})
    body = answer.content

    if wanted in {JSON, NDJSON}:
        assert answer.json()["aicc"] is None
    elif wanted == CSV:
        names, values = (line.split(",") for line in answer.text.split())
        assert dict(zip(names, values, strict=True))["aicc"] == ""
    elif wanted == ARROW:
        assert pa.ipc.open_stream(body).read_all()["aicc"].to_pylist() == [None]
    elif wanted == PARQUET:
        assert pq.read_table(io.BytesIO(body))["aicc"].to_pylist() == [None]
    else:
        assert np.load(io.BytesIO(body))["aicc"] == [math.inf]


@pytest.mark.parametrize("wanted", IN_PORTIONS)
def test_drawn_rows_come_in_every_format(fitted: Client, wanted: str) -> None:
    asked = {"n_samples": 60_000, "random_state": 3}
    expected = fitted.post("/models/groups/sample", asked).json()

    response = fitted.post("/models/groups/sample", asked, {"accept": wanted})

    columns = list(columns_in(wanted, response.content).values())
    assert columns == [*map(list, zip(*expected["X"], strict=True)), expected["labels"]]


@pytest.mark.parametrize("media_type", TO_NAMED_BYTES)
def test_names_of_columns_are_matched_in_every_format_that_has_them(
    client: Client, media_type: str
) -> None:
    write = TO_NAMED_BYTES[media_type]
    headers = {"content-type": media_type}
    client.post("/models", {"id": "groups", "n_components": 2, "random_state": 0})
    rows = np.array(TWO_GROUPS)
    fit = client.send("POST", "/models/groups/fit", body=write(rows, ["a", "b"]), headers=headers)
    assert fit.status_code == 200, fit.text
    assert client.get("/models/groups").json()["feature_names"] == ["a", "b"]

    def scores(X: NDArray[np.float64], names: list[str]) -> object:
        path = "/models/groups/score_samples"
        return client.send("POST", path, body=write(X, names), headers=headers).json()

    assert scores(X, ["a", "b"]) == scores(X[:, ::-1], ["b", "a"])
    assert code_of(scores(X, ["a", "c"])) == "feature_names_mismatch"


def code_of(problem: object) -> object:
    assert isinstance(problem, dict)
    return problem["code"]


@pytest.mark.parametrize("media_type", TO_BYTES)
def test_the_same_rows_fit_the_same_mixture_in_every_format(
    client: Client, media_type: str
) -> None:
    client.post("/models", {"id": "groups", "n_components": 2, "random_state": 0})
    rows = np.array(TWO_GROUPS)
    for sent in (JSON, media_type):
        client.send(
            "POST", "/models/groups/fit", body=TO_BYTES[sent](rows), headers={"content-type": sent}
        )

    fits = [client.get(f"/models/groups/versions/{number}").json() for number in (1, 2)]
    assert fits[0]["data_sha256"] == fits[1]["data_sha256"]
    assert fits[0]["fit"]["log_likelihood"] == fits[1]["fit"]["log_likelihood"]


@pytest.mark.parametrize(
    "dtype", ["<f8", ">f8", "<f4", "<f2", "<i8", ">i4", "|i1", "<u2", "<u8", "<f16"]
)
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_of_every_kind_of_number_is_read(dtype: str, order: str) -> None:
    array = np.arange(6, dtype=dtype).reshape(3, 2)

    read = codec_of(NPY).decode(to_npy(array.copy(order=order)), Expected()).table  # type: ignore[arg-type]  # parametrised

    assert np.array_equal(read.X, array)
    assert read.X.dtype in (np.float64, np.float32)


def arrow_of(table: pa.Table, options: pa.ipc.IpcWriteOptions | None = None) -> bytes:
    file = io.BytesIO()
    with pa.ipc.new_stream(file, table.schema, options=options) as stream:
        stream.write_table(table)
    return file.getvalue()


def big_endian(table: pa.Table) -> bytes:
    """Return a stream as a machine with the other order of bytes writes it."""
    stream = bytearray(arrow_of(table))
    (n_bytes,) = struct.unpack_from("<I", stream, 4)
    metadata = bytes(stream[8 : 8 + n_bytes])
    schema = FlatTable.root_of(metadata).table(HEADER)
    assert schema is not None
    at = schema.place
    vtable = at - struct.unpack_from("<i", metadata, at)[0]
    one = next(
        place for place in range(at + 2, n_bytes, 2) if metadata[place : place + 2] == b"\x01\x00"
    )
    struct.pack_into("<H", stream, 8 + vtable + 4, one - at)  # endianness is the first field
    for name in table.column_names:
        numbers = table[name].to_numpy()
        place = stream.index(numbers.tobytes(), 8 + n_bytes)
        stream[place : place + numbers.nbytes] = numbers.byteswap().tobytes()
    return bytes(stream)


@pytest.mark.parametrize("kind", ["f8", "f4", "i2", "u8"])
def test_an_arrow_stream_tells_the_order_of_its_bytes(kind: str) -> None:
    columns = {"a": np.array([1, 500, 3], dtype=kind), "b": np.array([1025, 7, 2], dtype=kind)}
    body = big_endian(pa.table(columns))
    wanted = np.column_stack(list(columns.values()))
    assert pa.ipc.open_stream(body).read_all().to_pydict() == pa.table(columns).to_pydict()

    reader = codec_of(ARROW).reader(Expected())
    assert reader is not None
    in_parts = [*reader.feed(body[:-60]), *reader.feed(body[-60:]), *reader.end()]

    assert np.array_equal(codec_of(ARROW).decode(body, Expected()).table.X, wanted)
    assert np.array_equal(np.concatenate([part.X for part in in_parts]), wanted)


def parquet_of(table: pa.Table) -> bytes:
    file = io.BytesIO()
    pq.write_table(table, file)
    return file.getvalue()


def npy_with(header: str, content: bytes = b"") -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + content


def npy_of_shape(shape: str, content: bytes) -> bytes:
    return npy_with(f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}\n", content)


TEXTS = pa.table({"a": ["xqz7", "b"], "b": [1.0, 2.0]})
WITH_NULL = pa.table({"a": pa.array([1.0, None]), "b": [1.0, 2.0]})
BOOLS = pa.table({"a": [True, False], "b": [1.0, 2.0]})
LZ4 = pa.ipc.IpcWriteOptions(compression="lz4")

REFUSED = [
    (NPY, b"", "invalid_file"),
    (NPY, b"\x93NUMPY", "invalid_file"),
    (NPY, to_npy(X)[:-1], "invalid_file"),
    (NPY, to_npy(X) + b"\0", "invalid_file"),
    (NPY, to_npy(X)[:40], "invalid_file"),
    (NPY, npy_of_shape("(3, 2)", X.tobytes()), "invalid_file"),
    (NPY, npy_of_shape("(1, 2)", X.tobytes()), "invalid_file"),
    (NPY, npy_of_shape("(-1, 2)", X.tobytes()), "invalid_file"),
    (NPY, npy_of_shape("(2.0, 2)", X.tobytes()), "invalid_file"),
    (NPY, npy_of_shape("(True, 2)", X.tobytes()), "invalid_file"),
    (NPY, npy_of_shape(f"({10**40}, 2)", X.tobytes()), "invalid_file"),
    (NPY, npy_of_shape("(0, 2)", b""), "empty_data"),
    (NPY, npy_of_shape("(4,)", X.tobytes()), "invalid_data"),
    (NPY, npy_of_shape("(1, 2, 2)", X.tobytes()), "invalid_data"),
    (NPY, npy_of_shape("[2, 2]", X.tobytes()), "invalid_file"),
    (NPY, npy_with("[" * 9000), "invalid_file"),
    (NPY, to_npy(X).replace(b"\x01\x00", b"\x01\x01", 1), "invalid_file"),
    (NPY, to_npy(X).replace(b"\x01\x00", b"\x04\x00", 1), "invalid_file"),
    (NPY, to_npy(X).replace(b"<f8", b"<a8"), "invalid_data"),
    (NPY, to_npy(X).replace(b"<f8", b"<f7"), "invalid_data"),
    (NPY, to_npy(X).replace(b"<f8", b"<O8"), "invalid_data"),
    (NPY, to_npy(X).replace(b"False", b"1    "), "invalid_file"),
    (NPY, to_npy(X).replace(b"False", b"None "), "invalid_file"),
    (NPY, to_npy(X).replace(b"False", b"[1]  "), "invalid_file"),
    (NPY, npy_with("{'descr': '<f8'}"), "invalid_file"),
    (NPY, npy_with("__import__('os')"), "invalid_file"),
    (NPY, to_npy(X.astype(bool)), "invalid_data"),
    (NPY, to_npy(X.astype(complex)), "invalid_data"),
    (NPY, to_npy(X.astype("U3")), "invalid_data"),
    (NPY, to_npy(X.astype("M8[s]")), "invalid_data"),
    (NPY, to_npy(np.zeros((2, 2), dtype=[("a", "f8")])), "invalid_data"),
    (NPY, to_npy(np.array([["xqz7", None]], dtype=object), allow_pickle=True), "invalid_data"),
    (NPY, pickle.dumps(X), "invalid_file"),
    (NPY, to_npy(np.array([[np.nan, 1.0]])), "non_finite_number"),
    (NPY, to_npy(np.array([[1.0, np.inf]], dtype="<f4")), "non_finite_number"),
    (NPY, to_npy(np.ones((2, 3))), "dimension_mismatch"),
    (ARROW, b"", "invalid_file"),
    (ARROW, b"xqz7" * 10, "invalid_file"),
    (ARROW, to_arrow(X)[:-40], "invalid_file"),
    (ARROW, to_arrow(X)[:100], "invalid_file"),
    (ARROW, to_arrow(X) + b"\0", "invalid_file"),
    (ARROW, to_arrow(X) + to_arrow(X), "invalid_file"),
    (ARROW, arrow_of(TEXTS), "invalid_data"),
    (ARROW, arrow_of(BOOLS), "invalid_data"),
    (ARROW, arrow_of(WITH_NULL), "non_finite_number"),
    (ARROW, arrow_of(table_of(X), LZ4), "invalid_data"),
    (ARROW, arrow_of(table_of(X).slice(0, 0)), "empty_data"),
    (ARROW, to_arrow(np.ones((2, 3))), "dimension_mismatch"),
    (ARROW, struct.pack("<II", 0xFFFFFFFF, 2**31), "invalid_file"),
    (ARROW, struct.pack("<II", 0xFFFFFFFF, 8) + b"\xff" * 8, "invalid_file"),
    (PARQUET, b"", "invalid_file"),
    (PARQUET, b"PAR1" + b"xqz7" * 10 + b"PAR1", "invalid_file"),
    (PARQUET, to_parquet(X)[:-1], "invalid_file"),
    (PARQUET, to_parquet(X)[10:], "invalid_file"),
    (PARQUET, parquet_of(TEXTS), "invalid_data"),
    (PARQUET, parquet_of(BOOLS), "invalid_data"),
    (PARQUET, parquet_of(WITH_NULL), "non_finite_number"),
    (PARQUET, parquet_of(table_of(X).slice(0, 0)), "empty_data"),
    (CSV, b"", "empty_data"),
    (CSV, b"\n\n", "empty_data"),
    (CSV, b"a,b\n", "empty_data"),
    (CSV, b"a,b\n1,2\n3\n", "ragged_rows"),
    (CSV, b"1,2\n3,4,5\n", "ragged_rows"),
    (CSV, b"1,2\n3,xqz7\n", "invalid_data"),
    (CSV, b'1,2\n3,"xqz7\n', "invalid_data"),
    (CSV, b"1,2\n3,\n", "non_finite_number"),
    (CSV, b"1,2\nnan,3\n", "non_finite_number"),
    (CSV, b"1,2\n1e400,3\n", "non_finite_number"),
    (CSV, b"1,2\n0x10,3\n", "invalid_data"),
    (CSV, b"1,2\n3,4\xff\n", "not_utf8"),
    (CSV, b",\x80", "not_utf8"),
    (CSV, b"a,\xff\n3,4\n", "not_utf8"),
    (CSV, b"a,a\n3,4\n", "invalid_parameter"),
    (CSV, b"a,\n3,4\n", "invalid_parameter"),
    (CSV, b"1,2,3\n", "dimension_mismatch"),
    (CSV, b"1;2\n3;4\n", "invalid_data"),
    (CSV, b"a" * (17 * 1024**2), "invalid_data"),
    (CSV, b"1,2\n3," + b"0" * (17 * 1024**2) + b"4\n5,6\n", "invalid_data"),
    (NDJSON, b"", "empty_data"),
    (NDJSON, b"\n \n", "empty_data"),
    (NDJSON, b"[1,2]\n[3\n", "malformed_json"),
    (NDJSON, b"[1,2],[3,4]\n", "malformed_json"),
    (NDJSON, b"[1,2],[3,4]\n[5,\n6]\n", "malformed_json"),
    (NDJSON, b"[1,2]\n[3]\n", "ragged_rows"),
    (NDJSON, b"[1,2]\n" * 2000 + b"[3]\n", "ragged_rows"),
    (NDJSON, b"[1,2]\n" * 2000 + b"[3,4],[5,6]\n[7,\n8]\n", "malformed_json"),
    (NDJSON, b"[1,2]\n" * 2000 + b"[3,null]\n", "non_finite_number"),
    (NDJSON, b"[1,2]\n[3,null]\n", "non_finite_number"),
    (NDJSON, b"[1,2]\n[3,1e400]\n", "non_finite_number"),
    (NDJSON, b"[1,2]\n[3,NaN]\n", "malformed_json"),
    (NDJSON, b'[1,2]\n[3,"xqz7"]\n', "invalid_data"),
    (NDJSON, b'[1,2]\n{"a":1,"b":2}\n', "invalid_data"),
    (NDJSON, b'[1,2]\n{"a":1,"b":2}', "invalid_data"),
    (NDJSON, b'{"a":1,"b":2}\n[1,2]\n', "feature_names_mismatch"),
    (NDJSON, b'{"a":1,"b":2}\n{"a":1,"c":2}\n', "feature_names_mismatch"),
    (NDJSON, b'{"a":1,"a":2}\n', "duplicate_key"),
    (NDJSON, b'{"a":1,"b":2}\n{"a":1,"a":2}\n', "duplicate_key"),
    (NDJSON, b'{"a":1,"b":{"c":2}}\n', "invalid_data"),
    (NDJSON, b"7\n", "invalid_data"),
    (NDJSON, b"[" * 17 + b"]" * 17 + b"\n", "nesting_too_deep"),
    (NDJSON, b"[1,\xff]\n", "not_utf8"),
    (NDJSON, b"[1,2]\n[3," + b" " * (17 * 1024**2) + b"4]\n[5,6]\n", "invalid_data"),
]


@pytest.fixture(scope="module")
def groups() -> Iterator[Client]:
    with serving() as client:
        client.post("/models", {"id": "groups", "n_components": 2, "random_state": 0})
        client.post("/models/groups/fit", {"X": TWO_GROUPS})
        yield client


@pytest.mark.parametrize(
    ("media_type", "body", "code"),
    REFUSED,
    ids=[f"{media_type} {code} {place}" for place, (media_type, _, code) in enumerate(REFUSED)],
)
def test_a_wrong_body_is_refused_with_its_code(
    groups: Client, media_type: str, body: bytes, code: str
) -> None:
    headers = {"content-type": media_type}
    response = groups.send("POST", "/models/groups/predict", body=body, headers=headers)

    assert response.status_code in (400, 422)
    assert response.json()["code"] == code
    assert "xqz7" not in response.text


@pytest.mark.parametrize("n_pieces", [1, 2, 3])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_line_has_the_same_bound_in_however_many_pieces_it_comes(
    monkeypatch: pytest.MonkeyPatch, n_pieces: int, place: int
) -> None:
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 100)

    def fed(n_bytes: int) -> bytes:
        sent = [b"1", b"2" * 90, b"3"]
        sent[place] = b"4" * n_bytes
        text = b"\n".join([*sent, b""])
        bounds = [len(text) * piece // n_pieces for piece in range(n_pieces + 1)]
        reader = Lines()
        return b"\n".join(
            part for begin, end in pairwise(bounds) for part in reader.feed(text[begin:end])
        )

    assert fed(100).split(b"\n")[place] == b"4" * 100
    with pytest.raises(InvalidInput, match="a line has at most 100 bytes"):
        fed(101)


@pytest.mark.parametrize("media_type", [JSON, NPY, ARROW, CSV])
def test_a_value_out_of_range_is_pointed_at(groups: Client, media_type: str) -> None:
    rows = np.array([[1.0, 2.0], [3.0, -1e200], [1e160, 4.0]])
    body = TO_BYTES[media_type](rows)
    headers = {"content-type": media_type}
    response = groups.send("POST", "/models/groups/predict", body=body, headers=headers)

    assert response.status_code == 422
    assert response.json()["code"] == "value_out_of_range"
    assert [issue["pointer"] for issue in response.json()["errors"]] == ["#/X/1/1", "#/X/2/0"]


@pytest.mark.parametrize("media_type", IN_PORTIONS)
@settings(deadline=None)
@given(body=st.binary(max_size=200), begin=st.integers(0, 400), cut=st.integers(0, 4))
def test_whatever_the_bytes_are_the_refusal_is_one_of_ours(
    media_type: str, body: bytes, begin: int, cut: int
) -> None:
    whole = TO_BYTES[media_type](X)
    damaged = whole[:begin] + body[: cut or None] + whole[begin + cut :]

    try:
        table = codec_of(media_type).decode(damaged, Expected()).table
    except (InvalidInput, MalformedRequest):
        return
    assert table.X.ndim == 2


@pytest.mark.parametrize(
    ("media_type", "body"),
    [
        (NPY, npy_of_shape("(2000, 2)", b"")),
        (NPY, npy_of_shape("(2, 2000)", b"")),
        (ARROW, to_arrow(np.ones((2000, 2)))[:-1000]),
        (PARQUET, to_parquet(np.ones((2000, 2)))),
    ],
)
def test_what_is_too_large_is_refused_by_what_it_says_of_itself(
    media_type: str, body: bytes
) -> None:
    """Before the rows are there, let alone decoded."""
    with serving(Settings(max_rows=1000, max_features=1000)) as client:
        reader = codec_of(media_type).reader(Expected(admit=client.services.limits.require_table))
        assert reader is not None
        with pytest.raises(InvalidInput) as refusal:
            [*reader.feed(body), *reader.end()]

    assert refusal.value.code == "work_budget_exceeded"


@pytest.mark.parametrize(
    ("body", "row"),
    [(b"a,b\n1,2\n3,4\n5,x\n", "#/X/2/1"), (b"1,2\n3,4\n5,x\n", "#/X/2/1")],
)
def test_a_wrong_value_of_csv_is_pointed_at(groups: Client, body: bytes, row: str) -> None:
    headers = {"content-type": CSV}
    problem = groups.send("POST", "/predict", body=body, headers=headers).json()

    assert problem["errors"][0]["pointer"] == row


@pytest.mark.parametrize(
    ("body", "place"),
    [
        (b'1,2\n3,"4', "#/X/1/1"),
        (b'1,2\n3,"4\n', "#/X/1/1"),
        (b'a,b\r\n1,2\r\n\r\n"3,4\r\n5,6', "#/X/1/0"),
        (b'"1","2"\n"3","4""', "#/X/1/1"),
    ],
)
def test_a_quote_that_does_not_end_is_refused(groups: Client, body: bytes, place: str) -> None:
    answer = groups.send("POST", "/predict", body=body, headers={"content-type": CSV})

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_data")
    assert answer.json()["errors"][0]["pointer"] == place


def test_a_quote_that_does_not_end_is_found_in_any_portion() -> None:
    reader = codec_of(CSV).reader(Expected())
    assert reader is not None
    list(reader.feed(b"a,b\n1,2\n3,4\n"))
    list(reader.feed(b'"5","6"\n7'))

    with pytest.raises(InvalidInput) as refusal:
        list(reader.feed(b',"8\n'))

    assert refusal.value.issues[0].pointer == "#/X/3/1"


def test_rows_of_other_lengths_are_named_in_any_portion_and_coding() -> None:
    reader = codec_of(CSV).reader(Expected())
    assert reader is not None
    list(reader.feed(b"a,b\n1,2\n"))

    with pytest.raises(InvalidInput) as refusal:
        list(reader.feed(b"\xff\n3,4\n\xe9,5,6\n"))

    assert [issue.pointer for issue in refusal.value.issues] == ["#/X/1", "#/X/3"]


def test_a_quote_within_a_label_is_none_that_begins_a_value() -> None:
    expected = Expected(label_column="kind")
    reader = codec_of(CSV).reader(expected)
    assert reader is not None

    tables = [*reader.feed(b'x,kind\n1,5" pipe\n2,"6"" pipe"\n'), *reader.end()]

    assert np.concatenate([table.X for table in tables]).ravel().tolist() == [1, 2]


def test_a_wrong_line_of_ndjson_is_pointed_at() -> None:
    reader = codec_of(NDJSON).reader(Expected())
    assert reader is not None
    list(reader.feed(b"[1,2]\n[3,4]\n"))

    with pytest.raises(InvalidInput) as refusal:
        list(reader.feed(b"[5,6]\n[7,null]\n"))

    assert refusal.value.issues[0].pointer == "#/X/3/1"


@pytest.mark.parametrize(
    ("content_type", "body", "names", "n_rows"),
    [
        ("text/csv", b"1,2\n3,4\n", None, 2),
        ("text/csv", b"a,b\r\n1,2\r\n3,4\r\n", ("a", "b"), 2),
        ("text/csv", b"a,b\r1,2\r3,4", ("a", "b"), 2),
        ("text/csv", b'\n"a\nb","c,d"\n1,2\n"3","4"\n', ("a\nb", "c,d"), 2),
        ("text/csv", b"\xef\xbb\xbfa,b\n1,2\n", ("a", "b"), 1),
        ("text/csv", b"2019,2020\n1,2\n", None, 2),
        ("text/csv; header=present", b"2019,2020\n1,2\n", ("2019", "2020"), 1),
        ("text/csv;charset=UTF-8;header=Absent", b"1,2\n3,4\n", None, 2),
        ("text/csv", b"1,2\n\n3,4\n\n", None, 2),
        ("text/csv", b"2020_01,2020_02\n1,2\n", ("2020_01", "2020_02"), 1),
        ("text/csv", b"1e5_0,1\n1,2\n", ("1e5_0", "1"), 1),
        ("text/csv", "\u0661,\u0662\n1,2\n".encode(), ("\u0661", "\u0662"), 1),
        ("text/csv", b' 1.5,"2e3"\n1,2\n', None, 2),
    ],
)
def test_the_first_line_of_csv_is_names_or_a_row(
    groups: Client, content_type: str, body: bytes, names: object, n_rows: int
) -> None:
    name, _, parameters = content_type.partition(";")
    given_header = parameters.rpartition("header=")[2].lower()
    expected = Expected(parameters={"header": given_header})

    table = codec_of(name).decode(body, expected).table
    headers = {"content-type": content_type}
    response = groups.send("POST", "/predict", body=body, headers=headers)

    assert (table.feature_names, len(table.X)) == (names, n_rows)
    assert len(response.json()["labels"]) == n_rows


@pytest.mark.parametrize("path", ["/predict", "/models/groups/fit"])
def test_a_header_that_csv_does_not_know_is_refused(groups: Client, path: str) -> None:
    headers = {"content-type": "text/csv; header=maybe"}
    response = groups.send("POST", path, body=b"1,2\n3,4\n", headers=headers)
    assert (response.status_code, response.json()["code"]) == (422, "invalid_parameter")
    assert "present or absent" in response.json()["detail"]


@pytest.mark.parametrize(
    "parameters",
    [
        "header=present; header=absent", "header=absent;HEADER=absent",
        "charset=utf-8; charset=latin-1",
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/predict", "/models/groups/predict", "/models/groups/fit"])
def test_a_parameter_given_twice_is_refused(groups: Client, path: str, parameters: str) -> None:
    headers = {"content-type": f"text/csv; {parameters}"}
    response = groups.send("POST", path, body=b"1,2\n3,4\n", headers=headers)
    assert (response.status_code, response.json()["code"]) == (415, "unsupported_media_type")
    assert "each parameter given once" in response.json()["detail"]


def test_empty_parameters_say_nothing(groups: Client) -> None:
    headers = {"content-type": "text/csv;; ;header=absent;"}
    response = groups.send("POST", "/predict", body=b"1,2\n3,4\n", headers=headers)
    assert len(response.json()["labels"]) == 2


@pytest.mark.parametrize("has_plain_footer", [False, True])
def test_encrypted_parquet_is_refused_as_such(has_plain_footer: bool) -> None:
    class Keys(encryption.KmsClient):  # type: ignore[misc]  # pyarrow has no types
        def wrap_key(self, key_bytes: bytes, master_key_identifier: str) -> bytes:
            return base64.b64encode(key_bytes + master_key_identifier.encode())

    factory = encryption.CryptoFactory(lambda _: Keys())
    configuration = encryption.EncryptionConfiguration(
        footer_key="a", column_keys={"b": ["x0"]}, plaintext_footer=has_plain_footer
    )
    properties = factory.file_encryption_properties(encryption.KmsConnectionConfig(), configuration)
    table, file = pa.table({"x0": [1.0, 2.0]}), io.BytesIO()
    with pq.ParquetWriter(file, table.schema, encryption_properties=properties) as writer:
        writer.write_table(table)

    with pytest.raises(InvalidInput, match="encrypted Parquet file"):
        codec_of(PARQUET).decode(file.getvalue(), Expected())


@pytest.fixture
def undecoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no row of a Parquet file be decoded."""

    def iter_batches(*_: object, **__: object) -> object:
        raise AssertionError("rows were decoded")

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", iter_batches)


@pytest.mark.parametrize("path", ["/predict", "/predict_proba", "/score_samples", "/score"])
@pytest.mark.parametrize("form", ["/models/groups{}", "/models/groups/versions/1{}", "{}"])
@pytest.mark.usefixtures("undecoded")
def test_parquet_of_another_dimension_is_refused_by_its_footer(
    fitted: Client, path: str, form: str
) -> None:
    zeros = parquet_of(pa.table({f"c{column}": np.zeros(100_000) for column in range(5)}))
    response = fitted.send("POST", form.format(path), body=zeros, headers={"content-type": PARQUET})

    assert (response.status_code, response.json()["code"]) == (422, "dimension_mismatch")


@pytest.mark.usefixtures("undecoded")
def test_parquet_of_other_columns_is_refused_by_its_footer() -> None:
    with serving() as client:
        client.post("/models", {"id": "named"})
        named = {"columns": ["a", "b"], "data": TWO_GROUPS}
        assert client.post("/models/named/fit", named).status_code == 200
        zeros = parquet_of(pa.table({name: np.zeros(100_000) for name in "ac"}))
        response = client.send(
            "POST", "/models/named/predict", body=zeros, headers={"content-type": PARQUET}
        )

    assert (response.status_code, response.json()["code"]) == (422, "feature_names_mismatch")
    assert [issue["code"] for issue in response.json()["errors"]] == [
        "missing_feature",
        "unknown_feature",
    ]


@pytest.mark.parametrize(
    ("columns", "code", "pointers"),
    [
        (["a"], "dimension_mismatch", ["#/columns"]),
        (["a", "a"], "invalid_parameter", ["#/columns/1"]),
        (["", "b" * 10_000], "invalid_parameter", ["#/columns/0", "#/columns/1"]),
    ],
)
def test_unfit_names_of_columns_are_pointed_at(
    fitted: Client, columns: list[str], code: str, pointers: list[str]
) -> None:
    named = {"columns": columns, "data": TWO_GROUPS}
    response = fitted.post("/models/groups/predict", named)

    assert (response.status_code, response.json()["code"]) == (422, code)
    assert [issue["pointer"] for issue in response.json()["errors"]] == pointers
    assert {issue["code"] for issue in response.json()["errors"]} == {code}


@pytest.mark.usefixtures("undecoded")
def test_parquet_whose_answer_takes_too_much_memory_is_refused_by_its_footer() -> None:
    """The rows alone would fit."""
    with serving(Settings(max_memory_bytes=5_000_000)) as client:
        client.post("/models", {"id": "groups", "n_components": 2})
        client.post("/models/groups/fit", {"X": TWO_GROUPS})
        zeros = parquet_of(pa.table({name: np.zeros(200_000) for name in "ab"}))
        response = client.send(
            "POST", "/models/groups/predict", body=zeros, headers={"content-type": PARQUET}
        )

    assert (response.status_code, response.json()["code"]) == (422, "work_budget_exceeded")


def test_wide_parquet_is_decoded_few_rows_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_format, "PORTION_NUMBERS", 1000)
    X = np.random.default_rng(0).normal(size=(500, 7))
    reader = codec_of(PARQUET).reader(Expected())
    assert reader is not None
    assert not list(reader.feed(TO_BYTES[PARQUET](X)))

    tables = list(reader.end())
    assert max(table.X.size for table in tables) <= 1000
    assert np.array_equal(np.concatenate([table.X for table in tables]), X)


def test_row_labels_that_pandas_adds_are_not_features() -> None:
    table = table_of(X).append_column("__index_level_0__", pa.array(["xqz7", "b"]))

    for media_type, body in ((ARROW, arrow_of(table)), (PARQUET, parquet_of(table))):
        assert np.array_equal(codec_of(media_type).decode(body, Expected()).table.X, X)


def test_an_accepted_format_is_chosen_by_preference(fitted: Client) -> None:
    def answered(accept: str) -> str:
        response = fitted.post("/predict", {"X": ONE_OF_EACH}, {"accept": accept})
        return str(response.headers["content-type"]).partition(";")[0]

    assert answered("text/csv") == CSV
    assert answered("application/x-npy, application/json;q=0.5") == NPY
    assert answered("text/html, */*;q=0.1") == JSON
    assert answered("text/html") == "application/problem+json"


def test_a_large_binary_body_may_be_larger_than_a_text() -> None:
    with serving(Settings(max_body_bytes=1024, max_binary_body_bytes=2048)) as client:
        client.post("/models", {"id": "m"})
        client.post("/models/m/fit", {"X": TWO_GROUPS})
        rows = np.full((110, 2), 1 / 3)
        answers = [
            client.send(
                "POST",
                "/predict",  # answered as NPY, which is not written before all rows are there
                body=write(rows),
                headers={"content-type": media_type, "accept": NPY},
            )
            for media_type, write in (
                (NPY, to_npy),
                (CSV, to_csv),
                (JSON, to_json),
                (NDJSON, to_ndjson),
            )
        ]
        larger = client.send(
            "POST",
            "/predict",
            body=to_npy(np.ones((200, 2))),
            headers={"content-type": NPY, "accept": NPY},
        )

    assert [answer.status_code for answer in answers] == [200, 413, 413, 413]
    assert larger.status_code == 413


WITHOUT_ARROW = """
import sys
sys.modules["pyarrow"] = None
from service.api.payloads import CODECS
from tests.service.client import serving
with serving() as client:
    sent = client.send("POST", "/predict", body=b"1,2", headers={"content-type": "text/csv"})
    wanted = client.send(
        "POST", "/predict", body=b"[1,2]",
        headers={"content-type": "application/x-ndjson", "accept": "text/csv"},
    )
print(*CODECS, sent.status_code, "extra `formats`" in sent.text, wanted.status_code)
"""


def test_without_the_extra_its_formats_are_not_offered() -> None:
    ran = subprocess.run(  # noqa: S603  # our own code
        [sys.executable, "-c", WITHOUT_ARROW], capture_output=True, text=True, check=False
    )

    assert ran.stdout.split() == [JSON, NDJSON, NPY, "415", "True", "406"], ran.stderr
