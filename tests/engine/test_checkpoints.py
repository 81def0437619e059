"""A fit that was cut off and goes on from a state that was kept ends as one that was not."""

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from numpy.typing import NDArray

from gmm_engine import COVARIANCE_FAMILIES, EMStep, FitOptions, FitResult, FitState, fit
from gmm_engine.errors import InvalidParameterError
from gmm_engine.fitting import START_ROWS

Array = NDArray[np.generic]
ROWS = np.random.default_rng(5).normal(size=(600, 2))


class CutOffError(Exception):
    pass


@dataclass
class Kept:
    """Keeps every state, as a file would."""

    covariance_type: str
    state: FitState | None = None
    stored: bytes = b""
    places: list[tuple[int, int, int]] = field(default_factory=list)

    def last(self) -> FitState | None:
        return self.state

    def is_due(self) -> bool:
        return True

    def keep(self, state: FitState) -> None:
        file = io.BytesIO()
        np.savez(file, allow_pickle=False, **state.to_arrays())
        self.stored = file.getvalue()
        self.places.append((state.restart, state.number, state.running.last.iteration))

    def reopened(self) -> "Kept":
        if not self.stored:
            return Kept(self.covariance_type)
        with np.load(io.BytesIO(self.stored), allow_pickle=False) as arrays:
            state = FitState.from_arrays(dict(arrays), self.covariance_type)
        return Kept(self.covariance_type, state)


def cut_off_after(
    n_steps: int, X: NDArray[np.float64], options: FitOptions, kept: Kept
) -> FitResult | None:
    n_seen = 0

    def count(step: EMStep) -> None:
        nonlocal n_seen
        n_seen += 1
        if n_seen > n_steps:
            raise CutOffError

    try:
        return fit(X, options, on_step=count, checkpoints=kept)
    except CutOffError:
        return None


def is_same(one: FitResult, other: FitResult) -> bool:
    arrays = one.mixture.to_arrays()
    return (
        all(
            np.array_equal(arrays[name], array) for name, array in other.mixture.to_arrays().items()
        )
        and np.array_equal(one.log_likelihoods, other.log_likelihoods)
        and (one.criteria, one.n_iter, one.stop_reason, one.warnings, one.trail)
        == (other.criteria, other.n_iter, other.stop_reason, other.warnings, other.trail)
    )


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
def test_a_fit_cut_off_again_and_again_ends_in_the_same_bits(covariance_type: str) -> None:
    options = FitOptions(
        n_components=4,
        covariance_type=covariance_type,
        tol=1e-13,
        n_init=3,
        max_iter=120,
        random_state=2,
    )
    whole = fit(ROWS, options)
    kept = Kept(covariance_type)
    places = []
    ended, n_attempts = None, 0

    while ended is None:
        kept = kept.reopened()
        n_attempts += 1
        # Each time a little later than the starts take, so that some steps are always gained.
        ended = cut_off_after(150 + 7 * n_attempts, ROWS, options, kept)
        places += kept.places

    assert is_same(ended, whole)
    assert n_attempts > 2
    assert {restart for restart, _, _ in places} == {0, 1, 2}


def test_a_fit_cut_off_remembers_which_clusters_are_narrow() -> None:
    rng = np.random.default_rng(4)
    X = np.r_[rng.normal(size=(400, 2)), 1e9 + rng.normal(size=(200, 2))]
    options = FitOptions(n_components=4, tol=1e-13, max_iter=200, random_state=2)
    whole = fit(X, options)
    kept, ended, n_attempts = Kept("full"), None, 0
    while ended is None:
        n_attempts += 1
        kept = kept.reopened()
        ended = cut_off_after(150 + 7 * n_attempts, X, options, kept)
    assert is_same(ended, whole)
    assert n_attempts > 2
    assert {warning.code for warning in whole.warnings} >= {"narrow_component"}


def test_what_was_done_is_not_done_again() -> None:
    options = FitOptions(n_components=8, tol=0.0, max_iter=300, random_state=0)
    kept = Kept("full")
    cut_off_after(350, ROWS, options, kept)
    (_, _, begun) = kept.places[-1]
    steps: list[int] = []

    fit(
        ROWS,
        options,
        on_step=lambda step: steps.append(step.iteration),
        checkpoints=kept.reopened(),
    )

    assert begun > 20
    assert steps == list(range(begun, 301))


def test_a_fit_whose_starts_are_sought_on_a_part_of_the_rows_goes_on_too() -> None:
    X = np.random.default_rng(0).normal(size=(START_ROWS + 2000, 2))
    options = FitOptions(n_components=6, max_iter=80, tol=1e-13, random_state=1)
    kept = Kept("full")
    cut_off_after(330, X, options, kept)

    ended = fit(X, options, checkpoints=kept.reopened())

    assert kept.places
    assert is_same(ended, fit(X, options))


def test_a_state_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidParameterError):
        FitState.from_arrays({"number": np.array(0)}, "full")


MAY_BE_ANOTHER_STATE = {  # one that is as good: other means, no component or step, no known gain
    ("means", "negative"),
    ("degenerate", "emptied"),
    ("narrow", "emptied"),
    ("accelerator.points", "emptied"),
    ("accelerator.points", "negative"),
    ("accelerator.gains", "nan"),
    ("accelerator.gains", "negative"),
}


def damaged(arrays: Mapping[str, Array], name: str) -> Iterator[tuple[str, dict[str, Array]]]:
    rest = {key: array for key, array in arrays.items() if key != name}
    array = arrays[name]
    yield "missing", rest
    yield "emptied", {**rest, name: np.atleast_1d(array)[:0]}
    yield "text", {**rest, name: np.array("x")}
    yield "more", {**rest, name: np.stack([array, array])}
    if array.dtype.kind == "f" and array.size:
        yield "nan", {**rest, name: np.full_like(array, np.nan)}
    if array.dtype.kind in "if" and array.size:
        yield "negative", {**rest, name: -1 - np.abs(array)}
    if array.dtype.kind == "i" and array.size:
        yield "huge", {**rest, name: np.full(array.shape, 1e300)}
        yield "in parts", {**rest, name: 0.5 + array.astype(float)}


@pytest.mark.parametrize("covariance_type", COVARIANCE_FAMILIES)
def test_a_damaged_state_is_refused_before_a_fit_goes_on_from_it(covariance_type: str) -> None:
    options = FitOptions(6, covariance_type=covariance_type, n_init=2, tol=1e-13, random_state=0)
    kept = Kept(covariance_type)
    cut_off_after(1000, ROWS, options, kept)
    state = kept.reopened().state
    assert state is not None
    assert state.best is not None
    arrays = state.to_arrays()

    for name in arrays:
        for how, wrong in damaged(arrays, name):
            try:
                again = FitState.from_arrays(wrong, covariance_type)
            except InvalidParameterError:
                continue
            assert (name.partition(".")[2], how) in MAY_BE_ANOTHER_STATE, name
            assert np.isfinite(fit(ROWS, options, checkpoints=Kept("", again)).log_likelihood)


def test_a_state_of_a_fit_with_more_restarts_is_refused() -> None:
    options = FitOptions(6, n_init=2, tol=1e-13, random_state=0)
    kept = Kept("full")
    cut_off_after(1000, ROWS, options, kept)
    state = kept.reopened().state
    assert state is not None
    assert state.restart == 1

    with pytest.raises(InvalidParameterError, match="more restarts"):
        fit(ROWS, replace(options, n_init=1), checkpoints=kept.reopened())
