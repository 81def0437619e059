"""Workers that are killed, hang, take too much or talk nonsense; and what they know."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from gmm_engine import FitOptions
from service.adapters.fit_spool import FitSpool
from service.adapters.fit_worker import NICE
from service.adapters.runner_process import MOST_HANDOVERS, ProcessRunner, WorkerLimits
from service.errors import Unavailable
from tests.service.test_job_runner_contract import Recorder, long_task, order_of, task

PATIENCE_SECONDS = 60.0

# A worker that gets ready, hears of a fit, and answers with what it was told to.
TALKER = """
import os, socket, sys, time
from service.adapters.fit_protocol import *
def finished(n_iter, covariances_shape):
    mixture = MixtureHead(2, "full", covariances_shape)
    return Finished(ResultHead(mixture, 8.0, 11, -1.0, 0.0, n_iter, "converged", []), 0.1)
descriptor, parent = map(int, sys.argv[2:])
connection = socket.socket(fileno=descriptor)
wire = Wire(connection)
wire.send(Ready())
heard = [wire.receive()]
while not isinstance(heard[-1], Fit):
    heard.append(wire.receive())
wire.send(Begun())
match sys.argv[1]:
    case "bytes":
        connection.sendall(b"x" * 100)
    case "flood":
        connection.sendall(b"T" + b"\\xff" * 8)
    case "unknown":
        connection.sendall(b"T" + (10).to_bytes(8) + b'{"Who":{}}')
    case "ready":
        wire.send(Ready())
    case "result":
        wire.send(finished(n_iter=10**9, covariances_shape=[2, 2, 2]))
    case "shape":
        wire.send(finished(n_iter=1, covariances_shape=[10**6, 10**6]))
    case "halves":
        while Threads(2) not in heard:
            heard.append(wire.receive())
        wire.send(Failed("halved", ""))
    case "exit":
        os._exit(3)
time.sleep(60)
"""

# Workers the first few of which die as soon as a fit comes; they count themselves in a file.
MORTAL = """
import os, socket, sys
from pathlib import Path
from service.adapters import fit_worker
from service.adapters.fit_protocol import Ready, Wire
counter, n_mortal = Path(sys.argv[1]), int(sys.argv[2])
with counter.open("a") as file:
    file.write("x")
del sys.argv[1:3]
if len(counter.read_text()) > n_mortal:
    fit_worker.main()
