"""How a fit runs: its steps, when it stops, what it starts from, what it reports."""

import dataclasses
import itertools
import subprocess
import sys
import time
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gmm_engine import (
    COVARIANCE_FAMILIES,
    INITIALIZERS,
    EMStep,
    FitOptions,
    FitResult,
    Grid,
    StopReason,
    covariances,
    fit,
    fitting,
    select,
    set_thread_count,
    thread_count,
)
from gmm_engine.fitting import _Run
from gmm_engine.initialization import ward_clusters, ward_clusters_within
from gmm_engine.kernels.ranges import row_ranges
from tests.support.data import (
    faithful,
    iris,
    iris_species,
    random_mixture,
    rows_of,
    separated_clusters,
)

every_family = pytest.mark.parametrize("covariance_type", COVARIANCE_FAMILIES)
every_start = pytest.mark.parametrize("init_params", INITIALIZERS)


def assert_same_bits(left: FitResult, right: FitResult) -> None:
    for name, value in left.mixture.to_arrays().items():
        np.testing.assert_array_equal(value, right.mixture.to_arrays()[name])
    np.testing.assert_array_equal(left.log_likelihoods, right.log_likelihoods)
    assert left.criteria == right.criteria


class Cancelled(Exception):  # noqa: N818 - a signal of the caller's, not an error
    pass


# What is reported


@every_family
def test_the_report_is_that_of_the_returned_parameters(covariance_type: str) -> None:
    result = fit(iris(), FitOptions(3, covariance_type, max_iter=4, random_state=0))
    reported, computed = result.criteria, result.mixture.criteria(iris())
    assert reported.log_likelihood == pytest.approx(computed.log_likelihood, rel=1e-13)
    assert reported.log_max_resp == pytest.approx(computed.log_max_resp, rel=1e-10)
    assert reported.n_samples == computed.n_samples == 150
    assert reported.n_parameters == computed.n_parameters == result.mixture.n_parameters
    assert result.log_likelihoods[-1] == reported.log_likelihood


@every_start
def test_there_is_one_log_likelihood_for_every_step(init_params: str) -> None:
    options = FitOptions(3, init_params=init_params, n_init=2, max_iter=7, tol=0.0, random_state=1)
    result = fit(iris(), options)
    assert result.n_iter == len(result.log_likelihoods) == 7


@every_family
def test_the_same_data_shuffled_in_memory_is_the_same_fit(covariance_type: str) -> None:
    options = FitOptions(3, covariance_type, max_iter=15, random_state=0)
    plain = fit(iris(), options)
    assert_same_bits(plain, fit(np.asfortranarray(iris()), options))
    assert_same_bits(plain, fit(np.repeat(iris(), 2, axis=0)[::2], options))
    assert_same_bits(plain, fit(iris().tolist(), options))


def test_whole_numbers_and_truth_values_are_data_too() -> None:
    X = np.random.default_rng(0).integers(0, 2, size=(40, 2))
    options = FitOptions(1)
    assert_same_bits(fit(X, options), fit(X.astype(float), options))
    assert_same_bits(fit(X.astype(bool), options), fit(X.astype(float), options))


def test_single_precision_data_keeps_its_variances() -> None:
    """float32 sums of squares would come out wrong (scikit-learn issue 30382)."""
    rng = np.random.default_rng(0)
    X = (rng.standard_normal((500, 2)) * np.sqrt(0.1) + 1_000.0).astype(np.float32)
    for covariance_type in COVARIANCE_FAMILIES:
        variances = fit(X, FitOptions(1, covariance_type)).mixture.to_dense()[0].diagonal()
        expected = X.astype(np.float64).var(axis=0)
        np.testing.assert_allclose(variances, expected, rtol=0.1)
        if covariance_type != "spherical":
            np.testing.assert_allclose(variances, expected, rtol=1e-10)


def test_results_and_options_are_frozen() -> None:
    result = fit(faithful(), FitOptions(2, random_state=0))
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.n_iter = 3  # type: ignore[misc]  # that it is refused is the point
    with pytest.raises(dataclasses.FrozenInstanceError):
        FitOptions().tol = 1.0  # type: ignore[misc]  # that it is refused is the point


# When it stops


