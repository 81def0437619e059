"""A worker of the process runner: ``python -m service.adapters.fit_worker``.

Gets ready, then runs the fits that its parent sends, one at a time, and reports; a selection it
shares with workers that its parent lends it, or helps with another's. It is below the server in
priority, limited in memory and processor time, the first to go when the machine runs
out of memory, and dies with its parent.
"""

import ctypes
import logging
import os
import queue
import resource
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import gmm_engine
from gmm_engine import EMStep, GmmEngineError
from gmm_engine.bench import Bench
from gmm_engine.samples import Samples
from service.adapters.fit_checkpoints import CheckpointFile
from service.adapters.fit_hands import GONE, Hands, help_leader
from service.adapters.fit_protocol import (
    MAX_TELL_CHARACTERS,
    Alive,
    Begun,
    Failed,
    Finished,
    Fit,
    Hand,
    Help,
    Helped,
    Progressed,
    ProtocolError,
    Ready,
    Stop,
    Stopped,
    Threads,
    Wire,
    most_steps,
)
from service.adapters.fit_results import head_of_result, send_result_arrays, send_transform
from service.adapters.fit_spool import mapped
from service.adapters.scheduling import step_back
from service.domain.fit_task import FitCancelled, FitOutcome, FitTask, run_fit_task
from service.domain.records import JobProgress

ALIVE_SECONDS = 1.0
PROGRESS_SECONDS = 0.1
NICE = 15
"""Once it is ready, which fits wait for."""
FIRST_TO_GO = "1000"
"""For the kernel's out-of-memory killer."""
PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Lead:
    """A fit to run, or a selection to lead."""

    fit: Fit
    file: int
    hands: Hands


@dataclass(frozen=True, slots=True)
class Share:
    """A selection to help with, over this wire."""

    help: Help
    file: int
    wire: Wire


class Inbox:
    """What the parent says: work, piece after piece, and meanwhile that it stop or who helps."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._work: queue.SimpleQueue[Lead | Share] = queue.SimpleQueue()
        self._current: Lead | Share | None = None
        self._stopped: set[str] = set()
        self._to_end: set[str] = set()
        threading.Thread(target=self._read, daemon=True).start()

    def next(self) -> Lead | Share:
        return self._work.get()

    def is_stopped(self, job_id: str) -> bool:
        return job_id in self._stopped

    def should_end(self, job_id: str) -> bool:
        """Tell whether the fit is to finish with the best it has."""
        return job_id in self._to_end

    def _read(self) -> None:
        with suppress(EOFError, OSError, ProtocolError):
            while True:
                match self._wire.receive():
                    case Fit() as fit:
                        (file,) = self._wire.take_files(1)
                        self._begin(Lead(fit, file, _hands_for(fit)))
                    case Help() as help_wanted:
                        file, end = self._wire.take_files(2)
                        wire = Wire(socket.socket(fileno=end))
                        self._begin(Share(help_wanted, file, wire))
                    case Hand() as hand:
                        (end,) = self._wire.take_files(1)
                        self._welcome(hand, end)
                    case Threads(count):
                        gmm_engine.set_thread_count(count)
                    case Stop(job_id, keep_best):
                        self._stop(job_id, keep_best=keep_best)
        os._exit(0)  # the parent is gone, or not itself

    def _begin(self, work: Lead | Share) -> None:
        self._stopped.clear()
        self._to_end.clear()
        self._current = work
        self._work.put(work)

    def _welcome(self, hand: Hand, end: int) -> None:
        match self._current:
            case Lead(fit, _, hands) if fit.job_id == hand.job_id:
                hands.welcome(hand, end)
            case _:
                os.close(end)

    def _stop(self, job_id: str, *, keep_best: bool) -> None:
        (self._to_end if keep_best else self._stopped).add(job_id)
        if isinstance(self._current, Share):
            self._current.wire.hang_up()  # it may wait for the next task


class Reporter:
    """Sends progress, but not more often than anyone could follow; the last is never left out."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._sent_at = -PROGRESS_SECONDS
        self._kept: JobProgress | None = None

    def progressed(self, progress: JobProgress) -> None:
        self._kept = progress
        if time.monotonic() - self._sent_at >= PROGRESS_SECONDS:
            self.flush()

    def flush(self) -> None:
        if self._kept is not None:
            self._wire.send(Progressed(self._kept))
            self._sent_at, self._kept = time.monotonic(), None


def main() -> None:
    descriptor, parent = map(int, sys.argv[1:])
    _die_with(parent)
    logging.disable()  # what there is to say is said to the parent
    gmm_engine.warm_up()
    _practise()
    step_back(NICE)
    _offer_to_go_first()
    wire = Wire(socket.socket(fileno=descriptor))
    inbox = Inbox(wire)
    wire.send(Ready())
    while True:
        match inbox.next():
            case Lead() as lead:
                _run(lead, wire, inbox)
            case Share() as share:
                _help(share, wire, inbox)


