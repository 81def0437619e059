"""What exists only beside scikit-learn: its tags, and warnings and errors that are its own too.

This module imports scikit-learn, and nothing imports this module unless the caller has already
imported scikit-learn. Conversions of models are in ``conversion``.
"""

import sklearn.exceptions
import sklearn.utils

from gmm_engine import errors


class NotFittedError(errors.NotFittedError, sklearn.exceptions.NotFittedError):  # type: ignore[misc]  # untyped base
    """Caught by handlers of either library."""


class ConvergenceWarning(errors.ConvergenceWarning, sklearn.exceptions.ConvergenceWarning):  # type: ignore[misc]  # untyped base
    """Caught by filters of either library."""


def density_estimator_tags() -> "sklearn.utils.Tags":
    """Return how scikit-learn should treat the estimator."""
    return sklearn.utils.Tags(
        estimator_type="density_estimator",
        target_tags=sklearn.utils.TargetTags(required=False),
    )
