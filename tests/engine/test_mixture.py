"""What a mixture with known parameters answers."""

import copy
import math
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray

from gmm_engine import COVARIANCE_FAMILIES, Criteria, Mixture
from tests.support.data import random_mixture, rows_of

every_family = pytest.mark.parametrize("covariance_type", COVARIANCE_FAMILIES)


def example(covariance_type: str, n_components: int = 3, n_features: int = 2) -> Mixture:
    return random_mixture(
        covariance_type,
        n_components=n_components,
        n_features=n_features,
        rng=np.random.default_rng(31),
    )


def rows(mixture: Mixture, n_samples: int = 200) -> NDArray[np.float64]:
    return rows_of(mixture, n_samples, np.random.default_rng(32))


# Answers that belong together


@every_family
def test_labels_are_the_largest_responsibilities(covariance_type: str) -> None:
    mixture = example(covariance_type)
    X = rows(mixture)
    labels = mixture.predict(X)
    assert labels.dtype == np.int64
    np.testing.assert_array_equal(labels, mixture.predict_proba(X).argmax(axis=1))
    np.testing.assert_array_equal(labels, mixture.weighted_log_prob(X).argmax(axis=1))


@every_family
def test_responsibilities_are_bayes_rule(covariance_type: str) -> None:
    mixture = example(covariance_type)
    X = rows(mixture)
    joint = np.exp(mixture.weighted_log_prob(X))
    np.testing.assert_allclose(
        mixture.predict_proba(X), joint / joint.sum(axis=1, keepdims=True), rtol=1e-12
    )
    np.testing.assert_allclose(mixture.score_samples(X), np.log(joint.sum(axis=1)), rtol=1e-12)


@every_family
def test_a_density_sums_up_to_one_over_the_plane(covariance_type: str) -> None:
    mixture = example(covariance_type)
    axis = np.linspace(-15.0, 15.0, 401)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    cell = (axis[1] - axis[0]) ** 2
    assert np.exp(mixture.score_samples(grid)).sum() * cell == pytest.approx(1.0, abs=1e-6)


@every_family
def test_an_answer_to_one_row_is_its_answer_among_many(covariance_type: str) -> None:
    mixture = example(covariance_type)
    X = rows(mixture, 5_000)
    together, scores = mixture.predict_proba(X), mixture.score_samples(X)
    for row in (0, 1, 17, 4_095, 4_096, 4_999):
        np.testing.assert_allclose(mixture.predict_proba(X[[row]])[0], together[row], rtol=1e-13)
        np.testing.assert_allclose(mixture.score_samples(X[[row]])[0], scores[row], rtol=1e-13)


@every_family
def test_the_score_is_the_weighted_mean_over_rows(covariance_type: str) -> None:
    mixture = example(covariance_type)
    X = rows(mixture)
    weight = np.random.default_rng(33).uniform(0.0, 2.0, size=len(X))
    scores = mixture.score_samples(X)
    assert mixture.score(X) == pytest.approx(scores.mean(), rel=1e-13)
    assert mixture.score(X, weight) == pytest.approx(np.average(scores, weights=weight), rel=1e-13)


@every_family
def test_a_component_without_weight_changes_nothing(covariance_type: str) -> None:
    mixture = example(covariance_type)
    arrays = mixture.to_arrays()
    covariances = arrays["covariances"]
    if covariance_type != "tied":
        covariances = np.concatenate([covariances, covariances[:1]])
    more = Mixture.from_arrays(
        {
            "weights": np.append(arrays["weights"], 0.0),
            "means": np.vstack([arrays["means"], [[0.5, 0.5]]]),
            "covariances": covariances,
        },
        covariance_type,
    )
    X = rows(mixture)
    np.testing.assert_allclose(more.score_samples(X), mixture.score_samples(X), rtol=1e-12)
    np.testing.assert_array_equal(more.predict_proba(X)[:, 3], 0.0)
    np.testing.assert_array_equal(more.predict(X), mixture.predict(X))
    assert not (more.sample(500, 0)[1] == 3).any()


# Criteria


def test_the_criteria_are_their_formulas() -> None:
    criteria = Criteria(n_samples=50, n_parameters=7, log_likelihood=-123.0, log_max_resp=-4.0)
    assert criteria.mean_log_likelihood == -123.0 / 50
    assert criteria.aic == 2 * 123.0 + 2 * 7
    assert criteria.bic == 2 * 123.0 + 7 * math.log(50)
    assert criteria.aicc == pytest.approx(criteria.aic + 2 * 7 * 8 / (50 - 7 - 1))
    assert criteria.icl == pytest.approx(criteria.bic + 2 * 4.0)


@pytest.mark.parametrize("n_samples", [5, 8])
def test_the_corrected_criterion_is_infinite_where_it_is_not_defined(n_samples: int) -> None:
    criteria = Criteria(n_samples=n_samples, n_parameters=7, log_likelihood=0.0, log_max_resp=0.0)
    assert criteria.aicc == math.inf


@every_family
def test_the_criteria_of_data_come_from_the_scores_of_its_rows(covariance_type: str) -> None:
    mixture = example(covariance_type)
    X = rows(mixture)
    criteria = mixture.criteria(X)
    assert criteria.log_likelihood == pytest.approx(mixture.score_samples(X).sum(), rel=1e-13)
    sureness = np.log(mixture.predict_proba(X).max(axis=1)).sum()
    assert criteria.log_max_resp == pytest.approx(sureness, rel=1e-10)
    for name in ("bic", "aic", "aicc", "icl"):
        assert getattr(mixture, name)(X) == getattr(criteria, name)


# Frozen, written and read back


