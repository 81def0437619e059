"""The rows of fits that are not done, on the disk: for workers to map, and for a restart to find.

fits/<job>.rows         a head that says where the arrays are, then the arrays
fits/<job>.checkpoint   how far the fit has come; written by its worker

The head is written last: a file without one was cut off. Rows are not synced when they come, which
would make every small fit wait for the disk; the worker does it with its first checkpoint. What a
power cut takes before is noticed by the digest of the rows.
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

from service.adapters.durable_files import DIRECTORY_MODE, FILE_MODE
from service.adapters.record_json import from_json, to_json

FITS = "fits"
ROWS = ".rows"
CHECKPOINT = ".checkpoint"
NEW_CHECKPOINT = ".checkpoint.new"
HEAD_BYTES = 4096
"""Before the arrays; also keeps the first of them aligned to a page."""
ALIGNMENT = 64

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

    def __init__(self, path: Path) -> None:
        self._path = path.resolve()
        self._path.mkdir(mode=DIRECTORY_MODE, exist_ok=True)

    def keep(
        self, job_id: str, X: NDArray[np.floating], sample_weight: NDArray[np.floating] | None
    ) -> tuple[int, StoredRows]:
        """Write the rows down; return the open file and where they are in it."""
        self.remove(job_id)
        file = os.open(self._path / f"{job_id}{ROWS}", _CREATE, FILE_MODE)
        try:
            stored_X = _written(file, X, HEAD_BYTES)
            rows = StoredRows(
                stored_X,
                None if sample_weight is None else _written(file, sample_weight, stored_X.end),
            )
            os.pwrite(file, json.dumps(to_json(rows)).encode().ljust(HEAD_BYTES), 0)
        except OSError:
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

    def job_ids(self) -> Iterator[str]:
        """Yield every job that something is kept of."""
        yield from {path.name.partition(".")[0] for path in self._path.iterdir()}


def mapped(file: int, array: StoredArray) -> NDArray[np.float64]:
    """Map an array of such a file: read as it is used, and never copied."""
    data = mmap.mmap(file, 0, access=mmap.ACCESS_READ)
    n_numbers = int(np.prod(array.shape))
    numbers = np.frombuffer(data, dtype=array.dtype, count=n_numbers, offset=array.offset)
    return numbers.reshape(tuple(array.shape))


def _written(file: int, array: NDArray[np.floating], after: int) -> StoredArray:
    dtype: Literal["<f8", "<f4"] = "<f4" if array.dtype == np.float32 else "<f8"
    place = StoredArray(dtype, array.shape, -(-after // ALIGNMENT) * ALIGNMENT)
    rest, offset = np.ascontiguousarray(array, dtype=dtype).data.cast("B"), place.offset
    while rest:
        n_written = os.pwrite(file, rest, offset)
        rest, offset = rest[n_written:], offset + n_written
    return place
