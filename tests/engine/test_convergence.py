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


def test_a_rate_that_goes_on_rising_for_long_is_not_taken_for_the_last() -> None:
    """As a fit had it on its way to a plateau; in 1e-9 nats a row, of which 80,000 were to come."""
    gains = [754.0, 581.5, 451.4, 352.9, 278.2, 221.3, 178.0, 144.8, 119.5, 100.1, 85.26, 73.87]
    gains += [65.15, 58.48, 53.37, 49.49, 46.53, 44.30, 42.64, 41.40, 40.50, 39.87, 39.44, 39.16]
    heights = np.cumsum([0.0, *gains]).tolist()
    assert steps_until_within(heights, 600.0) is None


def test_the_little_that_an_accelerated_step_leaves_to_gain_at_once_is_not_the_rest() -> None:
    """As a fit of overlapping groups had it: 2.3e-3 nats were still to be gained."""
    estimate, height = LimitEstimate(), 0.0
    estimate.observe(height)
    for gain in 1.751e-6 * 0.9 ** np.arange(12):
        height += gain
        estimate.observe(height)
    height += 6.1e-6
    estimate.observe(height, accelerated=True)
    for gain in (1.672e-8, 1.347e-8, 1.328e-8):
        height += gain
        estimate.observe(height)
        assert not estimate.is_within(1e-6)


def test_a_rate_that_is_steady_behind_an_accelerated_step_counts() -> None:
    estimate, height = LimitEstimate(), 0.0
    estimate.observe(height)
    for gain in (1e-3, 8e-4, 6.4e-4, 5.12e-4):
        height += gain
        estimate.observe(height)
    height += 2e-3
    estimate.observe(height, accelerated=True)
    are_within = []
    for gain in (1e-8, 8e-9, 6.4e-9):
        height += gain
        estimate.observe(height)
        are_within.append(estimate.is_within(1e-6))
    assert are_within == [False, False, True]


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