def test_a_mixture_is_frozen() -> None:
    mixture = example("full")
    with pytest.raises(AttributeError, match="frozen"):
        mixture.weights = np.array([1.0])
    for array in (*mixture.to_arrays().values(), mixture.to_dense()):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0.0


def test_nothing_that_a_mixture_hands_out_reaches_back_into_it() -> None:
    mixture = example("full")
    with pytest.raises(AttributeError, match="frozen"):
        del mixture.weights
    with pytest.raises(ValueError, match="read-only"):
        mixture.precisions_cholesky[...] = 0.0


@every_family
def test_the_arrays_given_stay_the_callers_own(covariance_type: str) -> None:
    arrays = {name: value.copy() for name, value in example(covariance_type).to_arrays().items()}
    mixture = Mixture.from_arrays(arrays, covariance_type)
    before = mixture.score_samples(np.zeros((1, 2)))
    for value in arrays.values():
        value[...] = 0.25
    np.testing.assert_array_equal(mixture.score_samples(np.zeros((1, 2))), before)


@every_family
def test_read_back_from_its_arrays_it_gives_the_same_bits(covariance_type: str) -> None:
    mixture = example(covariance_type, n_features=5)
    X = rows(mixture)
    for again in (
        Mixture.from_arrays(mixture.to_arrays(), covariance_type),
        pickle.loads(pickle.dumps(mixture)),  # noqa: S301 - our own bytes
        copy.deepcopy(mixture),
    ):
        assert again.covariance_type == covariance_type
        np.testing.assert_array_equal(again.predict_proba(X), mixture.predict_proba(X))
        np.testing.assert_array_equal(again.score_samples(X), mixture.score_samples(X))
        np.testing.assert_array_equal(again.sample(9, 1)[0], mixture.sample(9, 1)[0])


@every_family
def test_another_order_of_components_is_the_same_density(covariance_type: str) -> None:
    mixture = example(covariance_type)
    turned = mixture.reordered(np.array([2, 0, 1]))
    X = rows(mixture)
    np.testing.assert_allclose(turned.score_samples(X), mixture.score_samples(X), rtol=1e-13)
    np.testing.assert_allclose(
        turned.predict_proba(X), mixture.predict_proba(X)[:, [2, 0, 1]], rtol=1e-12, atol=1e-15
    )


def test_it_says_what_it_is() -> None:
    assert repr(example("tied")) == (
        "Mixture(n_components=3, n_features=2, covariance_type='tied')"
    )


@every_family
def test_many_threads_asking_at_once_get_the_same_answers(covariance_type: str) -> None:
    mixture = example(covariance_type)
    X = rows(mixture, 3_000)
    expected = mixture.predict_proba(X)
    with ThreadPoolExecutor(8) as pool:
        for answer in pool.map(mixture.predict_proba, [X] * 24):
            np.testing.assert_array_equal(answer, expected)


# Samples


@every_family
def test_samples_have_the_moments_of_their_components(covariance_type: str) -> None:
    mixture = example(covariance_type)
    n_samples = 120_000
    X, labels = mixture.sample(n_samples, 5)
    assert X.shape == (n_samples, 2)
    assert labels.shape == (n_samples,)
    assert labels.dtype == np.int64
    for k, dense in enumerate(mixture.to_dense()):
        own = X[labels == k]
        nk = len(own)
        spread = np.sqrt(dense.diagonal())
        # Five standard errors of a share, a mean and a covariance.
        share_error = math.sqrt(mixture.weights[k] * (1 - mixture.weights[k]) / n_samples)
        assert abs(nk / n_samples - mixture.weights[k]) < 5 * share_error
        assert (np.abs(own.mean(axis=0) - mixture.means[k]) < 5 * spread / math.sqrt(nk)).all()
        cov_error = np.outer(spread, spread) * math.sqrt(2 / nk)
        assert (np.abs(np.cov(own.T) - dense) < 5 * cov_error).all()


def test_a_seed_starts_a_generator_and_a_generator_goes_on() -> None:
    mixture = example("full")
    first, again = mixture.sample(10, 3), mixture.sample(10, np.random.default_rng(3))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    rng = np.random.default_rng(3)
    assert (mixture.sample(10, rng)[0] != mixture.sample(10, rng)[0]).all()
    assert (mixture.sample(10)[0] != mixture.sample(10)[0]).all()


@pytest.mark.parametrize(("covariance_type", "K", "D"), [("full", 6, 70), ("tied", 2, 150)])
def test_a_large_mixture_that_waits_keeps_half_and_says_the_same_to_the_last_bit(
    covariance_type: str, K: int, D: int
) -> None:
    rng = np.random.default_rng(0)
    roots = rng.standard_normal((K, D, 2 * D))
    covariances = roots @ roots.transpose(0, 2, 1) / D
    means, weights = rng.standard_normal((K, D)), np.full(K, 1.0 / K)
    given = {"means": means, "weights": weights}
    given["covariances"] = covariances if covariance_type == "full" else covariances[0]
    mixture = Mixture.from_arrays(given, covariance_type)
    waiting = mixture.bare()
    assert waiting.bare() is waiting
    assert waiting.family.lower_triangles.nbytes <= 0.51 * mixture.covariances.nbytes
    X = rng.standard_normal((20, D))
    for again in (waiting, waiting.whole()):
        assert again.covariances.tobytes() == mixture.covariances.tobytes()
        assert again.precisions_cholesky.tobytes() == mixture.precisions_cholesky.tobytes()
        assert again.score_samples(X).tobytes() == mixture.score_samples(X).tobytes()
    triangle = mixture.to_dense()[-1][np.tril_indices(D)]
    assert waiting.family.lower_triangles[-1].tobytes() == triangle.tobytes()
