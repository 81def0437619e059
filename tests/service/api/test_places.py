"""Where a number that the engine refuses is said to stand: where it was sent, in whatever format.

The columns of a body may come in another order than the model's, beside a column of labels or an
index, under another member's name, and in portions.
"""

import io
from collections.abc import Callable, Iterator

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.service.client import Client, serving
from tests.service.rows import TWO_GROUPS

JSON, NDJSON, CSV = "application/json", "application/x-ndjson", "text/csv"
ARROW = "application/vnd.apache.arrow.stream"
PARQUET = "application/vnd.apache.parquet"

MANY_ROWS = 300_000
"""Of which no format makes less than a megabyte, so that they are read in portions."""


@pytest.fixture(scope="module")
def named() -> Iterator[Client]:
    """Serve the model ``groups`` of the features ``a`` and ``b``."""
    with serving() as client:
        client.post("/models", {"id": "groups", "n_components": 2, "random_state": 0})
        body = {"X": TWO_GROUPS, "feature_names": ["a", "b"]}
        response = client.post("/models/groups/fit", body)
        assert response.status_code == 200, response.text
        yield client


def as_arrow(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=70_000)
    return sink.getvalue()


def as_parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


COLUMNAR = {ARROW: as_arrow, PARQUET: as_parquet}


def refused(client: Client, path: str, media_type: str, body: bytes) -> tuple[list[str], str]:
    """Return the places that a refusal names, and its sentence."""
    headers = {"content-type": media_type}
    response = client.send("POST", f"/models/groups/{path}", body=body, headers=headers)
    assert response.status_code == 422, response.text
    problem = response.json()
    return [error["pointer"] for error in problem["errors"]], problem["detail"]


@pytest.mark.parametrize("path", ["predict", "score", "diagnostics", "compare/kmeans"])
@pytest.mark.parametrize("value", ["nan", "inf", "1e400", "", "NA", "1e200"])
def test_a_number_of_csv_has_the_place_it_was_sent_at(named: Client, path: str, value: str) -> None:
    pointers, detail = refused(named, path, CSV, f"b,a\n1,2\n1,{value}\n".encode())
    assert pointers == ["#/X/1/1"]
    assert value == "1e200" or "first at index [1, 1]" in detail


@pytest.mark.parametrize("media_type", COLUMNAR)
@pytest.mark.parametrize("value", [None, np.nan, np.inf, 1e200])
def test_a_number_in_columns_has_the_place_it_was_sent_at(
    named: Client, media_type: str, value: float | None
) -> None:
    table = pa.table({"b": [1.0, 1.0], "a": [2.0, value]})
    assert refused(named, "predict", media_type, COLUMNAR[media_type](table))[0] == ["#/X/1/1"]


@pytest.mark.parametrize("value", ["1e200", "1e400", "null"])
@pytest.mark.parametrize(
    ("media_type", "body", "place"),
    [
        (JSON, '{"X":[[1,2],[1,%s]]}', "#/X/1/1"),
        (JSON, '{"instances":[[1,2],[1,%s]]}', "#/instances/1/1"),
        (JSON, '{"columns":["b","a"],"data":[[1,2],[1,%s]]}', "#/data/1/1"),
        (NDJSON, "[1,2]\n[1,%s]\n", "#/X/1/1"),
        (NDJSON, '{"b":1,"a":2}\n{"b":1,"a":%s}\n', "#/X/1/1"),
        (NDJSON, '{"b":1,"a":2}\n{"a":%s,"b":1}\n', "#/X/1/1"),
        (NDJSON, '{"a":%s,"b":1}\n{"b":1,"a":2}\n', "#/X/0/0"),
    ],
)
def test_a_number_of_json_has_one_place_whatever_is_wrong_with_it(
    named: Client, value: str, media_type: str, body: str, place: str
) -> None:
    assert refused(named, "predict", media_type, (body % value).encode())[0] == [place]


def test_a_number_beyond_doubles_under_a_name_that_is_not_the_firsts_has_its_row(
    named: Client,
) -> None:
    body = b'{"b":1,"a":2}\n{"c":1e400,"b":1}\n'
    assert refused(named, "predict", NDJSON, body)[0] == ["#/X/1"]


