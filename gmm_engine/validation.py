"""The door of the engine: what comes in is checked once here and trusted behind it."""

import sys
from collections.abc import Iterable, Iterator, Mapping
from numbers import Real
from typing import Any, SupportsInt, TypeGuard

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gmm_engine.errors import (
    DimensionMismatchError,
    EmptyDataError,
    InvalidDataError,
    InvalidParameterError,
    NonFiniteNumberError,
    OutOfRangeError,
)

MAX_NAMED_POSITIONS = 20
LEAST_TOTAL_WEIGHT = 1e-100
"""Below, the products of weights and rows run out of the range of a double."""
NEGLIGIBLE_WEIGHT = 1e-30
"""Weights of less, as a part of the largest, are lost in every sum and are taken as zero."""
LARGEST_MAGNITUDE = 1e152
"""Squares of larger numbers, summed over the rows, leave the range of a double."""

MOST_COPIES = 2.0**53
"""Rows by whole weights, of which a double still tells each from the next."""
MOST_COUNTED = sys.maxsize - 1
"""The number after it is still an index."""
PORTION = 8192
"""Weights looked at together, so that others than counts are mostly told by the first."""

BLAS_PORTION = 8192
SAFE_SUM_OF_SQUARES = 1e30
"""Below it no number can be out of range; above it each is looked at."""

REAL_KINDS = "buif"
"""NumPy's kinds that are real numbers: boolean, unsigned, integer, floating."""


def as_samples(X: ArrayLike, *, n_features: int | None = None) -> NDArray[np.float64]:
    """Return ``X`` as a finite, C-contiguous (n_samples, n_features) array, checked wholly.

    float32 stays float32, so that such data needs no copy; all else becomes float64.

    Parameters
    ----------
    X : array_like of real numbers, shape (n_samples, n_features)
    n_features : int, optional
        How many columns there have to be.

    Raises
    ------
    InvalidDataError
        One of its kinds: not a table of real numbers, no rows or columns, another number of
        columns, a NaN or an infinity, a magnitude whose square can't be summed.
    """
    array = _of_shape(as_real_array(X, what="X", keep_float32=True), n_features)
    if not _sum_of_squares(array) < SAFE_SUM_OF_SQUARES:  # NaN and infinity fail it, too
        require_in_range(array)
    return array


def as_rows(X: ArrayLike, *, n_features: int | None = None) -> NDArray[np.float64]:
    """Return ``X`` likewise, for a pass that looks for itself whether its numbers are in range.

    Doubles whose columns are contiguous stay as they are.
    """
    array = X if _is_by_column(X) else as_real_array(X, what="X", keep_float32=True)
    return _of_shape(array, n_features)


def _of_shape(array: NDArray[np.float64], n_features: int | None) -> NDArray[np.float64]:
    if array.size == 0:
        raise EmptyDataError(f"X has shape {array.shape}; at least one row and column are needed")
    if array.ndim != 2:
        raise InvalidDataError(
            f"X must have two dimensions (n_samples, n_features), not {array.ndim}; "
            "a single row is [[…]], a single column [[…], […]]; rows in several arrays go to `fit` "
            "as Blocks(lambda: arrays)"
        )
    if n_features is not None and array.shape[1] != n_features:
        raise DimensionMismatchError(
            f"X has {array.shape[1]} features, but the mixture was fitted with {n_features}"
        )
    return array


def _is_by_column(X: ArrayLike) -> TypeGuard[NDArray[np.float64]]:
    if type(X) is not np.ndarray or X.dtype != np.float64 or X.ndim != 2 or not X.size:
        return False
    row_stride, stride = X.strides
    return row_stride == X.itemsize and stride >= X.nbytes // X.shape[1] and X.flags.aligned


def _sum_of_squares(array: NDArray[np.float64]) -> float:
    """Sum up in one call, which BLAS would give to threads of its own where there is much.

    They would go on spinning for a while, beside the engine's threads.
    """
    flat = array.reshape(-1)
    if flat.size <= BLAS_PORTION:
        return float(np.vdot(flat, flat))
    return float(np.einsum("i,i->", flat, flat))


