"""The data of a fit: rows with their weights, in memory or handed out block by block.

EM asks of its data no more than a ``SampleSource`` gives: the same chunks of rows at every pass,
and a random part of it for the starts. ``Samples`` is an array in memory (or a memory map),
``BlockedSamples`` data that is too large for that.
"""

from collections.abc import Callable, Iterable, Iterator, Sized
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gmm_engine import kernels
from gmm_engine.errors import (
    DimensionMismatchError,
    EmptyDataError,
    InvalidDataError,
    InvalidParameterError,
)
from gmm_engine.kernels import Chunk, Extent
from gmm_engine.validation import (
    NEGLIGIBLE_WEIGHT,
    PORTION,
    are_counts,
    as_sample_weight,
    as_samples,
    as_weights,
    require_total_weight,
    without_negligible,
)

BLOCK_ROWS = 4096
"""Rows looked at together; bounds the temporary arrays of a pass, whatever the data's size."""


class SampleSource(Protocol):
    """Checked rows that can be read as often as needed."""

    @property
    def n_rows(self) -> int: ...

    @property
    def n_features(self) -> int: ...

    @property
    def n_positive(self) -> int:
        """How many rows count at all: those whose weight is not zero."""

    @property
    def total_weight(self) -> float:
        """The sum of the weights; the number of rows where there are none."""

    @property
    def n_copies(self) -> int:
        """The number of rows; of those whose weights are all counts, each as often as it counts."""

    @property
    def extent(self) -> Extent:
        """The smallest and the largest value of each feature among the rows that count."""

    @property
    def precision(self) -> float:
        """How far numbers of the coarsest type among the rows lie apart, relatively."""

    def chunks(self) -> Iterator[Chunk]:
        """Yield all rows, in the same order and portions every time."""

    def drawn(self, n_rows: int, rng: np.random.Generator) -> "Samples":
        """Return at most ``n_rows`` rows drawn without replacement, as doubles in memory.

        Where the weights are counts, their copies are drawn. Of rows with other weights those are
        drawn that points fall on, one in each of as many equal parts of the total weight; each
        weighs as much as the points that fall on it.
        """


@dataclass(frozen=True, slots=True)
class Samples:
    """Checked rows in memory, float64 or float32."""

    X: NDArray[np.float64]  # (n_samples, n_features)
    weight: NDArray[np.float64] | None  # (n_samples,)

    @classmethod
    def checked(
        cls,
        X: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        n_features: int | None = None,
    ) -> "Samples":
        """Check both at the door; the errors are those of ``validation``."""
        rows = as_samples(X, n_features=n_features)
        weight = None if sample_weight is None else as_sample_weight(sample_weight, len(rows))
        return cls(rows, weight)

    @property
    def n_rows(self) -> int:
        return len(self.X)

    @property
    def n_features(self) -> int:
        return int(self.X.shape[1])

    @property
    def n_positive(self) -> int:
        return self.n_rows if self.weight is None else int(np.count_nonzero(self.weight))

    @property
    def total_weight(self) -> float:
        return float(self.n_rows if self.weight is None else self.weight.sum())

    @property
    def n_copies(self) -> int:
        return int(self.total_weight) if are_counts(self.weight) else self.n_rows

    @property
    def extent(self) -> Extent:
        return kernels.extent(self.X, self.weight)

    @property
    def precision(self) -> float:
        return float(np.finfo(self.X.dtype).eps)

    @property
    def weights_or_ones(self) -> NDArray[np.float64]:  # (n_samples,)
        return np.ones(self.n_rows) if self.weight is None else self.weight

    def that_count(self) -> "Samples":
        """Return the rows whose weight is not zero."""
        if self.weight is None or self.weight.all():
            return self
        counts = self.weight > 0.0
        return Samples(self.X[counts], self.weight[counts])

    def chunks(self) -> Iterator[Chunk]:
        yield self.X, self.weight

    def drawn(self, n_rows: int, rng: np.random.Generator) -> "Samples":
        if n_rows >= self.n_copies:
            return Samples(np.asarray(self.X, dtype=np.float64), self.weight)
        if self.weight is None:
            chosen = _chosen_rows(self.n_rows, n_rows, rng)
            return Samples(self.X[chosen].astype(np.float64, copy=False), None)
        points = Points.drawn(n_rows, self.total_weight, rng, are_copies=are_counts(self.weight))
        chosen, weight = points.rows(self.weight)
        return Samples(self.X[chosen].astype(np.float64, copy=False), weight)

    def blocks(self) -> Iterator[tuple[slice, NDArray[np.float64], NDArray[np.float64] | None]]:
        """Yield consecutive row ranges with their rows, as doubles, and weights."""
        for begin in range(0, self.n_rows, BLOCK_ROWS):
            rows = slice(begin, begin + BLOCK_ROWS)
            X = np.asarray(self.X[rows], dtype=np.float64)
            yield rows, X, None if self.weight is None else self.weight[rows]


