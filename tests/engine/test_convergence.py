"""When a run is near its limit, as its log-likelihoods tell."""

import numpy as np

from gmm_engine.convergence import LimitEstimate


def steps_until_within(heights: list[float], tolerance: float) -> int | None:
    """Return after how many steps the limit is said to be near."""
    estimate = LimitEstimate()
    for n_steps, height in enumerate(heights):
        estimate.observe(height)
        if estimate.is_within(tolerance):
            return n_steps
    return None


def test_the_rest_of_a_geometric_climb_is_known() -> None:
    heights = [-(0.9**i) for i in range(300)]
    n_steps = steps_until_within(heights, 1e-4)
    assert n_steps is not None
    assert -heights[n_steps] <= 1e-4 <= 1.3 * -heights[n_steps - 1]


def test_a_quick_first_part_is_not_taken_for_the_whole_way() -> None:
    heights = [-1.0] + [-1e-3 * 0.95**i for i in range(300)]
    n_steps = steps_until_within(heights, 1e-4)
    assert n_steps is not None
    assert -heights[n_steps] <= 1.5e-4


def test_a_rate_that_rises_is_not_taken_for_the_last() -> None:
    rates = [0.2, 0.25, 0.4]
    heights = np.cumsum([0.0, *np.cumprod([1.0, *rates])]).tolist()
    assert steps_until_within(heights, 0.02) is None  # 0.02·0.4/0.6 would be


def test_a_plateau_is_left_where_the_rate_leads_beyond_one() -> None:
    gains = 1e-6 * np.cumprod([1.0, 0.3, 0.7, 0.9, *np.full(60, 1.1)])
    heights = np.cumsum([-1.0, *gains]).tolist()
    assert steps_until_within(heights, 1e-5) is None  # its rest would be less at a rate of 0.95
    beside_rounding = [1e7 * (1.0 + height) - 1e12 for height in heights]
    assert steps_until_within(beside_rounding, 1e4) is not None


def test_a_run_that_only_moves_up_and_down_in_place_has_arrived() -> None:
    """On the floor of a covariance the likelihood is rounded far above the tolerance."""
    heights = [-1e5 + 0.02 * np.sin(2.0 * i) for i in range(100)]
    assert steps_until_within(heights, 1e-3) is not None


def test_a_climb_with_falls_in_between_goes_on() -> None:
    heights = (-1e5 + np.cumsum([0.03, -0.01] * 100)).tolist()
    assert steps_until_within(heights, 1e-3) is None


def test_nothing_is_within_a_tolerance_of_nothing() -> None:
    assert steps_until_within([0.0] * 100, 0.0) is None
