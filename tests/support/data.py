"""Data for tests: the real sets, read once, and seeded ones whose truth is known."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gmm_engine import Mixture
from tests.support.slow_twin import in_own_shape

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "data"
LONGLEY = """
60323  83.0 234289 2356 1590 107608 1947
61122  88.5 259426 2325 1456 108632 1948
60171  88.2 258054 3682 1616 109773 1949
61187  89.5 284599 3351 1650 110929 1950
63221  96.2 328975 2099 3099 112075 1951
63639  98.1 346999 1932 3594 113270 1952
64989  99.0 365385 1870 3547 115094 1953
63761 100.0 363112 3578 3350 116219 1954
66019 101.2 397469 2904 3048 117388 1955
67857 104.6 419180 2822 2857 118734 1956
68169 108.4 442769 2936 2798 120445 1957
66513 110.8 444546 4681 2637 121950 1958
68655 112.6 482704 3813 2552 123366 1959
69564 114.2 502601 3931 2514 125368 1960
69331 115.7 518173 4806 2572 127852 1961
70551 116.9 554894 4007 2827 130081 1962
"""


@dataclass(frozen=True, slots=True)
class Labelled:
    """Rows and the cluster that each of them was drawn from."""

    X: NDArray[np.float64]
    labels: NDArray[np.int64]


@cache
def faithful() -> NDArray[np.float64]:
    """Return Old Faithful, (272, 2)."""
    return _frozen(np.loadtxt(EXAMPLES / "faithful.csv", delimiter=",", skiprows=1))


@cache
def iris() -> NDArray[np.float64]:
    """Return Fisher's and Anderson's iris, (150, 4)."""
    return _frozen(np.loadtxt(EXAMPLES / "iris.csv", delimiter=",", skiprows=1)[:, :4])


@cache
def iris_species() -> NDArray[np.int64]:
    return np.loadtxt(EXAMPLES / "iris.csv", delimiter=",", skiprows=1)[:, 4].astype(np.int64)


@cache
def longley() -> NDArray[np.float64]:
    """Return the United States from 1947 to 1962, (16, 7), known for features that move together.

    Employment, deflator, gross national product, unemployed, armed forces, population, year.
    Longley (1967), *Journal of the American Statistical Association* 62, 819–841, as in the
    Statistical Reference Datasets of NIST; in the public domain.
    """
    return _frozen(np.array(LONGLEY.split(), dtype=np.float64).reshape(16, 7))


def standardized(X: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray((X - X.mean(axis=0)) / X.std(axis=0))


def random_covariances(
    n_components: int, n_features: int, rng: np.random.Generator
) -> NDArray[np.float64]:  # (K, D, D)
    """Return well-conditioned matrices of various sizes and directions."""
    roots = rng.standard_normal((n_components, n_features, n_features)) / np.sqrt(n_features)
    sizes = rng.uniform(0.5, 2.0, size=(n_components, 1, 1))
    return np.asarray(sizes * (roots @ roots.transpose(0, 2, 1) + 0.3 * np.eye(n_features)))


def random_mixture(
    covariance_type: str,
    *,
    n_components: int,
    n_features: int,
    rng: np.random.Generator,
    spread: float = 2.0,
) -> Mixture:
    """Return a mixture whose components overlap, more so the smaller ``spread`` is."""
    dense = random_covariances(n_components, n_features, rng)
    weights = rng.uniform(0.5, 1.5, size=n_components)
    arrays = {
        "weights": weights / weights.sum(),
        "means": spread * rng.standard_normal((n_components, n_features)),
        "covariances": in_own_shape(dense, covariance_type),
    }
    return Mixture.from_arrays(arrays, covariance_type)


def rows_of(mixture: Mixture, n_samples: int, rng: np.random.Generator) -> NDArray[np.float64]:
    return mixture.sample(n_samples, rng)[0]


def parallel_clusters(rng: np.random.Generator, *, rows_each: int = 200) -> Labelled:
    """Return three long thin clusters side by side: sd 30 × 0.3, spaced by 3.

    k-means with plain distances cuts them across; scikit-learn 1.9.1 reaches an adjusted Rand
    index of 0.00 even with 50 restarts (scikit-learn issues 34842 and 34845).
    """
    labels = np.repeat(np.arange(3), rows_each)
    noise = rng.standard_normal((len(labels), 2))
    return Labelled(noise * [30.0, 0.3] + labels[:, np.newaxis] * [0.0, 3.0], labels)


def separated_clusters(
    rng: np.random.Generator, *, n_clusters: int = 3, n_features: int = 2, rows_each: int = 60
) -> Labelled:
    """Return round clusters of unit variance whose centres are at least 12 apart."""
    labels = np.repeat(np.arange(n_clusters), rows_each)
    centers = np.zeros((n_clusters, n_features))
    centers[:, 0] = 12.0 * np.arange(n_clusters)
    centers[:, -1] += 5.0 * (np.arange(n_clusters) % 2)
    return Labelled(centers[labels] + rng.standard_normal((len(labels), n_features)), labels)


def rotation(degrees: float) -> NDArray[np.float64]:
    angle = np.deg2rad(degrees)
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def _frozen(X: NDArray[np.float64]) -> NDArray[np.float64]:
    X.flags.writeable = False
    return X