Block = ArrayLike | tuple[ArrayLike, ArrayLike]
"""Rows (n, D), or rows and their weights (n,)."""


@dataclass(frozen=True, slots=True)
class Blocks:
    """Data larger than memory, for ``fit``: a way to read it block by block, again and again.

    ``read`` is called once for every pass over the data and must yield the same blocks each time:
    arrays (n, D), or pairs of such an array and weights (n,); a block without rows is passed over,
    and all weights of one may be zero. What is refused is named by its row among all, and by its
    block; both count from 0. For example
    ``Blocks(lambda: np.array_split(np.load("X.npy", mmap_mode="r"), 100))``. An Arrow dataset is
    taken as ``Blocks(dataset.to_batches)``.

    The same blocks give the same bits. Cut elsewhere, sums are rounded otherwise; and of more than
    10,000 rows other rows are drawn for the starts than from the same array, so that a fit may
    reach another optimum.
    """

    read: Callable[[], Iterable[Block]]

    def __post_init__(self) -> None:
        if not callable(self.read):
            raise InvalidDataError(
                "Blocks takes a function that yields the blocks anew at every call, such as "
                "`lambda: list_of_arrays`"
            )


@runtime_checkable
class Dataset(Protocol):
    """What can be read in batches again and again, such as an Arrow dataset."""

    def to_batches(self) -> Iterable[Block]: ...


class BlockedSamples:
    """Rows that are read block by block at every pass; one block is in memory at a time."""

    def __init__(self, blocks: Blocks) -> None:
        self._blocks = blocks
        self._largest_weight = 0.0
        self.n_features = 0
        with np.errstate(over="ignore"):  # a sum that is not finite is refused
            least_weight, self._largest_weight = self._take_note()
        if not self.n_rows:
            raise EmptyDataError("the blocks hold no rows; at least one is needed")
        require_total_weight(self.total_weight)
        if least_weight < NEGLIGIBLE_WEIGHT * self._largest_weight:  # fewer rows count than thought
            self._take_note()

    def _take_note(self) -> tuple[float, float]:
        """Count the rows; return the smallest and the largest weight that is not zero."""
        self.n_rows = self.n_positive = 0
        self.total_weight = self.precision = 0.0
        self._is_weighted = self._has_parts = False
        self.extent = Extent(np.empty(0), np.empty(0))
        least, largest = np.inf, 0.0
        for block in self._checked_blocks():
            self._take_note_of(block)
            weight = block.weights_or_ones
            least = min(least, float(weight.min(initial=np.inf, where=weight > 0.0)))
            largest = max(largest, float(weight.max()))
        return least, largest

    @property
    def n_copies(self) -> int:
        return self.n_rows if self._has_parts else int(self.total_weight)

    def chunks(self) -> Iterator[Chunk]:
        for block in self._read_again():
            yield block.X, block.weight

    def _read_again(self) -> Iterator[Samples]:
        """Yield the blocks; raise ``InvalidDataError`` at their end if there were other rows."""
        n_rows = 0
        for block in self._checked_blocks():
            n_rows += block.n_rows
            yield block
        if n_rows != self.n_rows:
            raise InvalidDataError(
                f"the blocks held {self.n_rows} rows at first and {n_rows} when read again; "
                "`read` must give the same rows every time"
            )

    def drawn(self, n_rows: int, rng: np.random.Generator) -> Samples:
        is_drawn = n_rows < self.n_copies
        if is_drawn and self._is_weighted:
            return self._drawn_by_weight(n_rows, rng)
        n_rows = min(n_rows, self.n_rows)
        chosen = _chosen_rows(self.n_rows, n_rows, rng) if is_drawn else np.arange(n_rows)
        rows, weights, begin = [], [], 0
        for block in self._read_again():
            end = begin + block.n_rows
            here = chosen[np.searchsorted(chosen, begin) : np.searchsorted(chosen, end)] - begin
            rows.append(block.X[here].astype(np.float64))
            weights.append(block.weights_or_ones[here])
            begin = end
        return Samples(np.concatenate(rows), np.concatenate(weights) if self._is_weighted else None)

    def _drawn_by_weight(self, n_rows: int, rng: np.random.Generator) -> Samples:
        points = Points.drawn(n_rows, self.total_weight, rng, are_copies=not self._has_parts)
        rows, weights, begin = [], [], 0.0
        for block in self._read_again():
            end = begin + block.total_weight
            chosen, weight = points.between(begin, end).rows(block.weights_or_ones)
            rows.append(block.X[chosen].astype(np.float64))
            weights.append(weight)
            begin = end
        return Samples(np.concatenate(rows), np.concatenate(weights))

    def _checked_blocks(self) -> Iterator[Samples]:
        n_rows, blocks = 0, self._blocks.read()
        if not isinstance(blocks, Iterable):
            raise InvalidDataError(
                "the function that Blocks takes must return the blocks, such as a list of arrays "
                f"(n, D) or of pairs (X, weight), not {type(blocks).__name__}"
            )
        for number, block in enumerate(blocks):
            X, weight = block if isinstance(block, tuple) else (block, None)
            if isinstance(X, Sized) and len(X) == 0:
                continue
            try:
                rows = as_samples(X, n_features=self.n_features or None)
                weight = None if weight is None else as_weights(weight, len(rows))
            except (InvalidDataError, InvalidParameterError) as error:
                raise error.in_block(number, n_rows) from error
            n_rows += len(rows)
            if weight is not None:
                weight = without_negligible(weight, largest=self._largest_weight)
            yield Samples(rows, weight)

    def _take_note_of(self, block: Samples) -> None:
        if self.n_rows == 0:
            self.n_features = block.n_features
            self.extent = block.extent
        if block.n_features != self.n_features:
            raise DimensionMismatchError(
                f"a block has {block.n_features} features, those before it {self.n_features}"
            )
        self.n_rows += block.n_rows
        self.n_positive += block.n_positive
        self.total_weight += block.total_weight
        self.precision = max(self.precision, block.precision)
        self._is_weighted |= block.weight is not None
        self._has_parts |= not are_counts(block.weights_or_ones)
        of_block = block.extent
        self.extent = Extent(
            np.minimum(self.extent.smallest, of_block.smallest),
            np.maximum(self.extent.largest, of_block.largest),
        )


