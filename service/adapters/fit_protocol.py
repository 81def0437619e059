"""What a runner and its worker say to each other, and how: bounded, typed, never a pickle.

Over a socket pair go frames: a kind, a length, the bytes. A text frame is a message, the JSON of
one of the dataclasses below under its name; an array frame is plain float64 numbers, whose shape
the receiver knows beforehand. What does not fit is a ``ProtocolError``: a receiver allocates and
believes nothing that it did not expect. The rows of a fit are no frame: the file that holds them
is handed over by its descriptor, for the worker to map. Workers that share a selection talk to each
other over a socket pair of their own, whose ends they are handed in the same way.
"""

import json
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from gmm_engine import FitOptions
from gmm_engine.bench import N_STAGES, HeldOut
from gmm_engine.grid import Key, Origin
from gmm_engine.preprocessing import AS_THEY_COME, Preprocessing
from service.adapters.fit_spool import StoredRows
from service.adapters.record_json import from_json, to_json
from service.domain.records import (
    FitWarningRecord,
    JobProgress,
    SelectionPlan,
    SelectionRecord,
)

MAX_TEXT_BYTES = 2**20
MAX_TELL_CHARACTERS = 16_000
"""Of a traceback or a message; far from the bound of a frame in any encoding."""
CHUNK_BYTES = 2**20
MAX_FILES = 2

HEAD = struct.Struct(">cQ")
TEXT = b"T"
NUMBERS = b"N"


class ProtocolError(Exception):
    """The other side said something that makes no sense."""


@dataclass(frozen=True, slots=True)
class Fit:
    """Parent to worker: fit the rows in the file that comes with this message."""

    job_id: str
    options: FitOptions
    rows: StoredRows
    checkpoint: str
    """Path of the file that tells how far the fit has come."""
    checkpoint_seconds: float
    budget_seconds: float
    memory_bytes: int
    cpu_seconds: int
    plan: SelectionPlan | None = None
    preprocessing: Preprocessing = AS_THEY_COME

    @property
    def n_fitted_features(self) -> int:
        """Of the rows as they are mapped."""
        return self.preprocessing.n_kept(self.rows.X.shape[1])


def most_steps(fit: Fit) -> int:
    """Return what a run may take, or one that was begun and gone on with twice."""
    return fit.options.max_iter * (1 if fit.plan is None else N_STAGES)


@dataclass(frozen=True, slots=True)
class Stop:
    """Parent to worker: end the running fit, or the help with it, between two EM steps."""

    job_id: str
    keep_best: bool = False
    """Finish with the best so far."""


@dataclass(frozen=True, slots=True)
class Threads:
    """Parent to worker: take so many from the next EM step on, which no result depends on."""

    count: int


@dataclass(frozen=True, slots=True)
class Help:
    """Parent to a worker with nothing to do: share a selection that another one leads.

    With the file of the rows comes an end of what the two talk over.
    """

    fit: Fit
    n_threads: int
    """So many each; together they take the cores that one fit takes."""


@dataclass(frozen=True, slots=True)
class Hand:
    """Parent to the worker that leads a selection: another one helps, at the end that comes."""

    job_id: str
    n_threads: int


@dataclass(frozen=True, slots=True)
class Ready:
    """Worker to parent, once: fits may come."""


@dataclass(frozen=True, slots=True)
class Begun:
    """Worker to parent: it has the fit, whose end is its own from here on."""


@dataclass(frozen=True, slots=True)
class Alive:
    """Worker to parent, again and again while it fits."""


@dataclass(frozen=True, slots=True)
class Progressed:
    progress: JobProgress


@dataclass(frozen=True, slots=True)
class MixtureHead:
    """The form of a mixture; weights, means and covariances follow as arrays.

    So do ``precisions_cholesky``, in the shape of the covariances, where these were given.
    """

    n_components: int
    covariance_type: str
    covariances_shape: Sequence[int]
    has_factors: bool = False


@dataclass(frozen=True, slots=True)
class ResultHead:
    """What a fit came to; the arrays of its mixture and the log-likelihoods follow."""

    mixture: MixtureHead
    n_samples: float
    n_parameters: int
    log_likelihood: float
    log_max_resp: float
    n_iter: int
    stop_reason: str
    warnings: Sequence[FitWarningRecord]


@dataclass(frozen=True, slots=True)
class Finished:
    """Worker to parent; the arrays of the result follow, then those of what maps the rows."""

    result: ResultHead
    duration_seconds: float
    selection: SelectionRecord | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    code: str
    detail: str
    traceback: str | None = None
    """For the log, of an error that nobody expected."""


@dataclass(frozen=True, slots=True)
class Stopped:
    """Worker to parent: the fit ended as it was asked to."""


