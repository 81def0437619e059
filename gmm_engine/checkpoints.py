"""The state of a fit on its way: kept now and then, it goes on from there to the very same bits.

A fit is determined by its data, options and seed. What is kept is the run that is being finished
and the best one before it; the search for starts is short and simply repeated where it is needed.
States are plain arrays, for whoever keeps them to store without a pickle.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from gmm_engine.acceleration import Accelerator, require_accelerator
from gmm_engine.convergence import StopReason, Trail
from gmm_engine.em import EMStep
from gmm_engine.errors import InvalidParameterError
from gmm_engine.mixture import Mixture
from gmm_engine.validation import as_count

Arrays = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True, slots=True)
class RunState:
    """One run of EM after a step."""

    last: EMStep
    way: Trail
    """Every log-likelihood of the run, that of its start first."""
    stop_reason: StopReason | None = None
    accelerator: Arrays | None = None
    """As ``Accelerator.to_arrays`` gives it; None where none is used any more."""

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        step, accelerator = self.last, self.accelerator or {}
        return {
            **step.mixture.to_arrays(),
            "count": np.array([step.restart, step.run, step.iteration, step.accelerated]),
            "height": np.array([step.log_likelihood, step.log_max_resp]),
            "degenerate": np.array(step.degenerate, dtype=np.int64),
            "narrow": np.array(step.narrow, dtype=np.int64),
            "way": np.array(self.way, dtype=np.float64),
            "stop_reason": np.array(self.stop_reason or ""),
            **_prefixed("accelerator", accelerator),
        }

    @classmethod
    def from_arrays(cls, arrays: Arrays, covariance_type: str) -> Self:
        """Take what ``to_arrays`` gave; raise ``ValueError`` or its like for anything else."""
        restart, run, iteration, accelerated = map(as_count, arrays["count"])
        log_likelihood, log_max_resp = map(float, arrays["height"])
        mixture = Mixture.from_arrays(arrays, covariance_type)
        degenerate, narrow = (
            tuple(map(as_count, arrays[name])) for name in ("degenerate", "narrow")
        )
        way = np.asarray(arrays["way"], dtype=np.float64)  # (iteration + 1, 2)
        stop_reason, accelerator = str(arrays["stop_reason"]), _part("accelerator", arrays)
        _require(accelerated in {0, 1})
        _require(way.shape == (iteration + 1, 2) and bool(way[-1, 0] == log_likelihood))
        _require(bool(np.isfinite(way).all()) and math.isfinite(log_max_resp))
        _require({*degenerate, *narrow} <= set(range(mixture.n_components)))
        if accelerator:
            require_accelerator(accelerator, mixture)
        return cls(
            last=EMStep(
                restart=restart,
                iteration=iteration,
                mixture=mixture,
                log_likelihood=log_likelihood,
                log_max_resp=log_max_resp,
                accelerated=bool(accelerated),
                degenerate=degenerate,
                narrow=narrow,
                run=run,
            ),
            way=tuple((float(height), bool(leapt)) for height, leapt in way),
            stop_reason=StopReason(stop_reason) if stop_reason else None,
            accelerator=accelerator or None,
        )


@dataclass(frozen=True, slots=True)
class FitState:
    """A fit between two EM steps."""

    number: int
    """Which of the promising runs of its restart is being finished; counts from 0."""
    running: RunState
    best: RunState | None = None
    """Of the runs that were finished before."""

    @property
    def restart(self) -> int:
        return self.running.last.restart

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return all of it as arrays of numbers and text, for ``from_arrays``."""
        best = {} if self.best is None else self.best.to_arrays()
        return {
            "number": np.array(self.number),
            **_prefixed("running", self.running.to_arrays()),
            **_prefixed("best", best),
        }

    @classmethod
    def from_arrays(cls, arrays: Arrays, covariance_type: str) -> Self:
        """Take what ``to_arrays`` gave.

        Raises
        ------
        InvalidParameterError
            That is not such a state.
        """
        best = _part("best", arrays)
        try:
            return cls(
                number=as_count(arrays["number"].item()),
                running=RunState.from_arrays(_part("running", arrays), covariance_type),
                best=RunState.from_arrays(best, covariance_type) if best else None,
            )
        except (ArithmeticError, IndexError, KeyError, TypeError, ValueError) as error:
            raise InvalidParameterError("state", "is not that of a fit") from error


class Checkpoints(Protocol):
    """Who keeps the state of one fit."""

    def last(self) -> FitState | None:
        """Return the state to go on from; None to begin."""

    def is_due(self) -> bool:
        """Tell whether a state is wanted now; asked after every EM step of a promising run."""

    def keep(self, state: FitState) -> None:
        """Keep a state in place of the one before."""


def resumed_accelerator(state: RunState, scale: NDArray[np.float64]) -> Accelerator | None:
    if state.accelerator is None:
        return None
    return Accelerator.from_arrays(state.accelerator, scale)


def _require(holds: bool) -> None:
    if not holds:
        raise ValueError


def _prefixed(name: str, arrays: Arrays) -> dict[str, NDArray[np.generic]]:
    return {f"{name}.{key}": array for key, array in arrays.items()}


def _part(name: str, arrays: Arrays) -> dict[str, NDArray[np.generic]]:
    begin = f"{name}."
    return {key.removeprefix(begin): a for key, a in arrays.items() if key.startswith(begin)}
