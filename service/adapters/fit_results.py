"""A mixture or a fit's result over a wire: its head in a message, its arrays after it."""

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from gmm_engine import Criteria, FitResult, FitWarning, GmmEngineError, Mixture, StopReason
from gmm_engine.preprocessing import MappedMixture, Transform
from service.adapters.artifact import FACTORS, PARAMETERS
from service.adapters.fit_protocol import MixtureHead, ProtocolError, ResultHead, Wire
from service.domain.records import FitWarningRecord


def head_of_mixture(mixture: Mixture) -> MixtureHead:
    return MixtureHead(
        mixture.n_components,
        mixture.covariance_type,
        mixture.covariances.shape,
        mixture.family.has_given_factors,
    )


def head_of_result(result: FitResult) -> ResultHead:
    criteria = result.criteria
    return ResultHead(
        mixture=head_of_mixture(result.mixture),
        n_samples=criteria.n_samples,
        n_parameters=criteria.n_parameters,
        log_likelihood=criteria.log_likelihood,
        log_max_resp=criteria.log_max_resp,
        n_iter=result.n_iter,
        stop_reason=result.stop_reason.value,
        warnings=[FitWarningRecord(w.code, w.detail) for w in result.warnings],
    )


def send_arrays(wire: Wire, mixture: Mixture) -> None:
    arrays = mixture.to_arrays()
    for name in (*PARAMETERS, FACTORS):
        if name in arrays:
            wire.send_numbers(arrays[name])


def send_result_arrays(wire: Wire, result: FitResult) -> None:
    send_arrays(wire, result.mixture)
    wire.send_numbers(result.log_likelihoods)


def send_transform(wire: Wire, mixture: Mixture) -> None:
    """Send what maps the rows of a mixture, if anything does."""
    if isinstance(mixture, MappedMixture):
        for numbers in mixture.transform.to_arrays().values():
            wire.send_numbers(numbers)


def receive_transform(
    wire: Wire, shapes: Mapping[str, tuple[int, ...]], *, until: float | None = None
) -> Transform | None:
    """Receive arrays of these shapes; raise ``ProtocolError`` for what maps nothing."""
    arrays = {name: wire.receive_numbers(shape, until=until) for name, shape in shapes.items()}
    try:
        return Transform.from_arrays(arrays) if arrays else None
    except GmmEngineError as error:
        raise ProtocolError("no such map") from error


def receive_mixture(
    wire: Wire, head: MixtureHead, n_features: int, *, until: float | None = None
) -> Mixture:
    """Receive the arrays; raise ``ProtocolError`` for what can't be a mixture of these features."""
    n_components, covariances = head.n_components, tuple(head.covariances_shape)
    is_possible = (
        n_components > 0
        and min(covariances, default=0) > 0
        and math.prod(covariances) <= n_components * n_features**2
    )
    if not is_possible:
        raise ProtocolError("no such mixture")
    shapes = {
        "weights": (n_components,),
        "means": (n_components, n_features),
        "covariances": covariances,
        **({FACTORS: covariances} if head.has_factors else {}),
    }
    arrays = {name: wire.receive_numbers(shape, until=until) for name, shape in shapes.items()}
    try:
        return Mixture.from_arrays(arrays, head.covariance_type)
    except GmmEngineError as error:
        raise ProtocolError("no such mixture") from error


def receive_result(
    wire: Wire, head: ResultHead, n_features: int, *, most_steps: int, until: float | None = None
) -> FitResult:
    """Receive what follows the head; raise ``ProtocolError`` for what can't be a result."""
    if not 0 <= head.n_iter <= most_steps:
        raise ProtocolError("no such number of steps")
    mixture = receive_mixture(wire, head.mixture, n_features, until=until)
    log_likelihoods: NDArray[np.float64] = wire.receive_numbers((head.n_iter,), until=until)
    try:
        stop_reason = StopReason(head.stop_reason)
    except ValueError as error:
        raise ProtocolError("no such end") from error
    return FitResult(
        mixture=mixture,
        criteria=Criteria(
            n_samples=head.n_samples,
            n_parameters=head.n_parameters,
            log_likelihood=head.log_likelihood,
            log_max_resp=head.log_max_resp,
        ),
        log_likelihoods=log_likelihoods,
        n_iter=head.n_iter,
        stop_reason=stop_reason,
        warnings=tuple(FitWarning(w.code, w.detail) for w in head.warnings),
    )