def require_in_range(array: NDArray[np.floating]) -> None:
    """Refuse a NaN or an infinity, and a magnitude whose square can't be summed."""
    magnitude = float(max(array.max(), -array.min()))
    if not np.isfinite(magnitude):
        require_finite(array, what="X")
    if magnitude > LARGEST_MAGNITUDE:
        raise OutOfRangeError(
            f"X holds magnitudes above {LARGEST_MAGNITUDE:g}, whose squares leave the range of "
            "a double; rescale the data",
            _first_positions(np.abs(array) > LARGEST_MAGNITUDE),
        )


def as_sample_weight(sample_weight: ArrayLike, n_samples: int) -> NDArray[np.float64]:
    """Return the weights as (n_samples,) doubles: finite, not negative, not all zero.

    Negligible ones become zero.
    """
    weight = as_weights(sample_weight, n_samples)
    with np.errstate(over="ignore"):
        require_total_weight(float(weight.sum()))
    return without_negligible(weight, largest=float(weight.max()))


def as_weights(sample_weight: ArrayLike, n_samples: int) -> NDArray[np.float64]:
    """Return the weights of a part of the rows, each checked by itself: all may be zero."""
    weight = as_real_array(sample_weight, what="sample_weight")
    if weight.shape != (n_samples,):
        raise DimensionMismatchError(
            f"sample_weight has shape {weight.shape}; X has {n_samples} rows, "
            f"so it must be ({n_samples},)"
        )
    require_finite(weight, what="sample_weight")
    if weight.min() < 0:
        below = _first_positions(weight < 0)
        raise InvalidParameterError("sample_weight", "must not be negative", below)
    return weight


def require_total_weight(total: float) -> None:
    """Refuse weights whose sum is nothing, next to nothing, or beyond the range of a double."""
    if not total > 0:
        raise InvalidParameterError("sample_weight", "must not be zero everywhere")
    if not np.isfinite(total):
        raise OutOfRangeError("sample_weight sums up beyond the range of a double; rescale it")
    if total < LEAST_TOTAL_WEIGHT:
        raise OutOfRangeError("sample_weight sums up to next to nothing; rescale it")


def without_negligible(weight: NDArray[np.float64], *, largest: float) -> NDArray[np.float64]:
    """Return the weights with zero for those that are negligible beside the largest."""
    counts = weight >= NEGLIGIBLE_WEIGHT * largest
    return weight if counts.all() else np.where(counts, weight, 0.0)


def are_counts(weight: NDArray[np.float64] | None) -> bool:
    """Tell whether weights say how often a row is there: whole numbers, with an exact sum."""
    if weight is None:
        return True
    if weight.sum() > MOST_COPIES:
        return False
    portions = (weight[i : i + PORTION] for i in range(0, len(weight), PORTION))
    return all(np.array_equal(portion, np.rint(portion)) for portion in portions)


def as_real_array(
    values: ArrayLike, *, what: str, keep_float32: bool = False
) -> NDArray[np.float64]:
    """Return ``values`` as a C-contiguous array of doubles, without a copy where it is one."""
    if type(values) is np.ndarray and values.dtype == np.float64 and values.flags.c_contiguous:
        return values
    if isinstance(values, Iterator):
        raise InvalidDataError(
            f"{what} is an iterator, which can be read once only; give an array, or to `fit` a "
            "function that begins anew, as Blocks(function)"
        )
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise InvalidDataError(
            f"{what} has rows of different lengths; rows in several arrays go to `fit` as "
            "Blocks(lambda: arrays)"
        ) from error
    if array.dtype.kind == "O":
        array = _without_numbers_as_objects(without_objects(values, array), what=what)
    if array.dtype.kind not in REAL_KINDS:
        raise InvalidDataError(f"{what} must hold real numbers, not {array.dtype}")
    if np.ma.is_masked(values):
        raise InvalidDataError(f"{what} holds masked values; remove or impute them")
    with np.errstate(over="ignore"):  # a wider type's numbers become infinite, and are refused so
        is_single = keep_float32 and array.dtype == np.float32
        return np.asarray(array, dtype=np.float32 if is_single else np.float64, order="C")


