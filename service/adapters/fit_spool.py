"""The rows of fits that are not done, on the disk: for workers to map, and for a restart to find.

fits/<job>.rows         a head that says where the arrays are, then the arrays
fits/<job>.checkpoint   how far the fit has come; written by its worker

The head is written last: a file without one was cut off. Rows are not synced when they come, which
would make every small fit wait for the disk; the worker does it with its first checkpoint. What a
power cut takes before is noticed by the digest of the rows. They leave a part of the disk free, as
versions do.
"""

import json
import mmap
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from service.adapters import refusals
from service.adapters.durable_files import DIRECTORY_MODE, FILE_MODE
from service.adapters.record_json import from_json, to_json
from service.errors import StorageFull

FITS = "fits"
ROWS = ".rows"
CHECKPOINT = ".checkpoint"
NEW_CHECKPOINT = ".checkpoint.new"
HEAD_BYTES = 4096
"""Before the arrays; also keeps the first of them aligned to a page."""
ALIGNMENT = 64
PART_BYTES = 16 * 1024**2
"""Written at once; others may fill the disk meanwhile."""

_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class StoredArray:
    """Where in the file of rows an array is."""

    dtype: Literal["<f8", "<f4"]
    shape: Sequence[int]
    offset: int

    @property
    def end(self) -> int:
        return self.offset + int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True, slots=True)
class StoredRows:
    X: StoredArray
    sample_weight: StoredArray | None


class FitSpool:
    """The directory of rows that wait or are being fitted."""

    def __init__(self, path: Path, *, min_free_bytes: int = 0) -> None:
        self._path = path.resolve()
        self._path.mkdir(mode=DIRECTORY_MODE, exist_ok=True)
        self._min_free_bytes = min_free_bytes

    def keep(
        self, job_id: str, X: NDArray[np.floating], sample_weight: NDArray[np.floating] | None
    ) -> tuple[int, StoredRows]:
        """Write the rows down; return the open file and where they are in it.

        Raises ``StorageFull`` where they would leave less of the disk than is kept free.
        """
        self.remove(job_id)
        stored_X = _placed(X, HEAD_BYTES)
        rows = StoredRows(
            stored_X, None if sample_weight is None else _placed(sample_weight, stored_X.end)
        )
        self._require_room((rows.sample_weight or rows.X).end)
        file = os.open(self._path / f"{job_id}{ROWS}", _CREATE, FILE_MODE)
        try:
            self._write(file, X, rows.X)
            if sample_weight is not None and rows.sample_weight is not None:
                self._write(file, sample_weight, rows.sample_weight)
            os.pwrite(file, json.dumps(to_json(rows)).encode().ljust(HEAD_BYTES), 0)
        except (OSError, StorageFull):
            os.close(file)
            self.remove(job_id)
            raise
        return file, rows

    def find(self, job_id: str) -> tuple[int, StoredRows] | None:
        """Return the open file as it was kept, or None if it is not there or not whole."""
        try:
            file = os.open(self._path / f"{job_id}{ROWS}", _READ)
        except OSError:
            return None
        try:
            rows = from_json(StoredRows, json.loads(os.pread(file, HEAD_BYTES, 0)))
            ends = [array.end for array in (rows.X, rows.sample_weight) if array is not None]
            if max(ends) <= os.fstat(file).st_size:
                return file, rows
        except (OSError, ValueError):
            pass
        os.close(file)
        return None

    def checkpoint(self, job_id: str) -> Path:
        return self._path / f"{job_id}{CHECKPOINT}"

    def remove(self, job_id: str) -> None:
        for suffix in (ROWS, CHECKPOINT, NEW_CHECKPOINT):
            with suppress(FileNotFoundError):
                (self._path / f"{job_id}{suffix}").unlink()

    def _write(self, file: int, array: NDArray[np.floating], place: StoredArray) -> None:
        rest, offset = np.ascontiguousarray(array, dtype=place.dtype).data.cast("B"), place.offset
        while rest:
            self._require_room(len(rest))
            n_written = os.pwrite(file, rest[:PART_BYTES], offset)
            rest, offset = rest[n_written:], offset + n_written

    def _require_room(self, n_bytes: int) -> None:
        disk = os.statvfs(self._path)
        free_bytes = disk.f_bavail * disk.f_frsize
        if free_bytes < n_bytes + self._min_free_bytes:
            raise refusals.reserve_touched(n_bytes, self._min_free_bytes, free_bytes)

    def job_ids(self) -> Iterator[str]:
        """Yield every job that something is kept of."""
        yield from {path.name.partition(".")[0] for path in self._path.iterdir()}


def mapped(file: int, array: StoredArray) -> NDArray[np.float64]:
    """Map an array of such a file: read as it is used, and never copied."""
    data = mmap.mmap(file, 0, access=mmap.ACCESS_READ)
    n_numbers = int(np.prod(array.shape))
    numbers = np.frombuffer(data, dtype=array.dtype, count=n_numbers, offset=array.offset)
    return numbers.reshape(tuple(array.shape))


def _placed(array: NDArray[np.floating], after: int) -> StoredArray:
    dtype: Literal["<f8", "<f4"] = "<f4" if array.dtype == np.float32 else "<f8"
    return StoredArray(dtype, array.shape, -(-after // ALIGNMENT) * ALIGNMENT)
