"""Rows and answers on the disk, in files without names, while memory has no room for them."""

import mmap
import os
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from tempfile import TemporaryFile, gettempdir
from typing import IO, Protocol, Self

import numpy as np

from service.domain.data import Table
from service.errors import NO_SPACE, InvalidInput, StorageFull, Unavailable

MAX_BYTES_IN_MEMORY = 8 * 1024**2
PART_BYTES = 1024**2
RETRY_AFTER_SECONDS = 30


@contextmanager
def writing() -> Iterator[None]:
    """Turn what a disk answers to rows or answers that are laid onto it into a refusal."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_SPACE:
            raise _no_room() from error
        raise Unavailable(
            "storage_failed",
            "The disk failed that holds what does not fit into memory; the log says how.",
            retry_after_seconds=RETRY_AFTER_SECONDS,
        ) from error


def _no_room(figures: str = "") -> StorageFull:
    return StorageFull(
        "storage_full",
        f"The disk has no room for what does not fit into memory{figures}; "
        "send less at once, or enlarge the disk.",
    )


@dataclass(frozen=True, slots=True)
class SpoolPlace:
    """Where rows and answers wait on the disk, and what of it is not theirs."""

    directory: str | None = None
    """None for where temporary files go."""
    min_free_bytes: int = 0
    """Left for what has to be written down: versions, jobs, the audit trail."""

    def require_room(self, n_bytes: int) -> None:
        """Raise ``StorageFull`` where so many bytes more would leave too few."""
        with writing():
            disk = os.statvfs(self.directory or gettempdir())
        free_bytes = disk.f_bavail * disk.f_frsize
        if free_bytes < n_bytes + self.min_free_bytes:
            raise _no_room(
                f": {n_bytes} bytes more are needed, {self.min_free_bytes} are kept free "
                f"(GMM_MIN_FREE_BYTES), and {free_bytes} are free"
            )


ANYWHERE = SpoolPlace()


class Closeable(Protocol):
    def close(self) -> None: ...


def close(file: Closeable) -> None:
    """Close what nobody reads any more."""
    with suppress(OSError):  # of bytes that had no room, and are tried again
        file.close()


class ArraySpool:
    """Rows one after another into an array file, which is mapped in the end."""

    def __init__(self, place: SpoolPlace) -> None:
        self._place = place
        with writing():
            self._file = TemporaryFile(dir=place.directory)  # noqa: SIM115  # closed by ``__exit__``
        self._first: Table | None = None
        self._n_rows = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file; a mapping of it stays."""
        close(self._file)

    def append(self, table: Table) -> None:
        if self._first is None:
            self._first = Table(table.X[:1].copy(), table.feature_names, origin=table.origin)
        rows = np.ascontiguousarray(table.X, dtype=self._first.X.dtype)
        self._place.require_room(rows.nbytes)
        with writing():
            self._file.write(rows.data)
        self._n_rows += len(table.X)

    def table(self) -> Table:
        """Return all rows: read from the disk as they are used."""
        first = self._first
        if first is None:
            raise InvalidInput("empty_data", "there must be at least one row and one column")
        with writing():
            self._file.flush()
        content = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        X = np.frombuffer(content, dtype=first.X.dtype).reshape(self._n_rows, -1)
        return Table(X, first.feature_names, is_on_disk=True, origin=first.origin)


class Outbox:
    """What is on its way to a client that may not read yet: first in memory, then on the disk.

    Most clients read no answer before all of the request is sent. Waiting for such a one, while it
    waits for us, would be for ever. For one thread at a time.
    """

    def __init__(self, place: SpoolPlace) -> None:
        self._place = place
        self._parts: deque[bytes] = deque()
        self._n_bytes = 0
        """In memory."""
        self._file: IO[bytes] | None = None
        """Holds what came after the parts in memory, while there is such."""
        self._written = self._read = 0

    def has_room(self, n_bytes: int) -> bool:
        """Say whether a part of so many bytes goes to memory, and so costs nothing."""
        return self._file is None and self._n_bytes + n_bytes <= MAX_BYTES_IN_MEMORY

    @property
    def is_on_disk(self) -> bool:
        """Whether the next part is."""
        return not self._parts and self._file is not None

    def put(self, part: bytes) -> None:
        if self.has_room(len(part)):
            self._parts.append(part)
            self._n_bytes += len(part)
            return
        self._place.require_room(len(part))
        with writing():
            if self._file is None:
                self._file = TemporaryFile(dir=self._place.directory)  # noqa: SIM115  # closed by ``close``
            self._file.seek(self._written)
            self._written += self._file.write(part)

    def take(self) -> bytes:
        """Return the next part; nothing when all was taken."""
        if self._parts:
            part = self._parts.popleft()
            self._n_bytes -= len(part)
            return part
        if self._file is None:
            return b""
        with writing():
            self._file.seek(self._read)  # writes what is held of the part before
        part = self._file.read(PART_BYTES)
        self._read += len(part)
        if self._read == self._written:
            self.close()
        return part

    def close(self) -> None:
        if self._file is not None:
            close(self._file)
            self._file = None
            self._written = self._read = 0
