"""Where EM starts: starts by name, and starts that a caller gives.

A start is made of sufficient statistics, as if a first E-step had been done; the M-step turns
them into a mixture of whichever family. All draws go through cumulative sample weights, so that a
row of weight 2 is drawn like two equal rows. A new start is one function and its line in
``INITIALIZERS``; a name with several is a portfolio, of which the most promising is carried on.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gmm_engine import kernels
from gmm_engine.errors import DimensionMismatchError, InvalidParameterError
from gmm_engine.regularization import DataScale
from gmm_engine.samples import Samples
from gmm_engine.statistics import PooledScatter, Scatter, SufficientStatistics
from gmm_engine.validation import are_counts, as_real_array, require_finite

MAX_LLOYD_STEPS = 30
SETTLED_PART = 1e-3
"""Lloyd's steps end when no more than this part of the rows change their cluster."""
LEAST_LINKED_ROWS, LINKED_ROWS_A_COMPONENT, LINKED_ROWS_A_MEAN = 300, 30, 4
"""Hierarchical clustering takes time by the square of the rows: enough for the covariances, for
each component and for each number of its mean (and one more), but no fewer than the first."""
MAX_LINKED_ROWS = 1000

PIECES_A_COMPONENT, MEASUREMENTS = 3, 3
"""The spread within clusters is measured in so many small pieces of the data for each component,
but in no more than leave each a row for every number of its mean (and one more); so many times,
the pieces each time moved in the units that were found."""
FEW_LLOYD_STEPS = 5
"""Lloyd's steps at the most of such pieces, and of clusters that were found in other units."""
LEAST_WITHIN = 1e-4
"""No variance within clusters, relative to the data's, is taken to be less."""

MOST_KEPT_NUMBERS = 500_000
"""Rows of more numbers are whitened anew for each start, and not kept while others are tried."""

RESPONSIBILITY_SUM_TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True)
class AsTheyCome:
    """The way back to the units that were given, for rows that are seen in others."""

    undo: Callable[[NDArray[np.float64]], NDArray[np.float64]]
    scale: DataScale


