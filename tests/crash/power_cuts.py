"""Cut the power of a disk while a process changes a registry on it, and look at what is left.

The disk is an ext4 in a file, on a loop device; the cut is ext4's own shutdown, which drops what
was not flushed. Needs root. ``python -m tests.crash.power_cuts [CYCLES] [--seed SEED]``;
``--without-fsync`` takes the fsyncs out, and losses must be reported, or the harness sees nothing.
"""

import fcntl
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

from service.adapters.registry_files import FileRegistry
from service.errors import ServiceError
from tests.crash.ledger import State, found
from tests.crash.report import Report, command_line
from tests.crash.victims import changing
from tests.support.disks import use_disk

IMAGE_BYTES = 64 * 2**20
SHUTDOWN = 0x8004587D  # EXT4_IOC_SHUTDOWN
NO_LOG_FLUSH = (2).to_bytes(4, "little")
LONGEST_LIFE_SECONDS = 0.25


class DiskNotAvailableError(Exception):
    """Mounting a file as a disk is not permitted here."""


class Disk:
    def __init__(self, directory: Path) -> None:
        self._image = directory / "image"
        self.mount_point = directory / "disk"
        self.mount_point.mkdir()
        with self._image.open("wb") as image:
            image.truncate(IMAGE_BYTES)
        _call("mkfs.ext4", "-q", "-F", str(self._image))

    @contextmanager
    def mounted(self) -> Iterator[Path]:
        _call("mount", "-o", "loop", str(self._image), str(self.mount_point))
        try:
            yield self.mount_point
        finally:
            _call("umount", str(self.mount_point))

    def cut(self) -> None:
        descriptor = os.open(self.mount_point, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, SHUTDOWN, NO_LOG_FLUSH)
        finally:
            os.close(descriptor)


class WithoutFsync:
    """Stands for the module ``os``, with an fsync that does nothing."""

    def __getattr__(self, name: str) -> object:
        return (lambda _descriptor: None) if name == "fsync" else getattr(os, name)


def main(cycles: int, *, seed: int = 0, has_fsync: bool = True) -> Report:
    rng = Random(seed)
    report = Report(f"power cuts on ext4, {'with' if has_fsync else 'WITHOUT'} fsync")
    if not has_fsync:
        use_disk(WithoutFsync())
    with tempfile.TemporaryDirectory() as directory:
        disk = Disk(Path(directory))
        state: State = {}
        for _ in range(cycles):
            state = _one(disk, state, rng, report)
    return report


def _one(disk: Disk, state: State, rng: Random, report: Report) -> State:
    with disk.mounted() as place:
        registry = FileRegistry(place / "registry", min_free_bytes=0)
        victim = changing(registry, state, Random(rng.random()))
        time.sleep(rng.uniform(0, LONGEST_LIFE_SECONDS))
        disk.cut()
        victim.kill()
        told = victim.told(state)
        report.cycles += 1
    with disk.mounted() as place:
        try:
            reopened = FileRegistry(place / "registry", min_free_bytes=0)
        except (OSError, ServiceError):
            shutil.rmtree(place / "registry")
            report.faults["the registry can't be opened"] += 1
            return {}
        return report.judged(told, lambda: found(reopened))


def _call(*command: str) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True)  # noqa: S603 - our own words
    except (OSError, subprocess.CalledProcessError) as error:
        raise DiskNotAvailableError(command[0]) from error


if __name__ == "__main__":
    parser = command_line(__doc__, cycles=50)
    parser.add_argument("--without-fsync", action="store_true")
    words = parser.parse_args()
    try:
        main(words.cycles, seed=words.seed, has_fsync=not words.without_fsync).finish()
    except DiskNotAvailableError as reason:
        print(json.dumps({"skipped": f"no disk to cut the power of: {reason} is not permitted"}))  # noqa: T201 - the answer