@pytest.mark.parametrize("path", ["fit", "select?n_components=1"])
def test_a_number_that_can_not_be_fitted_is_pointed_at_in_its_member(
    named: Client, path: str
) -> None:
    body = b'{"columns":["b","a"],"data":[[1,2],[1,1e200]]}'
    assert refused(named, path, JSON, body)[0] == ["#/data/1/1"]


LABELLED: dict[str, Callable[[float], bytes]] = {
    CSV: lambda value: f"b,kind,a\n1,u,2\n1,v,{value}\n".encode(),
    JSON: lambda value: (
        f'{{"columns":["b","kind","a"],"data":[[1,"u",2],[1,"v",{value}]]}}'
    ).encode(),
    NDJSON: lambda value: (
        f'{{"b":1,"kind":"u","a":2}}\n{{"b":1,"kind":"v","a":{value}}}\n'
    ).encode(),
    ARROW: lambda value: as_arrow(labelled_columns(value)),
    PARQUET: lambda value: as_parquet(labelled_columns(value)),
}


def labelled_columns(value: float) -> pa.Table:
    return pa.table({"b": [1.0, 1.0], "kind": ["u", "v"], "a": [2.0, value]})


@pytest.mark.parametrize("media_type", LABELLED)
def test_the_column_of_labels_counts_in_a_place(named: Client, media_type: str) -> None:
    body = LABELLED[media_type](1e200)
    rows = "data" if media_type == JSON else "X"
    path = "diagnostics?label_column=kind"
    assert refused(named, path, media_type, body)[0] == [f"#/{rows}/1/2"]


@pytest.mark.parametrize("media_type", [CSV, ARROW, PARQUET])
def test_the_column_of_labels_counts_in_the_place_of_what_is_no_number(
    named: Client, media_type: str
) -> None:
    pointers, detail = refused(
        named, "diagnostics?label_column=kind", media_type, LABELLED[media_type](np.nan)
    )
    assert pointers == ["#/X/1/2"]
    assert "first at index [1, 2]" in detail


@pytest.mark.parametrize("media_type", COLUMNAR)
def test_an_index_that_is_not_looked_at_counts_in_a_place(named: Client, media_type: str) -> None:
    table = pa.table({"__index_level_0__": [7, 8], "b": [1.0, 1.0], "a": [2.0, np.nan]})
    body = COLUMNAR[media_type](table)
    assert refused(named, "predict", media_type, body)[0] == ["#/X/1/2"]


@pytest.mark.parametrize("media_type", COLUMNAR)
@pytest.mark.parametrize(("name", "values"), [("a", ["u", "v"]), ("c", [1.0, 2.0])])
def test_a_column_that_is_none_of_the_models_has_its_place_beside_an_index(
    named: Client, media_type: str, name: str, values: list[object]
) -> None:
    table = pa.table({"__index_level_0__": [7, 8], "b": [1.0, 1.0], name: values})
    body = COLUMNAR[media_type](table)
    assert refused(named, "predict", media_type, body)[0][-1:] == ["#/columns/2"]


def test_a_row_that_leaves_the_range_along_principal_axes_is_named_without_a_column(
    named: Client,
) -> None:
    declared = {"id": "mapped", "random_state": 0, "standardize": True, "pca_components": 2}
    named.post("/models", declared)
    rows = (1e-6 * np.random.default_rng(0).random((30, 3))).tolist()
    assert named.post("/models/mapped/fit", {"X": rows}).status_code == 200
    response = named.post("/models/mapped/predict", {"X": [[0, 0, 0], [1, 1e150, 1]]})
    assert [error["pointer"] for error in response.json()["errors"]] == ["#/X/1"]


def test_a_row_far_from_all_components_has_one_number_in_sentence_and_place(
    named: Client,
) -> None:
    body = b"b,a\n" + b"1,2\n" * MANY_ROWS + b"1,-1e152\n"
    named.post("/models", {"id": "small", "random_state": 0})
    fitted = named.post("/models/small/fit", {"X": [[0, 0], [1e-9, 0], [0, 1e-9], [1e-9, 2e-9]]})
    assert fitted.status_code == 200, fitted.text
    headers = {"content-type": CSV}
    problem = named.send("POST", "/models/small/score", body=body, headers=headers).json()
    assert [error["pointer"] for error in problem["errors"]] == [f"#/X/{MANY_ROWS}"]
    assert problem["detail"].startswith(f"row {MANY_ROWS} is so far from every component")


