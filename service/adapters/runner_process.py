"""Each fit in a process of its own, from a few that were started beforehand.

Each worker has a thread here that talks to it: hands it fits from a bounded queue, relays what it
reports, and ends and replaces it when it dies, falls silent, takes too long or talks nonsense.
What they say is in ``fit_protocol``, what a worker does in ``fit_worker``.
"""

import logging
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import gmm_engine
from gmm_engine import Criteria, FitResult, FitWarning, GmmEngineError, Mixture, StopReason
from gmm_engine.sweep import N_STAGES
from service.adapters import refusals
from service.adapters.fit_protocol import (
    Alive,
    Failed,
    Finished,
    Fit,
    Message,
    Progressed,
    ProtocolError,
    Ready,
    Stop,
    Stopped,
    Wire,
    stored,
)
from service.domain.fit_task import FitOutcome, FitTask
from service.domain.ports import FitListener
from service.errors import TooManyRequests, Unavailable

logger = logging.getLogger(__name__)

GIBIBYTE = 2**30
QUEUE_RETRY_SECONDS = 5
START_SECONDS = 300.0
"""How long a worker may take to get ready; compiling the engine's passes takes a minute."""
RESTART_SECONDS = 1.0
"""Between attempts to start a worker that does not get ready."""
CANCEL_GRACE_SECONDS = 2.0
"""How long a worker may go on with the EM step that a cancelled fit is in."""
TIME_GRACE_SECONDS = 30.0
"""How long a fit may go on after its time, to end by itself with the best it has."""
WORKER = (sys.executable, "-m", "service.adapters.fit_worker")
INHERITED = ("PATH", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "NUMBA_CACHE_DIR")
"""What a worker keeps of the environment: no setting and no secret."""


@dataclass(frozen=True, slots=True)
class WorkerLimits:
    threads: int = 0
    """Of each fit; 0 takes as many as there are cores."""
    memory_bytes: int = 4 * GIBIBYTE
    """What a fit may take beside what a worker has taken at its start."""
    max_seconds: float = 3600.0
    silence_seconds: float = 30.0
    """A worker that says nothing for so long is hung."""


@dataclass(frozen=True, slots=True)
class _QueuedFit:
    task: FitTask
    listener: FitListener
    message: Fit
    file: int
    cancelled: threading.Event = field(default_factory=threading.Event)

    def close(self) -> None:
        os.close(self.file)