def _run(lead: Lead, wire: Wire, inbox: Inbox) -> None:
    wire.send(Begun())
    checkpoints = CheckpointFile(lead.fit, lead.file)
    begun = time.monotonic() - checkpoints.seconds_before
    with beating(wire):
        end = _end_of(lead, checkpoints, wire=wire, inbox=inbox)
        lead.hands.end()
    os.close(lead.file)
    if isinstance(end, FitOutcome):
        _send_outcome(wire, end, time.monotonic() - begun)
    else:
        wire.send(end)


def _help(share: Share, wire: Wire, inbox: Inbox) -> None:
    """Do tasks of a selection until it needs no more help; the leader does what goes wrong here."""
    fit = share.help.fit

    def go_on(_: EMStep) -> None:
        if inbox.is_stopped(fit.job_id) or not share.wire.is_silent():
            raise FitCancelled

    with beating(wire), suppress(FitCancelled, MemoryError, *GONE):
        gmm_engine.set_thread_count(share.help.n_threads)
        _limit(fit)
        task, _ = _task_of(fit, share.file).mapped()
        samples = Samples.checked(task.X, task.sample_weight)
        help_leader(share.wire, Bench(samples, fit.options, on_step=go_on), samples.n_features)
    share.wire.close()
    os.close(share.file)
    wire.send(Helped())


def _hands_for(fit: Fit) -> Hands:
    return Hands(n_features=fit.n_fitted_features, most_steps=most_steps(fit))


def _end_of(
    lead: Lead, checkpoints: CheckpointFile, *, wire: Wire, inbox: Inbox
) -> FitOutcome | Failed | Stopped:
    reporter, fit = Reporter(wire), lead.fit
    ends_at = time.monotonic() + fit.budget_seconds

    def is_over() -> bool:
        if inbox.is_stopped(fit.job_id):
            raise FitCancelled
        return inbox.should_end(fit.job_id) or time.monotonic() >= ends_at

    try:
        task = _task_of(fit, lead.file)
        _limit(fit)
        outcome = run_fit_task(
            task,
            on_progress=reporter.progressed,
            is_cancelled=lambda: inbox.is_stopped(fit.job_id),
            should_end=lambda: inbox.should_end(fit.job_id),
            checkpoints=checkpoints,
            seconds_before=checkpoints.seconds_before,
            spread=lead.hands.shared(is_over),
        )
    except FitCancelled:
        return Stopped()
    except GmmEngineError as error:
        return Failed(error.code, str(error)[:MAX_TELL_CHARACTERS])
    except MemoryError:
        return Failed("out_of_memory", "the fit needed more memory than it may take")
    except Exception:
        # The parent must hear of it whatever it is, and logs it.
        told = traceback.format_exc()[-MAX_TELL_CHARACTERS:]
        return Failed("internal_error", "the fit broke by an unexpected error", told)
    reporter.flush()
    return outcome


@contextmanager
def beating(wire: Wire) -> Iterator[None]:
    """Say again and again that the process is alive; nothing of it comes after the block."""
    over = threading.Event()

    def beat() -> None:
        with suppress(OSError):
            while not over.wait(ALIVE_SECONDS):
                wire.send(Alive())

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _task_of(fit: Fit, file: int) -> FitTask:
    weight = fit.rows.sample_weight
    return FitTask(
        job_id=fit.job_id,
        options=fit.options,
        X=mapped(file, fit.rows.X),
        sample_weight=None if weight is None else mapped(file, weight),
        budget_seconds=fit.budget_seconds,
        plan=fit.plan,
        preprocessing=fit.preprocessing,
    )


def _send_outcome(wire: Wire, outcome: FitOutcome, duration_seconds: float) -> None:
    wire.send(Finished(head_of_result(outcome.result), duration_seconds, outcome.selection))
    send_result_arrays(wire, outcome.result)
    send_transform(wire, outcome.result.mixture)


def _limit(fit: Fit) -> None:
    """Bound what this fit may take beyond what the process has taken so far."""
    resource.setrlimit(resource.RLIMIT_AS, (_address_space() + fit.memory_bytes, -1))
    usage = resource.getrusage(resource.RUSAGE_SELF)
    used = int(usage.ru_utime + usage.ru_stime) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (used + fit.cpu_seconds, -1))


def _address_space() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    return pages * resource.getpagesize()


def _practise() -> None:
    """Fit once, so that what libraries make at their first use is there before it is limited."""
    X = np.random.default_rng(0).normal(size=(64, 2))
    gmm_engine.fit(X, gmm_engine.FitOptions(n_components=2, random_state=0))


def _offer_to_go_first() -> None:
    """Be what the system ends before the server when memory runs out."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(FIRST_TO_GO, encoding="ascii")


def _die_with(parent: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the line above
        os._exit(0)


if __name__ == "__main__":
    main()