MANY: dict[str, Callable[[], bytes]] = {
    CSV: lambda: b"b,a\n" + b"1,2\n" * MANY_ROWS + b"1,1e200\n",
    NDJSON: lambda: b'{"b":1,"a":2}\n' * MANY_ROWS + b'{"b":1,"a":1e200}\n',
    ARROW: lambda: as_arrow(many_columns()),
    PARQUET: lambda: as_parquet(many_columns()),
}


def many_columns() -> pa.Table:
    a = np.full(MANY_ROWS + 1, 2.0)
    a[-1] = 1e200
    rng = np.random.default_rng(0)
    return pa.table({"b": rng.random(MANY_ROWS + 1), "a": a})


@pytest.mark.parametrize("path", ["score", "fit"])
@pytest.mark.parametrize("media_type", MANY)
def test_a_row_of_a_body_in_portions_is_counted_from_its_beginning(
    named: Client, path: str, media_type: str
) -> None:
    assert refused(named, path, media_type, MANY[media_type]())[0] == [f"#/X/{MANY_ROWS}/1"]


@pytest.mark.parametrize("path", ["predict", "fit"])
@pytest.mark.parametrize("before", ['"X":', '"instances":', '"columns":["b","a"],"data":'])
def test_a_number_beyond_doubles_in_a_large_body_has_its_place(
    named: Client, path: str, before: str
) -> None:
    rows = "[1,2]," * MANY_ROWS
    body = f"{{{before}[{rows}[1,1e999],[1,2],[-1e999,1]]}}".encode()
    member = before.split('"')[-2]
    places = [f"#/{member}/{MANY_ROWS}/1", f"#/{member}/{MANY_ROWS + 2}/0"]
    assert refused(named, path, JSON, body)[0] == places


@pytest.mark.parametrize("path", ["predict", "score", "fit", "diagnostics"])
def test_values_of_csv_that_are_no_numbers_are_named_in_the_order_of_rows(
    named: Client, path: str
) -> None:
    body = b"b,a\n1,x\n1,2\ny,2\nz,w\n"
    places = ["#/X/0/1", "#/X/2/0", "#/X/3/0", "#/X/3/1"]
    assert refused(named, path, CSV, body)[0] == places


def test_the_first_20_values_of_csv_that_are_no_numbers_are_named(named: Client) -> None:
    body = b"b,a\n" + b"1,2\nu,v\n" * 500
    places = [f"#/X/{row}/{column}" for row in range(1, 20, 2) for column in (0, 1)]
    assert refused(named, "predict", CSV, body)[0] == places


@pytest.mark.parametrize("path", ["predict", "score", "fit"])
def test_values_of_csv_in_portions_are_named_in_the_order_of_rows(named: Client, path: str) -> None:
    rows = [b"1,2"] * MANY_ROWS
    rows[50_000] = rows[50_001] = b"1,x"
    rows[59_999] = b"y,2"
    body = b"\n".join([b"b,a", *rows])
    places = ["#/X/50000/1", "#/X/50001/1", "#/X/59999/0"]
    assert refused(named, path, CSV, body)[0] == places


@pytest.mark.parametrize(
    ("body", "places"),
    [
        (b'b,a\n1,"x\ny"\n\n 1 ,2\n"3","z""\n"\n', ["#/X/0/1", "#/X/2/1"]),
        (b"1,2\nNA,\n1,2x\n", ["#/X/2/1"]),
        (b"b,a\n" + b'1,"2"\n' * 9 + b"1,2 3\n", ["#/X/9/1"]),
    ],
)
def test_what_is_no_number_of_csv_is_told_among_what_is(
    named: Client, body: bytes, places: list[str]
) -> None:
    assert refused(named, "predict", CSV, body)[0] == places


def test_the_column_of_labels_counts_in_the_places_of_values_of_csv(named: Client) -> None:
    body = b"kind,b,a\nu,1,x\nv,y,2\n"
    path = "diagnostics?label_column=kind"
    assert refused(named, path, CSV, body)[0] == ["#/X/0/2", "#/X/1/1"]


