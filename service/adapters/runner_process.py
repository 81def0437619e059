"""Each fit in a process of its own, from a few that were started beforehand.

Each worker has a thread here that talks to it: hands it fits from a bounded queue, relays what it
reports, and ends and replaces it when it dies, falls silent, takes too long or talks nonsense.
What they say is in ``fit_protocol``, what a worker does in ``fit_worker``; where the rows are until
the end, and how far a fit has come, in ``fit_spool`` and ``fit_checkpoints``.
"""

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import gmm_engine
from gmm_engine import FitOptions
from gmm_engine.preprocessing import Preprocessing
from service.adapters import refusals
from service.adapters.fit_protocol import (
    Alive,
    Begun,
    Failed,
    Finished,
    Fit,
    Hand,
    Help,
    Helped,
    Message,
    Progressed,
    ProtocolError,
    Ready,
    Stop,
    Stopped,
    Threads,
    Wire,
    most_steps,
)
from service.adapters.fit_results import receive_result, receive_transform
from service.adapters.fit_spool import FitSpool, StoredRows, mapped
from service.domain.fit_task import FitOutcome, FitTask, digest_of
from service.domain.ports import FitListener
from service.domain.records import FitOrder, SelectionPlan
from service.errors import TooManyRequests, Unavailable

logger = logging.getLogger(__name__)

GIBIBYTE = 2**30
QUEUE_RETRY_SECONDS = 5
START_SECONDS = 300.0
"""How long a worker may take to get ready; compiling the engine's passes takes a minute."""
RESTART_SECONDS = 1.0
"""Between attempts to start a worker that does not get ready."""
RECALL_SECONDS = 0.02
"""How often it is looked whether a worker that helps is needed for a fit of its own."""
CANCEL_GRACE_SECONDS = 2.0
"""How long a worker may go on with the EM step that a cancelled fit is in."""
MOST_HANDOVERS = 3
"""Of one fit, to workers that died before they began it; the next ones may just as well."""
WORKER_DIED = "worker_died"
CLOSE_SECONDS = 2.0
"""How long a version that is being stored may take once the time is up."""
TIME_GRACE_SECONDS = 30.0
"""How long a fit may go on after its time, to end by itself with the best it has."""
WORKER = (sys.executable, "-m", "service.adapters.fit_worker")
INHERITED = ("PATH", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "NUMBA_CACHE_DIR")
"""What a worker keeps of the environment: no setting and no secret."""


@dataclass(frozen=True, slots=True)
class WorkerLimits:
    threads: int = 0
    """Of each fit; 0 shares out the cores among those that run."""
    memory_bytes: int = 4 * GIBIBYTE
    """What a fit may take beside what a worker has taken at its start."""
    max_seconds: float = 3600.0
    silence_seconds: float = 30.0
    """A worker that says nothing for so long is hung."""
    checkpoint_seconds: float = 5.0
    """How often a fit's state is written down, to go on from there after a restart."""


@dataclass(slots=True, eq=False)
class _QueuedFit:
    message: Fit
    listener: FitListener
    file: int
    is_held: bool
    """Until its turn has come, however many workers have nothing to do."""
    n_handovers: int = 0
    has_begun: bool = False
    """In the worker that it was handed to last."""
    is_to_be_handed_on: bool = False
    cancelled: threading.Event = field(default_factory=threading.Event)
    to_end: threading.Event = field(default_factory=threading.Event)
    """Asked to finish with the best so far."""
    wants_help: threading.Event = field(default_factory=threading.Event)
    """Led by a worker that has tasks for others."""

    def close(self) -> None:
        os.close(self.file)

    def hand_over(self) -> None:
        self.n_handovers += 1
        self.has_begun = self.is_to_be_handed_on = False

    def hand_on(self) -> bool:
        """Leave it to another worker, this one having died, if it may yet be any the better."""
        is_lost = self.has_begun or self.cancelled.is_set() or self.n_handovers >= MOST_HANDOVERS
        self.is_to_be_handed_on = not is_lost
        self.wants_help.clear()
        return self.is_to_be_handed_on

    @property
    def job_id(self) -> str:
        return self.message.job_id

    @property
    def takes_help(self) -> bool:
        """Tell whether other workers may share it: a selection that is to go on to its end."""
        is_to_stop = self.cancelled.is_set() or self.to_end.is_set()
        return self.wants_help.is_set() and not is_to_stop


