"""How far a fit has come, as a file that its worker replaces now and then: arrays, no pickle.

A file that can't be read is as good as none: the fit begins anew, and ends the same.
"""

import io
import os
import time
from contextlib import suppress
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from gmm_engine import FitState, GmmEngineError
from service.adapters.durable_files import Directory
from service.adapters.fit_protocol import Fit
from service.adapters.fit_spool import NEW_CHECKPOINT

SECONDS = "seconds"


class CheckpointFile:
    """Implements the engine's ``Checkpoints``."""

    def __init__(self, fit: Fit, rows: int) -> None:
        self._path = Path(fit.checkpoint)
        self._rows = rows
        self._interval = fit.checkpoint_seconds
        self._state, self.seconds_before = _read(self._path, fit.options.covariance_type)
        self._begun = self._kept_at = time.monotonic()
        self._are_rows_synced = False

    def last(self) -> FitState | None:
        return self._state

    def is_due(self) -> bool:
        return time.monotonic() - self._kept_at >= self._interval

    def keep(self, state: FitState) -> None:
        now = time.monotonic()
        seconds = self.seconds_before + now - self._begun
        # Without it the fit goes on all the same; the next may be kept again.
        with suppress(OSError, MemoryError):
            content = io.BytesIO()
            arrays = {**state.to_arrays(), SECONDS: np.array(seconds)}
            np.savez(content, allow_pickle=False, **arrays)
            self._replace(content.getvalue())
        self._kept_at = time.monotonic()

    def _replace(self, content: bytes) -> None:
        if not self._are_rows_synced:
            os.fsync(self._rows)
            self._are_rows_synced = True
        new = self._path.stem + NEW_CHECKPOINT
        with Directory.at(self._path.parent) as directory:
            with suppress(FileNotFoundError):  # of a worker that was killed
                directory.remove_file(new)
            directory.write_new(new, content)
            directory.move(new, directory, self._path.name)
            directory.sync()


def _read(path: Path, covariance_type: str) -> tuple[FitState | None, float]:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        seconds = float(arrays.pop(SECONDS))
        return FitState.from_arrays(arrays, covariance_type), seconds
    except (OSError, EOFError, KeyError, ValueError, BadZipFile, GmmEngineError):
        return None, 0.0
