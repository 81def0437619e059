"""k-means and the sums over labelled rows, compiled: what most starts of EM are made of."""

import numpy as np
from numba import njit, types
from numpy.typing import NDArray

from gmm_engine.kernels.compilation import compiled
from gmm_engine.kernels.layout import READ, READ_TABLE, WRITTEN, WRITTEN_TABLE

_LABELS = types.int64[::1]
_READ_LABELS = types.Array(types.int64, 1, "C", readonly=True)
_BLOCK = 128
"""Rows looked at together, so that their distances stay in the first cache."""


@njit(nogil=True, error_model="numpy", fastmath={"contract"})
def _distances(columns, begin, end, centers, k, out):
    """Set out to |x − c_k|² of the rows from ``begin`` to ``end``."""
    for row in range(end - begin):
        out[row] = 0.0
    for i in range(len(columns)):
        c = centers[k, i]
        for row in range(end - begin):
            deviation = columns[i, begin + row] - c
            out[row] += deviation * deviation


@njit(nogil=True, error_model="numpy")
def _index_at(running, share):
    """Return the index at which a running total passes this share of the whole."""
    aim = share * running[-1]
    begin, end = 0, len(running) - 1
    while begin < end:
        middle = (begin + end) // 2
        if running[middle] > aim:
            end = middle
        else:
            begin = middle + 1
    return begin


@njit(nogil=True, error_model="numpy")
def _take_column(columns, row, centers, k):
    for i in range(len(columns)):
        centers[k, i] = columns[i, row]


@compiled(types.void(READ_TABLE, READ, READ, types.intp, WRITTEN_TABLE))
def spread_rows(columns, weight, draws, n_trials, centers):
    """Set ``centers`` to rows chosen one after another, with chances ∝ weight × |x − nearest|².

    Of ``n_trials`` rows drawn each time the one that leaves the least distance over is taken
    (Arthur and Vassilvitskii 2007). ``draws`` are numbers from 0 to 1, one for each row drawn.
    """
    n_rows = columns.shape[1]
    nearest, reached = np.empty(n_rows), np.empty(n_rows)
    running, candidate = np.empty(n_rows), np.empty((1, len(columns)))
    total = 0.0
    for row in range(n_rows):
        total += weight[row]
        running[row] = total
    _take_column(columns, _index_at(running, draws[0]), centers, 0)
    _distances(columns, 0, n_rows, centers, 0, nearest)
    draw = 1
    for k in range(1, len(centers)):
        total = 0.0
        for row in range(n_rows):
            total += weight[row] * nearest[row]
            running[row] = total
        if not total > 0.0:  # fewer distinct rows than centres
            total = 0.0
            for row in range(n_rows):
                total += weight[row]
                running[row] = total
        least, best = np.inf, 0
        for trial in range(n_trials):
            chosen = _index_at(running, draws[draw])
            draw += 1
            _take_column(columns, chosen, candidate, 0)
            _distances(columns, 0, n_rows, candidate, 0, reached)
            left = 0.0
            for row in range(n_rows):
                left += weight[row] * min(reached[row], nearest[row])
            if trial == 0 or left < least:
                least, best = left, chosen
        _take_column(columns, best, centers, k)
        _distances(columns, 0, n_rows, centers, k, reached)
        for row in range(n_rows):
            nearest[row] = min(reached[row], nearest[row])


@compiled(types.void(READ_TABLE, READ_TABLE, WRITTEN_TABLE))
def measure_distances(columns, centers, distances):
    """Set each row of ``distances`` to |x − c_k|² of a centre."""
    for k in range(len(centers)):
        _distances(columns, 0, columns.shape[1], centers, k, distances[k])


@njit(nogil=True, error_model="numpy", fastmath={"contract"})
def _assign(columns, weight, centers, labels, nk, sums):
    """Label rows with their nearest centre, sum them up, and weigh those that changed labels."""
    n_features, n_rows = columns.shape
    distances, least = np.empty(_BLOCK), np.empty(_BLOCK)
    nearest = np.empty(_BLOCK, dtype=np.int64)
    for k in range(len(centers)):
        nk[k] = 0.0
        for i in range(n_features):
            sums[k, i] = 0.0
    changed = 0.0
    for begin in range(0, n_rows, _BLOCK):
        end = min(begin + _BLOCK, n_rows)
        for k in range(len(centers)):
            _distances(columns, begin, end, centers, k, distances)
            for row in range(end - begin):
                closer = k == 0 or distances[row] < least[row]
                least[row] = distances[row] if closer else least[row]
                nearest[row] = k if closer else nearest[row]
        for row in range(end - begin):
            label = nearest[row]
            changed += weight[begin + row] if label != labels[begin + row] else 0.0
            labels[begin + row] = label
            nk[label] += weight[begin + row]
            for i in range(n_features):
                sums[label, i] += weight[begin + row] * columns[i, begin + row]
    return changed


