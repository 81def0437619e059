"""Maps before a mixture: beside scikit-learn's, and what they change and keep."""

import pickle

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score, silhouette_score
from sklearn.preprocessing import StandardScaler

from gmm_engine import FitOptions, Mixture, fit
from gmm_engine.errors import (
    DimensionMismatchError,
    GmmEngineError,
    InvalidParameterError,
)
from gmm_engine.preprocessing import (
    MappedMixture,
    Preprocessing,
    Transform,
    mapped_rows,
    mixture_from_arrays,
)
from tests.support.data import iris, iris_species

STANDARDIZED = Preprocessing(standardize=True)
PLANE = Preprocessing(standardize=True, pca_components=2)


def fitted(preprocessing: Preprocessing) -> MappedMixture:
    transform = Transform.of(preprocessing, iris())
    result = fit(transform.apply(iris()), FitOptions(3, random_state=0))
    return MappedMixture.over(transform, result.mixture)


def test_standardised_features_are_those_of_scikit_learn() -> None:
    mapped = Transform.of(STANDARDIZED, iris()).apply(iris())
    np.testing.assert_allclose(mapped, StandardScaler().fit_transform(iris()), atol=1e-12)


@pytest.mark.parametrize("standardize", [True, False])
def test_principal_axes_are_those_of_scikit_learn(standardize: bool) -> None:
    X = StandardScaler().fit_transform(iris()) if standardize else iris()
    expected = PCA(2).fit(X)
    transform = Transform.of(Preprocessing(standardize, 2), iris())
    np.testing.assert_allclose(transform.apply(iris()), expected.transform(X), atol=1e-9)
    assert transform.variance_ratio is not None
    np.testing.assert_allclose(
        transform.variance_ratio, expected.explained_variance_ratio_, rtol=1e-9
    )


def test_weights_count_as_repeated_rows() -> None:
    X, weight = iris()[:60], np.tile([1.0, 3.0], 30)
    weighted = Transform.of(PLANE, X, weight)
    repeated = Transform.of(PLANE, np.repeat(X, weight.astype(int), axis=0))
    for name, array in weighted.to_arrays().items():
        np.testing.assert_allclose(array, repeated.to_arrays()[name], rtol=1e-9, atol=1e-12)


def test_a_constant_feature_becomes_nothing_and_is_mapped_back() -> None:
    X = np.column_stack([np.arange(5.0), np.full(5, 0.1)])
    transform = Transform.of(STANDARDIZED, X)
    mapped = transform.apply(X)
    np.testing.assert_allclose(mapped[:, 1], 0.0, atol=1e-15)
    np.testing.assert_allclose(transform.undo(mapped), X, rtol=1e-12)


def test_the_notebook_s_fit_of_standardised_iris_is_matched_or_bettered() -> None:
    """It printed BIC 801.53, AIC 669.06, Rand index 0.9039 and silhouette 0.3742."""
    mixture = fitted(STANDARDIZED)
    criteria, labels = mixture.criteria(iris()), mixture.predict(iris())
    assert criteria.bic <= 801.53 + 0.005
    assert criteria.aic <= 669.06 + 0.005
    assert adjusted_rand_score(iris_species(), labels) == pytest.approx(0.9039, abs=5e-5)
    assert silhouette_score(mapped_rows(mixture, iris()), labels) == pytest.approx(0.3742, abs=5e-5)


@pytest.mark.parametrize("preprocessing", [STANDARDIZED, PLANE])
def test_a_mapped_mixture_answers_rows_as_its_mixture_answers_mapped_ones(
    preprocessing: Preprocessing,
) -> None:
    mixture = fitted(preprocessing)
    inner = Mixture.from_arrays(
        {"weights": mixture.weights, "means": mixture.means, "covariances": mixture.covariances}
    )
    mapped = mixture.transform.apply(iris())
    np.testing.assert_array_equal(mixture.predict(iris()), inner.predict(mapped))
    np.testing.assert_array_equal(mixture.predict_proba(iris()), inner.predict_proba(mapped))
    np.testing.assert_array_equal(mixture.score_samples(iris()), inner.score_samples(mapped))
    assert mixture.criteria(iris()) == inner.criteria(mapped)
    assert mixture.n_features == 4
    assert mixture.n_parameters == inner.n_parameters


