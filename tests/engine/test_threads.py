"""Threads that share the ranges of a pass: where they may run, and who they work for."""

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context

import pytest

from gmm_engine import set_thread_count, thread_count
from gmm_engine.blas import one_blas_thread
from gmm_engine.errors import InvalidParameterError, OutOfRangeError
from gmm_engine.kernels.ranges import in_order

RANGES = [slice(i, i + 1) for i in range(8)]
has_affinity = pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity"), reason="this system has no affinity of threads"
)


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = thread_count()
    set_thread_count(2)
    yield
    set_thread_count(before)


def number(rows: slice) -> int:
    return int(rows.start)


def met_by_another_thread() -> dict[int, set[int]]:
    """Return the cores that each of two threads may run on while they work on a pass."""
    cores: dict[int, set[int]] = {}
    both = threading.Barrier(2, timeout=30)

    def work(rows: slice) -> None:
        if rows.start < 2:
            both.wait()
        cores[threading.get_ident()] = os.sched_getaffinity(0)

    list(in_order(work, RANGES))
    return cores


@has_affinity
def test_while_threads_share_a_pass_they_do_not_share_a_core() -> None:
    allowed = os.sched_getaffinity(0)
    cores = met_by_another_thread()
    assert len(cores) == 2
    here = cores.pop(threading.get_ident())
    (elsewhere,) = cores.values()
    if len(allowed) == 1:
        assert here == elsewhere == allowed
    else:
        assert here | elsewhere == allowed
        assert not here & elsewhere


@has_affinity
def test_after_a_pass_the_caller_may_run_where_it_could_before() -> None:
    before = os.sched_getaffinity(0)
    list(in_order(number, RANGES))
    assert os.sched_getaffinity(0) == before

    def fail(rows: slice) -> None:
        raise OutOfRangeError("each")

    with pytest.raises(OutOfRangeError):
        list(in_order(fail, RANGES))
    assert os.sched_getaffinity(0) == before


@has_affinity
def test_a_caller_confined_to_a_core_keeps_its_helpers_on_it() -> None:
    before = os.sched_getaffinity(0)
    try:
        for core in before:
            os.sched_setaffinity(0, {core})
            assert all(cores == {core} for cores in met_by_another_thread().values())
    finally:
        os.sched_setaffinity(0, before)


def test_callers_at_the_same_time_each_get_their_own_results() -> None:
    with ThreadPoolExecutor(8) as callers:
        answers = callers.map(lambda _: list(in_order(number, RANGES)), range(200))
        assert all(answer == list(range(8)) for answer in answers)


def _numbers_in_a_child() -> None:
    raise SystemExit(list(in_order(number, RANGES)) != list(range(8)))


def test_a_forked_child_has_helpers_of_its_own() -> None:
    list(in_order(number, RANGES))
    child = get_context("fork").Process(target=_numbers_in_a_child)
    child.start()
    child.join(30)
    assert child.exitcode == 0


@has_affinity
def test_an_interrupt_leaves_the_caller_where_it_could_run_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before, confine = os.sched_getaffinity(0), os.sched_setaffinity

    def interrupted(thread: int, cores: set[int]) -> None:
        confine(thread, cores)
        if thread == threading.get_native_id() and cores != before:
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "sched_setaffinity", interrupted)
    if len(before) > 1:
        with pytest.raises(KeyboardInterrupt):
            list(in_order(number, RANGES))
    assert os.sched_getaffinity(0) == before


@has_affinity
def test_where_a_system_confines_no_threads_passes_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(thread: int, cores: set[int]) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setaffinity", refused)
    assert list(in_order(number, RANGES)) == list(range(8))


@pytest.mark.parametrize("n_threads", [0, -1, 2.5, "a", None])
def test_a_number_of_threads_is_a_whole_number_of_at_least_one(n_threads: object) -> None:
    with pytest.raises(InvalidParameterError, match="n_threads"):
        set_thread_count(n_threads)  # type: ignore[arg-type]  # what is refused


def _fits_inside_in_a_child() -> None:
    with one_blas_thread:
        pass
    raise SystemExit(one_blas_thread._inside)


def test_a_child_forked_during_a_fit_does_not_wait_for_it() -> None:
    with one_blas_thread:
        one_blas_thread._lock.acquire()
        try:
            child = get_context("fork").Process(target=_fits_inside_in_a_child)
            child.start()
        finally:
            one_blas_thread._lock.release()
        child.join(30)
    assert child.exitcode == 0
