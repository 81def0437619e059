"""``Table``: rows as the domain takes them, whatever format they came in."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from service.errors import InvalidInput, Issue

MAX_NAME_LENGTH = 256

Label = int | float | str


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the values of a table stand in the body that they came in."""

    member: str = "X"
    """Of the body, as a pointer names it."""
    names: str = "columns"
    """Of the columns: the member with them, or what a pointer calls those of another format."""
    first_row: int = 0
    columns: Sequence[int] | None = None
    """Of the body, by the table's; None where these are all."""

    def column(self, place: int) -> int:
        return place if self.columns is None else self.columns[place]


ALL_OF_X = Origin()


def beside(place: int, n_columns: int, whole: Origin = ALL_OF_X) -> Origin:
    """Return the origin of all but one of so many columns."""
    return replace(whole, columns=[*range(place), *range(place + 1, n_columns)])


@dataclass(frozen=True, slots=True)
class Table:
    X: NDArray[np.float64]  # (n_samples, n_features)
    """Contiguous by row, or each column is by itself."""
    feature_names: Sequence[str] | None = None
    is_on_disk: bool = False
    """Mapped from a file, and read as it is used."""
    labels: Sequence[Label] | None = None
    """Of the rows as somebody knows them; for diagnostics only."""
    origin: Origin = ALL_OF_X

    def __post_init__(self) -> None:
        if self.feature_names is not None:
            require_as_many(len(self.feature_names), self.X.shape[1], self.origin)
            _require_names(self.feature_names, self.origin)
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
        _require_same(places, feature_names, self.origin)
        return np.ascontiguousarray(self.X[:, [places[name] for name in feature_names]])

    def sent_at(
        self, position: tuple[int, ...], feature_names: Sequence[str] | None
    ) -> tuple[int, ...]:
        """Return where in its body a row, or a value, of ``ordered_as(feature_names)`` stands."""
        row, *columns = position
        if feature_names is not None and self.feature_names is not None:
            names = list(self.feature_names)
            columns = [names.index(feature_names[column]) for column in columns]
        return (self.origin.first_row + row, *map(self.origin.column, columns))

    def behind(self, n_rows: int) -> "Table":
        """Return the same as a part of a body in which so many rows come before."""
        return replace(self, origin=replace(self.origin, first_row=n_rows))


def require_as_many(n_names: int, n_values: int, origin: Origin) -> None:
    """Refuse names that are more or fewer than the values of a row."""
    if n_names != n_values:
        detail = f"{n_names} names were given for rows of {n_values} values"
        issue = Issue(f"#/{origin.names}", "dimension_mismatch", detail)
        raise InvalidInput("dimension_mismatch", detail, issues=[issue])


def _require_names(names: Sequence[str], origin: Origin) -> None:
    first: dict[str, int] = {}
    repeated = [place for place, name in enumerate(names) if first.setdefault(name, place) < place]
    if repeated:
        raise repeated_names(origin.names, map(origin.column, repeated))
    unfit = [place for place, name in enumerate(names) if not 0 < len(name) <= MAX_NAME_LENGTH]
    if unfit:
        detail = f"a feature's name has 1 to {MAX_NAME_LENGTH} characters"
        raise _unfit(detail, origin.names, map(origin.column, unfit))


def repeated_names(member: str, places: Iterable[int]) -> InvalidInput:
    """Return the refusal of columns whose names, in that member, stand before them already."""
    return _unfit("each feature needs a name of its own", member, places)


def _unfit(detail: str, member: str, places: Iterable[int]) -> InvalidInput:
    issues = [Issue(f"#/{member}/{place}", "invalid_parameter", detail) for place in places]
    return InvalidInput("invalid_parameter", detail, issues=issues)


def _require_same(places: dict[str, int], expected: Sequence[str], origin: Origin) -> None:
    missing = [name for name in expected if name not in places]
    known = set(expected)
    unknown = [origin.column(place) for name, place in places.items() if name not in known]
    if missing or unknown:
        raise InvalidInput(
            "feature_names_mismatch",
            "the columns are not those that the model was fitted with: "
            f"{len(missing)} missing, {len(unknown)} unknown",
            issues=[
                Issue(
                    f"#/{origin.names}",
                    "missing_feature",
                    f"the model's feature {position} is missing",
                )
                for position, name in enumerate(expected)
                if name not in places
            ]
            + [
                Issue(
                    f"#/{origin.names}/{column}", "unknown_feature", "the model has no such feature"
                )
                for column in unknown
            ],
        )
