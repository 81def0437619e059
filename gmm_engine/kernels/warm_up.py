"""Compiles every pass ahead of its first use, or loads it from Numba's cache on disk."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

from gmm_engine.kernels import passes, steps
from gmm_engine.kernels.compilation import IS_KEPT
from gmm_engine.kernels.passes import Way


def warm_up(n_processes: int = 1, others: Iterable[Callable[[], object]] = ()) -> None:
    """Make every pass ready.

    Where they have not been compiled yet this takes a minute or two of one core; Numba keeps the
    result beside this package, or in ``NUMBA_CACHE_DIR``. After that it takes about a second.

    Parameters
    ----------
    n_processes : int
        With more than one, new processes share what there is to compile: for a first time. They
        import the caller's main module.
    others : iterable of callable
        What else is to be made ready by them, those that take longest first: functions that a
        new process can import, and that leave what they compile in Numba's cache.
    """
    everything = [*others, *_everything()]
    if n_processes > 1 and IS_KEPT:
        with ProcessPoolExecutor(n_processes, mp_context=get_context("spawn")) as pool:
            list(pool.map(_make_ready, everything))
    for make in everything:  # from the cache, if it was compiled elsewhere
        make()


def _everything() -> Iterator[Callable[[], object]]:
    """Yield what makes each compiled function, those that take longest first."""
    for way in (Way.GATHERED, Way.TILED, Way.SHARED, Way.WIDE_DIAGONAL, Way.DIAGONAL):
        yield partial(passes.expectation_pass, way, 0)
    yield steps.steps_loop
    for way in (Way.TILED, Way.SHARED, Way.DIAGONAL):
        yield partial(passes.scoring_pass, way, 0)
    for n_features in range(passes.MAX_UNROLLED_FEATURES, 0, -1):
        yield partial(passes.expectation_pass, Way.UNROLLED, n_features)
        yield partial(passes.scoring_pass, Way.UNROLLED, n_features)


def _make_ready(make: Callable[[], object]) -> None:
    """Make a function and keep it here: between processes it would be compiled anew."""
    make()