def test_labels_of_csv_that_are_not_utf8_are_malformed(named: Client) -> None:
    path = "/models/groups/diagnostics?label_column=kind"
    body = b"kind,b,a\n" + b"u,1,2\n" * MANY_ROWS + b"\xff,1,2\n"
    response = named.send("POST", path, body=body, headers={"content-type": CSV})
    assert (response.status_code, response.json()["code"]) == (400, "not_utf8")


def test_rows_of_csv_of_other_lengths_are_all_named(named: Client) -> None:
    body = b"b,a\n1,2,3\n1,2\n\n1\n" + b"1\n" * 100
    places = [f"#/X/{row}" for row in (0, *range(2, 21))]
    assert refused(named, "predict", CSV, body)[0] == places


@pytest.mark.parametrize(
    ("names", "places"),
    [
        (["a", "a"], [1]),
        (["a", ""], [1]),
        (["a"], []),
        (["a", "b", "c"], []),
    ],
)
@pytest.mark.parametrize("path", ["fit", "diagnostics"])
@pytest.mark.parametrize("rows", ["X", "instances"])
def test_unfit_names_have_their_place_in_the_field_they_were_sent_in(
    named: Client, path: str, rows: str, names: list[str], places: list[int]
) -> None:
    body = orjson.dumps({rows: TWO_GROUPS, "feature_names": names})
    pointers = [f"#/feature_names/{place}" for place in places] or ["#/feature_names"]
    assert refused(named, path, JSON, body)[0] == pointers


def test_names_that_are_not_the_models_have_their_place_in_the_field_they_were_sent_in(
    named: Client,
) -> None:
    body = orjson.dumps({"X": TWO_GROUPS, "feature_names": ["a", "c"]})
    places = ["#/feature_names", "#/feature_names/1"]
    assert refused(named, "diagnostics", JSON, body)[0] == places


@pytest.mark.parametrize(
    ("names", "places"),
    [
        (["a", "kind", "a"], [2]),
        (["a", "kind", ""], [2]),
        (["a", "kind"], []),
        (["kind", "a", "b", "c"], []),
    ],
)
@pytest.mark.parametrize(("rows", "field"), [("X", "feature_names"), ("data", "columns")])
def test_unfit_names_beside_labels_have_their_place(
    named: Client, rows: str, field: str, names: list[str], places: list[int]
) -> None:
    body = orjson.dumps({rows: [[1, "u", 2], [3, "v", 4]], field: names})
    pointers = [f"#/{field}/{place}" for place in places] or [f"#/{field}"]
    assert refused(named, "diagnostics?label_column=kind", JSON, body)[0] == pointers


@pytest.mark.parametrize(
    ("weights", "places"),
    [
        ([1, -1, 1], ["/1"]),
        ([-1, 0, -2], ["/0", "/2"]),
        ([1, 2], [""]),
        ([0, 0, 0], [""]),
        ([1e308, 1e308, 1], [""]),
    ],
)
@pytest.mark.parametrize("path", ["fit", "fit?validate_only=true", "select?n_components=1"])
def test_weights_that_can_not_be_fitted_are_pointed_at(
    named: Client, path: str, weights: list[float], places: list[str]
) -> None:
    body = orjson.dumps({"X": [[1, 2], [3, 4], [5, 6]], "sample_weight": weights})
    pointers = [f"#/sample_weight{place}" for place in places]
    assert refused(named, path, JSON, body)[0] == pointers


@pytest.mark.parametrize("path", ["predict", "predict_proba", "score", "diagnostics"])
@pytest.mark.parametrize(
    ("media_type", "body", "pointer"),
    [
        (JSON, b'{"X":[[1,2,3]]}', "#/X"),
        (JSON, b'{"instances":[[1,2,3]]}', "#/instances"),
        (NDJSON, b"[1,2,3]\n", "#/X"),
        (CSV, b"1,2,3\n", "#/X"),
    ],
)
def test_rows_of_another_width_than_the_models_are_pointed_at(
    named: Client, path: str, media_type: str, body: bytes, pointer: str
) -> None:
    assert refused(named, path, media_type, body)[0] == [pointer]