def test_it_has_converged_only_where_the_rest_is_below_the_tolerance() -> None:
    for seed, tol in itertools.product(range(2), (1e-3, 1e-5, 1e-7)):
        result = fit(iris(), FitOptions(3, tol=tol, max_iter=10_000, random_state=seed))
        assert result.stop_reason is StopReason.CONVERGED
        limit = fit(
            iris(), FitOptions(3, tol=1e-13, max_iter=20_000), start=result.mixture
        ).criteria.mean_log_likelihood
        assert limit - result.criteria.mean_log_likelihood <= 2.0 * tol


def test_converging_on_the_last_allowed_step_is_converging() -> None:
    options = FitOptions(3, init_params="kmeans", random_state=0)
    enough = fit(iris(), options)
    exactly = fit(iris(), dataclasses.replace(options, max_iter=enough.n_iter))
    assert exactly.converged
    assert exactly.warnings == ()
    assert_same_bits(enough, exactly)


def test_one_step_short_of_converging_is_not_converging() -> None:
    options = FitOptions(3, init_params="kmeans", random_state=0)
    enough = fit(iris(), options)
    short = fit(iris(), dataclasses.replace(options, max_iter=enough.n_iter - 1))
    assert short.stop_reason is StopReason.MAX_ITER
    assert not short.converged
    assert [warning.code for warning in short.warnings] == ["not_converged"]
    assert "raise max_iter" in short.warnings[0].detail


def test_a_tolerance_of_zero_takes_every_step_and_warns_of_nothing() -> None:
    result = fit(faithful(), FitOptions(2, tol=0.0, max_iter=60, random_state=0))
    assert (result.n_iter, result.stop_reason) == (60, StopReason.MAX_ITER)
    assert result.warnings == ()


def test_a_time_budget_ends_with_the_best_so_far() -> None:
    options = FitOptions(3, tol=0.0, max_iter=1_000_000, n_init=50, random_state=0)
    began = time.monotonic()
    result = fit(iris(), options, budget_seconds=0.2)
    assert time.monotonic() - began < 2.0
    assert result.stop_reason is StopReason.TIME_BUDGET
    assert not result.converged
    assert result.n_iter == len(result.log_likelihoods) >= 1
    assert result.criteria.log_likelihood == pytest.approx(
        result.mixture.criteria(iris()).log_likelihood, rel=1e-12
    )


def test_no_time_at_all_still_gives_a_mixture() -> None:
    result = fit(iris(), FitOptions(3, n_init=5, random_state=0), budget_seconds=0.0)
    assert result.stop_reason is StopReason.TIME_BUDGET
    assert result.mixture.weights.sum() == pytest.approx(1.0)


def test_a_fit_that_is_asked_to_end_returns_the_best_so_far() -> None:
    options = FitOptions(3, tol=0.0, max_iter=10_000, n_init=5, random_state=0)
    asked = iter(range(10**6))

    result = fit(iris(), options, should_end=lambda: next(asked) >= 200)

    assert result.stop_reason is StopReason.CANCELLED
    assert not result.converged
    assert next(asked) < 400
    assert np.all(np.diff(result.log_likelihoods) >= -1e-9)


def test_a_fit_that_is_never_asked_to_end_is_the_same() -> None:
    options = FitOptions(3, random_state=0)

    assert_same_bits(fit(iris(), options), fit(iris(), options, should_end=lambda: False))


def test_a_budget_that_suffices_changes_nothing() -> None:
    options = FitOptions(3, random_state=0)
    assert_same_bits(fit(iris(), options), fit(iris(), options, budget_seconds=60.0))


def test_the_caller_ends_a_fit_by_raising() -> None:
    seen: list[EMStep] = []

    def stop_at_the_third(step: EMStep) -> None:
        seen.append(step)
        if step.iteration == 3:
            raise Cancelled

    with pytest.raises(Cancelled):
        fit(iris(), FitOptions(3, init_params="kmeans"), on_step=stop_at_the_third)
    assert [step.iteration for step in seen] == [0, 1, 2, 3]


@pytest.mark.parametrize("init_params", ["auto", "kmeans"])
@pytest.mark.parametrize("n_before", [0, 5, 60])
@pytest.mark.parametrize("name", ["on_step", "should_end", "on_candidate"])
@pytest.mark.parametrize("error", [StopIteration, StopAsyncIteration, KeyboardInterrupt])
def test_what_a_callers_function_raises_is_what_comes_out(
    error: type[BaseException], name: str, n_before: int, init_params: str
) -> None:
    raised, n_calls = error("enough"), 0

    def end(*_: object) -> bool:
        nonlocal n_calls
        n_calls += 1
        if n_calls > n_before:
            raise raised
        return False

    options = FitOptions(3, init_params=init_params, n_init=5, tol=1e-12, random_state=0)
    functions: dict[str, Any] = {name: end}
    if name != "on_candidate":
        with pytest.raises(error) as caught:
            fit(iris(), options, **functions)
        assert caught.value is raised
    n_calls = 0
    n_before = min(n_before, 5)
    with pytest.raises(error) as caught:
        select(iris(), Grid((1, 2, 3), ("full", "tied")), options, **functions)
    assert caught.value is raised