class StartRows:
    """Rows that starts are sought on, and what several kinds of start make of them, made once."""

    def __init__(
        self, samples: Samples, scale: DataScale, as_they_come: AsTheyCome | None = None
    ) -> None:
        self.samples, self.scale = samples, scale
        self._as_they_come = as_they_come
        self.weight = samples.weights_or_ones  # (n_samples,)
        self._within_axes: dict[int, NDArray[np.float64]] = {}

    @property
    def copies(self) -> NDArray[np.float64] | None:  # (n_samples,)
        """How often each row is there: its weight, or, where those are no counts, a part of n."""
        weight = self.samples.weight
        if weight is None or are_counts(weight):
            return weight
        return np.asarray(weight * (self.samples.n_positive / weight.sum()))

    @property
    def whitened(self) -> NDArray[np.float64]:  # (n_samples, D or less)
        """The rows in the data's own principal axes, each in units of its spread."""
        is_kept = self.samples.X.size <= MOST_KEPT_NUMBERS
        return self._whitened if is_kept else self.seen(self.samples.X)

    @cached_property
    def _whitened(self) -> NDArray[np.float64]:
        return self.seen(self.samples.X)

    def seen(self, X: NDArray[np.float64]) -> NDArray[np.float64]:  # (n_samples, D or less)
        """Return whitened rows; where whitening leaves nothing to see, standardized ones."""
        if not self.are_a_simplex:
            return self.scale.whitened(X)
        if self._as_they_come is None:
            return self.scale.standardized(X)
        return self._as_they_come.scale.standardized(self._as_they_come.undo(X))

    @property
    def as_they_come(self) -> NDArray[np.float64]:  # (n_samples, D)
        """The rows in the units that were given."""
        X = self.samples.X
        return X if self._as_they_come is None else self._as_they_come.undo(X)

    @cached_property
    def are_a_simplex(self) -> bool:
        """Whether each row varies in a direction of its own, copies aside, but for one.

        All such rows are affine images of each other: whitened, every row would be as far from
        every other, and rounding would decide. Of all rows that starts are sought on those are
        looked at that count.
        """
        return not _has_more_distinct(self.samples.that_count().X, self.scale.n_directions + 1)

    @cached_property
    def directions_by_tails(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """How heavy the tails are in each of some directions, 1 like a Gaussian's, and these.

        They are found by the fourth moments of whitened rows (Cardoso 1989); the lightest come
        first.
        """
        white = self.whitened
        lengths = np.einsum("ij,ij->i", white, white)
        moments = (white * (self.weight * lengths)[:, np.newaxis]).T @ white
        tails, directions = np.linalg.eigh(moments / (self.weight.sum() * (white.shape[1] + 2)))
        return np.maximum(tails, np.finfo(float).tiny), directions

    def within_axes(self, n_components: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """Return the axes, in whitened coordinates, of ``within``; measured when first asked."""
        if n_components not in self._within_axes:
            part = _linked_rows(self, n_components, rng)
            white = self.seen(part.X)
            self._within_axes[n_components] = (
                np.eye(white.shape[1])  # all directions within clusters but a few would be flat
                if self.are_a_simplex
                else _within_axes(white, part, n_components, rng)
            )
        return self._within_axes[n_components]

    def within(
        self, n_components: int, rng: np.random.Generator
    ) -> NDArray[np.float64]:  # (n_samples, D or less)
        """Return the rows in units of the spread within clusters, as far as all have the same.

        Whitening presses groups that lie apart together; these units leave each of them round.
        They are found without looking at the units of the data (Art, Gnanadesikan and Kettenring
        1982 have the idea).
        """
        axes = self.within_axes(n_components, rng)
        return self.whitened @ axes


Initializer = Callable[[StartRows, int, type[Scatter], np.random.Generator], SufficientStatistics]


def k_means_plus_plus(
    rows: StartRows,
    n_components: int,
    form: type[Scatter],
    rng: np.random.Generator,
) -> SufficientStatistics:
    """Rows go to the nearest of spread-out rows (Arthur and Vassilvitskii 2007)."""
    labels = kernels.k_means_labels(
        rows.as_they_come, rows.weight, n_components, rng, max_steps=0, settled=0.0
    )
    return SufficientStatistics.of_labels(rows.samples, labels, n_components, form)


def k_means(
    rows: StartRows,
    n_components: int,
    form: type[Scatter],
    rng: np.random.Generator,
) -> SufficientStatistics:
    """Rows go to the clusters of k-means (Lloyd 1982) from a k-means++ start."""
    labels = _lloyd(rows.as_they_come, rows.weight, n_components, rng)
    return SufficientStatistics.of_labels(rows.samples, labels, n_components, form)


def k_means_whitened(
    rows: StartRows,
    n_components: int,
    form: type[Scatter],
    rng: np.random.Generator,
) -> SufficientStatistics:
    """k-means in the data's own principal axes, each in units of its spread."""
    labels = _lloyd(rows.whitened, rows.weight, n_components, rng)
    return SufficientStatistics.of_labels(rows.samples, labels, n_components, form)


def k_means_within(
    rows: StartRows,
    n_components: int,
    form: type[Scatter],
    rng: np.random.Generator,
) -> SufficientStatistics:
    """k-means in units of the spread within clusters."""
    labels = _lloyd(rows.within(n_components, rng), rows.weight, n_components, rng)
    return SufficientStatistics.of_labels(rows.samples, labels, n_components, form)


def k_means_projected(
    rows: StartRows,
    n_components: int,
    form: type[Scatter],
    rng: np.random.Generator,
) -> SufficientStatistics:
    """k-means along the directions in which the data has the lightest tails.

    Groups apart make a distribution flat, so that parallel clusters show whatever their shape and
    the units.
    """
    _, directions = rows.directions_by_tails
    seen = rows.whitened @ directions[:, : _n_directions(n_components, directions)]
    labels = _lloyd(seen, rows.weight, n_components, rng)
    return SufficientStatistics.of_labels(rows.samples, labels, n_components, form)


def k_means_extreme(
    rows: StartRows,
    n_components: int,
    form: type[Scatter],
    rng: np.random.Generator,
) -> SufficientStatistics:
    """k-means along the directions that are the least like a Gaussian's, then along all.

    Few rows far from many make heavy tails, groups of one size light ones.
    """
    tails, directions = rows.directions_by_tails
    by_extremity = np.argsort(-np.abs(np.log(tails)), kind="stable")
    chosen = by_extremity[: _n_directions(n_components, directions)]
    seen = rows.whitened @ directions[:, chosen]
    labels = _lloyd(seen, rows.weight, n_components, rng)
    del seen
    means, axes = _means_and_axes(rows.whitened, rows.weight, labels, n_components)
    labels = _lloyd_from(means @ axes, rows.whitened @ axes, rows.weight, FEW_LLOYD_STEPS)
    return SufficientStatistics.of_labels(rows.samples, labels, n_components, form)


def _n_directions(n_components: int, directions: NDArray[np.float64]) -> int:
    """Return along how many directions clusters are looked for: not along all, as others do."""
    return max(1, min(n_components // 2, len(directions) - 1))


def random_responsibilities(
    rows: StartRows,
    n_components: int,
    form: type[Scatter],
    rng: np.random.Generator,
) -> SufficientStatistics:
    """Every row belongs to every component by chance; all begin near the data's mean.

    Where weights are counts, each copy does.
    """
    statistics = SufficientStatistics.zeros(form, np.tile(rows.scale.mean, (n_components, 1)))
    samples = rows.samples.that_count()
    draw = _by_copy if are_counts(samples.weight) else _by_row
    for _, X, weight in samples.blocks():
        resp = draw(np.ones(len(X)) if weight is None else weight, n_components, rng)
        for component in range(n_components):
            statistics.add_rows(component, X, resp[:, component])
    return statistics


def _by_row(
    weight: NDArray[np.float64], n_components: int, rng: np.random.Generator
) -> NDArray[np.float64]:  # (n_samples, K), rows sum to their weights
    resp = rng.random((len(weight), n_components))
    resp *= (weight / resp.sum(axis=1))[:, np.newaxis]
    return resp


def _by_copy(
    weight: NDArray[np.float64], n_components: int, rng: np.random.Generator
) -> NDArray[np.float64]:  # (n_samples, K), rows sum to their weights
    counts = weight.astype(np.intp)
    of_copies = _by_row(np.ones(counts.sum()), n_components, rng)
    return np.asarray(np.add.reduceat(of_copies, np.cumsum(counts) - counts))


def random_rows(
    rows: StartRows,
    n_components: int,
    form: type[Scatter],
    rng: np.random.Generator,
) -> SufficientStatistics:
    """Components of equal weight at random rows, each with the covariance of all the data.

    No two rows are the same, as long as there are others.
    """
    chosen = _distinct_rows(rows.samples.X, rows.weight, n_components, rng)
    share = np.full(n_components, 1.0 / n_components)
    statistics = SufficientStatistics.zeros(form, rows.samples.X[chosen])
    statistics.nk[:] = share
    statistics.scatter[...] = form.from_total(rows.scale.covariance, share)
    return statistics


def ward_clusters(
    rows: StartRows,
    n_components: int,
    form: type[Scatter],
    rng: np.random.Generator,
) -> SufficientStatistics:
    """Rows joined from the bottom up by Ward's criterion (1963), in the data's principal axes."""
    part = _linked_rows(rows, n_components, rng)
    if part.n_rows < 2:
        return random_rows(rows, n_components, form, rng)
    return _joined(part, rows.seen(part.X), n_components, form)


def ward_clusters_within(
    rows: StartRows,
    n_components: int,
    form: type[Scatter],
    rng: np.random.Generator,
) -> SufficientStatistics:
    """Rows joined by Ward's criterion in units of the spread within clusters."""
    axes = rows.within_axes(n_components, rng)
    part = _linked_rows(rows, n_components, rng)
    if part.n_rows < 2:
        return random_rows(rows, n_components, form, rng)
    return _joined(part, rows.seen(part.X) @ axes, n_components, form)


def _linked_rows(rows: StartRows, n_components: int, rng: np.random.Generator) -> Samples:
    """Draw as many rows as hierarchical clustering looks at."""
    enough = max(LINKED_ROWS_A_COMPONENT, LINKED_ROWS_A_MEAN * (rows.samples.n_features + 1))
    n_rows = max(LEAST_LINKED_ROWS, enough * n_components)
    return rows.samples.drawn(min(n_rows, MAX_LINKED_ROWS), rng).that_count()


def _joined(
    part: Samples,
    seen: NDArray[np.float64],  # (n_part, D or less)
    n_components: int,
    form: type[Scatter],
) -> SufficientStatistics:
    """Join the rows of a part, as ``seen`` in some units, until as many clusters are left."""
    n_clusters = min(n_components, part.n_rows)
    labels = kernels.ward_labels(seen, part.weights_or_ones, n_clusters)
    return SufficientStatistics.of_labels(part, labels, n_components, form)


def neighborhoods(
    rows: StartRows,
    n_components: int,
    form: type[Scatter],
    rng: np.random.Generator,
) -> SufficientStatistics:
    """Spread-out rows, each with those nearest to it, for covariances that begin local."""
    return _around_spread_rows(rows, rows.whitened, n_components, form, rng)


def neighborhoods_within(
    rows: StartRows,
    n_components: int,
    form: type[Scatter],
    rng: np.random.Generator,
) -> SufficientStatistics:
    """Spread-out rows with those near to them, in units of the spread within clusters."""
    return _around_spread_rows(rows, rows.within(n_components, rng), n_components, form, rng)


def _around_spread_rows(
    rows: StartRows,
    seen: NDArray[np.float64],
    n_components: int,
    form: type[Scatter],
    rng: np.random.Generator,
) -> SufficientStatistics:
    samples, copies = rows.samples, rows.copies
    n_rows = samples.n_rows if copies is None else copies.sum()
    n_near = min(n_rows, max(2 * (samples.n_features + 1), n_rows // n_components))
    if copies is None:
        chosen = kernels.near_rows(seen, rows.weight, n_components, int(n_near), rng).ravel()
        labels = np.repeat(np.arange(n_components), int(n_near))
        near = Samples(samples.X[chosen], None)
    else:
        portions = kernels.near_portions(seen, copies, n_components, n_near, rng)
        labels = np.repeat(np.arange(n_components), [len(chosen) for chosen, _ in portions])
        chosen = np.concatenate([chosen for chosen, _ in portions])
        near = Samples(samples.X[chosen], np.concatenate([counted for _, counted in portions]))
    return SufficientStatistics.of_labels(near, labels, n_components, form)


INITIALIZERS: Mapping[str, tuple[Initializer, ...]] = {
    "auto": (  # neighbours differ in kind: what they agree on is hardly a bias that they share
        k_means_within,
        neighborhoods_within,
        k_means_extreme,
        ward_clusters_within,
        k_means_projected,
        k_means_whitened,
        neighborhoods,
        ward_clusters,
        k_means_within,
        k_means_whitened,
    ),
    "k-means++": (k_means_plus_plus,),
    "kmeans": (k_means,),
    "random": (random_responsibilities,),
    "random_from_data": (random_rows,),
}


def from_assignments(
    assignments: ArrayLike, samples: Samples, n_components: int, form: type[Scatter]
) -> SufficientStatistics:
    """Start from what a caller says of the rows.

    Parameters
    ----------
    assignments : array_like
        Labels 0 … K−1 of shape (n_samples,), or responsibilities of shape (n_samples, K).
    """
    values = as_real_array(assignments, what="start")
    require_finite(values, what="start")
    if values.shape == (samples.n_rows,):
        if not np.isin(values, np.arange(n_components)).all():
            raise InvalidParameterError("start", f"must hold labels from 0 to {n_components - 1}")
        labels = values.astype(np.intp)
        return SufficientStatistics.of_labels(samples, labels, n_components, form)
    if values.shape == (samples.n_rows, n_components):
        sums = values.sum(axis=1)
        if values.min() < 0 or np.abs(sums - 1.0).max() > RESPONSIBILITY_SUM_TOLERANCE:
            raise InvalidParameterError("start", "must hold responsibilities that sum to 1 by row")
        return SufficientStatistics.of_responsibilities(samples, values, form)
    raise DimensionMismatchError(
        f"start has shape {values.shape}; give labels ({samples.n_rows},) or responsibilities "
        f"({samples.n_rows}, {n_components})"
    )


def _draw(weight: NDArray[np.float64], rng: np.random.Generator) -> int:
    """Draw one index with probability in proportion to its weight."""
    edges = np.cumsum(weight)
    drawn = int(np.searchsorted(edges, rng.random() * edges[-1], side="right"))
    return min(drawn, len(weight) - 1)


def _distinct_rows(
    X: NDArray[np.float64], weight: NDArray[np.float64], n_rows: int, rng: np.random.Generator
) -> NDArray[np.intp]:
    remaining = weight.copy()
    chosen = np.empty(n_rows, dtype=np.intp)
    for i in range(n_rows):
        if not remaining.any():
            remaining = weight.copy()
        chosen[i] = _draw(remaining, rng)
        remaining[_rows_like(X, int(chosen[i]))] = 0.0
    return chosen


def _rows_like(X: NDArray[np.float64], row: int) -> NDArray[np.intp]:
    """Return the rows with the same numbers as one of them."""
    begin_alike = np.flatnonzero(X[:, 0] == X[row, 0])
    is_alike: NDArray[np.bool_] = (X[begin_alike] == X[row]).all(axis=1)
    return begin_alike[is_alike]


def _has_more_distinct(X: NDArray[np.float64], n_rows: int) -> bool:
    """Tell whether there are more distinct rows than so many; mostly the first ones tell."""
    return any(len(np.unique(part, axis=0)) > n_rows for part in (X[: 2 * (n_rows + 1)], X))


def _lloyd(
    X: NDArray[np.float64],
    weight: NDArray[np.float64],
    n_clusters: int,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Return the labels of k-means."""
    return kernels.k_means_labels(
        X,
        weight,
        n_clusters,
        rng,
        max_steps=MAX_LLOYD_STEPS,
        settled=SETTLED_PART * weight.sum(),
    )


def _lloyd_from(
    centers: NDArray[np.float64],
    X: NDArray[np.float64],
    weight: NDArray[np.float64],
    max_steps: int,
) -> NDArray[np.int64]:
    """Return the labels of k-means from given centres."""
    return kernels.k_means_labels_from(
        centers, X, weight, max_steps=max_steps, settled=SETTLED_PART * weight.sum()
    )


def _within_axes(
    white: NDArray[np.float64], part: Samples, n_components: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Measure the spread within small pieces of a part, which begin as clusters of k-means."""
    weight = part.weights_or_ones
    n_pieces = min(PIECES_A_COMPONENT * n_components, part.n_copies // (white.shape[1] + 1))
    if n_pieces < 2:
        return np.eye(white.shape[1])
    settled = SETTLED_PART * weight.sum()
    labels = kernels.k_means_labels(
        white, weight, n_pieces, rng, max_steps=FEW_LLOYD_STEPS, settled=settled
    )
    means, axes = _means_and_axes(white, weight, labels, n_pieces)
    for _ in range(MEASUREMENTS - 1):
        labels = _lloyd_from(means @ axes, white @ axes, weight, FEW_LLOYD_STEPS)
        means, axes = _means_and_axes(white, weight, labels, n_pieces)
    return axes


def _means_and_axes(
    white: NDArray[np.float64],
    weight: NDArray[np.float64],
    labels: NDArray[np.int64],
    n_clusters: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the means of clusters, and the principal axes in units of the spread within them."""
    found = SufficientStatistics.of_labels(
        Samples(white, weight), labels, n_clusters, PooledScatter
    )
    variances, directions = np.linalg.eigh(found.central_scatter / found.n_samples)
    return found.means, directions / np.sqrt(np.maximum(variances, LEAST_WITHIN))
