"""Standardised features and principal axes over HTTP: fitted, stored, applied, told of."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score, silhouette_score
from sklearn.preprocessing import StandardScaler

from gmm_engine import FitOptions, fit
from service.adapters.model_file import bundle_of, model_file_of
from service.adapters.registry_files import FileRegistry
from tests.service.client import Client, serving
from tests.support.data import iris, iris_species, standardized

ROWS = iris().tolist()


def declared(client: Client, **fields: object) -> Client:
    body = {"id": "iris", "n_components": 3, "random_state": 0, **fields}
    response = client.post("/models", body)
    assert response.status_code == 201, response.text
    return client


def fitted(client: Client, **fields: object) -> Client:
    declared(client, **fields)
    response = client.post("/models/iris/fit", {"X": ROWS})
    assert response.status_code == 200, response.text
    return client


def test_the_notebook_s_analysis_of_standardised_iris_goes_over_http(client: Client) -> None:
    """It printed BIC 801.53, AIC 669.06, Rand index 0.9039, silhouette 0.3742."""
    fitted(client, standardize=True)
    found = client.post(
        "/models/iris/diagnostics", {"X": ROWS, "labels": iris_species().tolist()}
    ).json()
    score = client.post("/models/iris/score", {"X": ROWS}).json()
    assert score["bic"] == pytest.approx(801.53, abs=0.05)
    assert score["aic"] == pytest.approx(669.06, abs=0.05)
    assert sorted(each["size"] for each in found["components"]) == [45, 50, 55]
    assert found["adjusted_rand_index"] == pytest.approx(0.9039, abs=5e-5)
    assert found["silhouette"]["value"] == pytest.approx(0.3742, abs=5e-5)


def test_a_fit_is_that_of_the_standardised_rows(client: Client) -> None:
    declared(client, standardize=True)
    result = client.post("/models/iris/fit", {"X": ROWS}).json()
    direct = fit(standardized(iris()), FitOptions(3, random_state=0))
    assert result["log_likelihood"] == pytest.approx(direct.log_likelihood, rel=1e-9)
    assert (result["space"], result["n_features"]) == ("standardized", 4)
    assert result["version"] == 1
    scores = client.post("/models/iris/score_samples", {"X": ROWS})
    assert scores.headers["gmm-space"] == "standardized"
    np.testing.assert_allclose(
        scores.json()["log_likelihood"],
        direct.mixture.score_samples(standardized(iris())),
        rtol=1e-6,
    )


def test_a_mixture_is_fitted_in_the_plane_of_two_principal_axes(client: Client) -> None:
    fitted(client, standardize=True, pca_components=2)
    parameters = client.get("/models/iris/parameters").json()
    expected = PCA(2).fit(StandardScaler().fit_transform(iris()))

    assert np.shape(parameters["means"]) == (3, 2)
    assert parameters["space"] == "principal"
    np.testing.assert_allclose(np.transpose(parameters["axes"]), expected.components_, atol=1e-9)
    np.testing.assert_allclose(
        parameters["variance_ratio"], expected.explained_variance_ratio_, rtol=1e-9
    )
    np.testing.assert_allclose(parameters["center"], iris().mean(axis=0), rtol=1e-12)
    labels = client.post("/models/iris/predict", {"X": ROWS}).json()["labels"]
    assert adjusted_rand_score(iris_species(), labels) > 0.5
    drawn = client.post("/models/iris/sample", {"n_samples": 5, "random_state": 0}).json()["X"]
    assert np.shape(drawn) == (5, 4)


def test_without_preprocessing_rows_stay_as_they_come(client: Client) -> None:
    fitted(client)
    model = client.get("/models/iris").json()
    parameters = client.get("/models/iris/parameters").json()
    assert (model["standardize"], model["pca_components"]) == (False, None)
    assert parameters["space"] == "original"
    assert "center" not in parameters


def test_a_version_keeps_what_it_was_fitted_with_when_the_model_changes(client: Client) -> None:
    fitted(client, standardize=True)
    before = client.post("/models/iris/predict_proba", {"X": ROWS}).json()
    changed = client.patch("/models/iris", {"standardize": False, "pca_components": 1})
    assert changed.json()["pca_components"] == 1
    version = client.get("/models/iris/versions/1").json()
    assert version["hyperparameters"]["standardize"] is True
    assert version["hyperparameters"]["pca_components"] is None
    assert version["fit"]["space"] == "standardized"
    assert client.post("/models/iris/predict_proba", {"X": ROWS}).json() == before


def test_k_means_is_compared_in_the_space_of_the_mixture(client: Client) -> None:
    fitted(client, standardize=True)
    found = client.post("/models/iris/compare/kmeans", {"X": ROWS}).json()
    rows, labels = standardized(iris()), np.array(found["kmeans"]["labels"])
    centers = np.array(found["kmeans"]["centers"])
    assert found["space"] == "standardized"
    assert np.square(rows - centers[labels]).sum() == pytest.approx(found["kmeans"]["inertia"])
    assert found["kmeans"]["silhouette"]["value"] == pytest.approx(
        silhouette_score(rows, labels), rel=1e-9
    )


def test_a_selection_chooses_among_mixtures_of_the_mapped_rows(client: Client) -> None:
    declared(client, standardize=True)
    path = "/models/iris/select?n_components=2-3&covariance_type=full"
    body = client.post(path, {"X": ROWS}).json()
    direct = fit(standardized(iris()), FitOptions(3, random_state=0))
    three = body["selection"]["candidates"][1]
    assert body["space"] == "standardized"
    assert three["log_likelihood"] >= direct.log_likelihood - 1e-6


@pytest.mark.parametrize("pca_components", [None, 2])
def test_a_version_with_its_map_survives_a_restart_and_a_journey(
    tmp_path: Path, pca_components: int | None
) -> None:
    registry = FileRegistry(tmp_path / "registry")
    with serving(registry=registry) as client:
        fitted(client, standardize=True, pca_components=pca_components)
        before = client.post("/models/iris/score_samples", {"X": ROWS}).json()
    other = FileRegistry(tmp_path / "other")
    other.import_model(bundle_of(model_file_of(registry.export_model("iris"))))
    for place in (FileRegistry(tmp_path / "registry"), other):
        with serving(registry=place) as client:
            assert client.post("/models/iris/score_samples", {"X": ROWS}).json() == before


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"standardize": "yes"}, "#/standardize"),
        ({"pca_components": 0}, "#/pca_components"),
        ({"pca_components": 1.5}, "#/pca_components"),
    ],
)
def test_what_has_no_sense_is_refused_with_its_place(
    client: Client, fields: dict[str, object], pointer: str
) -> None:
    response = client.post("/models", {"id": "iris", **fields})
    assert response.status_code == 422
    assert [error["pointer"] for error in response.json()["errors"]] == [pointer]


def test_more_axes_than_features_are_refused_before_there_is_a_job(client: Client) -> None:
    declared(client, pca_components=5)
    response = client.post("/models/iris/fit", {"X": ROWS})
    assert (response.status_code, response.json()["code"]) == (422, "invalid_parameter")
    assert client.get("/jobs").json()["jobs"] == []


def test_rows_of_the_mapped_width_are_not_those_of_the_model(client: Client) -> None:
    fitted(client, pca_components=2)
    response = client.post("/models/iris/predict", {"X": [[1.0, 2.0]]})
    assert (response.status_code, response.json()["code"]) == (422, "dimension_mismatch")
