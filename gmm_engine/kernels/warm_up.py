"""Compiles every pass ahead of its first use, or loads it from Numba's cache on disk."""

from gmm_engine.kernels import passes, steps
from gmm_engine.kernels.passes import Way


def warm_up() -> None:
    """Make every pass ready, for float64 and float32 rows.

    Where they have not been compiled yet this takes about a minute; Numba keeps the result beside
    this package, or in ``NUMBA_CACHE_DIR``. After that it takes about a second.
    """
    for n_features in range(1, passes.MAX_UNROLLED_FEATURES + 1):
        _make_ready(Way.UNROLLED, n_features)
    for way in (Way.TILED, Way.SHARED, Way.DIAGONAL):
        _make_ready(way, 0)
    steps.steps_loop()


def _make_ready(way: Way, n_features: int) -> None:
    passes.expectation_pass(way, n_features)
    passes.scoring_pass(way, n_features)
