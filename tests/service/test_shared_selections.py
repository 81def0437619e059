"""A selection that several workers share: the same table, whatever becomes of those who help."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from gmm_engine import COVARIANCE_FAMILIES, FitOptions
from service.adapters.fit_spool import FitSpool
from service.adapters.runner_process import ProcessRunner, WorkerLimits
from service.domain.fit_task import FitTask
from service.domain.records import SelectionPlan
from tests.service.test_job_runner_contract import Recorder, long_task, task
from tests.support.data import faithful, iris

PATIENCE_SECONDS = 120.0
TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


def runner_of(processes: int, directory: Path) -> ProcessRunner:
    """Return a runner whose workers are all ready."""
    runner = ProcessRunner(
        processes=processes,
        queue_size=8,
        spool=FitSpool(directory),
        limits=WorkerLimits(threads=2),
    )
    runner.start()
    for number in range(processes):
        begun(runner, long_task(f"first-{number}"))
    for number in range(processes):
        runner.cancel(f"first-{number}")
    return runner


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProcessRunner]:
    """Two workers, both ready."""
    runner = runner_of(2, tmp_path_factory.mktemp("spool"))
    yield runner
    runner.close(0.0)


def selection(job_id: str = "job", *, most: int = 4, criterion: str = "bic") -> FitTask:
    plan = SelectionPlan(tuple(range(1, most + 1)), tuple(COVARIANCE_FAMILIES), criterion, 3)
    return FitTask(job_id, FitOptions(random_state=0), faithful(), plan=plan)


def until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.005)


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_A_SECOND


def leader_of(runner: ProcessRunner, job_id: str) -> int:
    until(lambda: job_id in runner._running)
    return runner._running[job_id][1].process.pid


def is_shared(runner: ProcessRunner, job_id: str) -> bool:
    """Tell whether a helper works: its processor time goes on."""
    (helper,) = set(runner.worker_pids()) - {leader_of(runner, job_id)}
    before = processor_seconds(helper)
    until(lambda: processor_seconds(helper) > before + 0.02)
    return True


def begun(runner: ProcessRunner, asked: FitTask) -> Recorder:
    listener, has_begun = Recorder(), threading.Event()
    listener.on_progress = has_begun.set
    runner.submit(asked, listener)
    assert has_begun.wait(PATIENCE_SECONDS)
    return listener


@pytest.mark.parametrize("criterion", ["bic", "held_out_log_likelihood"])
def test_two_workers_find_what_one_finds_to_the_last_bit(
    pair: ProcessRunner, tmp_path: Path, criterion: str
) -> None:
    single = runner_of(1, tmp_path)
    alone, shared = Recorder(), Recorder()
    single.submit(selection(criterion=criterion), alone)
    pair.submit(selection(criterion=criterion), shared)

    assert (alone.wait(), shared.wait()) == ("finished", "finished")
    single.close(0.0)

    assert shared.selections == alone.selections
    for name, array in alone.results[0].mixture.to_arrays().items():
        np.testing.assert_array_equal(shared.results[0].mixture.to_arrays()[name], array)


def test_a_worker_with_nothing_to_do_helps(pair: ProcessRunner) -> None:
    listener = begun(pair, selection("helped", most=9))

    assert is_shared(pair, "helped")
    pair.cancel("helped")
    assert listener.wait() == "cancelled"


def test_a_helper_that_is_killed_is_replaced_and_the_table_is_whole(pair: ProcessRunner) -> None:
    listener = begun(pair, selection("robbed", most=6))
    assert is_shared(pair, "robbed")
    (helper,) = set(pair.worker_pids()) - {leader_of(pair, "robbed")}

    os.kill(helper, signal.SIGKILL)

    assert listener.wait() == "finished"
    (table,) = listener.selections
    assert table is not None
    assert table.is_complete
    assert len(table.candidates) == 24
    until(lambda: len(set(pair.worker_pids()) - {helper}) == 2)


def test_a_helper_goes_back_to_a_fit_that_waits(pair: ProcessRunner) -> None:
    listener = begun(pair, selection("patient", most=9))
    assert is_shared(pair, "patient")
    fit = Recorder()

    pair.submit(task("urgent", X=iris()), fit)

    assert fit.wait() == "finished"
    assert not listener.ended.is_set()
    pair.cancel("patient")
    assert listener.wait() == "cancelled"


@pytest.mark.parametrize(("keep_best", "end"), [(False, "cancelled"), (True, "finished")])
def test_a_shared_selection_that_is_cancelled_ends_at_once_for_all(
    pair: ProcessRunner, *, keep_best: bool, end: str
) -> None:
    listener = begun(pair, selection("cancelled", most=9))
    assert is_shared(pair, "cancelled")

    pair.cancel("cancelled", keep_best=keep_best)

    assert listener.wait() == end
    fits = [Recorder(), Recorder()]
    for number, fit in enumerate(fits):
        pair.submit(task(f"next-{number}"), fit)
    assert [fit.wait() for fit in fits] == ["finished", "finished"]


def test_the_last_progress_names_every_candidate(pair: ProcessRunner) -> None:
    listener = Recorder()
    pair.submit(selection("told"), listener)

    assert listener.wait() == "finished"
    leaderboard = listener.progress[-1].leaderboard
    assert leaderboard is not None
    assert len(leaderboard.leaders) == leaderboard.n_candidates == 16


def test_a_runner_that_is_closed_ends_leader_and_helper(tmp_path: Path) -> None:
    runner = runner_of(2, tmp_path)
    listener = begun(runner, selection("left", most=9))
    assert is_shared(runner, "left")
    workers = runner.worker_pids()

    runner.close(0.0)

    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))
    assert not listener.ended.is_set()
