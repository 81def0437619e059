"""Rows of fits on a disk that others need, too."""

import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray

from service.adapters import fit_spool
from service.adapters.fit_spool import HEAD_BYTES, FitSpool
from service.adapters.runner_process import ProcessRunner
from service.errors import StorageFull
from tests.service.client import serving
from tests.service.rows import TWO_GROUPS

BLOCK_BYTES = 64
RESERVE_BYTES = 4096
X = np.zeros((112, 2))
WEIGHT = np.ones(112)


class NearlyFullDisk:
    """Stands for the module ``os``: of the disk so much is free, less what was written."""

    def __init__(self, free_bytes: int) -> None:
        self.free_bytes = free_bytes

    def __getattr__(self, name: str) -> object:
        return getattr(os, name)

    def statvfs(self, _path: Path) -> SimpleNamespace:
        return SimpleNamespace(f_bavail=self.free_bytes // BLOCK_BYTES, f_frsize=BLOCK_BYTES)

    def pwrite(self, file: int, data: memoryview, offset: int) -> int:
        n_written = os.pwrite(file, data, offset)
        self.free_bytes -= n_written
        return n_written


@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["rows", "weighted rows"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_leave_the_reserve_of_the_disk_free(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    weight: NDArray[np.float64] | None,
    dtype: type[np.floating],
) -> None:
    spool = FitSpool(tmp_path, min_free_bytes=RESERVE_BYTES)
    rows = X.astype(dtype)
    end = HEAD_BYTES + rows.nbytes + (0 if weight is None else weight.nbytes)
    disk = NearlyFullDisk(RESERVE_BYTES + end)
    monkeypatch.setattr(fit_spool, "os", disk)

    file, _ = spool.keep("job", rows, weight)
    os.close(file)
    assert disk.free_bytes >= RESERVE_BYTES

    spool.remove("job")
    disk.free_bytes = free_bytes = RESERVE_BYTES + end - BLOCK_BYTES
    with pytest.raises(StorageFull) as refusal:
        spool.keep("job", rows, weight)

    assert refusal.value.code == "storage_full"
    assert (
        f"{end} bytes are needed, {RESERVE_BYTES} bytes of its disk are kept free "
        f"(GMM_MIN_FREE_BYTES), and {free_bytes} are free" in refusal.value.detail
    )
    assert disk.free_bytes == free_bytes
    assert list(tmp_path.iterdir()) == []


def test_rows_stop_where_others_have_filled_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = NearlyFullDisk(RESERVE_BYTES + 2 * HEAD_BYTES)
    monkeypatch.setattr(fit_spool, "PART_BYTES", 1024)
    monkeypatch.setattr(fit_spool, "os", disk)
    spool = FitSpool(tmp_path, min_free_bytes=RESERVE_BYTES)
    n_written = 0

    def written_beside_others(file: int, data: memoryview, offset: int) -> int:
        nonlocal n_written
        n_written += os.pwrite(file, data, offset)
        disk.free_bytes = RESERVE_BYTES
        return 1024

    monkeypatch.setattr(disk, "pwrite", written_beside_others)
    with pytest.raises(StorageFull):
        spool.keep("job", X, None)

    assert n_written == 1024
    assert list(tmp_path.iterdir()) == []


def test_a_fit_whose_rows_would_touch_the_reserve_is_refused(tmp_path: Path) -> None:
    spool = FitSpool(tmp_path, min_free_bytes=2**60)
    runner = ProcessRunner(processes=1, queue_size=1, spool=spool)
    with serving(runner=runner) as client:
        client.post("/models", {"id": "groups", "n_components": 2})

        response = client.post("/models/groups/fit", {"X": TWO_GROUPS})

        assert (response.status_code, response.json()["code"]) == (507, "storage_full")
        assert client.get("/jobs").json()["jobs"] == []
    assert list(tmp_path.iterdir()) == []
