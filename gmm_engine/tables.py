"""What users of scikit-learn hand in: arrays, lists and data frames, and their feature names.

The estimator's door stands before the engine's own (``validation``): it takes containers that the
engine does not know and words its refusals as scikit-learn's callers and checks expect them.
"""

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gmm_engine.errors import (
    DimensionMismatchError,
    EmptyDataError,
    InvalidDataError,
    OutOfRangeError,
)
from gmm_engine.samples import comes_in_blocks
from gmm_engine.validation import objects_as_doubles, without_objects

MAX_NAMED = 5
"""Feature names that a refusal quotes."""

FeatureNames = NDArray[np.object_]


class NotNumericError(InvalidDataError, TypeError):
    """An object among the data is no number; a ``TypeError`` where NumPy raises one."""


def as_table(X: ArrayLike) -> NDArray[np.generic]:
    """Return ``X`` as a NumPy array of numbers with two dimensions, neither of them empty."""
    if comes_in_blocks(X):
        raise InvalidDataError(
            "GaussianMixture takes arrays; data in blocks and datasets are fitted by gmm_engine.fit"
        )
    array = X if isinstance(X, np.ndarray) else _as_array(X)
    if array.dtype.kind == "c":
        raise InvalidDataError("Complex data not supported; X must hold real numbers")
    if array.dtype.kind == "O":
        array = without_objects(X, array)
    if array.dtype.kind == "O":
        array = _as_numbers(array)
    if array.ndim != 2:
        raise InvalidDataError(
            f"Expected 2D array, got {array.ndim}D array instead. Reshape your data either using "
            "X.reshape(-1, 1) if it has a single feature or X.reshape(1, -1) if it is a single row"
        )
    if array.size == 0:
        what = "sample" if array.shape[0] == 0 else "feature"
        raise EmptyDataError(
            f"Found array with 0 {what}(s) (shape={array.shape}) while a minimum of 1 is required."
        )
    return array


def require_features(table: NDArray[np.generic], n_features: int, *, estimator: str) -> None:
    if table.shape[1] != n_features:
        raise DimensionMismatchError(
            f"X has {table.shape[1]} features, but {estimator} is expecting {n_features} features "
            "as input."
        )


def feature_names(X: object) -> FeatureNames | None:
    """Return the column names of a data frame or an Arrow table, if they are strings."""
    names = getattr(X, "column_names", None)
    if names is None:
        names = getattr(X, "columns", None)
    if names is None:
        return None
    found = list(names)
    n_strings = sum(isinstance(name, str) for name in found)
    if 0 < n_strings < len(found):
        raise NotNumericError(
            "feature names are only supported if all columns have strings as names; "
            "X.columns = X.columns.astype(str) makes them so"
        )
    return np.array(found, dtype=object) if n_strings else None


def require_same_names(X: object, fitted: FeatureNames | None, *, estimator: str) -> None:
    """Refuse columns that are named otherwise than at fit; warn where only one side has names."""
    names = feature_names(X)
    if names is None and fitted is None:
        return
    if fitted is None:
        _warn(f"X has feature names, but {estimator} was fitted without feature names")
    elif names is None:
        _warn(f"X does not have valid feature names, but {estimator} was fitted with feature names")
    elif names.tolist() != fitted.tolist():
        raise DimensionMismatchError(_difference(names.tolist(), fitted.tolist()))


def _warn(message: str) -> None:
    warnings.warn(message, UserWarning, stacklevel=5)


def _difference(names: Sequence[str], fitted: Sequence[str]) -> str:
    lines = ["The feature names should match those that were passed during fit."]
    unseen, missing = sorted({*names} - {*fitted}), sorted({*fitted} - {*names})
    if unseen:
        lines += ["Feature names unseen at fit time:", *_listed(unseen)]
    if missing:
        lines += ["Feature names seen at fit time, yet now missing:", *_listed(missing)]
    if not unseen and not missing:
        lines += ["Feature names must be in the same order as they were in fit."]
    return "\n".join([*lines, ""])


def _listed(names: Sequence[str]) -> list[str]:
    return [f"- {name}" for name in names[:MAX_NAMED]] + ["- ..."] * (len(names) > MAX_NAMED)


def _as_array(X: ArrayLike) -> NDArray[np.generic]:
    if hasattr(X, "tocsr"):
        raise InvalidDataError("sparse X is not supported; X.toarray() makes it dense")
    try:
        return np.asarray(X)
    except ValueError as error:
        raise InvalidDataError("X has rows of different lengths") from error


def _as_numbers(array: NDArray[np.generic]) -> NDArray[np.float64]:
    try:
        return objects_as_doubles(array, what="X")
    except OutOfRangeError:
        raise
    except TypeError as error:
        raise NotNumericError(f"X must hold real numbers: {error}") from error
    except ValueError as error:
        raise InvalidDataError(f"X must hold real numbers: {error}") from error