@compiled(types.void(READ_TABLE, READ, types.intp, types.float64, WRITTEN_TABLE, _LABELS))
def lloyd(columns, weight, max_steps, settled, centers, labels):
    """Move ``centers`` to the means of their rows until few rows change their label (Lloyd 1982).

    A cluster that loses all its rows stays where it is.
    """
    nk, sums = np.empty(len(centers)), np.empty(centers.shape)
    for row in range(len(labels)):
        labels[row] = -1
    for step in range(max_steps + 1):
        changed = _assign(columns, weight, centers, labels, nk, sums)
        if step > 0 and changed <= settled:
            break
        for k in range(len(centers)):
            for i in range(len(columns)):
                if nk[k] > 0.0:
                    centers[k, i] = sums[k, i] / nk[k]


@njit(nogil=True, error_model="numpy", fastmath={"nnan", "nsz", "reassoc"})
def _least(costs, n):
    least = np.inf
    for place in range(n):
        least = min(least, costs[place])
    return least


@njit(nogil=True, error_model="numpy")
def _nearest_cluster(columns, sizes, n_alive, own, preferred, center, costs):
    """Return the place of the cluster that it costs least to join with, and what it costs.

    Among equals that is ``preferred``, so that chains end.
    """
    _take_column(columns, own, center, 0)
    _distances(columns, 0, n_alive, center, 0, costs)
    for place in range(n_alive):
        costs[place] *= sizes[place] * sizes[own] / (sizes[place] + sizes[own])
    costs[own] = np.inf
    least = _least(costs, n_alive)
    if preferred >= 0 and costs[preferred] == least:
        return preferred, least
    for place in range(n_alive):
        if costs[place] == least and place != own:
            return place, least
    return preferred, least


@compiled(types.void(WRITTEN_TABLE, WRITTEN, types.int64[:, ::1], WRITTEN))
def join_clusters(columns, sizes, pairs, heights):
    """Join rows two by two until one cluster is left, by Ward's criterion (1963).

    Follows chains of nearest neighbours to clusters that are each other's (Murtagh 1983), in time
    ∝ rows². The means of the clusters stand side by side in ``columns``, their weights in
    ``sizes``; a joined cluster keeps the number of the second of its pair.
    """
    n_alive = columns.shape[1]
    costs, center = np.empty(n_alive), np.empty((1, len(columns)))
    numbers = np.empty(n_alive, dtype=np.int64)  # by place
    places = np.empty(n_alive, dtype=np.int64)  # by number
    for place in range(n_alive):
        numbers[place], places[place] = place, place
    chain = np.empty(n_alive, dtype=np.int64)
    length = 0
    for step in range(n_alive - 1):
        if length == 0:
            chain[0] = numbers[0]
            length = 1
        while True:
            last = places[chain[length - 1]]
            before = places[chain[length - 2]] if length > 1 else -1
            nearest, height = _nearest_cluster(columns, sizes, n_alive, last, before, center, costs)
            if nearest == before:
                break
            chain[length] = numbers[nearest]
            length += 1
        length -= 2
        pairs[step, 0], pairs[step, 1], heights[step] = numbers[last], numbers[before], height
        size = sizes[last] + sizes[before]
        share = sizes[last] / size
        for i in range(len(columns)):
            columns[i, before] += (columns[i, last] - columns[i, before]) * share
        sizes[before] = size
        n_alive -= 1  # the last one moves to where a gap has come up
        for i in range(len(columns)):
            columns[i, last] = columns[i, n_alive]
        sizes[last], numbers[last] = sizes[n_alive], numbers[n_alive]
        places[numbers[last]] = last


@compiled(types.void(READ_TABLE, READ, _READ_LABELS, READ, WRITTEN, WRITTEN_TABLE))
def add_by_label(X, weight, labels, origin, nk, first):
    """Add the weights and the weighted deviations from ``origin`` of labelled rows."""
    for row in range(len(X)):
        counted = weight[row] if len(weight) else 1.0
        nk[labels[row]] += counted
        for i in range(X.shape[1]):
            first[labels[row], i] += counted * (X[row, i] - origin[i])


@compiled(
    types.void(
        types.boolean,
        types.boolean,
        READ_TABLE,
        READ,
        _READ_LABELS,
        READ_TABLE,
        WRITTEN,
        WRITTEN_TABLE,
        WRITTEN,
    ),
)
def add_labelled(is_dense, is_shared, X, weight, labels, centers, nk, first, scatter):
    """Add rows that belong wholly to one component each to sums about the centres.

    ``scatter`` is flat: matrices by component, or one for all, or diagonals.
    """
    D = X.shape[1]
    deviation = np.empty(D)
    for row in range(len(X)):
        k = labels[row]
        counted = weight[row] if len(weight) else 1.0
        nk[k] += counted
        for i in range(D):
            deviation[i] = X[row, i] - centers[k, i]
            first[k, i] += counted * deviation[i]
        if not is_dense:
            for i in range(D):
                scatter[k * D + i] += counted * deviation[i] * deviation[i]
            continue
        base = 0 if is_shared else k * D * D
        for i in range(D):
            weighted = counted * deviation[i]
            for j in range(D):
                scatter[base + i * D + j] += weighted * deviation[j]


