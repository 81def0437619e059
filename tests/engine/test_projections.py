"""Bounds by projections beside extended precision: never below what they bound, and sharp."""

from collections.abc import Callable
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray

from gmm_engine import Mixture
from gmm_engine.kernels import likely, tiled
from gmm_engine.kernels.blocks import BLOCK_ROWS, GATHERED_ROWS
from gmm_engine.kernels.lanes import LANES, aligned
from gmm_engine.kernels.passes import Way
from gmm_engine.kernels.projections import count_directions

bound = cast("Callable[..., None]", likely.bound)
weigh = cast("Callable[..., None]", tiled.weigh)


def mixture_of(
    kind: str, n_components: int, n_features: int, rng: np.random.Generator
) -> tuple[Mixture, NDArray[np.float64]]:
    """Return a mixture and a block of rows, some of which are far from all components."""
    K, D = n_components, n_features
    A = rng.standard_normal((K, D, 2 * D)) / np.sqrt(2 * D)
    covariances = A @ A.transpose(0, 2, 1)
    means = 1.5 * rng.standard_normal((K, D))
    X = means[rng.integers(0, K, BLOCK_ROWS)] + rng.standard_normal((BLOCK_ROWS, D))
    if kind == "equal covariances":
        covariances[:] = covariances[0]
    if kind == "equal means":
        means[:] = means[0]
    if kind == "means on a line":
        means = np.linspace(-3.0, 3.0, K)[:, None] * np.ones(D)
    if kind == "correlated":
        lengths = np.logspace(0.0, -5.0, D)
        turn = np.linalg.qr(rng.standard_normal((D, D)))[0]
        shear = turn * lengths @ turn.T
        covariances = shear @ covariances @ shear
        X, means = X @ shear, means @ shear
    if kind == "units":
        units = np.logspace(-100.0, 100.0, D)
        covariances *= units * units[:, None]
        X, means = X * units, means * units
    X[::5] += np.logspace(0.0, 12.0, len(X[::5]))[:, None] * X[::5]
    weights = rng.dirichlet(np.ones(K))
    arrays = {"weights": weights, "means": means, "covariances": covariances}
    return Mixture.from_arrays(arrays), X


KINDS = [
    "apart",
    "equal covariances",
    "equal means",
    "means on a line",
    "correlated",
    "units",
]


def bounds_of(mixture: Mixture, X: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what the passes hold against what counts, (K, n)."""
    laid_out, K = mixture.prepared, mixture.n_components
    width = laid_out.width
    columns = columns_of(mixture, X)
    slack, bounds = aligned(GATHERED_ROWS), aligned(K * GATHERED_ROWS)
    bound(
        columns,
        width,
        BLOCK_ROWS,
        laid_out.factors,
        K * laid_out.factor_stride,
        K,
        count_directions(K, width),
        aligned(width * BLOCK_ROWS),
        aligned(width * BLOCK_ROWS),
        slack,
        bounds,
    )
    return (bounds.reshape(K, -1) + slack)[:, :BLOCK_ROWS]


def columns_of(mixture: Mixture, X: NDArray[np.float64]) -> NDArray[np.float64]:
    columns: NDArray[np.float64] = aligned(mixture.prepared.width * BLOCK_ROWS)
    columns[:] = 0.0
    columns.reshape(-1, BLOCK_ROWS)[: X.shape[1]] = X.T
    return columns


def exact_log_p(mixture: Mixture, X: NDArray[np.float64]) -> NDArray[np.longdouble]:
    """Return log p(x, k) by the factors as they are, (K, n), with 11 more bits than a double."""
    X_extended, constants = X.astype(np.longdouble), mixture.prepared.constants
    values = []
    for k, upper in enumerate(mixture.precisions_cholesky):
        whitened = (X_extended - mixture.means[k]) @ np.triu(upper).astype(np.longdouble)
        values.append(constants[k] - 0.5 * (whitened**2).sum(axis=1))
    return np.array(values)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("n_components", "n_features"), [(2, 64), (16, 64), (9, 70), (40, 64)])
@pytest.mark.parametrize("seed", range(3))
def test_a_bound_is_never_below_what_it_bounds(
    kind: str, n_components: int, n_features: int, seed: int
) -> None:
    mixture, X = mixture_of(kind, n_components, n_features, np.random.default_rng(seed))

    assert mixture.prepared.way == (Way.GATHERED, 0)
    with np.errstate(over="ignore", invalid="ignore"):
        found, exact = bounds_of(mixture, X), exact_log_p(mixture, X)

    assert not (found < exact).any()


def test_components_apart_are_bounded_sharply() -> None:
    mixture, X = mixture_of("apart", 16, 64, np.random.default_rng(0))
    near = np.arange(BLOCK_ROWS) % 5 != 0

    found, exact = bounds_of(mixture, X)[:, near], exact_log_p(mixture, X)[:, near]

    best = exact.max(axis=0)
    is_apart = exact < best - 100.0
    assert is_apart.mean() > 0.5
    assert (found < best - 50.0)[is_apart].mean() > 0.9


@pytest.mark.parametrize(
    ("n_components", "width", "expected"),
    [(1, 64, 0), (16, 56, 0), (3, 64, LANES), (16, 64, 16), (128, 64, 32), (128, 256, 128)],
)
def test_a_projection_has_a_direction_a_component_up_to_half_the_features(
    n_components: int, width: int, expected: int
) -> None:
    assert count_directions(n_components, width) == expected