def without_objects(values: object, array: NDArray[np.generic]) -> NDArray[np.generic]:
    """Return the numbers of a data frame whose columns may lack some, which are NaN then.

    Such columns (pandas' nullable ones) become objects where nobody asks for numbers.
    """
    dtypes = getattr(values, "dtypes", None)
    if dtypes is None or not all(kind in REAL_KINDS for kind in _kinds(dtypes)):
        return array
    frame: Any = values
    return np.asarray(frame.to_numpy(dtype=np.float64, na_value=np.nan))


def _without_numbers_as_objects(array: NDArray[np.generic], *, what: str) -> NDArray[np.generic]:
    """Return objects as doubles where all of them are real numbers."""
    if array.dtype.kind != "O" or not all(isinstance(each, Real) for each in array.flat):
        return array
    return objects_as_doubles(array, what=what)


def objects_as_doubles(array: NDArray[np.generic], *, what: str) -> NDArray[np.float64]:
    """Return objects as doubles; raise ``OutOfRangeError`` for a whole number beyond these."""
    try:
        return array.astype(np.float64)
    except OverflowError as error:
        raise OutOfRangeError(
            f"{what} holds a number beyond the range of a double; rescale the data"
        ) from error


def _kinds(dtypes: object) -> Iterator[str]:
    """Yield NumPy's kind of every column: of one, or of each of a frame."""
    each = dtypes if isinstance(dtypes, Iterable) else (dtypes,)
    return (getattr(dtype, "kind", "O") for dtype in each)


def require_finite(array: NDArray[np.floating], *, what: str) -> None:
    finite = np.isfinite(array)
    if not finite.all():
        raise NonFiniteNumberError(what, _first_positions(~finite))


def _first_positions(wrong: NDArray[np.bool_]) -> list[tuple[int, ...]]:
    return [tuple(map(int, position)) for position in np.argwhere(wrong)[:MAX_NAMED_POSITIONS]]


def require_shape(array: NDArray[np.float64], shape: tuple[int, ...], *, what: str) -> None:
    if array.shape != shape:
        raise InvalidParameterError(what, f"has shape {array.shape}, but must have {shape}")


def require_integer_at_least(name: str, value: object, minimum: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < minimum:
        raise InvalidParameterError(name, f"must be an integer of at least {minimum}")


def require_number_at_least(name: str, value: object, minimum: float) -> None:
    is_number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if not is_number or not minimum <= float(value) < np.inf:  # type: ignore[arg-type]  # narrowed by is_number
        raise InvalidParameterError(name, f"must be a finite number of at least {minimum:g}")


def require_kind(name: str, value: object, kind: type) -> None:
    if not isinstance(value, kind):
        message = f"must be of type {kind.__name__}, not {type(value).__name__}"
        raise InvalidParameterError(name, message)


def require_seed(name: str, value: object) -> None:
    """Refuse what is neither a seed nor None."""
    if value is not None:
        try:
            require_integer_at_least(name, value, 0)
        except InvalidParameterError as error:
            raise InvalidParameterError(name, f"{error.problem}, or None") from error


def as_count(value: SupportsInt) -> int:
    """Return the whole number that counts steps or the like; any other is a ``ValueError``."""
    number = int(value)
    if number != value or not 0 <= number <= MOST_COUNTED:
        raise ValueError
    return number


def as_generator(rng: np.random.Generator | int | None) -> np.random.Generator:
    """Return the generator itself, or a new one from a seed."""
    if rng is not None and not isinstance(rng, np.random.Generator):
        require_integer_at_least("rng", rng, 0)
    return np.random.default_rng(rng)


def require_known(name: str, value: object, table: Mapping[str, object]) -> None:
    if not isinstance(value, str) or value not in table:
        raise InvalidParameterError(name, f"must be one of {', '.join(sorted(table))}")
