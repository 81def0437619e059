"""Factors that say more than covariances are kept: what is read back scores with the same bits."""

import socket
from collections.abc import Callable

import numpy as np
import pytest

from gmm_engine import COVARIANCE_FAMILIES, Mixture
from service.adapters.artifact import FACTORS, artifact_of, mixture_of
from service.adapters.fit_protocol import Wire
from service.adapters.fit_results import head_of_mixture, receive_mixture, send_arrays
from service.adapters.manifest import manifest_of
from service.adapters.model_file import ModelBundle, bundle_of, model_file_of
from service.domain.records import AliasBook
from tests.support.records import a_draft, a_model


def of_factors(covariance_type: str) -> Mixture:
    """Return a mixture that stretches 1e8 times as far along one axis as along another."""
    rng = np.random.default_rng(0)
    factors = np.triu(rng.standard_normal((2, 3, 3))) + 3.0 * np.eye(3)
    turned = np.linalg.qr(rng.standard_normal((3, 3)))[0] * [1.0, 1e4, 1e8] @ factors
    by_family = {
        "full": turned,
        "tied": turned[0],
        "diag": np.abs(factors[:, 0]) + 0.1,
        "spherical": np.abs(factors[:, 0, 0]),
    }
    arrays = {
        "weights": np.array([0.25, 0.75]),
        "means": rng.standard_normal((2, 3)),
        FACTORS: by_family[covariance_type],
    }
    return Mixture.from_arrays(arrays, covariance_type)


def through_an_artifact(mixture: Mixture) -> Mixture:
    stored = artifact_of(mixture)
    return mixture_of(stored.data, covariance_type=mixture.covariance_type, arrays=stored.arrays)


def through_a_model_file(mixture: Mixture) -> Mixture:
    model = a_model()
    version = manifest_of(a_draft(model, mixture), 1, artifact_of(mixture)).version
    ((_, found),) = bundle_of(
        model_file_of(ModelBundle(model, AliasBook(), [(version, mixture)]))
    ).versions
    return found


def over_a_wire(mixture: Mixture) -> Mixture:
    here, there = socket.socketpair()
    with here, there:
        send_arrays(Wire(here), mixture)
        return receive_mixture(Wire(there), head_of_mixture(mixture), mixture.n_features)


@pytest.mark.parametrize("covariance_type", COVARIANCE_FAMILIES)
@pytest.mark.parametrize("way", [through_an_artifact, through_a_model_file, over_a_wire])
def test_given_factors_come_back_to_the_last_bit(
    covariance_type: str, way: Callable[[Mixture], Mixture]
) -> None:
    mixture = of_factors(covariance_type)
    found = way(mixture)
    X = np.random.default_rng(1).standard_normal((20, 3))
    np.testing.assert_array_equal(found.precisions_cholesky, mixture.precisions_cholesky)
    np.testing.assert_array_equal(found.covariances, mixture.covariances)
    np.testing.assert_array_equal(found.weighted_log_prob(X), mixture.weighted_log_prob(X))
    assert found.family.has_given_factors
