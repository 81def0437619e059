"""Compiles every pass ahead of its first use, or loads it from Numba's cache on disk."""

from gmm_engine.kernels import passes, steps
from gmm_engine.kernels.passes import Way


def warm_up() -> None:
    """Make every pass ready, for float64 and float32 rows.

    Where they have not been compiled yet this takes a minute or two; Numba keeps the result beside
    this package, or in ``NUMBA_CACHE_DIR``. After that it takes about a second.

    One process compiles all of them: passes share an index in Numba's cache, and processes that
    write to it at the same time may find each other's code under their own names.
    """
    for n_features in range(1, passes.MAX_UNROLLED_FEATURES + 1):
        passes.expectation_pass(Way.UNROLLED, n_features)
        passes.scoring_pass(Way.UNROLLED, n_features)
    for way in (Way.TILED, Way.SHARED, Way.DIAGONAL, Way.WIDE_DIAGONAL):
        passes.expectation_pass(way, 0)
    for way in (Way.TILED, Way.SHARED, Way.DIAGONAL):
        passes.scoring_pass(way, 0)
    steps.steps_loop()
