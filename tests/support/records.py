"""Models, drafts and mixtures to store: small, legal, and different where a test needs it."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from gmm_engine import FitOptions, Mixture
from service.domain.records import (
    FitSummary,
    FitWarningRecord,
    ModelRecord,
    VersionDraft,
)

FAMILIES = ("full", "tied", "diag", "spherical")


def a_model(model_id: str = "iris", *, n_components: int = 2) -> ModelRecord:
    return ModelRecord(
        id=model_id,
        options=FitOptions(n_components=n_components, tol=1e-7, random_state=3),
        description="Blüten, gemessen",
        labels={"team": "botany"},
    )


def a_mixture(
    *, covariance_type: str = "full", n_components: int = 2, n_features: int = 2, seed: int = 0
) -> Mixture:
    rng = np.random.default_rng(seed)
    factors = rng.normal(size=(n_components, n_features, n_features))
    dense = factors @ factors.transpose(0, 2, 1) + np.eye(n_features)
    covariances = {
        "full": dense,
        "tied": dense[0],
        "diag": np.diagonal(dense, axis1=1, axis2=2),
        "spherical": dense[:, 0, 0],
    }[covariance_type]
    arrays = {
        "weights": rng.dirichlet(np.ones(n_components)),
        "means": rng.normal(size=(n_components, n_features)),
        "covariances": covariances,
    }
    return Mixture.from_arrays(arrays, covariance_type)


def a_draft(
    model: ModelRecord,
    mixture: Mixture,
    *,
    job_id: str = "job-1",
    log_likelihood_history: Sequence[float] = (-200.0, -180.1854777, 0.1 + 0.2),
) -> VersionDraft:
    return VersionDraft(
        model_id=model.id,
        job_id=job_id,
        options=replace(model.options, covariance_type=mixture.covariance_type),
        summary=a_summary(mixture, log_likelihood_history),
        covariance_type=mixture.covariance_type,
        feature_names=tuple(f"x{column}" for column in range(mixture.n_features)),
        data_digest="0" * 64,
        model_uid=model.uid,
    )


def a_summary(mixture: Mixture, log_likelihood_history: Sequence[float]) -> FitSummary:
    return FitSummary(
        converged=True,
        stop_reason="converged",
        n_iter=len(log_likelihood_history),
        n_samples=150.0,
        n_features=mixture.n_features,
        n_parameters=mixture.n_parameters,
        log_likelihood=-180.1854777,
        mean_log_likelihood=-180.1854777 / 150,
        bic=580.8389,
        aic=448.371,
        aicc=math.inf,
        icl=1 / 3,
        log_likelihood_history=log_likelihood_history,
        weights=tuple(float(weight) for weight in mixture.weights),
        warnings=(FitWarningRecord("constant_feature", "Column 3 is constant."),),
        duration_seconds=0.012345678901234567,
    )


def is_same_mixture(one: Mixture, other: Mixture) -> bool:
    """Compare families and parameters to the last bit."""
    left, right = one.to_arrays(), other.to_arrays()
    return one.covariance_type == other.covariance_type and all(
        left[name].shape == right[name].shape and left[name].tobytes() == right[name].tobytes()
        for name in left
    )


SMALL_MIXTURE = a_mixture(n_components=1, n_features=1)
"""For tests that look at every bit."""