def comes_in_blocks(X: object) -> bool:
    """Tell whether rows come block by block, and not as an array."""
    return isinstance(X, Blocks) or (isinstance(X, Dataset) and not hasattr(X, "__array__"))


def sample_source(X: ArrayLike | Blocks | Dataset, sample_weight: ArrayLike | None) -> SampleSource:
    """Check the data of a fit, whichever way it comes.

    A dataset that is no array itself is taken as its batches.
    """
    if isinstance(X, Dataset):
        X = np.asarray(X) if hasattr(X, "__array__") else Blocks(X.to_batches)
    if not isinstance(X, Blocks):
        return Samples.checked(X, sample_weight)
    if sample_weight is not None:
        raise InvalidDataError(
            "sample_weight goes with an array; blocks carry their weights as pairs (X, weight)"
        )
    return BlockedSamples(X)


def _chosen_rows(n_all: int, n_rows: int, rng: np.random.Generator) -> NDArray[np.int64]:
    return np.sort(rng.choice(n_all, size=n_rows, replace=False, shuffle=False))


@dataclass(frozen=True, slots=True)
class Points:
    """Points in a total weight, in order, each of which falls on a row's share of it."""

    at: NDArray[np.float64]
    weight: float
    """What a point stands for."""

    @classmethod
    def drawn(
        cls, n_points: int, total: float, rng: np.random.Generator, *, are_copies: bool
    ) -> "Points":
        """Draw copies of rows without replacement; or one point from each of equal parts."""
        if are_copies:  # each is one unit long, and met in its middle
            copies = _chosen_rows(int(total), n_points, rng)
            return cls(np.asarray(copies + 0.5, dtype=np.float64), 1.0)
        at = (np.arange(n_points) + rng.random(n_points)) * (total / n_points)
        return cls(at, total / n_points)

    def between(self, begin: float, end: float) -> "Points":
        """Return those in [begin, end), seen from where that begins."""
        here = slice(*np.searchsorted(self.at, [begin, end]))
        return Points(self.at[here] - begin, self.weight)

    def rows(self, weight: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """Return the rows that points fall on, and what falls on each; rows weigh ``weight``."""
        rows = np.empty(len(self.at), dtype=np.intp)
        n_met, last, edges = 0, 0, np.zeros(1)
        for begin in range(0, len(weight), PORTION):
            portion = weight[begin : begin + PORTION]
            edges = np.cumsum(np.concatenate([edges[-1:], portion]))
            here = slice(n_met, n_met + int(np.searchsorted(self.at[n_met:], edges[-1])))
            rows[here] = begin + np.searchsorted(edges[1:], self.at[here], side="right")
            n_met = here.stop
            if portion.any():
                last = begin + int(np.flatnonzero(portion)[-1])
        rows[n_met:] = last  # rounding left them beyond the sum
        chosen, counts = np.unique(rows, return_counts=True)
        return chosen, np.asarray(counts * self.weight, dtype=np.float64)
