"""Disks that misbehave, and one that knows what a power cut would take."""

import errno
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

COUNTED = frozenset({"open", "mkdir", "write", "fsync", "rename", "unlink"})


class WatchedDisk:
    """Stands for the module ``os``: does what it does, counts, fails once, and keeps the books.

    An inode is at risk from its first change until its fsync: a file through its bytes, a
    directory through its names.
    """

    def __init__(self, *, fail_at: int | None = None, error: int = errno.EIO) -> None:
        self.n_calls = 0
        self.at_risk: set[int] = set()
        self.before_rename: Callable[[Path], None] = lambda _source: None
        self._fail_at = fail_at
        self._error = error

    def __getattr__(self, name: str) -> object:
        real = getattr(os, name)
        return partial(self._call, name, real) if name in COUNTED else real

    def _call(
        self, name: str, real: Callable[..., int | None], *arguments: object, **options: object
    ) -> int | None:
        self.n_calls += 1
        if self.n_calls == self._fail_at:
            raise OSError(self._error, "this call fails in the test")
        directories = [
            value for key, value in options.items() if key.endswith("dir_fd") and value is not None
        ]
        if name == "rename":
            self.before_rename(Path(f"/proc/self/fd/{options['src_dir_fd']}") / str(arguments[0]))
        result = real(*arguments, **options)
        self._enter(name, arguments, directories)
        return result

    def _enter(self, name: str, arguments: tuple[object, ...], directories: list[object]) -> None:
        if name == "fsync":
            self.at_risk.discard(_inode(arguments[0]))
        elif name == "write":
            self.at_risk.add(_inode(arguments[0]))
        elif name != "open" or _creates(arguments[1]):
            self.at_risk.update(map(_inode, directories))


def inodes_under(path: Path) -> set[int]:
    return {path.stat().st_ino, *(entry.lstat().st_ino for entry in path.rglob("*"))}


def _creates(flags: object) -> bool:
    return isinstance(flags, int) and bool(flags & os.O_CREAT)


def _inode(descriptor: object) -> int:
    if not isinstance(descriptor, int):
        raise TypeError("a descriptor is a number")
    return os.fstat(descriptor).st_ino
