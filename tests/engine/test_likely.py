"""Weighing with bounds beside weighing everything: what counts has the same bits."""

from collections.abc import Callable
from typing import cast

import numpy as np
import pytest
from numba import njit
from numpy.typing import NDArray

from gmm_engine import Mixture
from gmm_engine.kernels import likely, tiled
from gmm_engine.kernels.blocks import BLOCK_ROWS, GATHERED_ROWS
from gmm_engine.kernels.lanes import LANES, aligned
from gmm_engine.kernels.negligible import least_that_counts

K = 5

_weigh_tiled = cast("Callable[..., None]", tiled.weigh)
weigh_likely = cast("Callable[..., float]", likely.weigh)
least_of = cast("Callable[[float, float], float]", least_that_counts)


def _weigh_all(  # type: ignore[no-untyped-def] # noqa: PLR0917 - as the passes call it
    columns, means, factors, factor_stride, width, constants, deviations, joint
):
    for k in range(len(constants)):
        _weigh_tiled(
            columns,
            means,
            k * width,
            factors,
            k * factor_stride,
            width,
            constants[k],
            BLOCK_ROWS,
            BLOCK_ROWS,
            deviations,
            joint,
            k * BLOCK_ROWS,
        )


weigh_all = cast("Callable[..., None]", njit(_weigh_all))


def mixture_of(n_features: int, apart: float, rng: np.random.Generator) -> Mixture:
    A = rng.standard_normal((K, n_features, 2 * n_features)) / np.sqrt(2 * n_features)
    return Mixture.from_arrays(
        {
            "weights": np.full(K, 1.0 / K),
            "means": apart * rng.standard_normal((K, n_features)),
            "covariances": A @ A.transpose(0, 2, 1),
        }
    )


def lanes_of(size: int) -> NDArray[np.float64]:
    return aligned(size)


@pytest.mark.parametrize("n_features", [64, 70, 128])
@pytest.mark.parametrize("apart", [0.0, 0.3, 0.8, 3.0])
@pytest.mark.parametrize("far", [0.0, 1e3, 1e12])
def test_what_counts_has_the_bits_of_weighing_everything(
    n_features: int, apart: float, far: float
) -> None:
    rng = np.random.default_rng(n_features)
    mixture = mixture_of(n_features, apart, rng)
    X, _ = mixture.sample(BLOCK_ROWS, rng)
    X[::7] += far * rng.standard_normal((len(X[::7]), n_features))
    laid_out = mixture.prepared
    width = laid_out.width
    columns, whole = (lanes_of(size * BLOCK_ROWS) for size in (width, K))
    columns[:] = 0.0
    columns.reshape(width, BLOCK_ROWS)[:n_features] = X.T
    read = (laid_out.means, laid_out.factors, laid_out.factor_stride, width, laid_out.constants)
    deviations = lanes_of(width * BLOCK_ROWS)
    weigh_all(columns, *read, deviations, whole)

    rows = lanes_of(BLOCK_ROWS * width).reshape(BLOCK_ROWS, width)
    rows[:] = columns.reshape(width, BLOCK_ROWS).T
    of_rows = [lanes_of(GATHERED_ROWS + LANES) for _ in range(5)]
    joint = lanes_of(K * GATHERED_ROWS)
    share = weigh_likely(
        columns,
        rows.reshape(-1),
        *read,
        laid_out.negligible,
        BLOCK_ROWS,
        deviations,
        lanes_of(width * BLOCK_ROWS),
        lanes_of(K * GATHERED_ROWS),
        *of_rows[:4],
        np.empty(GATHERED_ROWS + LANES, dtype=np.int64),
        of_rows[4],
        joint,
    )

    everything = whole.reshape(K, BLOCK_ROWS)
    found = joint.reshape(K, GATHERED_ROWS)[:, :BLOCK_ROWS]
    least = np.array([least_of(top, laid_out.negligible) for top in everything.max(axis=0)])
    is_left_out = found == -np.inf
    assert (everything < least)[is_left_out].all()
    np.testing.assert_array_equal(found[~is_left_out], everything[~is_left_out])
    if apart == 0.0 and far == 0.0:
        assert not is_left_out.any()
    if apart == 3.0 and far == 0.0:
        assert share < 0.3
