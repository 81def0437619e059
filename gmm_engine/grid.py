"""The grid of a search: numbers of components by families, and which candidates are neighbours."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from gmm_engine.covariances import COVARIANCE_FAMILIES
from gmm_engine.errors import InvalidParameterError
from gmm_engine.validation import require_integer_at_least, require_known


class Origin(StrEnum):
    """Where the best run of a candidate began."""

    FRESH = "fresh"
    SPLIT = "split"
    MERGE = "merge"
    FAMILY = "family"


@dataclass(frozen=True, slots=True)
class Key:
    """Names a candidate."""

    n_components: int
    covariance_type: str


@dataclass(frozen=True, slots=True)
class Grid:
    """The candidates: every number of components with every family; sequences, or arrays."""

    n_components: Sequence[int] = tuple(range(1, 10))
    covariance_types: Sequence[str] = tuple(COVARIANCE_FAMILIES)

    def __post_init__(self) -> None:
        for name in ("n_components", "covariance_types"):
            values = getattr(self, name)
            if isinstance(values, np.ndarray):
                values = tuple(values.tolist())
                object.__setattr__(self, name, values)
            if isinstance(values, str) or not isinstance(values, Sequence):
                raise InvalidParameterError(name, "must be a sequence, such as a tuple or a range")
        for n_components in self.n_components:
            require_integer_at_least("n_components", n_components, 1)
        for covariance_type in self.covariance_types:
            require_known("covariance_types", covariance_type, COVARIANCE_FAMILIES)
        for name, values in (
            ("n_components", self.n_components),
            ("covariance_types", self.covariance_types),
        ):
            if not values or len(set(values)) != len(values):
                raise InvalidParameterError(name, "must name one or more, and none twice")

    @property
    def keys(self) -> tuple[Key, ...]:
        """Every candidate, by number of components and then in the order of the families."""
        return tuple(
            Key(n_components, covariance_type)
            for n_components in sorted(self.n_components)
            for covariance_type in self.covariance_types
        )

    def neighbours(self, key: Key) -> Iterator[tuple[Origin, Key]]:
        """Yield the candidates next to one, and how one of theirs becomes one of its own."""
        sizes = sorted(self.n_components)
        place = sizes.index(key.n_components)
        for covariance_type in self.covariance_types:
            if covariance_type != key.covariance_type:
                yield Origin.FAMILY, Key(key.n_components, covariance_type)
        if place > 0:
            yield Origin.SPLIT, Key(sizes[place - 1], key.covariance_type)
        if place + 1 < len(sizes):
            yield Origin.MERGE, Key(sizes[place + 1], key.covariance_type)