@every_start
def test_the_caller_sees_every_step_of_every_restart(init_params: str) -> None:
    steps: list[EMStep] = []
    options = FitOptions(2, init_params=init_params, n_init=3, max_iter=5, tol=0.0, random_state=2)
    result = fit(faithful(), options, on_step=steps.append)
    assert {step.restart for step in steps} == {0, 1, 2}
    assert max(step.iteration for step in steps) == 5
    assert result.criteria.log_likelihood in {
        step.log_likelihood for step in steps if step.iteration == 5
    }
    for step in steps:
        own = step.mixture.criteria(faithful()).log_likelihood
        assert step.log_likelihood == pytest.approx(own, rel=1e-12)


# What it starts from


@every_family
@every_start
def test_every_start_finds_clusters_that_lie_apart(covariance_type: str, init_params: str) -> None:
    data = separated_clusters(np.random.default_rng(0))
    options = FitOptions(3, covariance_type, init_params=init_params, n_init=4, random_state=0)
    mixture = fit(data.X, options).mixture
    assert partition(mixture.predict(data.X)) == partition(data.labels)


def partition(labels: np.ndarray[tuple[int], np.dtype[np.int64]]) -> set[frozenset[int]]:
    return {frozenset(np.flatnonzero(labels == label).tolist()) for label in np.unique(labels)}


@every_family
def test_labels_and_responsibilities_of_one_start_alike(covariance_type: str) -> None:
    options = FitOptions(3, covariance_type, tol=0.0, max_iter=3)
    by_labels = fit(iris(), options, start=iris_species())
    by_resp = fit(iris(), options, start=np.eye(3)[iris_species()])
    for name, value in by_labels.mixture.to_arrays().items():
        np.testing.assert_allclose(by_resp.mixture.to_arrays()[name], value, rtol=1e-11, atol=1e-13)


@every_family
def test_a_start_from_labels_is_the_m_step_of_these_labels(covariance_type: str) -> None:
    steps: list[EMStep] = []
    options = FitOptions(3, covariance_type, max_iter=1, tol=0.0)
    fit(iris(), options, start=iris_species(), on_step=steps.append)
    begin = steps[0].mixture
    groups = [iris()[iris_species() == k] for k in range(3)]
    np.testing.assert_allclose(begin.weights, [1 / 3] * 3)
    np.testing.assert_allclose(begin.means, [group.mean(axis=0) for group in groups])
    if covariance_type == "full":
        expected = [np.cov(group.T, bias=True) for group in groups]
        np.testing.assert_allclose(begin.covariances, expected)


def test_a_given_start_keeps_the_order_of_its_components() -> None:
    turned = (iris_species() + 1) % 3
    result = fit(iris(), FitOptions(3), start=turned)
    assert np.argmin(result.mixture.means[:, 0]) == 1  # setosa, the smallest


def test_a_fit_from_its_own_result_stays_there() -> None:
    options = FitOptions(3, tol=1e-12, max_iter=5_000, random_state=0)
    first = fit(iris(), options)
    again = fit(iris(), options, start=first.mixture)
    np.testing.assert_allclose(again.mixture.means, first.mixture.means, rtol=1e-5)
    assert again.criteria.log_likelihood >= first.criteria.log_likelihood - 1e-9


def trials(X: NDArray[np.float64], options: FitOptions) -> list[list[EMStep]]:
    """Return the steps of each start of a portfolio; behind the last, of those carried on."""
    steps: list[EMStep] = []
    fit(X, options, on_step=steps.append)
    begins = [place for place, step in enumerate(steps) if step.iteration == 0]
    return [list(steps[i:j]) for i, j in itertools.pairwise([*begins, len(steps)])]


def test_no_more_starts_are_tried_once_another_nears_what_one_has_converged_to() -> None:
    converged, near = trials(iris(), FitOptions(3, random_state=5))
    assert converged[-1].log_likelihood - near[-1].log_likelihood > 1e-6 * len(iris())