connection = socket.socket(fileno=int(sys.argv[1]))
Wire(connection).send(Ready())
connection.recv(1, socket.MSG_PEEK)
os._exit(3)
"""


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProcessRunner]:
    """One worker that may be silent for four seconds."""
    runner = ProcessRunner(
        processes=1,
        queue_size=8,
        spool=FitSpool(tmp_path_factory.mktemp("spool")),
        limits=WorkerLimits(threads=1, silence_seconds=4.0),
    )
    runner.start()
    yield runner
    runner.close(0.0)


def begin(runner: ProcessRunner) -> Recorder:
    listener, begun = Recorder(), threading.Event()
    listener.on_progress = begun.set
    runner.submit(long_task(), listener)
    assert begun.wait(PATIENCE_SECONDS)
    return listener


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def is_well(runner: ProcessRunner) -> bool:
    listener = Recorder()
    runner.submit(task("next"), listener)
    return listener.wait() == "finished"


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGKILL, "worker_died"),
        (signal.SIGSEGV, "worker_died"),
        (signal.SIGXCPU, "time_limit_exceeded"),
        (signal.SIGSTOP, "worker_unresponsive"),
    ],
)
def test_a_worker_that_is_lost_is_a_failed_fit_and_is_replaced(
    runner: ProcessRunner, number: signal.Signals, code: str
) -> None:
    listener = begin(runner)
    (before,) = runner.worker_pids()

    os.kill(before, number)

    assert listener.wait() == "failed"
    assert listener.failures[0][0] == code
    assert is_well(runner)
    assert runner.worker_pids() != [before]


def test_a_worker_that_dies_with_nothing_to_do_is_replaced_and_no_fit_hears_of_it(
    runner: ProcessRunner,
) -> None:
    assert is_well(runner)
    (worker,) = runner.worker_pids()
    os.kill(worker, signal.SIGKILL)
    wait_for_end(worker)

    assert is_well(runner)


def test_a_fit_that_needs_too_much_memory_fails_and_its_worker_goes_on(
    tmp_path: Path,
) -> None:
    limits = WorkerLimits(threads=1, memory_bytes=2**25)
    runner = ProcessRunner(processes=1, queue_size=1, spool=FitSpool(tmp_path), limits=limits)
    runner.start()
    assert is_well(runner)
    before, listener = runner.worker_pids(), Recorder()
    rows = np.random.default_rng(0).normal(size=(2000, 256))

    # Covariances of 16 MiB, several times.
    runner.submit(task(X=rows, options=FitOptions(n_components=32, max_iter=1)), listener)

    assert listener.wait() == "failed"
    assert listener.failures[0][0] == "out_of_memory"
    assert is_well(runner)
    assert runner.worker_pids() == before
    runner.close(0.0)


def test_a_fit_whose_time_is_up_ends_with_the_best_it_has(tmp_path: Path) -> None:
    limits = WorkerLimits(max_seconds=0.3)
    runner = ProcessRunner(processes=1, queue_size=1, spool=FitSpool(tmp_path), limits=limits)
    runner.start()
    listener = Recorder()

    runner.submit(long_task(), listener)

    assert listener.wait() == "finished"
    assert listener.results[0].stop_reason == "time_budget"
    runner.close(0.0)


def test_a_worker_knows_no_setting_and_no_secret_and_steps_back(
    runner: ProcessRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GMM_DATABASE_URL", "s3cret")
    listener = begin(runner)
    os.kill(runner.worker_pids()[0], signal.SIGKILL)
    assert listener.wait() == "failed"
    assert is_well(runner)
    (pid,) = runner.worker_pids()

    environment = Path(f"/proc/{pid}/environ").read_bytes()

    assert b"s3cret" not in environment
    assert b"GMM_" not in environment
    assert os.getpriority(os.PRIO_PROCESS, pid) == NICE


def test_rows_leave_nothing_behind(runner: ProcessRunner, tmp_path: Path) -> None:
    assert is_well(runner)
    before = open_files()
    for number in range(3):
        assert is_well(runner), number

    until = time.monotonic() + PATIENCE_SECONDS
    while open_files() > before:  # a file is closed after the end was told
        assert time.monotonic() < until
        time.sleep(0.01)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("speech", "code"),
    [
        ("bytes", "worker_protocol"),
        ("flood", "worker_protocol"),
        ("unknown", "worker_protocol"),
        ("ready", "worker_protocol"),
        ("result", "worker_protocol"),
        ("shape", "worker_protocol"),
        ("exit", "worker_died"),
    ],
)
def test_a_worker_that_talks_nonsense_is_a_failed_fit(
    tmp_path: Path, speech: str, code: str
) -> None:
    command = [sys.executable, "-c", TALKER, speech]
    runner = ProcessRunner(processes=1, queue_size=1, spool=FitSpool(tmp_path), command=command)
    runner.start()
    listener = Recorder()

    runner.submit(task(), listener)

    assert listener.wait() == "failed"
    assert listener.failures[0][0] == code
    runner.close(0.0)


def test_a_fit_that_its_worker_never_began_is_handed_to_another(tmp_path: Path) -> None:
    listener = run_by_mortals(tmp_path, n_mortal=MOST_HANDOVERS - 1)

    assert (listener.wait(), listener.failures) == ("finished", [])
    assert listener.heard == ["started", "finished"]


def test_a_fit_that_no_worker_begins_fails_in_the_end(tmp_path: Path) -> None:
    listener = run_by_mortals(tmp_path, n_mortal=MOST_HANDOVERS)

    assert listener.wait() == "failed"
    assert listener.failures[0][0] == "worker_died"


def run_by_mortals(directory: Path, *, n_mortal: int) -> Recorder:
    command = [sys.executable, "-c", MORTAL, str(directory / "born"), str(n_mortal)]
    spool = FitSpool(directory / "spool")
    runner = ProcessRunner(processes=1, queue_size=1, spool=spool, command=command)
    runner.start()
    listener = Recorder()
    runner.submit(task(), listener)
    listener.wait()
    runner.close(1.0)
    return listener


def test_fits_that_run_share_the_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gmm_engine.thread_count", lambda: 4)
    command = [sys.executable, "-c", TALKER, "halves"]
    runner = ProcessRunner(processes=2, queue_size=2, spool=FitSpool(tmp_path), command=command)
    runner.start()
    first, second = Recorder(), Recorder()

    runner.submit(task("first"), first)
    assert not first.ended.wait(0.5)
    runner.submit(task("second"), second)

    assert (first.wait(), second.wait()) == ("failed", "failed")
    assert first.failures == second.failures == [("halved", "")]
    runner.close(0.0)


@pytest.mark.parametrize("damage", ["other rows", "cut off", "no head"])
def test_rows_that_are_not_whole_are_not_gone_on_with(runner: ProcessRunner, damage: str) -> None:
    asked = task()
    file, _ = runner.spool.keep("job", asked.X, asked.sample_weight)
    content = os.pread(file, 10_000, 0)
    damaged = {
        "other rows": content[:-1] + bytes([content[-1] ^ 1]),
        "cut off": content[:-1],
        "no head": bytes(4096) + content[4096:],
    }
    os.truncate(file, 0)
    os.pwrite(file, damaged[damage], 0)
    os.close(file)

    assert not runner.resume("job", order_of(asked), Recorder())


def test_a_checkpoint_that_can_not_be_read_is_as_good_as_none(runner: ProcessRunner) -> None:
    asked, listener = task(), Recorder()
    file, _ = runner.spool.keep("job", asked.X, asked.sample_weight)
    os.close(file)
    runner.spool.checkpoint("job").write_bytes(b"PK\x03\x04 torn")

    assert runner.resume("job", order_of(asked), listener)

    assert listener.wait() == "finished"


def test_what_is_kept_of_jobs_that_are_over_is_cleared(runner: ProcessRunner) -> None:
    for job_id in ("over", "open"):
        file, _ = runner.spool.keep(job_id, task().X, None)
        os.close(file)
    runner.spool.checkpoint("over").write_bytes(b"")

    runner.clear(lambda job_id: job_id == "open")

    assert list(runner.spool.job_ids()) == ["open"]


def test_a_runner_whose_workers_never_get_ready_can_not_be_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    command = [sys.executable, "-c", "raise SystemExit(3)"]
    runner = ProcessRunner(processes=2, queue_size=1, spool=FitSpool(tmp_path), command=command)
    runner.start()
    runner.check_usable()  # they may be starting yet
    until, code = time.monotonic() + PATIENCE_SECONDS, None
    while code is None:
        assert time.monotonic() < until
        try:
            runner.check_usable()
        except Unavailable as error:
            code = error.code
        time.sleep(0.01)
    runner.close(0.0)

    assert code == "no_worker"
    assert "worker_not_ready" in caplog.text


def test_workers_die_with_the_server(tmp_path: Path) -> None:
    code = """
import sys, time
from pathlib import Path
from service.adapters.fit_spool import FitSpool
from service.adapters.runner_process import ProcessRunner
runner = ProcessRunner(processes=1, queue_size=1, spool=FitSpool(Path(sys.argv[1])))
runner.start()
while not runner.worker_pids():
    time.sleep(0.01)
time.sleep(0.5)
print(*runner.worker_pids(), flush=True)
time.sleep(60)
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as server:  # noqa: S603  # our own code
        assert server.stdout is not None
        worker = int(server.stdout.readline())
        server.kill()
    wait_for_end(worker)


def wait_for_end(pid: int) -> None:
    until = time.monotonic() + PATIENCE_SECONDS
    while _lives(pid):
        assert time.monotonic() < until
        time.sleep(0.05)


def _lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