def test_drawn_rows_are_in_the_units_of_the_data() -> None:
    X, labels = fitted(STANDARDIZED).sample(20_000, 0)
    np.testing.assert_allclose(X.mean(axis=0), iris().mean(axis=0), atol=0.05)
    np.testing.assert_allclose(X.std(axis=0), iris().std(axis=0), rtol=0.05)
    assert set(labels) == {0, 1, 2}


def test_standardising_changes_no_label_and_moves_densities_by_the_volume_alone() -> None:
    mixture = fitted(STANDARDIZED)
    plain = fit(iris(), FitOptions(3, random_state=0)).mixture
    np.testing.assert_array_equal(mixture.predict(iris()), plain.predict(iris()))
    volume = np.log(mixture.transform.scale).sum()
    np.testing.assert_allclose(
        mixture.score_samples(iris()) - volume, plain.score_samples(iris()), atol=1e-2
    )


@pytest.mark.parametrize("preprocessing", [STANDARDIZED, PLANE])
def test_a_mapped_mixture_is_restored_from_its_arrays_to_the_last_bit(
    preprocessing: Preprocessing,
) -> None:
    mixture = fitted(preprocessing)
    for again in (
        mixture_from_arrays(mixture.to_arrays(), "full"),
        pickle.loads(pickle.dumps(mixture)),  # noqa: S301 - just made
    ):
        assert isinstance(again, MappedMixture)
        np.testing.assert_array_equal(again.score_samples(iris()), mixture.score_samples(iris()))


def test_components_are_put_in_another_order_with_their_map() -> None:
    mixture = fitted(PLANE)
    turned = mixture.reordered(np.array([2, 0, 1]))
    np.testing.assert_allclose(turned.score_samples(iris()), mixture.score_samples(iris()))
    np.testing.assert_array_equal(turned.means, mixture.means[[2, 0, 1]])


@pytest.mark.parametrize("size", [1e-150, 1e150])
def test_features_of_any_size_are_standardised(size: float) -> None:
    mapped = Transform.of(PLANE, size * iris()).apply(size * iris())
    np.testing.assert_allclose(mapped, Transform.of(PLANE, iris()).apply(iris()), atol=1e-9)


@pytest.mark.parametrize(
    ("preprocessing", "space"),
    [
        (Preprocessing(), "original"),
        (STANDARDIZED, "standardized"),
        (PLANE, "principal"),
        (Preprocessing(pca_components=1), "principal"),
    ],
)
def test_every_space_has_a_name(preprocessing: Preprocessing, space: str) -> None:
    assert preprocessing.space == space
    assert preprocessing.is_empty == (space == "original")


def test_what_has_no_sense_is_refused() -> None:
    with pytest.raises(InvalidParameterError):
        Preprocessing(pca_components=0)
    with pytest.raises(InvalidParameterError):
        Preprocessing(standardize=1)  # type: ignore[arg-type]  # what a caller may send
    with pytest.raises(InvalidParameterError, match="pca_components"):
        Transform.of(Preprocessing(pca_components=5), iris())
    with pytest.raises(DimensionMismatchError):
        fitted(PLANE).predict(iris()[:, :2])


@pytest.mark.parametrize(
    "damage",
    [
        {"scale": np.array([1.0, 0.0, 1.0, 1.0])},
        {"center": np.zeros(3)},
        {"axes": np.zeros((4, 3))},
        {"axes": np.full((4, 2), np.nan)},
        {"axes": np.zeros((4, 1)), "variance_ratio": np.ones(1)},
    ],
)
def test_arrays_that_are_no_map_of_the_mixture_are_refused(
    damage: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float64]]],
) -> None:
    with pytest.raises(GmmEngineError):
        mixture_from_arrays({**fitted(PLANE).to_arrays(), **damage}, "full")
