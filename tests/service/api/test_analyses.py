"""Diagnostics and comparisons over HTTP, beside scikit-learn's figures of the same rows."""

import numpy as np
import pytest
from scipy.stats import entropy as scipy_entropy
from sklearn.metrics import (
    adjusted_mutual_info_score,
    adjusted_rand_score,
    silhouette_score,
)

from gmm_engine import FitOptions, Mixture, fit
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
    assert np.diagonal(found["overlap"]).tolist() == [1.0, 1.0, 1.0]
    lowest = np.argsort(mixture.score_samples(iris()))[:10]
    assert [low["row"] for low in found["lowest_density"]] == lowest.tolist()
    assert found["adjusted_rand_index"] is None


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


def test_true_labels_may_come_as_a_column_of_any_format(flowers: Client) -> None:
    header = "sepal_length,sepal_width,petal_length,petal_width,species"
    rows = np.column_stack([iris(), iris_species()])
    csv = "\n".join([header, *(",".join(map(repr, row)) for row in rows.tolist())])
    response = flowers.send(
        "POST",
        "/models/iris/diagnostics?label_column=species&n_lowest=0",
        body=csv.encode(),
        headers={"content-type": "text/csv"},
    )
    expected = adjusted_rand_score(iris_species(), mixture_of_iris().predict(iris()))
    assert response.status_code == 200, response.text
    assert response.json()["adjusted_rand_index"] == pytest.approx(expected, rel=1e-9)
    assert response.json()["lowest_density"] == []


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
    assert found["kmeans"]["inertia"] == pytest.approx(78.851441, abs=1e-6)  # scikit-learn 1.9.1
    assert np.square(iris() - centers[theirs]).sum() == pytest.approx(found["kmeans"]["inertia"])
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
        ("diagnostics", {"X": TWO_GROUPS, "labels": [0.5]}, "#/labels/0"),
        ("diagnostics", {"X": TWO_GROUPS, "labels": [True]}, "#/labels/0"),
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
    assert (response.status_code, response.json()["code"]) == (422, "invalid_parameter")


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
