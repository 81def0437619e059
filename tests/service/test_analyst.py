"""The analyst beside scikit-learn itself, and without it."""

import subprocess
import sys

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.metrics import (
    adjusted_mutual_info_score,
    adjusted_rand_score,
    silhouette_score,
)

from service.adapters.analyst_sklearn import MAX_SILHOUETTE_ROWS, SklearnAnalyst
from service.errors import Unsupported
from service.extras import installed_analyst
from tests.support.data import iris, iris_species, separated_clusters

ANALYST = SklearnAnalyst()


def test_the_silhouette_of_few_rows_is_exact() -> None:
    found = ANALYST.silhouette(iris(), iris_species())
    assert found is not None
    assert found.value == pytest.approx(silhouette_score(iris(), iris_species()), rel=1e-12)
    assert (found.n_rows, found.standard_error) == (150, None)


def test_the_silhouette_of_many_rows_is_sampled_and_says_how_far_off_it_may_be() -> None:
    rows = separated_clusters(np.random.default_rng(0), rows_each=3000)
    found = ANALYST.silhouette(rows.X, rows.labels)
    assert found is not None
    assert found.n_rows == MAX_SILHOUETTE_ROWS
    assert found.standard_error is not None
    whole = silhouette_score(rows.X, rows.labels)
    assert abs(found.value - whole) < 4 * found.standard_error
    assert found == ANALYST.silhouette(rows.X, rows.labels)


@pytest.mark.parametrize("labels", [[0, 0, 0], [0, 1, 2]])
def test_without_two_clusters_there_is_no_silhouette(labels: list[int]) -> None:
    assert ANALYST.silhouette(np.arange(3.0)[:, np.newaxis], np.array(labels)) is None


def test_agreement_is_that_of_scikit_learn() -> None:
    labels = np.array([0, 1, 2])[np.random.default_rng(0).integers(3, size=150)]
    labels[:100] = iris_species()[:100]
    found = ANALYST.agreement(iris_species(), labels)
    assert found.adjusted_rand_index == adjusted_rand_score(iris_species(), labels)
    assert found.adjusted_mutual_information == pytest.approx(
        adjusted_mutual_info_score(iris_species(), labels), rel=1e-12
    )


def test_k_means_is_that_of_scikit_learn() -> None:
    found = ANALYST.k_means(iris(), 3, n_init=10, random_state=0)
    expected = KMeans(3, n_init=10, random_state=0).fit(iris())
    assert found.inertia == pytest.approx(expected.inertia_, rel=1e-12)
    np.testing.assert_allclose(found.centers, expected.cluster_centers_, rtol=1e-12)
    np.testing.assert_array_equal(found.labels, expected.labels_)


def test_without_the_library_there_is_a_refusal_that_names_the_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    installed_analyst.cache_clear()
    with pytest.raises(Unsupported, match="extra `analysis`") as refused:
        installed_analyst()
    assert refused.value.code == "extra_not_installed"


def test_the_installed_analyst_is_that_of_scikit_learn() -> None:
    assert isinstance(installed_analyst(), SklearnAnalyst)


def test_no_start_of_the_service_waits_for_the_library() -> None:
    code = "import sys, service.wiring, service.main; sys.exit('sklearn' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603 - our own code
