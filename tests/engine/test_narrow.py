"""Groups so far apart that each is narrower than the variance floor, and what only looks so."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import adjusted_rand_score

from gmm_engine import COVARIANCE_FAMILIES, Blocks, FitOptions, Grid, fit, select
from gmm_engine.em import EMStep

every_family = pytest.mark.parametrize("covariance_type", COVARIANCE_FAMILIES)
TRUE = np.repeat([0, 1], 60)


def far_apart(seed: int, separation: float) -> NDArray[np.float64]:
    """Return two groups of 60 rows of spread one."""
    rng = np.random.default_rng(seed)
    near, far = rng.standard_normal((2, 60, 5))
    return np.vstack([near, far + separation * rng.standard_normal(5)])


@every_family
@pytest.mark.parametrize("separation", [1e6, 3e6, 1e8, 1e10])
@pytest.mark.parametrize("seed", [0, 2])
def test_groups_far_apart_are_told_apart(
    covariance_type: str, separation: float, seed: int
) -> None:
    X = far_apart(seed, separation)
    result = fit(X, FitOptions(2, covariance_type, random_state=0))
    assert result.converged
    assert adjusted_rand_score(TRUE, result.mixture.predict(X)) == 1.0
    assert {warning.code for warning in result.warnings} <= {"narrow_component"}
    from_truth = fit(X, FitOptions(2, covariance_type), start=TRUE)
    assert result.criteria.mean_log_likelihood == pytest.approx(
        from_truth.criteria.mean_log_likelihood, abs=1e-6
    )


def test_a_cluster_held_up_is_named_with_what_to_do() -> None:
    X = far_apart(2, 3e6)
    result = fit(X, FitOptions(2, random_state=0))
    assert [warning.code for warning in result.warnings] == ["narrow_component"] * 2
    assert {warning.component for warning in result.warnings} == {0, 1}
    assert f"component {result.warnings[0].component} is so narrow" in result.warnings[0].detail
    assert "give reg_covar as a number" in result.warnings[0].detail
    with_number = fit(X, FitOptions(2, random_state=0, reg_covar=1e-6))
    assert with_number.criteria.mean_log_likelihood == pytest.approx(-7.64, abs=0.01)


def test_groups_far_apart_are_told_apart_in_blocks() -> None:
    X = far_apart(0, 3e6)
    result = fit(Blocks(lambda: np.array_split(X, 7)), FitOptions(2, random_state=0))
    assert adjusted_rand_score(TRUE, result.mixture.predict(X)) == 1.0


def test_select_finds_groups_far_apart() -> None:
    X = far_apart(0, 1e8)
    selection = select(X, Grid(range(1, 4), ["full", "tied"]), FitOptions(random_state=0))
    best = selection.best.result
    assert best is not None
    assert selection.best.key.n_components == 2
    assert not selection.best.is_degenerate
    assert adjusted_rand_score(TRUE, best.mixture.predict(X)) == 1.0
    assert {warning.code for warning in best.warnings} == {"narrow_component"}


def repeated(X: NDArray[np.float64], rng: np.random.Generator) -> None:
    X[:40] = X[:2].repeat(20, axis=0) + 3.0


def on_a_lattice(X: NDArray[np.float64], rng: np.random.Generator) -> None:
    X[:, 2] = np.round(X[:, 2])


def on_a_plane(X: NDArray[np.float64], rng: np.random.Generator) -> None:
    X[:40, 2] = (X[:40, 0] + X[:40, 1]) / 3.0 + 2.0


def few_together(X: NDArray[np.float64], rng: np.random.Generator) -> None:
    X[:6] = X[0] + 5.0 + 1e-8 * rng.standard_normal((6, 3))


SINGULAR = {
    *(("full", made) for made in (repeated, on_a_lattice, on_a_plane, few_together)),
    *(("diag", made) for made in (repeated, on_a_lattice, few_together)),
    *(("spherical", made) for made in (repeated, few_together)),
}


@pytest.mark.parametrize("made", [repeated, on_a_lattice, on_a_plane, few_together])
@pytest.mark.parametrize("covariance_type", ["full", "diag", "spherical"])
def test_rows_that_are_repeated_few_or_in_line_stay_a_collapse_that_wins_nothing(
    covariance_type: str, made: Callable[[NDArray[np.float64], np.random.Generator], None]
) -> None:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((200, 3))
    made(X, rng)
    options = FitOptions(3, covariance_type, init_params="random_from_data", random_state=0)
    steps: list[EMStep] = []
    result = fit(X, replace(options, n_init=5), on_step=steps.append)
    on_them = np.zeros(len(X), dtype=int)
    on_them[X[:, 2] == 1.0 if made is on_a_lattice else np.arange(len(X)) < 6] = 1
    on_them[-20:] = 2
    tempting = fit(X, options, start=on_them, on_step=steps.append)
    assert "narrow_component" not in {w.code for w in (*result.warnings, *tempting.warnings)}
    assert not any(step.narrow for step in steps)
    if (covariance_type, made) in SINGULAR:
        assert {w.code for w in tempting.warnings} == {"degenerate_component"}


@pytest.mark.parametrize("covariance_type", ["full", "diag"])
def test_a_narrow_cluster_may_win_where_its_density_does(covariance_type: str) -> None:
    """A tenth of the rows lies a billion times as near together as the others."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((300, 2))
    X[:30] *= 1e-9
    result = fit(X, FitOptions(2, covariance_type, random_state=0))
    assert [(warning.code, warning.component) for warning in result.warnings] == [
        ("narrow_component", 1)
    ]
    assert adjusted_rand_score(np.arange(300) < 30, result.mixture.predict(X)) == 1.0
