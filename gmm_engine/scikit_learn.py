"""What exists only beside scikit-learn: tags, requests for weights, warnings and errors of both.

This module imports scikit-learn, and nothing imports this module unless the caller has already
imported scikit-learn or speaks of its routing. Conversions of models are in ``conversion``.
"""

import sklearn
import sklearn.exceptions
import sklearn.utils
from sklearn.utils import metadata_routing

from gmm_engine import errors

REQUEST = "_metadata_request"
"""Where ``sklearn.base.clone`` looks for what an estimator asks of its meta-estimators."""
WEIGHED = ("fit", "score")
"""Methods that meta-estimators can be asked to hand ``sample_weight`` on to."""


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


def metadata_request(estimator: object) -> metadata_routing.MetadataRequest:
    """Return what an estimator asks of its meta-estimators, a copy; of a new one: no weights."""
    known = getattr(estimator, REQUEST, None)
    if known is not None:
        return metadata_routing.get_routing_for_object(known)
    request = metadata_routing.MetadataRequest(owner=estimator)
    for method in WEIGHED:
        getattr(request, method).add_request(param="sample_weight", alias=None)
    return request


def request_weights(estimator: object, method: str, sample_weight: bool | str | None) -> None:
    """Let an estimator ask for weights in one method, or for none.

    Raises ``RuntimeError`` where scikit-learn was not told to route, as its own estimators do.
    """
    if not sklearn.get_config()["enable_metadata_routing"]:
        raise RuntimeError(
            "requests count only where metadata is routed: call "
            "sklearn.set_config(enable_metadata_routing=True) first"
        )
    request = metadata_request(estimator)
    if sample_weight != metadata_routing.UNCHANGED:
        getattr(request, method).add_request(param="sample_weight", alias=sample_weight)
    setattr(estimator, REQUEST, request)