class _Broken(Exception):
    """The worker can't be used any more; why, for the job."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


class _Worker:
    """One worker process; it dies with the thread that made it."""

    def __init__(self, command: Sequence[str], n_threads: int) -> None:
        ours, theirs = socket.socketpair()
        self.wire = Wire(ours)
        with theirs:
            self.process = subprocess.Popen(  # noqa: S603  # our own module
                [*command, str(theirs.fileno()), str(os.getpid()), str(n_threads)],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=_environment(),
                cwd="/",
                start_new_session=True,  # a Ctrl-C is the server's to answer
            )

    def stop(self, job_id: str) -> None:
        with suppress(OSError):
            self.wire.send(Stop(job_id))

    def kill(self) -> int:
        """End it if it still lives; return how it ended."""
        self.process.kill()
        self.wire.close()
        return self.process.wait()


class ProcessRunner:
    """Implements ``JobRunner``."""

    def __init__(
        self,
        *,
        processes: int,
        queue_size: int,
        spool: Path,
        limits: WorkerLimits | None = None,
        command: Sequence[str] = WORKER,
    ) -> None:
        self._queue_size = queue_size
        self._spool = spool
        self._limits = limits or WorkerLimits()
        self._command = command
        self._queue: deque[_QueuedFit] = deque()
        self._running: dict[str, tuple[_QueuedFit, _Worker]] = {}
        self._workers: set[_Worker] = set()
        self._closed = False
        self._changed = threading.Condition()
        for number in range(processes):
            # Daemons, so that a fit that outlasts the drain does not hold up the exit.
            threading.Thread(target=self._work, name=f"fit-{number}", daemon=True).start()

    def submit(self, task: FitTask, listener: FitListener) -> None:
        self._require_room()
        fit = self._stored(task, listener)
        try:
            with self._changed:
                self._require_room()
                self._queue.append(fit)
                self._changed.notify_all()
        except Exception:
            fit.close()
            raise

    def cancel(self, job_id: str) -> None:
        queued = running = None
        with self._changed:
            running = self._running.get(job_id)
            queued = next((fit for fit in self._queue if fit.task.job_id == job_id), None)
            if queued is not None:
                self._queue.remove(queued)
                self._changed.notify_all()
        if running is not None:
            fit, worker = running
            fit.cancelled.set()
            worker.stop(job_id)
        if queued is not None:
            queued.close()
            queued.listener.cancelled()

    def close(self, timeout_seconds: float) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if not self._idle_within(timeout_seconds):
            for job_id in self._left():
                self.cancel(job_id)
            self._idle_within(2 * CANCEL_GRACE_SECONDS)
        with self._changed:
            for worker in self._workers:
                worker.process.kill()

    def worker_pids(self) -> list[int]:
        """Return the process ids of the workers, to look at them."""
        with self._changed:
            return sorted(worker.process.pid for worker in self._workers)

    def _require_room(self) -> None:
        if self._closed:
            raise Unavailable.draining()
        if len(self._queue) >= self._queue_size:
            raise TooManyRequests(
                "fit_queue_full",
                f"{self._queue_size} fits are waiting already; try again later",
                retry_after_seconds=QUEUE_RETRY_SECONDS,
            )

    def _stored(self, task: FitTask, listener: FitListener) -> _QueuedFit:
        arrays = [task.X] if task.sample_weight is None else [task.X, task.sample_weight]
        with refusals.writing():
            file, places = stored(arrays, self._spool)
        seconds = min(task.budget_seconds or self._limits.max_seconds, self._limits.max_seconds)
        threads = self._limits.threads or gmm_engine.thread_count()
        message = Fit(
            job_id=task.job_id,
            options=task.options,
            X=places[0],
            sample_weight=places[1] if len(places) > 1 else None,
            budget_seconds=seconds,
            memory_bytes=self._limits.memory_bytes,
            cpu_seconds=int(threads * (seconds + TIME_GRACE_SECONDS)) + 1,
            plan=task.plan,
        )
        # The rows wait on the disk from here on.
        return _QueuedFit(_without_rows(task), listener, message, file)

    def _idle_within(self, timeout_seconds: float) -> bool:
        with self._changed:
            return self._changed.wait_for(
                lambda: not self._queue and not self._running, timeout_seconds
            )

    def _left(self) -> list[str]:
        with self._changed:
            return [fit.task.job_id for fit in self._queue] + list(self._running)

    def _work(self) -> None:
        """Keep one worker and run fits in it, until the runner is closed."""
        worker = self._started()
        while (fit := self._next()) is not None:
            if not worker.wire.is_silent():  # it died while it had nothing to do
                self._ended(worker)
                worker = self._started()
            with self._changed:
                self._running[fit.task.job_id] = fit, worker
            is_whole = self._run(fit, worker)
            with self._changed:
                del self._running[fit.task.job_id]
                self._changed.notify_all()
            if not is_whole:
                self._ended(worker)
                worker = self._started()
        self._ended(worker)

    def _started(self) -> _Worker:
        while True:
            try:
                worker = _Worker(self._command, self._limits.threads)
            except OSError:
                logger.exception("worker_not_started")
            else:
                if self._is_ready(worker) or self._closed:
                    return worker
                logger.error("worker_not_ready", extra={"exit": self._ended(worker)})
            time.sleep(RESTART_SECONDS)

    def _is_ready(self, worker: _Worker) -> bool:
        with self._changed:
            self._workers.add(worker)
        try:
            return worker.wire.receive(until=time.monotonic() + START_SECONDS) == Ready()
        except (OSError, EOFError, ProtocolError):
            return False

    def _ended(self, worker: _Worker) -> int:
        with self._changed:
            self._workers.discard(worker)
        return worker.kill()

    def _next(self) -> _QueuedFit | None:
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closed)
            return self._queue.popleft() if self._queue else None

    def _run(self, fit: _QueuedFit, worker: _Worker) -> bool:
        """Run one fit; tell whether the worker can be used again."""
        try:
            return self._relayed(fit, worker)
        except _Broken as broken:
            # Seen before anyone else waits for it, so that the report can say how it ended.
            code = worker.kill()
            logger.warning("worker_replaced", extra={"code": broken.code, "exit": code})
            if fit.cancelled.is_set():
                fit.listener.cancelled()
            else:
                fit.listener.failed(broken.code, broken.detail)
        except Exception:
            # The listener broke: the fit is worth nothing, and neither is a worker in its middle.
            logger.exception("fit_listener_broke", extra={"job": fit.task.job_id})
            worker.kill()
            with suppress(Exception):
                fit.listener.failed("internal_error", "the fit broke by an unexpected error")
        finally:
            fit.close()
        return False

    def _relayed(self, fit: _QueuedFit, worker: _Worker) -> bool:
        fit.listener.started()
        call = _Call(fit, worker, self._limits)
        call.send()
        while True:
            match call.receive():
                case Alive():
                    pass
                case Progressed(progress):
                    if not fit.cancelled.is_set():
                        fit.listener.progressed(progress)
                case Finished() as end:
                    outcome = call.outcome(end)
                    fit.listener.finished(outcome, end.duration_seconds)
                    return True
                case Failed(code, detail, traceback):
                    if traceback is not None:
                        logger.error("fit_broke", extra={"traceback": traceback})
                    fit.listener.failed(code, detail)
                    return True
                case Stopped():
                    fit.listener.cancelled()
                    return True
                case _:
                    raise _nonsense()


@dataclass(slots=True)
class _Call:
    """One fit's conversation with its worker: how long each may take, and what may be said."""

    fit: _QueuedFit
    worker: _Worker
    limits: WorkerLimits
    ends_by: float = 0.0
    stops_by: float = float("inf")

    def send(self) -> None:
        self.ends_by = time.monotonic() + self.fit.message.budget_seconds + TIME_GRACE_SECONDS
        try:
            self.worker.wire.send(self.fit.message, file=self.fit.file)
        except OSError as error:
            raise _died(self.worker) from error
        if self.fit.cancelled.is_set():  # asked before the worker knew of the fit
            self.worker.stop(self.fit.task.job_id)

    def receive(self) -> Message:
        now = time.monotonic()
        if self.fit.cancelled.is_set():
            self.stops_by = min(self.stops_by, now + CANCEL_GRACE_SECONDS)
        if now > self.ends_by:
            raise _Broken("time_limit_exceeded", "the fit took longer than a fit may take")
        if now > self.stops_by:
            raise _Broken("worker_unresponsive", "the fit did not stop when it was asked to")
        until = min(now + self.limits.silence_seconds, self.ends_by, self.stops_by)
        try:
            return self.worker.wire.receive(until=until)
        except TimeoutError:
            if until < now + self.limits.silence_seconds:
                return Alive()  # nothing was said yet; the clocks are looked at again
            raise _Broken(
                "worker_unresponsive", "the fit's process fell silent and was ended"
            ) from None
        except (EOFError, OSError) as error:
            raise _died(self.worker) from error
        except ProtocolError as error:
            raise _nonsense() from error

    def outcome(self, end: Finished) -> FitOutcome:
        """Receive the arrays of the result; refuse what can't be one."""
        task, (_, n_features) = self.fit.task, self.fit.message.X.shape
        n_components, covariances = end.n_components, tuple(end.covariances_shape)
        is_possible = (
            _is_asked_for(task, end)
            and 0 <= end.n_iter <= _most_steps(task)
            and min(covariances, default=0) > 0
            and math.prod(covariances) <= n_components * n_features**2
        )
        if not is_possible:
            raise _nonsense()
        shapes = {
            "weights": (n_components,),
            "means": (n_components, n_features),
            "covariances": covariances,
        }
        try:
            arrays = {name: self._numbers(shape) for name, shape in shapes.items()}
            result = FitResult(
                mixture=Mixture.from_arrays(arrays, end.covariance_type),
                criteria=Criteria(
                    n_samples=end.n_samples,
                    n_parameters=end.n_parameters,
                    log_likelihood=end.log_likelihood,
                    log_max_resp=end.log_max_resp,
                ),
                log_likelihoods=self._numbers((end.n_iter,)),
                n_iter=end.n_iter,
                stop_reason=StopReason(end.stop_reason),
                warnings=tuple(FitWarning(w.code, w.detail) for w in end.warnings),
            )
            return FitOutcome(result, end.selection)
        except (EOFError, OSError) as error:
            raise _died(self.worker) from error
        except (ProtocolError, ValueError, GmmEngineError) as error:
            raise _nonsense() from error

    def _numbers(self, shape: tuple[int, ...]) -> NDArray[np.float64]:
        until = time.monotonic() + self.limits.silence_seconds
        return self.worker.wire.receive_numbers(shape, until=until)


