"""``Table``: rows as the domain takes them, whatever format they came in."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.errors import InvalidInput, Issue

MAX_NAME_LENGTH = 256

Label = int | float | str


@dataclass(frozen=True, slots=True)
class Table:
    X: NDArray[np.float64]  # (n_samples, n_features)
    """Contiguous by row, or each column is by itself."""
    feature_names: Sequence[str] | None = None
    is_on_disk: bool = False
    """Mapped from a file, and read as it is used."""
    labels: Sequence[Label] | None = None
    """Of the rows as somebody knows them; for diagnostics only."""

    def __post_init__(self) -> None:
        if self.feature_names is not None:
            _require_names(self.feature_names, self.X.shape[1])
        if self.labels is not None and len(self.labels) != len(self.X):
            detail = f"{len(self.labels)} labels were given for {len(self.X)} rows"
            raise InvalidInput(
                "dimension_mismatch",
                detail,
                issues=[Issue("#/labels", "dimension_mismatch", detail)],
            )

    def ordered_as(self, feature_names: Sequence[str] | None) -> NDArray[np.float64]:
        """Return the rows with their columns in the order of ``feature_names``.

        By position when either side has no names.
        """
        if feature_names is None or self.feature_names is None:
            return self.X
        if tuple(feature_names) == tuple(self.feature_names):
            return self.X
        places = {name: column for column, name in enumerate(self.feature_names)}
        _require_same(places, feature_names)
        return np.ascontiguousarray(self.X[:, [places[name] for name in feature_names]])


def _require_names(names: Sequence[str], n_features: int) -> None:
    if len(names) != n_features:
        detail = f"{len(names)} names were given for rows of {n_features} values"
        raise InvalidInput(
            "dimension_mismatch",
            detail,
            issues=[Issue("#/columns", "dimension_mismatch", detail)],
        )
    first: dict[str, int] = {}
    repeated = [place for place, name in enumerate(names) if first.setdefault(name, place) < place]
    if repeated:
        raise _unfit("each feature needs a name of its own", repeated)
    unfit = [place for place, name in enumerate(names) if not 0 < len(name) <= MAX_NAME_LENGTH]
    if unfit:
        raise _unfit(f"a feature's name has 1 to {MAX_NAME_LENGTH} characters", unfit)


def _unfit(detail: str, places: Sequence[int]) -> InvalidInput:
    issues = [Issue(f"#/columns/{place}", "invalid_parameter", detail) for place in places]
    return InvalidInput("invalid_parameter", detail, issues=issues)


def _require_same(places: dict[str, int], expected: Sequence[str]) -> None:
    missing = [name for name in expected if name not in places]
    known = set(expected)
    unknown = [column for name, column in places.items() if name not in known]
    if missing or unknown:
        raise InvalidInput(
            "feature_names_mismatch",
            "the columns are not those that the model was fitted with: "
            f"{len(missing)} missing, {len(unknown)} unknown",
            issues=[
                Issue("#/columns", "missing_feature", f"the model's feature {position} is missing")
                for position, name in enumerate(expected)
                if name not in places
            ]
            + [
                Issue(f"#/columns/{column}", "unknown_feature", "the model has no such feature")
                for column in unknown
            ],
        )