def k_means_labels(
    X: NDArray[np.float64],
    weight: NDArray[np.float64],
    n_clusters: int,
    rng: np.random.Generator,
    *,
    max_steps: int,
    settled: float,
) -> NDArray[np.int64]:
    """Return the labels after at most ``max_steps`` of Lloyd's from a k-means++ start.

    They end when rows that weigh no more than ``settled`` change their label; with no steps at all
    each row has the label of the nearest of the first centres.
    """
    columns = _columns(X, weight)
    centers = _spread_centers(columns, weight, n_clusters, rng)
    labels = np.empty(len(X), dtype=np.int64)
    lloyd(columns, weight, max_steps, settled, centers, labels)
    return labels


def k_means_labels_from(
    centers: NDArray[np.float64],  # (n_clusters, D)
    X: NDArray[np.float64],
    weight: NDArray[np.float64],
    *,
    max_steps: int,
    settled: float,
) -> NDArray[np.int64]:
    """Return the labels after at most ``max_steps`` of Lloyd's from these centres."""
    columns, centers = np.array(X.T, order="C"), np.array(centers, order="C")
    labels = np.empty(len(X), dtype=np.int64)
    lloyd(columns, weight, max_steps, settled, centers, labels)
    return labels


def near_rows(
    X: NDArray[np.float64],
    weight: NDArray[np.float64],
    n_centers: int,
    n_near: int,
    rng: np.random.Generator,
) -> NDArray[np.int64]:  # (n_centers, n_near)
    """Return the rows nearest to each of some rows that are spread out, the first of equals."""
    columns = _columns(X, weight)
    centers = _spread_centers(columns, weight, n_centers, rng)
    distances = np.empty((n_centers, len(X)))
    measure_distances(columns, centers, distances)
    farthest = np.partition(distances, n_near - 1)[:, n_near - 1 : n_near]
    is_nearer, is_as_far = distances < farthest, distances == farthest
    n_missing = n_near - is_nearer.sum(axis=1, keepdims=True)
    is_chosen = is_nearer | (is_as_far & (is_as_far.cumsum(axis=1) <= n_missing))
    return np.nonzero(is_chosen)[1].reshape(n_centers, n_near)


def near_portions(
    X: NDArray[np.float64],
    weight: NDArray[np.float64],
    n_centers: int,
    portion: float,
    rng: np.random.Generator,
) -> list[tuple[NDArray[np.intp], NDArray[np.float64]]]:
    """Return, for each of some rows that are spread out, those nearest to it and what they count.

    They weigh ``portion`` together; the farthest counts by the part that is still missing.
    """
    columns = _columns(X, weight)
    portions = []
    for center in _spread_centers(columns, weight, n_centers, rng):
        with np.errstate(over="ignore"):  # a row of no weight may be anywhere: it comes last
            distances = np.square(columns - center[:, np.newaxis]).sum(axis=0)
        order = np.argsort(distances, kind="stable")
        reached = np.cumsum(weight[order])
        n_near = min(int(np.searchsorted(reached, portion)) + 1, len(order))
        near, counted = order[:n_near], weight[order[:n_near]]
        counted[-1] -= max(reached[n_near - 1] - portion, 0.0)
        by_row = np.argsort(near)
        portions.append((near[by_row], counted[by_row]))
    return portions


def ward_labels(
    X: NDArray[np.float64], weight: NDArray[np.float64], n_clusters: int
) -> NDArray[np.int64]:
    """Return the labels of rows joined from the bottom up until ``n_clusters`` are left.

    The weights are not zero.
    """
    n_rows = len(X)
    pairs, heights = np.empty((n_rows - 1, 2), dtype=np.int64), np.empty(n_rows - 1)
    join_clusters(np.array(X.T, order="C"), weight.copy(), pairs, heights)
    cheapest = np.argsort(heights, kind="stable")[: n_rows - n_clusters]
    joined_to = np.arange(n_rows)
    for joined, kept in pairs[cheapest]:
        joined_to[joined] = kept
    while not np.array_equal(roots := joined_to[joined_to], joined_to):
        joined_to = roots
    return np.unique(joined_to, return_inverse=True)[1].astype(np.int64)


def _spread_centers(
    columns: NDArray[np.float64],
    weight: NDArray[np.float64],
    n_centers: int,
    rng: np.random.Generator,
) -> NDArray[np.float64]:  # (n_centers, D)
    """Choose rows that are spread out, with a few drawn for each place."""
    n_trials = 2 + int(np.log(n_centers))
    draws = rng.random(1 + (n_centers - 1) * n_trials)
    centers = np.empty((n_centers, len(columns)))
    spread_rows(columns, weight, draws, n_trials, centers)
    return centers


def _columns(
    X: NDArray[np.float64], weight: NDArray[np.float64]
) -> NDArray[np.float64]:  # (D, n_rows)
    """Return rows by feature, as seen from one that counts: nothing is lost far from zero."""
    origin = X[np.argmax(weight)][:, np.newaxis]
    return np.subtract(X.T, origin, out=np.empty(X.shape[::-1]))