def _without_rows(task: FitTask) -> FitTask:
    return replace(task, X=np.empty((0, 0)), sample_weight=None)


def _is_asked_for(task: FitTask, end: Finished) -> bool:
    """Tell whether a mixture of this form can be the task's result."""
    if task.plan is None:
        asked = task.options
        return (end.n_components, end.covariance_type, end.selection) == (
            asked.n_components,
            asked.covariance_type,
            None,
        )
    return (
        end.n_components in task.plan.n_components
        and end.covariance_type in task.plan.covariance_types
        and end.selection is not None
    )


def _most_steps(task: FitTask) -> int:
    """Return what a run may take, or one that was begun and gone on with twice."""
    return task.options.max_iter * (1 if task.plan is None else N_STAGES)


def _died(worker: _Worker) -> _Broken:
    code = worker.kill()
    if code == -signal.SIGXCPU:
        return _Broken("time_limit_exceeded", "the fit took more processor time than it may take")
    how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
    return _Broken(
        "worker_died",
        f"the fit's process ended {how} before the fit did; try again, with fewer rows or "
        "components if the machine ran out of memory",
    )


def _nonsense() -> _Broken:
    return _Broken("worker_protocol", "the fit's process said something that makes no sense")


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in INHERITED if name in os.environ}
    one_blas_thread = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    return {**kept, **one_blas_thread, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
