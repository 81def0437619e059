"""The passes over the rows: the engine's one hot and one compiled place.

``expectation`` sums up what the M-step needs, ``score`` answers for given rows. Both drive
compiled passes that hold no lock from a few threads over row ranges fixed by the size of the
work; sums are added in the order of the ranges. So the same input gives the same bits with one
thread or many, and concurrent callers don't meet.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np
from numpy.typing import NDArray

from gmm_engine.errors import OutOfRangeError
from gmm_engine.kernels import passes
from gmm_engine.kernels.blocks import BLOCK_ROWS
from gmm_engine.kernels.clustering import (
    add_by_label,
    add_labelled,
    k_means_labels,
    k_means_labels_from,
    near_portions,
    near_rows,
    ward_labels,
)
from gmm_engine.kernels.extents import Extent, extent
from gmm_engine.kernels.factors import Factors, cholesky_factors, factors_of, inverse_transposes
from gmm_engine.kernels.maximization import Bounds, Estimates, estimates
from gmm_engine.kernels.prepared import Prepared
from gmm_engine.kernels.ranges import in_order, row_ranges, set_thread_count, thread_count
from gmm_engine.kernels.sharing import sums_of
from gmm_engine.kernels.steps import Steps, Sums, layout, plain_steps
from gmm_engine.kernels.warm_up import warm_up
from gmm_engine.validation import SAFE_SUM_OF_SQUARES, require_in_range

__all__ = [
    "Bounds",
    "Chunk",
    "Estimates",
    "Extent",
    "Factors",
    "Moments",
    "Prepared",
    "Steps",
    "Sums",
    "add_by_label",
    "add_labelled",
    "cholesky_factors",
    "estimates",
    "expectation",
    "extent",
    "factors_of",
    "inverse_transposes",
    "is_one_range",
    "k_means_labels",
    "k_means_labels_from",
    "layout",
    "near_portions",
    "near_rows",
    "plain_steps",
    "score",
    "set_thread_count",
    "thread_count",
    "ward_labels",
    "warm_up",
]

Chunk = tuple[NDArray[np.floating], NDArray[np.float64] | None]
"""Rows (n, D), float64 or float32, and their weights (n,); None stands for ones."""

_NO_WEIGHT = np.empty(0)


@dataclass(frozen=True, slots=True)
class Moments:
    """Sums over rows about the means of the mixture that weighed them."""

    nk: NDArray[np.float64]  # (K,)
    first: NDArray[np.float64]  # (K, D)
    scatter: NDArray[np.float64]  # (K or 1, D, D) or (K, D)
    log_likelihood: float
    log_max_resp: float

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(
            self.nk + other.nk,
            self.first + other.first,
            self.scatter + other.scatter,
            self.log_likelihood + other.log_likelihood,
            self.log_max_resp + other.log_max_resp,
        )


def expectation(prepared: Prepared, chunks: Iterable[Chunk]) -> Moments:
    """Weigh every row of the chunks and sum up the moments.

    Raises ``OutOfRangeError`` for a row so far from every component that its squared distances
    leave the range of a double.
    """
    return reduce(add, (_expectation_of_chunk(prepared, X, weight) for X, weight in chunks))


def _expectation_of_chunk(
    prepared: Prepared, X: NDArray[np.floating], weight: NDArray[np.float64] | None
) -> Moments:
    sums = sums_of(prepared, X, _NO_WEIGHT if weight is None else weight, _ranges(prepared, len(X)))
    _require_reached(sums.unreached, 0)
    return Moments(sums.nk, sums.first, sums.scatter, sums.log_likelihood, sums.log_max_resp)


def is_one_range(prepared: Prepared, n_rows: int) -> bool:
    """Tell whether a pass over so many rows is too short to be cut up among threads."""
    return len(_ranges(prepared, n_rows)) == 1


def _ranges(prepared: Prepared, n_rows: int) -> Sequence[slice]:
    return row_ranges(
        n_rows, prepared.n_components, prepared.n_features, is_dense=prepared.is_dense
    )


_NO_TABLE, _NO_COLUMN, _NO_LABELS = np.empty((0, 0)), np.empty(0), np.empty(0, dtype=np.int64)


def score(
    prepared: Prepared,
    X: NDArray[np.floating],
    *,
    joint: NDArray[np.float64] = _NO_TABLE,
    resp: NDArray[np.float64] = _NO_TABLE,
    log_prob: NDArray[np.float64] = _NO_COLUMN,
    labels: NDArray[np.int64] = _NO_LABELS,
) -> None:
    """Fill the arrays given with answers for every row of doubles or floats.

    In each table either the numbers of a row stand side by side, or those of a column.

    Those are log p(x, k) (n, K), the responsibilities (n, K), log p(x) (n,) and the most probable
    components (n,). Raises like ``expectation``, but for ``joint``; and, as ``as_samples``, for
    numbers out of range.
    """
    answers = (joint, resp, log_prob, labels)
    try:
        _score_ranges(prepared, X, answers, SAFE_SUM_OF_SQUARES)
    except _UnsafeError:
        require_in_range(X)
        _score_ranges(prepared, X, answers, _KNOWN_TO_BE_IN_RANGE)


_Answers = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]
_KNOWN_TO_BE_IN_RANGE = 0.0


class _UnsafeError(Exception):
    """A number may be out of range, or a row out of reach."""


def _score_ranges(
    prepared: Prepared, X: NDArray[np.floating], answers: _Answers, safe_sum: float
) -> None:
    if len(X) <= BLOCK_ROWS:  # one range: every microsecond counts
        _score_rows(prepared, X, answers, safe_sum, 0)
        return

    def part(rows: slice) -> None:
        joint, resp, log_prob, labels = answers
        in_part = (joint[rows], resp[rows], log_prob[rows], labels[rows])
        _score_rows(prepared, X[rows], in_part, safe_sum, rows.start)

    deque(in_order(part, _ranges(prepared, len(X))), maxlen=0)


def _score_rows(
    prepared: Prepared, X: NDArray[np.floating], answers: _Answers, safe_sum: float, first: int
) -> None:
    unreached = passes.scorer(*prepared.scoring_way)(
        *passes.as_either_type(X),
        safe_sum,
        prepared.constants,
        prepared.means,
        prepared.width,
        prepared.factors,
        prepared.factor_stride,
        *answers,
    )
    if unreached == passes.ALL_REACHED:
        return
    if safe_sum > _KNOWN_TO_BE_IN_RANGE:  # what is no number at all is told first
        raise _UnsafeError
    _require_reached(unreached, first)


def _require_reached(unreached: int, first: int) -> None:
    if unreached >= 0:
        raise OutOfRangeError(
            f"row {first + unreached} is so far from every component that its squared "
            "distance leaves the range of a double",
            [(first + unreached,)],
        )