@dataclass(frozen=True, slots=True)
class Helped:
    """Worker to parent: the selection needs no more help, or the worker was stopped."""


@dataclass(frozen=True, slots=True)
class PlaceHead:
    """Where a candidate stands; the arrays of its mixture follow."""

    mixture: MixtureHead
    log_likelihood: float
    is_degenerate: bool


@dataclass(frozen=True, slots=True)
class Near:
    origin: Origin
    place: PlaceHead


@dataclass(frozen=True, slots=True)
class Chore:
    """Leader to helper: a task; the arrays of what was found and of what is near follow."""

    key: Key
    found: PlaceHead | None
    near: Sequence[Near]
    n_folds: int | None


@dataclass(frozen=True, slots=True)
class Done:
    """Helper to leader; the arrays of the result follow, if there is one."""

    origin: Origin
    result: ResultHead | None = None
    held_out: HeldOut | None = None
    has_failed: bool = False
    """The leader does the task itself, and finds out why."""


Message: TypeAlias = (
    Fit
    | Stop
    | Threads
    | Help
    | Hand
    | Ready
    | Begun
    | Alive
    | Progressed
    | Finished
    | Failed
    | Stopped
    | Helped
    | Chore
    | Done
)
MESSAGES: dict[str, type[Message]] = {kind.__name__: kind for kind in get_args(Message)}


class Wire:
    """One end of the socket pair. Several threads may send; one receives."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._received = bytearray()
        self._files: list[int] = []
        self._sending = threading.Lock()

    def send(self, message: Message, *, files: Sequence[int] = ()) -> None:
        body = json.dumps({type(message).__name__: to_json(message)}, allow_nan=False).encode()
        frame = HEAD.pack(TEXT, len(body)) + body
        with self._sending:
            sent = 0
            if files:
                sent = socket.send_fds(self._connection, [frame], files)
            self._connection.sendall(frame[sent:])

    def send_numbers(self, numbers: NDArray[np.float64]) -> None:
        body = np.ascontiguousarray(numbers, dtype="<f8").tobytes()
        with self._sending:
            self._connection.sendall(HEAD.pack(NUMBERS, len(body)))
            self._connection.sendall(body)

    def receive(self, *, until: float | None = None) -> Message:
        """Return the next message; raise ``EOFError``, ``TimeoutError`` or ``ProtocolError``."""
        body = self._frame(TEXT, max_bytes=MAX_TEXT_BYTES, until=until)
        try:
            ((name, fields),) = json.loads(body).items()
            return from_json(MESSAGES[name], fields)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ProtocolError("no such message") from error

    def receive_numbers(
        self, shape: tuple[int, ...], *, until: float | None = None
    ) -> NDArray[np.float64]:
        n_bytes = 8 * int(np.prod(shape))
        body = self._frame(NUMBERS, max_bytes=n_bytes, until=until)
        if len(body) != n_bytes:
            raise ProtocolError("an array of another size")
        return np.frombuffer(body, dtype="<f8").reshape(shape)

    def take_files(self, count: int) -> list[int]:
        """Return the descriptors that came with the message received last."""
        files, self._files = self._files, []
        if len(files) != count:
            for file in files:
                os.close(file)
            raise ProtocolError("the message came without its files")
        return files

    def is_silent(self, *, seconds: float = 0.0) -> bool:
        """Tell whether there is nothing to receive for so long, an end included."""
        return not (self._received or self._is_readable_within(seconds))

    def has_room(self) -> bool:
        """Tell whether a short message can be sent without waiting for the other side."""
        poll = select.poll()
        poll.register(self._connection, select.POLLOUT)
        return bool(poll.poll(0))

    def hang_up(self) -> None:
        """Let both sides hear the end, whatever they wait for."""
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._connection.close()

    def _frame(self, kind: bytes, *, max_bytes: int, until: float | None) -> bytes:
        found, n_bytes = HEAD.unpack(self._bytes(HEAD.size, until))
        if found != kind or n_bytes > max_bytes:
            raise ProtocolError("a frame of another kind, or too large")
        return self._bytes(n_bytes, until)

    def _bytes(self, n_bytes: int, until: float | None) -> bytes:
        while len(self._received) < n_bytes:
            if until is not None and not self._is_readable_within(until - time.monotonic()):
                raise TimeoutError
            chunk, files, _, _ = socket.recv_fds(self._connection, CHUNK_BYTES, MAX_FILES)
            self._files += files
            if not chunk:
                raise EOFError
            self._received += chunk
        taken = bytes(self._received[:n_bytes])
        del self._received[:n_bytes]
        return taken

    def _is_readable_within(self, seconds: float) -> bool:
        poll = select.poll()
        poll.register(self._connection, select.POLLIN)
        return bool(poll.poll(max(0.0, 1000 * seconds)))
