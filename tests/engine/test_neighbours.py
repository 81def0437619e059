"""From a mixture to those next to it: what a split, a merger and another family keep."""

import numpy as np
import pytest
from numpy.typing import NDArray

from gmm_engine import COVARIANCE_FAMILIES, Mixture
from gmm_engine.neighbours import NEARLY_ONE, as_family, mergers, splits
from tests.support.data import random_mixture, rows_of

every_family = pytest.mark.parametrize("covariance_type", COVARIANCE_FAMILIES)


def moments(mixture: Mixture) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean and the covariance of the whole mixture."""
    mean = mixture.weights @ mixture.means
    deviations = mixture.means - mean
    within = np.einsum("k,kij->ij", mixture.weights, mixture.to_dense())
    return mean, within + (deviations * mixture.weights[:, np.newaxis]).T @ deviations


def full_mixture(n_components: int = 3) -> Mixture:
    rng = np.random.default_rng(n_components)
    return random_mixture("full", n_components=n_components, n_features=3, rng=rng)


@pytest.mark.parametrize(
    ("poorer", "richer"),
    [("spherical", "diag"), ("spherical", "full"), ("diag", "full"), ("tied", "full")],
)
def test_a_mixture_is_the_same_density_in_a_family_that_contains_its_own(
    poorer: str, richer: str
) -> None:
    rng = np.random.default_rng(0)
    mixture = random_mixture(poorer, n_components=3, n_features=4, rng=rng)
    X = rows_of(mixture, 50, rng)

    np.testing.assert_allclose(
        as_family(mixture, richer).score_samples(X), mixture.score_samples(X), rtol=1e-12
    )


def test_splits_keep_the_mean_and_the_covariance_of_the_whole() -> None:
    mixture = full_mixture()
    found = list(splits(mixture, 4, np.ones(3)))

    assert len(found) == 3 * 2 + 1
    for split in found:
        assert split.n_components == 4
        for kept, had in zip(moments(split), moments(mixture), strict=True):
            np.testing.assert_allclose(kept, had, rtol=1e-12, atol=1e-12)


def test_mergers_keep_the_mean_and_the_covariance_of_the_whole() -> None:
    mixture = full_mixture(4)
    found = list(mergers(mixture, 3, rows_of(mixture, 100, np.random.default_rng(0))))

    assert len(found) == 6
    for merged in found:
        assert merged.n_components == 3
        for kept, had in zip(moments(merged), moments(mixture), strict=True):
            np.testing.assert_allclose(kept, had, rtol=1e-12, atol=1e-12)


@every_family
def test_the_last_split_describes_the_rows_as_the_whole_did(covariance_type: str) -> None:
    rng = np.random.default_rng(1)
    mixture = random_mixture(covariance_type, n_components=2, n_features=3, rng=rng)
    X = rows_of(mixture, 500, rng)
    *_, last = splits(mixture, 3, np.ones(3))

    assert last.score(X) == pytest.approx(mixture.score(X), abs=NEARLY_ONE**2)


@every_family
@pytest.mark.parametrize("n_components", [1, 6])
def test_neighbours_may_be_several_components_away(covariance_type: str, n_components: int) -> None:
    rng = np.random.default_rng(2)
    mixture = random_mixture(covariance_type, n_components=4, n_features=2, rng=rng)
    X = rows_of(mixture, 80, rng)
    ways = mergers(mixture, n_components, X) if n_components < 4 else splits(mixture, 6, np.ones(2))

    for way in ways:
        assert (way.n_components, way.covariance_type) == (n_components, covariance_type)


def test_components_that_share_rows_are_merged_first() -> None:
    means = [[0.0], [50.0], [0.5], [100.0]]
    mixture = Mixture.from_arrays(
        {"weights": np.full(4, 0.25), "means": means, "covariances": np.ones(4)}, "spherical"
    )
    X = rows_of(mixture, 400, np.random.default_rng(0))
    first = next(mergers(mixture, 3, X))

    np.testing.assert_allclose(np.sort(first.means, axis=None), [0.25, 50.0, 100.0])


def test_what_is_cut_does_not_depend_on_the_units() -> None:
    mixture, units = full_mixture(), np.array([1e-3, 1.0, 1e6])
    arrays = mixture.to_arrays()
    rescaled = Mixture.from_arrays(
        {
            "weights": arrays["weights"],
            "means": arrays["means"] * units,
            "covariances": arrays["covariances"] * np.multiply.outer(units, units),
        }
    )

    pairs = zip(splits(mixture, 4, np.ones(3)), splits(rescaled, 4, units), strict=True)
    for split, other in pairs:
        ordered = np.sort(split.means[-2:], axis=0) * units  # an axis has no sign
        np.testing.assert_allclose(np.sort(other.means[-2:], axis=0), ordered, rtol=1e-9)
