"""Compiles every pass ahead of its first use, or loads it from Numba's cache on disk."""

from gmm_engine.kernels import passes, steps
from gmm_engine.kernels.prepared import way_of_weighing


def warm_up() -> None:
    """Make every pass ready, for float64 and float32 rows.

    Where they have not been compiled yet this takes about a minute; Numba keeps the result beside
    this package, or in ``NUMBA_CACHE_DIR``. After that it takes about a second.
    """
    for n_features in range(1, passes.MAX_UNROLLED_FEATURES + 2):
        _make_ready(way_of_weighing(n_features, is_dense=True))
    _make_ready(way_of_weighing(1, is_dense=False))
    steps.steps_loop()


def _make_ready(way: tuple[bool, bool, int]) -> None:
    passes.expectation_pass(*way)
    passes.scoring_pass(*way)
