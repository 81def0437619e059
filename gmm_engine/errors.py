"""The engine's refusals. Each class carries a stable ``code``; its message says what to do next.

GmmEngineError (ValueError)
├── InvalidParameterError      invalid_parameter; knows the positions of negative weights
├── InvalidDataError           invalid_data: not an array of numbers of the right rank
│   ├── EmptyDataError         empty_data
│   ├── DimensionMismatchError dimension_mismatch
│   ├── NonFiniteNumberError   non_finite_number; knows the positions
│   ├── OutOfRangeError        value_out_of_range; knows them where a value is to blame
│   └── TooFewSamplesError     too_few_samples
├── SingularCovarianceError    singular_covariance; knows the component
└── NotFittedError             not_fitted

They are ``ValueError`` so that callers who know NumPy and scikit-learn catch what they expect.
What ``GaussianMixture`` does not refuse but wants to be known is a warning, at the end.
"""

from collections.abc import Sequence
from typing import ClassVar, Self


class GmmEngineError(ValueError):
    """Base of every refusal of the engine; never raised itself."""

    code: ClassVar[str] = "engine_error"


class InvalidParameterError(GmmEngineError):
    code = "invalid_parameter"

    def __init__(
        self,
        name: str,
        problem: str,
        positions: Sequence[tuple[int, ...]] = (),
        *,
        elsewhere: str = "",
    ) -> None:
        where = f", as it is first at index {list(positions[0])}{elsewhere}" if positions else ""
        super().__init__(f"{name} {problem}{where}")
        self.name, self.problem, self.positions = name, problem, tuple(positions)

    def in_block(self, number: int, first_row: int) -> Self:
        """Return the same, which has positions, of one block of many that begins with this row."""
        return type(self)(
            self.name,
            self.problem,
            _in_all(self.positions, first_row),
            elsewhere=_elsewhere(self.positions, number),
        )


class InvalidDataError(GmmEngineError):
    code = "invalid_data"
    positions: tuple[tuple[int, ...], ...] = ()
    """The first wrong places as indices into the array: of values, or of rows."""

    def in_block(self, number: int, first_row: int) -> Self:
        """Return the same of one block of many, which begins with this row of all."""
        return type(self)(f"block {number}, which begins with row {first_row}: {self}")

    def at(self, positions: Sequence[tuple[int, ...]]) -> Self:
        """Return the same of the same places as they are counted elsewhere."""
        moved = type(self)(str(self))
        moved.positions = tuple(positions)
        return moved


class EmptyDataError(InvalidDataError):
    code = "empty_data"


class DimensionMismatchError(InvalidDataError):
    code = "dimension_mismatch"


class NonFiniteNumberError(InvalidDataError):
    code = "non_finite_number"

    def __init__(
        self, what: str, positions: Sequence[tuple[int, ...]], *, elsewhere: str = ""
    ) -> None:
        super().__init__(
            f"{what} contains NaN or infinity, first at index {list(positions[0])}{elsewhere}; "
            "remove or impute such values"
        )
        self.what, self.positions = what, tuple(positions)

    def in_block(self, number: int, first_row: int) -> Self:
        elsewhere = _elsewhere(self.positions, number)
        return type(self)(self.what, _in_all(self.positions, first_row), elsewhere=elsewhere)

    def at(self, positions: Sequence[tuple[int, ...]]) -> Self:
        return type(self)(self.what, positions)


class OutOfRangeError(InvalidDataError):
    code = "value_out_of_range"

    def __init__(self, problem: str, positions: Sequence[tuple[int, ...]] = ()) -> None:
        super().__init__(problem)
        self.positions = tuple(positions)

    def in_block(self, number: int, first_row: int) -> Self:
        moved = super().in_block(number, first_row)
        moved.positions = tuple(_in_all(self.positions, first_row))
        return moved

    def at(self, positions: Sequence[tuple[int, ...]]) -> Self:
        named, renamed = (f"row {first[0]} is" for first in (self.positions[0], positions[0]))
        return type(self)(str(self).replace(named, renamed, 1), positions)


class TooFewSamplesError(InvalidDataError):
    code = "too_few_samples"


class SingularCovarianceError(GmmEngineError):
    code = "singular_covariance"

    def __init__(self, component: int, remedy: str, *, what: str = "covariance") -> None:
        super().__init__(f"the {what} of component {component} is not positive definite; {remedy}")
        self.component = component


class NotFittedError(GmmEngineError, AttributeError):
    code = "not_fitted"


class FitQualityWarning(UserWarning):
    """A fit came to an end, but its result deserves a second look."""


class ConvergenceWarning(FitQualityWarning):
    """The best run stopped before it converged."""


def _in_all(positions: Sequence[tuple[int, ...]], first_row: int) -> list[tuple[int, ...]]:
    return [(first_row + row, *rest) for row, *rest in positions]


def _elsewhere(positions: Sequence[tuple[int, ...]], block: int) -> str:
    return f" of all rows, {list(positions[0])} of block {block}"
