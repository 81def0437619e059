"""The data of a fit: rows with their weights, handed out in blocks of bounded size."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gmm_engine.validation import as_sample_weight, as_samples

BLOCK_ROWS = 4096
"""Rows looked at together; bounds the temporary arrays of a pass, whatever the data's size."""


@dataclass(frozen=True, slots=True)
class Samples:
    """Checked rows and their weights."""

    X: NDArray[np.float64]  # (n_samples, n_features)
    weight: NDArray[np.float64] | None  # (n_samples,)
    """None stands for ones, without the array."""

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
        """How many rows count at all."""
        return self.n_rows if self.weight is None else int(np.count_nonzero(self.weight))

    @property
    def total_weight(self) -> float:
        return float(self.n_rows if self.weight is None else self.weight.sum())

    @property
    def largest(self) -> NDArray[np.float64]:  # (n_features,)
        """The largest value of each feature among the rows that count."""
        if self.weight is None:
            return np.asarray(self.X.max(axis=0))
        return np.asarray(self.X.max(axis=0, initial=-np.inf, where=self.weight[:, np.newaxis] > 0))

    @property
    def smallest(self) -> NDArray[np.float64]:  # (n_features,)
        """The smallest value of each feature among the rows that count."""
        if self.weight is None:
            return np.asarray(self.X.min(axis=0))
        return np.asarray(self.X.min(axis=0, initial=np.inf, where=self.weight[:, np.newaxis] > 0))

    @property
    def weights_or_ones(self) -> NDArray[np.float64]:  # (n_samples,)
        return np.ones(self.n_rows) if self.weight is None else self.weight

    def blocks(self) -> Iterator[tuple[slice, NDArray[np.float64], NDArray[np.float64] | None]]:
        """Yield consecutive row ranges with views of their rows and weights."""
        for begin in range(0, self.n_rows, BLOCK_ROWS):
            rows = slice(begin, begin + BLOCK_ROWS)
            yield rows, self.X[rows], None if self.weight is None else self.weight[rows]
