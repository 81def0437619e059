"""Rows and answers on the disk, in files without names, while memory has no room for them."""

import mmap
from collections import deque
from tempfile import TemporaryFile
from typing import IO
from weakref import finalize

import numpy as np

from service.domain.data import Table
from service.errors import InvalidInput

MAX_BYTES_IN_MEMORY = 8 * 1024**2
PART_BYTES = 1024**2


class ArraySpool:
    """Rows one after another into an array file, which is mapped in the end."""

    def __init__(self, directory: str | None) -> None:
        self._file = TemporaryFile(dir=directory)  # noqa: SIM115  # closed by the next line
        finalize(self, self._file.close)
        self._first: Table | None = None
        self._n_rows = 0

    def append(self, table: Table) -> None:
        if self._first is None:
            self._first = Table(table.X[:1].copy(), table.feature_names)
        self._file.write(np.ascontiguousarray(table.X, dtype=self._first.X.dtype).data)
        self._n_rows += len(table.X)

    def table(self) -> Table:
        """Return all rows: read from the disk as they are used."""
        first = self._first
        if first is None:
            raise InvalidInput("empty_data", "there must be at least one row and one column")
        self._file.flush()
        content = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        X = np.frombuffer(content, dtype=first.X.dtype).reshape(self._n_rows, -1)
        return Table(X, first.feature_names, is_on_disk=True)


class Outbox:
    """What is on its way to a client that may not read yet: first in memory, then on the disk.

    Most clients read no answer before all of the request is sent. Waiting for such a one, while it
    waits for us, would be for ever. For one thread at a time.
    """

    def __init__(self, directory: str | None) -> None:
        self._directory = directory
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
        if self._file is None:
            self._file = TemporaryFile(dir=self._directory)  # noqa: SIM115  # closed by ``close``
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
        self._file.seek(self._read)
        part = self._file.read(PART_BYTES)
        self._read += len(part)
        if self._read == self._written:
            self.close()
        return part

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
            self._written = self._read = 0