def test_a_start_far_below_that_gains_little_is_given_up() -> None:
    *_, best, given_up, _ = trials(iris(), FitOptions(3, random_state=1))
    missing = best[-1].log_likelihood - given_up[-1].log_likelihood
    gained = given_up[-1].log_likelihood - given_up[len(given_up) // 2].log_likelihood
    assert len(given_up) < len(best)
    assert missing > 10 * gained > 0


def test_a_start_that_is_another_one_again_is_not_tried() -> None:
    few = np.random.default_rng(6).standard_normal((60, 1))
    runs = trials(few, FitOptions(3, random_state=0))
    begins = [steps[0].log_likelihood for steps in runs]
    repeated = [
        steps
        for place, steps in enumerate(runs)
        if np.isclose(steps[0].log_likelihood, begins[:place], rtol=1e-12, atol=0.0).any()
    ]
    # So few rows are all looked at by Ward's criterion, and of one feature the units don't matter.
    by_ward = [
        steps
        for steps in runs
        if INITIALIZERS["auto"][steps[0].run] in {ward_clusters_within, ward_clusters}
    ]
    assert by_ward[1] in repeated
    assert all(len(steps) == 1 for steps in repeated)


def test_runs_that_lead_to_different_heights_do_not_end_the_search() -> None:
    rng = np.random.default_rng(0)
    cloud = rng.standard_normal((400, 2))
    assert len(trials(cloud, FitOptions(5, random_state=0))) > 4


def test_a_start_that_collapses_is_left_where_another_one_is_healthy() -> None:
    few = np.random.default_rng(1).standard_normal((60, 8))
    collapsed = []
    for seed in range(5):
        first, *others, _ = trials(few, FitOptions(3, random_state=seed))
        assert not first[-1].degenerate
        collapsed += [steps for steps in others if any(step.degenerate for step in steps)]
    assert len(collapsed) == 7
    assert all(not step.degenerate for steps in collapsed for step in steps[:-1])


@every_start
def test_more_restarts_are_never_worse(init_params: str) -> None:
    one, many = (
        fit(
            faithful(),
            FitOptions(4, init_params=init_params, n_init=n_init, max_iter=30, random_state=3),
        )
        for n_init in (1, 4)
    )
    assert many.criteria.log_likelihood >= one.criteria.log_likelihood


@every_family
def test_components_come_by_falling_weight(covariance_type: str) -> None:
    rng = np.random.default_rng(0)
    truth = random_mixture(covariance_type, n_components=5, n_features=2, rng=rng, spread=6.0)
    X = rows_of(truth, 800, rng)
    for seed in range(3):
        mixture = fit(X, FitOptions(5, covariance_type, random_state=seed)).mixture
        assert (np.diff(mixture.weights) <= 0).all()


def test_components_of_equal_weight_come_by_rising_mean() -> None:
    X = np.array([[0, 1], [0, -1], [160, 1], [160, -1], [80, 1], [80, -1]])
    for seed in range(5):
        mixture = fit(
            X, FitOptions(3, "spherical", init_params="kmeans", random_state=seed)
        ).mixture
        np.testing.assert_allclose(mixture.means, [[0, 0], [80, 0], [160, 0]], atol=1e-9)


# The same seed, the same bits


@every_family
@every_start
def test_the_same_seed_gives_the_same_bits(covariance_type: str, init_params: str) -> None:
    options = FitOptions(
        3, covariance_type, init_params=init_params, n_init=2, max_iter=20, random_state=7
    )
    assert_same_bits(fit(iris(), options), fit(iris(), options))


def test_another_seed_is_another_draw() -> None:
    ends = {
        fit(
            iris(), FitOptions(3, init_params="random", max_iter=1, tol=0.0, random_state=seed)
        ).criteria.log_likelihood
        for seed in range(5)
    }
    assert len(ends) == 5


def test_no_seed_draws_anew_and_leaves_numpys_own_generator_alone() -> None:
    state = np.random.get_state()  # noqa: NPY002 - the very one that must not be touched
    options = FitOptions(3, init_params="random", max_iter=1, tol=0.0)
    first, second = fit(iris(), options), fit(iris(), options)
    assert first.criteria.log_likelihood != second.criteria.log_likelihood
    for before, after in zip(state, np.random.get_state(), strict=True):  # noqa: NPY002 - as above
        np.testing.assert_array_equal(before, after)


@every_family
@pytest.mark.parametrize("n_features", [3, 20])
def test_the_number_of_threads_changes_no_bit(covariance_type: str, n_features: int) -> None:
    rng = np.random.default_rng(1)
    truth = random_mixture(covariance_type, n_components=3, n_features=n_features, rng=rng)
    X = rows_of(truth, 60_000, rng)
    assert len(row_ranges(len(X), 3, n_features, is_dense=True)) > 1
    options = FitOptions(
        3, covariance_type, init_params="kmeans", max_iter=3, tol=0.0, random_state=0
    )
    results, n_before = [], thread_count()
    for n_threads in (1, 2, 8):
        set_thread_count(n_threads)
        results.append(fit(X, options))
    set_thread_count(n_before)
    assert_same_bits(results[0], results[1])
    assert_same_bits(results[0], results[2])


DIGEST_OF_A_FIT = """
import hashlib
import numpy as np
from gmm_engine import FitOptions, fit
X = np.random.default_rng(5).standard_normal((300, 3)) + np.arange(300)[:, None] % 3
mixture = fit(X, FitOptions(3, n_init=2, max_iter=10, random_state=11)).mixture
bits = b"".join(value.tobytes() for value in mixture.to_arrays().values())
digest = hashlib.sha256(bits).hexdigest()
"""


def test_another_process_gives_the_same_bits() -> None:
    here: dict[str, str] = {}
    exec(DIGEST_OF_A_FIT, here)  # noqa: S102 - the script above
    there = subprocess.run(  # noqa: S603 - our own interpreter and script
        [sys.executable, "-c", f"{DIGEST_OF_A_FIT}\nprint(digest, end='')"],
        env={"PYTHONHASHSEED": "7", "OPENBLAS_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert there.stdout == here["digest"]


# Which start is carried on


def run_of(heights: list[float]) -> _Run:
    """Return a run that has gone through steps of these log-likelihoods."""
    mixture = fit(faithful(), FitOptions(2, max_iter=1, tol=0.0, random_state=0)).mixture
    run = _Run(EMStep(0, i, mixture, height, 0.0) for i, height in enumerate(heights))
    run.carry_on(len(heights) - 1, tolerance=0.0, ending=lambda: None)
    return run


def test_a_start_far_below_the_best_that_hardly_moves_goes_no_further() -> None:
    best = run_of([-100.0] * 17)
    assert not run_of([-300.0 + 0.1 * i for i in range(17)]).may_overtake(best)


def test_a_start_that_gains_fast_or_has_only_begun_goes_on() -> None:
    best = run_of([-100.0] * 17)
    assert run_of([-300.0 + 5.0 * i for i in range(17)]).may_overtake(best)
    assert run_of([-300.0, -299.9]).may_overtake(best)
    assert best.may_overtake(best)


@every_family
@pytest.mark.parametrize("n_rows", [400, 12_000])
def test_runs_put_aside_go_on_as_if_they_had_not_been(
    monkeypatch: pytest.MonkeyPatch, covariance_type: str, n_rows: int
) -> None:
    """Unlike clusters that overlap: several starts are tried, and several carried on."""
    rng = np.random.default_rng(3)
    mixture = random_mixture("full", n_components=6, n_features=4, rng=rng, spread=1.2)
    X = rows_of(mixture, n_rows, rng)
    options = FitOptions(6, covariance_type, random_state=0)
    told: list[list[tuple[int, int, float]]] = []
    results = []
    for most in (10**9, 0):
        monkeypatch.setattr(fitting, "MOST_AT_ONCE", most)
        steps: list[EMStep] = []
        results.append(fit(X, options, on_step=steps.append))
        told.append([(step.run, step.iteration, step.log_likelihood) for step in steps])

    assert_same_bits(*results)
    assert told[0] == told[1]


def test_mixing_matrices_one_by_one_is_mixing_all_numbers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Beside each other in one vector, or as triangles of large matrices."""
    X = faithful()
    # With a smaller tolerance the last leap is decided by rounding, which mixing is free to change.
    options = FitOptions(3, tol=1e-6, init_params="kmeans", random_state=0)
    steps: list[EMStep] = []
    together = fit(X, options, on_step=steps.append)
    monkeypatch.setattr(covariances, "LARGE", 0)
    apart = fit(X, options)

    assert any(step.accelerated for step in steps)
    assert apart.n_iter == together.n_iter
    np.testing.assert_allclose(apart.log_likelihoods, together.log_likelihoods, rtol=1e-12)
    np.testing.assert_allclose(apart.mixture.means, together.mixture.means, rtol=1e-8)
