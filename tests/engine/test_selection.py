"""Choosing the number of components and the family, beside mclust's table and by its own rules."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gmm_engine import (
    COVARIANCE_FAMILIES,
    SELECTION_CRITERIA,
    Candidate,
    EMStep,
    FitOptions,
    Grid,
    Mixture,
    Selection,
    fit,
    select,
)
from gmm_engine.bench import (
    FINAL_STEPS,
    TRIAL_STEPS,
    Bench,
    Outcome,
    Place,
    Task,
    is_degenerate,
)
from gmm_engine.errors import InvalidParameterError, SingularCovarianceError, TooFewSamplesError
from gmm_engine.grid import Key, Origin
from gmm_engine.neighbours import SPLIT_AXES
from gmm_engine.samples import Samples
from gmm_engine.selection import HELD_OUT, value_of
from gmm_engine.sweep import one_by_one
from tests.support.data import faithful, iris, separated_clusters

# mclust, mclustBIC(faithful), BIC turned so that lower is better, for 1 to 9 components: VII, VVI,
# EEE and VVV. Its table as a course on the same data prints it; the entries of mclust 6.0.0 that
# `test_golden` has are among them.
MCLUST_BIC = {
    "spherical": (
        4024.721, 3458.305, 3336.598, 3242.826, 3129.080, 3038.171, 2973.374, 2935.082, 2919.415,
    ),
    "diag": (
        3055.835, 2346.065, 2342.366, 2343.486, 2351.017, 2373.469, 2394.696, 2413.705, 2432.708,
    ),
    "tied": (
        2607.623, 2325.220, 2314.316, 2331.223, 2360.659, 2347.352, 2369.330, 2376.104, 2389.609,
    ),
    "full": (
        2607.623, 2322.192, 2349.696, 2351.493, 2379.388, 2387.016, 2412.440, 2442.018, 2460.398,
    ),
}  # fmt: skip
ROUNDING = 1e-3
CONTAINED = [("spherical", "diag"), ("spherical", "full"), ("diag", "full"), ("tied", "full")]


@cache
def faithful_selection() -> Selection:
    return select(faithful(), Grid(), FitOptions(random_state=0))


def candidate(selection: Selection, n_components: int, covariance_type: str) -> Candidate:
    return next(
        found
        for found in selection.candidates
        if (found.key.n_components, found.key.covariance_type) == (n_components, covariance_type)
    )


def log_likelihood(selection: Selection, n_components: int, covariance_type: str) -> float:
    result = candidate(selection, n_components, covariance_type).result
    assert result is not None
    return result.log_likelihood


def small_grid() -> Grid:
    return Grid((1, 2), ("full", "spherical"))


# Beside mclust


@pytest.mark.slow
@pytest.mark.parametrize("covariance_type", MCLUST_BIC)
def test_no_entry_of_the_table_of_faithful_is_worse_than_that_of_mclust(
    covariance_type: str,
) -> None:
    selection = faithful_selection()
    for n_components, expected in enumerate(MCLUST_BIC[covariance_type], start=1):
        found = candidate(selection, n_components, covariance_type)
        bic = value_of(found, "bic")
        assert bic is not None
        assert bic <= expected + ROUNDING
        assert not found.is_degenerate


@pytest.mark.slow
def test_three_tied_components_win_on_faithful_as_with_mclust() -> None:
    best = faithful_selection().best
    assert best.result is not None
    assert (best.key.n_components, best.key.covariance_type) == (3, "tied")
    assert best.result.criteria.bic == pytest.approx(2314.316, abs=0.025)


@pytest.mark.slow
@pytest.mark.parametrize(("poorer", "richer"), CONTAINED)
def test_a_family_that_contains_another_never_ends_below_it(poorer: str, richer: str) -> None:
    selection = faithful_selection()
    for n_components in range(1, 10):
        height = log_likelihood(selection, n_components, poorer)
        assert log_likelihood(selection, n_components, richer) >= height - 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("covariance_type", COVARIANCE_FAMILIES)
def test_more_components_never_end_below_fewer(covariance_type: str) -> None:
    heights = [log_likelihood(faithful_selection(), K, covariance_type) for K in range(1, 10)]
    assert heights == sorted(heights)


def awkward(name: str) -> NDArray[np.float64]:
    """Data on which runs of richer families collapse where those of simpler ones do not."""
    rng = np.random.default_rng(1)
    match name:
        case "outliers":
            return rng.standard_t(2, size=(400, 2))
        case "a line":
            return np.column_stack([np.arange(100.0), 2 * np.arange(100.0)])
        case "whole numbers":
            return rng.integers(0, 5, size=(300, 2)).astype(float)
        case "repeated rows":
            return np.repeat(rng.normal(size=(8, 2)), 10, axis=0)
        case "few rows":
            return rng.normal(size=(12, 3))
        case _:
            groups = [3 * rng.normal(size=2) + rng.normal(size=(3000, 2)) for _ in range(4)]
            return np.concatenate(groups)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "outliers",
        "a line",
        "whole numbers",
        "repeated rows",
        "few rows",
        "more than starts look at",
    ],
)
def test_what_contains_another_candidate_ends_below_it_only_if_one_has_collapsed(
    name: str,
) -> None:
    sizes = range(1, 6)
    selection = select(awkward(name), Grid(sizes), FitOptions(random_state=0))
    pairs = [((K, richer), (K, poorer)) for K in sizes for poorer, richer in CONTAINED]
    pairs += [((K, family), (K - 1, family)) for K in sizes[1:] for family in COVARIANCE_FAMILIES]
    n_compared = 0
    for richer, poorer in pairs:
        upper, lower = candidate(selection, *richer), candidate(selection, *poorer)
        if upper.result is None or lower.result is None:
            continue
        if is_degenerate(upper.result) or is_degenerate(lower.result):
            continue
        height = lower.result.log_likelihood
        assert upper.result.log_likelihood >= height - 1e-9 * abs(height), (richer, poorer)
        n_compared += 1
    assert n_compared > 0


def test_a_candidate_whose_way_collapses_rests_on_a_simpler_one_and_says_so() -> None:
    selection = select(awkward("repeated rows"), Grid(range(1, 6)), FitOptions(random_state=1))
    resting = [
        found
        for found in selection.candidates
        if found.result and "rests_on_neighbour" in {each.code for each in found.result.warnings}
    ]
    assert resting
    for found in resting:
        assert found.result is not None
        assert not found.result.converged
        assert not found.is_degenerate
        assert found is not selection.best
        history = found.result.log_likelihoods
        assert (len(history), history[-1]) == (found.result.n_iter, found.result.log_likelihood)


# The table


def test_candidates_come_in_the_order_of_the_grid() -> None:
    grid = Grid((3, 1), ("tied", "diag"))
    selection = select(iris(), grid, FitOptions(random_state=0))
    keys = [(found.key.n_components, found.key.covariance_type) for found in selection.candidates]
    assert keys == [(1, "tied"), (1, "diag"), (3, "tied"), (3, "diag")]
    assert selection.is_complete


@pytest.mark.parametrize("criterion", ["bic", "aic", "aicc", "icl"])
def test_the_best_has_the_lowest_criterion_of_its_own_mixture(criterion: str) -> None:
    selection = select(iris(), small_grid(), FitOptions(random_state=0), criterion=criterion)
    computed = [
        getattr(found.result.mixture, criterion)(iris())
        for found in selection.ranked
        if found.result is not None
    ]
    assert computed == sorted(computed)
    assert len(computed) == 4
    assert value_of(selection.best, criterion) == pytest.approx(computed[0], rel=1e-12)


def test_no_candidate_is_worse_than_its_fit_alone() -> None:
    options = FitOptions(random_state=3)
    for found in select(iris(), Grid((2, 3, 5)), options).candidates:
        alone = fit(
            iris(),
            FitOptions(found.key.n_components, found.key.covariance_type, random_state=3),
        )
        assert found.result is not None
        assert found.result.log_likelihood >= alone.log_likelihood - 1e-9


def test_the_history_of_a_result_ends_with_its_log_likelihood_and_never_falls() -> None:
    for found in select(faithful(), Grid((2, 3, 4), ("full",)), FitOptions(random_state=0)).ranked:
        assert found.result is not None
        history = found.result.log_likelihoods
        assert len(history) == found.result.n_iter
        assert history[-1] == found.result.log_likelihood
        assert (np.diff(history) >= -1e-9 * np.abs(history[1:])).all()


def test_the_same_seed_finds_the_same_table() -> None:
    first, second = (
        select(faithful(), Grid((2, 3), ("full",)), FitOptions(random_state=7)) for _ in range(2)
    )
    for left, right in zip(first.candidates, second.candidates, strict=True):
        assert left.result is not None
        assert right.result is not None
        np.testing.assert_array_equal(left.result.mixture.means, right.result.mixture.means)


@pytest.mark.parametrize("criterion", ["bic", HELD_OUT])
def test_the_table_does_not_depend_on_who_does_the_tasks_and_in_which_order(criterion: str) -> None:
    grid, options = Grid((1, 2, 3), ("full", "diag")), FitOptions(random_state=7)
    elsewhere = Bench(Samples.checked(faithful()), options)

    def backwards(
        tasks: Sequence[Task], do: Callable[[Task], Outcome]
    ) -> Iterator[tuple[Task, Outcome]]:
        for place, task in enumerate(reversed(tasks)):
            yield task, elsewhere.do(task) if place % 2 else do(task)

    alone, shared = (
        select(faithful(), grid, options, criterion=criterion, spread=spread)
        for spread in (one_by_one, backwards)
    )

    for left, right in zip(alone.candidates, shared.candidates, strict=True):
        assert left.result is not None
        assert right.result is not None
        assert (left.origin, left.held_out) == (right.origin, right.held_out)
        for name, array in left.result.mixture.to_arrays().items():
            np.testing.assert_array_equal(array, right.result.mixture.to_arrays()[name])


def test_a_way_that_can_t_win_ends_after_a_few_steps() -> None:
    """Split where there is nothing to split: none of 17 starts goes on to where EM converges."""
    X = separated_clusters(np.random.default_rng(0), n_clusters=2).X
    options = FitOptions(2, random_state=0)
    found, near = fit(X, options), fit(X, replace(options, n_components=1))
    n_steps: list[int] = []
    bench = Bench(Samples.checked(X), options, on_step=lambda step: n_steps.append(step.iteration))

    task = Task(Key(2, "full"), Place.of(found), [(Origin.SPLIT, Place.of(near))])

    assert bench.do(task) == Outcome()
    n_starts = 1 + SPLIT_AXES * near.mixture.n_components
    assert sum(step > 0 for step in n_steps) == n_starts * TRIAL_STEPS + FINAL_STEPS


def test_folds_are_cut_over_the_rows_that_count() -> None:
    X, grid, options = faithful()[:60], Grid((1, 2), ("full",)), FitOptions(random_state=0)
    counted = np.arange(60) % 5 == 0  # twelve rows, and folds of six
    search = partial(select, grid=grid, options=options, criterion=HELD_OUT, n_folds=2)
    weighted = search(X, sample_weight=counted.astype(float))
    for candidate, alone in zip(weighted.candidates, search(X[counted]).candidates, strict=True):
        assert candidate.held_out is not None
        assert alone.held_out is not None
        assert candidate.held_out.mean_log_likelihood == pytest.approx(
            alone.held_out.mean_log_likelihood, rel=1e-9
        )
    with pytest.raises(InvalidParameterError, match=r"number of rows .*, 12"):
        search(X, sample_weight=counted.astype(float), n_folds=13)


def test_rows_of_weight_two_count_like_rows_sent_twice() -> None:
    X, weight = faithful()[:100], np.tile([1.0, 2.0], 50)
    doubled = np.repeat(X, weight.astype(int), axis=0)
    grid, options = Grid((1, 2), ("full",)), FitOptions(random_state=0)
    weighted = select(X, grid, options, sample_weight=weight)
    for left, right in zip(
        weighted.candidates, select(doubled, grid, options).candidates, strict=True
    ):
        assert value_of(left, "bic") == pytest.approx(value_of(right, "bic"), abs=2e-3)


def test_a_degenerate_candidate_wins_only_where_all_are() -> None:
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.standard_normal((40, 2)), np.full((20, 2), 3.0)])
    selection = select(X, Grid((1, 2), ("full",)), FitOptions(random_state=0))
    degenerate = candidate(selection, 2, "full")
    assert degenerate.is_degenerate
    assert selection.best.key.n_components == 1
    assert select(X, Grid((2,), ("full",)), FitOptions(random_state=0)).best.is_degenerate


def test_a_few_rows_in_line_by_chance_win_nothing() -> None:
    rng = np.random.default_rng(0)
    along = np.linspace(-2.0, 2.0, 6)
    X = np.concatenate([rng.standard_normal((200, 2)), np.column_stack([along, along + 1e-9])])
    line = Mixture.from_arrays(
        {
            "weights": [0.97, 0.03],
            "means": [[0.0, 0.0], [0.0, 0.0]],
            "covariances": [[[1.0, 0.0], [0.0, 1.0]], [[1.0, 1.0 - 1e-9], [1.0 - 1e-9, 1.0]]],
        }
    )
    higher = fit(X, FitOptions(2), start=line)
    selection = select(X, Grid((1, 2), ("full",)), FitOptions(random_state=0))
    one = candidate(selection, 1, "full").result
    assert one is not None
    assert higher.criteria.bic < one.criteria.bic  # and yet there is one cluster
    assert selection.best.key.n_components == 1


def test_small_tight_clusters_are_no_chance() -> None:
    rng = np.random.default_rng(0)
    X = np.concatenate([1e-4 * rng.standard_normal((15, 2)) + [place, 0.0] for place in range(4)])
    best = select(X, Grid(range(1, 6), ("full", "spherical")), FitOptions(random_state=0)).best
    assert (best.key.n_components, best.is_degenerate) == (4, False)


def test_a_candidate_that_fails_has_its_reason_in_the_table() -> None:
    X = np.repeat(np.arange(4.0), 5)[:, np.newaxis]
    selection = select(X, Grid((1, 4), ("full",)), FitOptions(reg_covar=0.0, random_state=0))
    failed = candidate(selection, 4, "full")
    assert failed.result is None
    assert isinstance(failed.failure, SingularCovarianceError)
    assert [found.key.n_components for found in selection.ranked] == [1]


def test_when_all_candidates_fail_the_first_reason_is_raised() -> None:
    X = np.ones((10, 2))
    with pytest.raises(SingularCovarianceError):
        select(X, Grid((1,), ("full",)), FitOptions(reg_covar=0.0))


# Rows that were not seen


def test_held_out_rows_choose_the_number_of_clusters_that_there_are() -> None:
    X = separated_clusters(np.random.default_rng(0), n_clusters=3).X
    selection = select(
        X, Grid((1, 2, 3, 4), ("spherical",)), FitOptions(random_state=0), criterion=HELD_OUT
    )
    means = [value_of(found, HELD_OUT) for found in selection.candidates]
    assert selection.best.key.n_components == 3
    assert None not in means


def test_the_held_out_log_likelihood_is_that_of_fits_to_the_other_folds() -> None:
    """For one Gaussian every fold can be computed without EM."""
    X = iris()
    found = select(
        X, Grid((1,), ("full",)), FitOptions(random_state=0), criterion=HELD_OUT, n_folds=len(X)
    ).best
    log_prob = [
        fit(np.delete(X, row, axis=0), FitOptions(1)).mixture.score(X[row : row + 1])
        for row in range(len(X))
    ]
    assert found.held_out is not None
    assert found.held_out.mean_log_likelihood == pytest.approx(np.mean(log_prob), rel=1e-12)
    error = np.std(log_prob, ddof=1) / np.sqrt(len(X))
    assert found.held_out.standard_error == pytest.approx(error, rel=1e-9)


# While it runs


def test_every_candidate_is_told_of_when_it_is_found_and_when_it_is_bettered() -> None:
    told: list[Candidate] = []
    selection = select(
        faithful(), Grid((2, 3, 4)), FitOptions(random_state=0), on_candidate=told.append
    )
    heights: dict[object, float] = {}
    for found in told:
        assert found.result is not None
        assert found.result.log_likelihood > heights.get(found.key, -np.inf)
        heights[found.key] = found.result.log_likelihood
    final = {
        found.key: found.result.log_likelihood
        for found in selection.candidates
        if found.result is not None
    }
    assert heights == final


def test_what_a_callback_raises_ends_the_search() -> None:
    def cancel(step: EMStep) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        select(iris(), small_grid(), on_step=cancel)


def test_when_the_time_is_up_what_was_found_so_far_is_compared() -> None:
    begun = time.monotonic()
    selection = select(iris(), Grid(), FitOptions(random_state=0), budget_seconds=0.0)
    assert time.monotonic() - begun < 5.0
    assert not selection.is_complete
    assert len(selection.candidates) == 1
    assert selection.best.result is not None


@pytest.mark.parametrize("seed", range(3))
def test_folds_that_collapse_win_nothing(seed: int) -> None:
    """Rows of zeros and ones, where a component on equal rows is as dense as the floor allows."""
    X = np.random.default_rng(seed).integers(0, 2, (100, 3)).astype(float)
    selection = select(X, Grid(range(1, 6)), FitOptions(random_state=0), criterion=HELD_OUT)
    collapsed = [found for found in selection.candidates if "degenerate_fold" in named(found)]
    assert max(value_of(found, HELD_OUT) or -np.inf for found in collapsed) > 10.0
    assert all(found.is_degenerate and found.held_out is not None for found in collapsed)

    best = selection.best
    assert best not in collapsed
    assert best.held_out is not None
    assert best.held_out.n_collapsed == 0
    assert best.result is not None
    assert best.held_out.mean_log_likelihood < best.result.criteria.mean_log_likelihood


@pytest.mark.parametrize("n_rows", [10, 20])
def test_where_the_variance_floor_decides_no_covariance_with_correlations_wins(n_rows: int) -> None:
    """Fewer rows than features lie in a plane, and are as dense beside it as one likes."""
    X = np.random.default_rng(2).standard_normal((n_rows, 20))
    selection = select(X, Grid((1, 2)), FitOptions(random_state=0))
    assert (selection.best.key.n_components, selection.best.key.covariance_type) == (1, "spherical")
    for found in selection.candidates:
        has_correlations = found.key.covariance_type in ("full", "tied")
        assert ("collinear_features" in named(found)) == has_correlations
        assert found.is_degenerate or not has_correlations


def named(found: Candidate) -> set[str]:
    return set() if found.result is None else {each.code for each in found.result.warnings}


def test_a_search_that_ends_before_rows_are_held_out_ranks_by_bic() -> None:
    asked = iter(range(10**6))

    selection = select(
        iris(),
        Grid((1, 2, 3), ("full",)),
        FitOptions(random_state=0),
        criterion=HELD_OUT,
        should_end=lambda: next(asked) >= 100,
    )

    bics = [found.result.criteria.bic for found in selection.ranked if found.result is not None]
    assert not selection.is_complete
    assert all(found.held_out is None for found in selection.candidates)
    assert len(bics) > 1
    assert bics == sorted(bics)


def test_what_a_candidate_whose_folds_were_cut_short_holds_out_is_not_told() -> None:
    n_told = 0

    def count(candidate: Candidate) -> None:
        nonlocal n_told
        n_told += candidate.held_out is not None

    def is_enough() -> bool:
        return n_told == 1

    selection = select(
        iris(),
        Grid((1, 2, 3), ("full",)),
        FitOptions(random_state=0),
        criterion=HELD_OUT,
        on_candidate=count,
        should_end=is_enough,
    )

    assert not selection.is_complete
    assert [found.held_out is not None for found in selection.candidates] == [True, False, False]
    assert selection.best is selection.candidates[0]


# What is refused


@pytest.mark.parametrize(
    ("n_components", "covariance_types"),
    [((), ("full",)), ((1, 1), ("full",)), ((0,), ("full",)), ((1,), ()), ((1,), ("round",))],
)
def test_a_grid_without_sense_is_refused(
    n_components: tuple[int, ...], covariance_types: tuple[str, ...]
) -> None:
    with pytest.raises(InvalidParameterError):
        Grid(n_components, covariance_types)


@pytest.mark.parametrize("wrong", [{"n_components": 3}, {"covariance_types": "full"}])
def test_a_grid_of_what_is_no_sequence_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidParameterError, match="must be a sequence"):
        Grid(**wrong)


def test_an_unknown_criterion_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(InvalidParameterError, match="held_out_log_likelihood"):
        select(iris(), small_grid(), criterion="likelihood")
    assert "bic" in SELECTION_CRITERIA


@pytest.mark.parametrize(("criterion", "n_rows"), [("bic", 3), (HELD_OUT, 6)])
def test_more_components_than_rows_to_fit_are_refused_at_once(criterion: str, n_rows: int) -> None:
    with pytest.raises(TooFewSamplesError):
        select(iris()[:n_rows], Grid((2, 4), ("full",)), criterion=criterion, n_folds=2)


@pytest.mark.parametrize("n_rows", [3, 50])
def test_of_rows_that_are_all_the_same_one_component_is_chosen(n_rows: int) -> None:
    X = np.tile([1.0, 2.0], (n_rows, 1))
    selection = select(X, Grid((1, 2), ("diag", "spherical")), FitOptions(random_state=0))
    assert len(selection.candidates) == 4
    assert selection.ranked[0].key.n_components == 1