class _Broken(Exception):
    """The worker can't be used any more; why, for the job."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


class _Worker:
    """One worker process; it dies with the thread that made it."""

    def __init__(self, command: Sequence[str]) -> None:
        ours, theirs = socket.socketpair()
        self.wire = Wire(ours)
        with theirs:
            self.process = subprocess.Popen(  # noqa: S603  # our own module
                [*command, str(theirs.fileno()), str(os.getpid())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=_environment(),
                cwd="/",
                process_group=0,  # a Ctrl-C is the server's to answer
            )

    def stop(self, job_id: str, *, keep_best: bool = False) -> None:
        with suppress(OSError):
            self.wire.send(Stop(job_id, keep_best))

    def take_threads(self, count: int) -> None:
        """Nothing waits for it: a hung worker does not hold up who tells it."""
        with suppress(OSError):
            if self.wire.has_room():
                self.wire.send(Threads(count))

    def kill(self) -> int:
        """End it if it still lives; return how it ended."""
        self.process.kill()
        self.wire.close()
        return self.process.wait()


@dataclass(frozen=True, slots=True)
class _Shared:
    """A selection that a worker with nothing to do may help with."""

    fit: _QueuedFit
    leader: _Worker


class ProcessRunner:
    """Implements ``JobRunner``."""

    def __init__(
        self,
        *,
        processes: int,
        queue_size: int,
        spool: FitSpool,
        limits: WorkerLimits | None = None,
        command: Sequence[str] = WORKER,
    ) -> None:
        self._queue_size = queue_size
        self.spool = spool
        self._limits = limits or WorkerLimits()
        self._command = command
        self._processes = processes
        self._queue: deque[_QueuedFit] = deque()
        self._running: dict[str, tuple[_QueuedFit, _Worker]] = {}
        self._workers: set[_Worker] = set()
        self._n_failing = 0
        """Threads whose worker did not get ready when it was last started."""
        self._closed = False
        self._left_alone = False
        """The time is up: what ends now is no fit's end."""
        self._changed = threading.Condition()
        self._sharing = threading.Lock()
        """So that what is told last is true."""

    def start(self) -> None:
        for number in range(self._processes):
            # Daemons, so that a fit that outlasts the drain does not hold up the exit.
            threading.Thread(target=self._work, name=f"fit-{number}", daemon=True).start()

    def require_place(self) -> None:
        if self._closed:
            raise Unavailable.draining()
        if len(self._queue) >= self._queue_size:
            raise TooManyRequests(
                "fit_queue_full",
                f"{self._queue_size} fits are waiting already; try again later",
                retry_after_seconds=QUEUE_RETRY_SECONDS,
            )

    def submit(self, task: FitTask, listener: FitListener, *, is_held: bool = False) -> None:
        self.require_place()
        with refusals.writing():
            file, rows = self.spool.keep(task.job_id, task.X, task.sample_weight)
        message = self._message(
            task.job_id,
            rows,
            options=task.options,
            budget_seconds=task.budget_seconds,
            plan=task.plan,
            preprocessing=task.preprocessing,
        )
        fit = _QueuedFit(message, listener, file, is_held)
        try:
            with self._changed:
                self.require_place()
                self._queue.append(fit)
                self._changed.notify_all()
        except Exception:
            self._forget(fit)
            raise

    def resume(
        self, job_id: str, order: FitOrder, listener: FitListener, *, is_held: bool = False
    ) -> bool:
        found = self.spool.find(job_id)
        if found is None:
            return False
        file, rows = found
        if _digest_of(file, rows) != order.data_digest:
            os.close(file)
            return False
        message = self._message(
            job_id,
            rows,
            options=order.options,
            budget_seconds=order.budget_seconds,
            plan=order.plan,
            preprocessing=order.preprocessing,
        )
        with self._changed:
            self._queue.append(_QueuedFit(message, listener, file, is_held))
            self._changed.notify_all()
        return True

    def admit(self, job_id: str) -> None:
        with self._changed:
            for fit in self._queue:
                if fit.job_id == job_id:
                    fit.is_held = False
            self._changed.notify_all()

    def clear(self, is_open: Callable[[str], bool]) -> None:
        for job_id in self.spool.job_ids():
            if not is_open(job_id):
                self.spool.remove(job_id)

    def cancel(self, job_id: str, *, keep_best: bool = False) -> None:
        queued = running = None
        with self._changed:
            running = self._running.get(job_id)
            queued = next((fit for fit in self._queue if fit.job_id == job_id), None)
            if queued is not None and keep_best and self.spool.checkpoint(job_id).exists():
                queued.to_end.set()  # what it has found is kept when its turn comes
                return
            if queued is not None:
                self._queue.remove(queued)
                self._changed.notify_all()
        if running is not None:
            fit, worker = running
            (fit.to_end if keep_best else fit.cancelled).set()
            worker.stop(job_id, keep_best=keep_best)
        if queued is not None:
            self._forget(queued)
            queued.listener.cancelled()

    def check_usable(self) -> None:
        if self._n_failing >= self._processes:
            raise Unavailable(
                "no_worker",
                "No process for fits gets ready.",
                retry_after_seconds=QUEUE_RETRY_SECONDS,
            )

    def close(self, timeout_seconds: float) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._idle_within(timeout_seconds)
        with self._changed:
            self._left_alone = True
            left = list(self._queue)
            self._queue.clear()
            for worker in self._workers:
                worker.process.kill()
        for fit in left:
            fit.close()
        self._idle_within(CLOSE_SECONDS)

    def worker_pids(self) -> list[int]:
        """Return the process ids of the workers, to look at them."""
        with self._changed:
            return sorted(worker.process.pid for worker in self._workers)

    def _message(
        self,
        job_id: str,
        rows: StoredRows,
        *,
        options: FitOptions,
        budget_seconds: float | None,
        plan: SelectionPlan | None,
        preprocessing: Preprocessing,
    ) -> Fit:
        limits = self._limits
        seconds = min(budget_seconds or limits.max_seconds, limits.max_seconds)
        threads = limits.threads or gmm_engine.thread_count()
        return Fit(
            job_id=job_id,
            options=options,
            rows=rows,
            checkpoint=str(self.spool.checkpoint(job_id)),
            checkpoint_seconds=limits.checkpoint_seconds,
            budget_seconds=seconds,
            memory_bytes=limits.memory_bytes,
            cpu_seconds=int(threads * (seconds + TIME_GRACE_SECONDS)) + 1,
            plan=plan,
            preprocessing=preprocessing,
        )

    def _forget(self, fit: _QueuedFit) -> None:
        with self._changed:  # no one takes the file from here on
            fit.wants_help.clear()
        fit.close()
        with suppress(OSError):  # the next start clears what is left
            self.spool.remove(fit.job_id)

    def _idle_within(self, timeout_seconds: float) -> bool:
        with self._changed:
            return self._changed.wait_for(
                lambda: self._first_ready() is None and not self._running, timeout_seconds
            )

    def _first_ready(self) -> _QueuedFit | None:
        return next((fit for fit in self._queue if not fit.is_held), None)

    def _work(self) -> None:
        """Keep one worker and run fits in it, until the runner is closed."""
        worker = self._started()
        while (work := self._next()) is not None:
            if not worker.wire.is_silent():  # it died while it had nothing to do
                self._ended(worker)
                worker = self._started()
            if isinstance(work, _Shared):
                is_whole = self._lend(work, worker)
            else:
                is_whole = self._lead(work, worker)
            if not is_whole:
                self._ended(worker)
                worker = self._started()
        self._ended(worker)

    def _started(self) -> _Worker:
        """Start a worker, and another one until one gets ready."""
        has_failed = False
        while (worker := self._newly_ready()) is None:
            if not has_failed:
                self._count_failing(+1)
            has_failed = True
            time.sleep(RESTART_SECONDS)
        if has_failed:
            self._count_failing(-1)
        return worker

    def _newly_ready(self) -> _Worker | None:
        try:
            worker = _Worker(self._command)
        except OSError:
            logger.exception("worker_not_started")
            return None
        if self._is_ready(worker) or self._closed:
            return worker
        logger.error("worker_not_ready", extra={"exit": self._ended(worker)})
        return None

    def _count_failing(self, change: int) -> None:
        with self._changed:
            self._n_failing += change

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

    def _next(self) -> _QueuedFit | _Shared | None:
        """Return the next fit; where none waits, a selection that others may help with."""
        with self._changed:
            while True:
                if (ready := self._first_ready()) is not None:
                    self._queue.remove(ready)
                    return ready
                if self._closed:
                    return None
                for fit, leader in self._running.values():
                    if fit.takes_help:
                        return _Shared(fit, leader)
                self._changed.wait()

    def _lead(self, fit: _QueuedFit, worker: _Worker) -> bool:
        with self._changed:
            self._running[fit.job_id] = fit, worker
        self._share_threads()
        is_whole = self._run(fit, worker)
        with self._changed:
            del self._running[fit.job_id]
            if fit.is_to_be_handed_on:
                self._queue.appendleft(fit)
            self._changed.notify_all()
        self._share_threads()
        return is_whole

    def _share_threads(self) -> None:
        """Share the cores out among the fits that run.

        Threads that take turns on a core slow each other down, and whoever has to answer between.
        """
        with self._sharing:
            with self._changed:
                workers = [worker for _, worker in self._running.values()]
            share = max(1, gmm_engine.thread_count() // max(1, len(workers)))
            for worker in workers:
                worker.take_threads(self._limits.threads or share)

    def _lend(self, shared: _Shared, worker: _Worker) -> bool:
        """Let a worker help until it is needed elsewhere or no more; tell whether it is whole.

        What becomes of the help is between the two: the leader does without what it doesn't get.
        """
        fit = shared.fit
        n_threads = max(1, (self._limits.threads or gmm_engine.thread_count()) // self._processes)
        try:
            ours, theirs = socket.socketpair()
        except OSError:
            fit.wants_help.clear()
            return True
        with ours, theirs, suppress(OSError):  # who is gone is seen below, or by its own thread
            with self._changed:  # the rows are there as long as help is wanted
                if not fit.wants_help.is_set():
                    return True
                worker.wire.send(Help(fit.message, n_threads), files=[fit.file, theirs.fileno()])
            shared.leader.wire.send(Hand(fit.job_id, n_threads), files=[ours.fileno()])
        return self._has_helped(fit, worker)

    def _has_helped(self, fit: _QueuedFit, worker: _Worker) -> bool:
        is_recalled, heard_at = False, time.monotonic()
        with suppress(EOFError, OSError, ProtocolError):
            while True:
                if not is_recalled and self._needs_workers():
                    worker.stop(fit.job_id)
                    is_recalled = True
                if worker.wire.is_silent(seconds=RECALL_SECONDS):
                    if time.monotonic() > heard_at + self._limits.silence_seconds:
                        break
                    continue
                heard_at = time.monotonic()
                match worker.wire.receive(until=heard_at + self._limits.silence_seconds):
                    case Alive():
                        continue
                    case Helped():
                        if not is_recalled:
                            fit.wants_help.clear()
                        return True
                    case _:
                        break
        fit.wants_help.clear()
        if not self._left_alone:
            logger.warning("helper_replaced", extra={"job": fit.job_id})
        return False

    def _needs_workers(self) -> bool:
        with self._changed:
            return self._closed or self._first_ready() is not None

    def _run(self, fit: _QueuedFit, worker: _Worker) -> bool:
        """Run one fit; tell whether the worker can be used again."""
        fit.hand_over()
        try:
            is_whole = self._relayed(fit, worker)
        except _Broken as broken:
            # Seen before anyone else waits for it, so that the report can say how it ended.
            code = worker.kill()
            if self._left_alone:
                fit.close()
                return False
            logger.warning("worker_replaced", extra={"code": broken.code, "exit": code})
            is_whole = False
            if broken.code == WORKER_DIED and fit.hand_on():
                return False
            if fit.cancelled.is_set():
                fit.listener.cancelled()
            else:
                fit.listener.failed(broken.code, broken.detail)
        except Exception:
            # The listener broke: the fit is worth nothing, and neither is a worker in its middle.
            logger.exception("fit_listener_broke", extra={"job": fit.job_id})
            worker.kill()
            is_whole = False
            with suppress(Exception):
                fit.listener.failed("internal_error", "the fit broke by an unexpected error")
        self._forget(fit)
        return is_whole

    def _relayed(self, fit: _QueuedFit, worker: _Worker) -> bool:
        call = _Call(fit, worker, self._limits)
        call.send()
        if fit.message.plan is not None:
            with self._changed:
                fit.wants_help.set()
                self._changed.notify_all()
        while True:
            match call.receive():
                case Alive():
                    pass
                case Begun() if not fit.has_begun:
                    fit.has_begun = True
                    fit.listener.started()
                case _ if not fit.has_begun:
                    raise _nonsense()
                case Progressed(progress):
                    if not fit.cancelled.is_set():
                        fit.listener.progressed(progress)
                case Finished() as end:
                    call.finish(end)
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
            self.worker.wire.send(self.fit.message, files=[self.fit.file])
        except OSError as error:
            raise _died(self.worker) from error
        if self.fit.cancelled.is_set():  # asked before the worker knew of the fit
            self.worker.stop(self.fit.job_id)
        elif self.fit.to_end.is_set():
            self.worker.stop(self.fit.job_id, keep_best=True)

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

    def finish(self, end: Finished) -> None:
        outcome = self._outcome(end)
        if self.fit.cancelled.is_set():  # asked before this was known
            self.fit.listener.cancelled()
        else:
            self.fit.listener.finished(outcome, end.duration_seconds)

    def _outcome(self, end: Finished) -> FitOutcome:
        """Receive the arrays of the result; refuse what can't be one."""
        asked = self.fit.message
        if not _is_asked_for(asked, end):
            raise _nonsense()
        until = time.monotonic() + self.limits.silence_seconds
        try:
            result = receive_result(
                self.worker.wire,
                end.result,
                asked.n_fitted_features,
                most_steps=most_steps(asked),
                until=until,
            )
            transform = receive_transform(
                self.worker.wire, asked.preprocessing.shapes(asked.rows.X.shape[1]), until=until
            )
        except (EOFError, OSError) as error:
            raise _died(self.worker) from error
        except ProtocolError as error:
            raise _nonsense() from error
        return FitOutcome(result, end.selection).over(transform)


def _digest_of(file: int, rows: StoredRows) -> str:
    weight = rows.sample_weight
    return digest_of(mapped(file, rows.X), None if weight is None else mapped(file, weight))


def _is_asked_for(asked: Fit, end: Finished) -> bool:
    """Tell whether a mixture of this form can be the task's result."""
    found = end.result.mixture
    if asked.plan is None:
        form = (asked.options.n_components, asked.options.covariance_type, None)
        return (found.n_components, found.covariance_type, end.selection) == form
    return (
        found.n_components in asked.plan.n_components
        and found.covariance_type in asked.plan.covariance_types
        and end.selection is not None
    )


def _died(worker: _Worker) -> _Broken:
    code = worker.kill()
    if code == -signal.SIGXCPU:
        return _Broken("time_limit_exceeded", "the fit took more processor time than it may take")
    how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
    return _Broken(
        WORKER_DIED,
        f"the fit's process ended {how} before the fit did; try again, with fewer rows or "
        "components if the machine ran out of memory",
    )


def _nonsense() -> _Broken:
    return _Broken("worker_protocol", "the fit's process said something that makes no sense")


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in INHERITED if name in os.environ}
    one_blas_thread = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    return {**kept, **one_blas_thread, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
