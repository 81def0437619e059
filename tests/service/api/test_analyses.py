"""Diagnostics and comparisons over HTTP, beside scikit-learn's figures of the same rows."""

import datetime as dt
import io
import json

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from scipy.stats import entropy as scipy_entropy
from sklearn.cluster import KMeans
from sklearn.metrics import (
    adjusted_mutual_info_score,
    adjusted_rand_score,
    silhouette_score,
)

from gmm_engine import FitOptions, Mixture, fit
from gmm_engine.diagnostics import overlap
from service.settings import Settings
from tests.service.client import Client, serving
from tests.service.rows import TWO_GROUPS
from tests.support.data import iris, iris_species

SPECIES = ["setosa", "versicolor", "virginica"]


@pytest.fixture
def flowers(client: Client) -> Client:
    client.post("/models", {"id": "iris", "n_components": 3, "random_state": 0})
    response = client.post("/models/iris/fit", {"X": iris().tolist()})
    assert response.status_code == 200
    return client


def mixture_of_iris() -> Mixture:
    return fit(iris(), FitOptions(3, random_state=0)).mixture


def test_diagnostics_are_the_figures_of_the_rows_under_the_version(flowers: Client) -> None:
    response = flowers.post("/models/iris/diagnostics", {"X": iris().tolist()})
    mixture = mixture_of_iris()
    labels, resp = mixture.predict(iris()), mixture.predict_proba(iris())
    found = response.json()

    assert response.status_code == 200
    assert response.headers["gmm-model-version"] == "1"
    assert (found["model"], found["version"], found["n_samples"]) == ("iris", 1, 150)
    assert found["labels"] == labels.tolist()
    np.testing.assert_allclose(found["entropy"], scipy_entropy(resp, axis=1), rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(found["log_likelihood"], mixture.score_samples(iris()), rtol=1e-12)
    assert found["silhouette"]["value"] == pytest.approx(silhouette_score(iris(), labels), rel=1e-9)
    assert [each["size"] for each in found["components"]] == np.bincount(labels).tolist()
    sizes = [each["effective_size"] for each in found["components"]]
    np.testing.assert_allclose(sizes, resp.sum(axis=0), rtol=1e-9)
    assert found["entropy_mean"] == pytest.approx(scipy_entropy(resp, axis=1).mean(), rel=1e-9)
    assert found["entropy_max"] == pytest.approx(scipy_entropy(resp, axis=1).max(), rel=1e-9)
    conditions = [each["condition_number"] for each in found["components"]]
    np.testing.assert_allclose(conditions, np.linalg.cond(mixture.to_dense()), rtol=1e-9)
    assert np.diagonal(found["overlap"]).tolist() == [1.0, 1.0, 1.0]
    np.testing.assert_allclose(found["overlap"], overlap(mixture), rtol=1e-12)
    lowest = np.argsort(mixture.score_samples(iris()))[:10]
    assert [low["row"] for low in found["lowest_density"]] == lowest.tolist()
    assert found["adjusted_rand_index"] is None


@pytest.mark.parametrize("labels", [[1e20, 1e20], [0.5, 2.0**53 + 2], [1, 1e300]])
def test_labels_that_a_double_can_not_tell_apart_are_refused(
    flowers: Client, labels: list[float]
) -> None:
    response = flowers.post(
        "/models/iris/diagnostics", {"X": iris()[:2].tolist(), "labels": labels}
    )
    assert (response.status_code, response.json()["code"]) == (422, "invalid_parameter")
    assert response.json()["errors"][0]["pointer"].startswith("#/labels/")


def test_large_whole_numbers_are_labels_that_differ(flowers: Client) -> None:
    labels = [2**63 + int(species) for species in iris_species()]
    found = flowers.post("/models/iris/diagnostics", {"X": iris().tolist(), "labels": labels})
    expected = adjusted_rand_score(iris_species(), mixture_of_iris().predict(iris()))
    assert found.json()["adjusted_rand_index"] == pytest.approx(expected, rel=1e-9)


def test_with_true_labels_diagnostics_tell_how_far_the_components_agree(flowers: Client) -> None:
    named = [SPECIES[number] for number in iris_species()]
    found = flowers.post("/models/iris/diagnostics", {"X": iris().tolist(), "labels": named}).json()
    labels = mixture_of_iris().predict(iris())
    assert found["adjusted_rand_index"] == pytest.approx(
        adjusted_rand_score(iris_species(), labels), rel=1e-9
    )
    assert found["adjusted_mutual_information"] == pytest.approx(
        adjusted_mutual_info_score(iris_species(), labels), rel=1e-9
    )


def as_json(columns: pa.Table) -> bytes:
    rows = [list(row) for row in zip(*(each.to_pylist() for each in columns.columns), strict=True)]
    return json.dumps({"columns": columns.column_names, "data": rows}).encode()


def as_ndjson(columns: pa.Table) -> bytes:
    return "\n".join(map(json.dumps, columns.to_pylist())).encode()


def as_csv(columns: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pa_csv.write_csv(columns, sink)
    return bytes(sink.getvalue())


def as_arrow(columns: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, columns.schema) as stream:
        stream.write_table(columns, max_chunksize=60)
    return bytes(sink.getvalue())


def as_parquet(columns: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(columns, sink)
    return bytes(sink.getvalue())


WRITERS = {
    "application/json": as_json,
    "application/x-ndjson": as_ndjson,
    "text/csv": as_csv,
    "application/vnd.apache.arrow.stream": as_arrow,
    "application/vnd.apache.parquet": as_parquet,
}
NAMES = pa.array([SPECIES[number] for number in iris_species()])
LABELS = {
    "texts": NAMES,
    "large texts": NAMES.cast(pa.large_string()),
    "a dictionary": NAMES.dictionary_encode(),
    "a dictionary of numbers": pa.array(iris_species()).dictionary_encode(),
    "whole numbers": pa.array(iris_species()),
    "numbers": pa.array(iris_species() / 2.0),
    "truths": pa.array(iris_species() == 1),
}
FEATURES = ("sepal_length", "sepal_width", "petal_length", "petal_width")


def flowers_with(labels: pa.Array, *, place: int = 4) -> pa.Table:
    columns = pa.table(dict(zip(FEATURES, iris().T, strict=True)))
    return columns.add_column(place, "species", labels)


def diagnosed_by_column(flowers: Client, media_type: str, body: bytes) -> httpx.Response:
    return flowers.send(
        "POST",
        "/models/iris/diagnostics?label_column=species&n_lowest=0",
        body=body,
        headers={"content-type": media_type},
    )


@pytest.mark.parametrize("media_type", WRITERS)
@pytest.mark.parametrize("kind", LABELS)
@pytest.mark.parametrize("place", [2, 4])
def test_true_labels_of_any_kind_may_be_a_column_of_any_format(
    flowers: Client, media_type: str, kind: str, place: int
) -> None:
    labels = LABELS[kind]
    columns = flowers_with(labels, place=place)
    response = diagnosed_by_column(flowers, media_type, WRITERS[media_type](columns))
    predicted = mixture_of_iris().predict(iris())
    expected = adjusted_rand_score([str(label) for label in labels.to_pylist()], predicted)
    assert response.status_code == 200, response.text
    assert response.json()["adjusted_rand_index"] == pytest.approx(expected, rel=1e-9)
    assert response.json()["labels"] == predicted.tolist()
    assert response.json()["lowest_density"] == []


@pytest.mark.parametrize("media_type", WRITERS)
def test_a_label_that_is_missing_is_pointed_at(flowers: Client, media_type: str) -> None:
    labels = [SPECIES[number] for number in iris_species()]
    labels[70] = None if media_type != "text/csv" else ""
    body = WRITERS[media_type](flowers_with(pa.array(labels)))
    response = diagnosed_by_column(flowers, media_type, body)
    rows = "data" if media_type == "application/json" else "X"
    assert response.status_code == 422, response.text
    assert [error["pointer"] for error in response.json()["errors"]] == [f"#/{rows}/70/4"]


@pytest.mark.parametrize("media_type", WRITERS)
def test_a_wrong_number_beside_labels_is_pointed_at(flowers: Client, media_type: str) -> None:
    columns = flowers_with(NAMES, place=1).to_pydict()
    columns["petal_length"][70] = None
    body = WRITERS[media_type](pa.table(columns))
    response = diagnosed_by_column(flowers, media_type, body)
    assert response.status_code == 422, response.text
    assert response.json()["code"] == "non_finite_number"


@pytest.mark.parametrize("media_type", [*WRITERS, "application/x-npy"])
def test_a_column_of_labels_that_is_not_there_is_named(flowers: Client, media_type: str) -> None:
    if media_type == "application/x-npy":
        file = io.BytesIO()
        np.save(file, iris())
        body = file.getvalue()
    else:
        body = WRITERS[media_type](flowers_with(NAMES).drop_columns("species"))
    response = diagnosed_by_column(flowers, media_type, body)
    assert response.status_code == 422, response.text
    assert [error["pointer"] for error in response.json()["errors"]] == ["#/query/label_column"]


TWICE: dict[str, bytes] = {
    "application/json": b'{"columns":["a","b","c","a"],"data":[[1,2,3,4],[5,6,7,8]]}',
    "text/csv": b"a,b,c,a\n1,2,3,4\n5,6,7,8\n",
    "application/vnd.apache.arrow.stream": as_arrow(
        pa.Table.from_arrays([pa.array([1.0, 2.0])] * 4, ["a", "b", "c", "a"])
    ),
    "application/vnd.apache.parquet": as_parquet(
        pa.Table.from_arrays([pa.array([1.0, 2.0])] * 4, ["a", "b", "c", "a"])
    ),
}


@pytest.mark.parametrize("media_type", TWICE)
def test_a_column_of_labels_that_is_there_twice_is_refused_at_the_second(
    fitted: Client, media_type: str
) -> None:
    answers = [
        fitted.send(
            "POST",
            f"/models/groups/{path}",
            body=TWICE[media_type],
            headers={"content-type": media_type},
        )
        for path in ("diagnostics?label_column=a", "predict")
    ]

    for answer in answers:
        assert answer.status_code == 422, answer.text
        assert answer.json()["detail"] == "each feature needs a name of its own"
        assert [error["pointer"] for error in answer.json()["errors"]] == ["#/columns/3"]


@pytest.mark.parametrize("media_type", list(WRITERS)[3:])
def test_days_are_no_labels(flowers: Client, media_type: str) -> None:
    days = pa.array([dt.date(2026, 1, 1)] * 150)
    response = diagnosed_by_column(flowers, media_type, WRITERS[media_type](flowers_with(days)))
    assert response.status_code == 422, response.text
    assert [error["pointer"] for error in response.json()["errors"]] == ["#/columns/4"]


def test_a_dictionary_that_lacks_a_label_is_refused(flowers: Client) -> None:
    beyond = pa.DictionaryArray.from_arrays(
        pa.array(iris_species(), pa.int8()), pa.array(SPECIES[:2]), safe=False
    )
    body = as_arrow(flowers_with(beyond))
    response = diagnosed_by_column(flowers, "application/vnd.apache.arrow.stream", body)
    assert (response.status_code, response.json()["code"]) == (422, "invalid_file")


ONE, TWO = 0.0, 1.0
"""The agreement of groups of rows with labels that are of one class, or of a class each."""


def agreement_with(fitted: Client, media_type: str, labels: list[str]) -> httpx.Response:
    """Diagnose the two groups with these labels, which are written as the format has them."""
    rows = zip(TWO_GROUPS, labels, strict=True)
    if media_type == "text/csv":
        text = "a,b,kind\n" + "".join(f"{a},{b},{label}\n" for (a, b), label in rows)
    elif media_type == "application/x-ndjson":
        text = "".join(f'{{"a":{a},"b":{b},"kind":{label}}}\n' for (a, b), label in rows)
    else:
        data = ",".join(f"[{a},{b},{label}]" for (a, b), label in rows)
        text = f'{{"columns":["a","b","kind"],"data":[{data}]}}'
    return fitted.send(
        "POST",
        "/models/groups/diagnostics?label_column=kind",
        body=text.encode(),
        headers={"content-type": media_type},
    )


@pytest.mark.parametrize(
    ("media_types", "labels", "expected"),
    [
        (list(WRITERS)[:2], ("1", "true"), TWO),
        (list(WRITERS)[:2], ("0", "false"), TWO),
        (list(WRITERS)[:2], ("true", '"true"'), TWO),
        (list(WRITERS)[:2], ("1", '"1"'), TWO),
        (list(WRITERS)[:2], ("true", "true"), ONE),
        (list(WRITERS)[:3], ("1", "1.0"), ONE),
        (list(WRITERS)[:3], ("0", "-0.0"), ONE),
        (list(WRITERS)[:3], ("1e2", "100"), ONE),
        (list(WRITERS)[:3], ("1", "2"), TWO),
        (list(WRITERS)[:3], ("9007199254740993", "9007199254740992"), TWO),
        (["text/csv"], ("12345678901234567890123", "12345678901234567890124"), TWO),
        (["text/csv"], ("007", " +7 "), ONE),
        (["text/csv"], (".5", "0.50"), ONE),
        (["text/csv"], ("1", "true"), TWO),
    ],
)
def test_labels_are_of_one_class_by_their_values_in_every_text_format(
    fitted: Client, media_types: list[str], labels: tuple[str, str], expected: float
) -> None:
    for media_type in media_types:
        response = agreement_with(fitted, media_type, [labels[0]] * 4 + [labels[1]] * 4)
        assert response.status_code == 200, response.text
        assert response.json()["adjusted_rand_index"] == expected, media_type


def test_labels_beside_the_rows_are_of_one_class_by_their_values_too(fitted: Client) -> None:
    for labels, expected in (([1, True], TWO), ([0, False], TWO), ([1, 1.0], ONE)):
        body = {"X": TWO_GROUPS, "labels": [labels[0]] * 4 + [labels[1]] * 4}
        found = fitted.post("/models/groups/diagnostics", body).json()
        assert found["adjusted_rand_index"] == expected


def test_labels_of_csv_are_texts_as_soon_as_one_is_no_number(fitted: Client) -> None:
    labels = ["1"] * 4 + ["1.0"] * 3 + ["x"]
    found = agreement_with(fitted, "text/csv", labels).json()
    expected = adjusted_rand_score(labels, [0] * 4 + [1] * 4)
    assert found["adjusted_rand_index"] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("label", ["1e16", "9007199254740992.0", "1e400"])
def test_labels_that_a_double_can_not_tell_apart_are_refused_in_csv_too(
    fitted: Client, label: str
) -> None:
    response = agreement_with(fitted, "text/csv", ["1"] * 7 + [label])
    assert response.status_code == 422, response.text
    assert [error["pointer"] for error in response.json()["errors"]] == ["#/X/7/2"]


def test_a_version_and_an_alias_can_be_diagnosed(flowers: Client) -> None:
    flowers.post("/models/iris/fit", {"X": iris().tolist()})
    body = {"X": iris().tolist()}
    assert flowers.post("/models/iris/versions/1/diagnostics", body).json()["version"] == 1
    assert flowers.post("/models/iris/diagnostics?version=1", body).json()["version"] == 1
    assert flowers.post("/models/iris/diagnostics", body).json()["version"] == 2


def test_k_means_is_set_beside_the_mixture_with_its_clusters_numbered_alike(
    flowers: Client,
) -> None:
    found = flowers.post("/models/iris/compare/kmeans", {"X": iris().tolist()}).json()
    ours, theirs = np.array(found["mixture"]["labels"]), np.array(found["kmeans"]["labels"])
    centers = np.array(found["kmeans"]["centers"])

    assert found["mixture"]["centers"] == mixture_of_iris().means.tolist()
    direct = KMeans(3, n_init=10, random_state=0).fit(iris())
    assert found["kmeans"]["inertia"] == pytest.approx(direct.inertia_, rel=1e-9)
    assert np.square(iris() - centers[theirs]).sum() == pytest.approx(direct.inertia_, rel=1e-9)
    means = mixture_of_iris().means
    inertia = np.square(iris() - means[ours]).sum()
    assert found["mixture"]["inertia"] == pytest.approx(inertia, rel=1e-9)
    assert found["differing"] == np.flatnonzero(ours != theirs).tolist()
    assert found["n_differing"] == len(found["differing"]) < 40
    assert found["adjusted_rand_index"] == pytest.approx(
        adjusted_rand_score(ours, theirs), rel=1e-9
    )
    for side, labels in (("mixture", ours), ("kmeans", theirs)):
        expected = silhouette_score(iris(), labels)
        assert found[side]["silhouette"]["value"] == pytest.approx(expected, rel=1e-9)


def test_one_component_has_no_silhouette(client: Client) -> None:
    client.post("/models", {"id": "one"})
    client.post("/models/one/fit", {"X": TWO_GROUPS})
    assert client.post("/models/one/diagnostics", {"X": TWO_GROUPS}).json()["silhouette"] is None
    compared = client.post("/models/one/compare/kmeans", {"X": TWO_GROUPS}).json()
    assert compared["kmeans"]["silhouette"] is None
    assert compared["n_differing"] == 0


@pytest.mark.parametrize(
    ("path", "body", "pointer"),
    [
        ("diagnostics", {"X": TWO_GROUPS, "labels": [0, 1]}, "#/labels"),
        ("diagnostics", {"X": TWO_GROUPS, "labels": "abc"}, "#/labels"),
        ("diagnostics", {"X": TWO_GROUPS, "labels": [None]}, "#/labels/0"),
        ("diagnostics", {"X": TWO_GROUPS, "labels": [0, [1]]}, "#/labels/1"),
        ("diagnostics?label_column=kind", {"X": TWO_GROUPS}, "#/query/label_column"),
        ("diagnostics?n_lowest=-1", {"X": TWO_GROUPS}, "#/query/n_lowest"),
        ("compare/kmeans?n_init=0", {"X": TWO_GROUPS}, "#/query/n_init"),
        ("compare/kmeans?random_state=-1", {"X": TWO_GROUPS}, "#/query/random_state"),
        ("compare/kmeans", {"X": TWO_GROUPS, "labels": [0]}, "#/labels"),
    ],
)
def test_what_has_no_sense_is_refused_with_its_place(
    fitted: Client, path: str, body: object, pointer: str
) -> None:
    response = fitted.post(f"/models/groups/{path}", body)
    assert response.status_code == 422, response.text
    assert [error["pointer"] for error in response.json()["errors"]] == [pointer]


def test_labels_come_in_one_place(fitted: Client) -> None:
    body = {
        "columns": ["a", "b", "kind"],
        "data": [[*row, 0.0] for row in TWO_GROUPS],
        "labels": [0] * 8,
    }
    response = fitted.post("/models/groups/diagnostics?label_column=kind", body)
    assert response.status_code == 422
    assert [error["pointer"] for error in response.json()["errors"]] == ["#/labels"]


@pytest.mark.parametrize("path", ["diagnostics", "compare/kmeans"])
def test_rows_of_another_width_are_refused(fitted: Client, path: str) -> None:
    response = fitted.post(f"/models/groups/{path}", {"X": [[1.0, 2.0, 3.0]]})
    assert (response.status_code, response.json()["code"]) == (422, "dimension_mismatch")


@pytest.mark.parametrize("path", ["diagnostics", "compare/kmeans"])
def test_a_model_that_is_not_fitted_can_t_be_analysed(client: Client, path: str) -> None:
    client.post("/models", {"id": "groups"})
    response = client.post(f"/models/groups/{path}", {"X": TWO_GROUPS})
    assert (response.status_code, response.json()["code"]) == (409, "model_not_fitted")


@pytest.mark.parametrize("rows", [TWO_GROUPS[:1], [TWO_GROUPS[0]] * 5])
def test_fewer_distinct_rows_than_clusters_can_t_be_compared(
    fitted: Client, rows: list[list[float]]
) -> None:
    response = fitted.post("/models/groups/compare/kmeans", {"X": rows})
    assert (response.status_code, response.json()["code"]) == (422, "too_few_samples")


@pytest.mark.parametrize("path", ["diagnostics", "compare/kmeans"])
def test_the_rows_of_an_analysis_are_bounded_by_a_setting(path: str) -> None:
    with serving(Settings(max_analysed_rows=7)) as client:
        client.post("/models", {"id": "groups", "n_components": 2})
        client.post("/models/groups/fit", {"X": TWO_GROUPS})
        response = client.post(f"/models/groups/{path}", {"X": TWO_GROUPS})
        assert (response.status_code, response.json()["code"]) == (422, "work_budget_exceeded")
