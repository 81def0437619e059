"""A disk that is disturbed at a chosen moment, and that knows what a power cut would take."""

import errno
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from service.adapters import durable_files

COUNTED = frozenset({"open", "mkdir", "write", "fsync", "rename", "unlink"})


class WatchedDisk:
    """Stands for the module ``os``: does what it does, counts, and keeps the books.

    Before the call with the number ``at`` it lets ``disturb`` have its way, once.

    An inode is at risk from its first change until its fsync: a file through its bytes, a
    directory through its names.
    """

    def __init__(
        self, *, at: int | None = None, disturb: Callable[[], object] = lambda: None
    ) -> None:
        self.n_calls = 0
        self.at_risk: set[int] = set()
        self.before_rename: Callable[[Path], None] = lambda _source: None
        self._at = at
        self._disturb = disturb

    @property
    def is_undisturbed(self) -> bool:
        return self._at is not None

    def __getattr__(self, name: str) -> object:
        real = getattr(os, name)
        return partial(self._call, name, real) if name in COUNTED else real

    def _call(
        self, name: str, real: Callable[..., int | None], *arguments: object, **options: object
    ) -> int | None:
        self.n_calls += 1
        if self.n_calls == self._at:
            self._at = None  # what disturbs may use the disk too
            self._disturb()
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


class ReadOnlyDisk:
    """Stands for the module ``os`` where nothing can be written."""

    def __getattr__(self, name: str) -> object:
        refused = {"open": self._open, "mkdir": self._mkdir, "rename": _refuse, "unlink": _refuse}
        return refused.get(name) or getattr(os, name)

    def _open(self, name: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if flags & (os.O_CREAT | os.O_WRONLY | os.O_RDWR):
            _refuse()
        return os.open(name, flags, mode, dir_fd=dir_fd)

    def _mkdir(self, name: str, _mode: int, *, dir_fd: int) -> None:
        if name in os.listdir(dir_fd):
            raise FileExistsError(errno.EEXIST, "it is there, which is found out first")
        _refuse()


def _refuse(*_arguments: object, **_options: object) -> None:
    raise OSError(errno.EROFS, "nothing is written in the test")


def failing_with(error: int) -> Callable[[], object]:
    def fail() -> None:
        raise OSError(error, "this call fails in the test")

    return fail


def inodes_under(path: Path) -> set[int]:
    return {path.stat().st_ino, *(entry.lstat().st_ino for entry in path.rglob("*"))}


def _creates(flags: object) -> bool:
    return isinstance(flags, int) and bool(flags & os.O_CREAT)


def _inode(descriptor: object) -> int:
    if not isinstance(descriptor, int):
        raise TypeError("a descriptor is a number")
    return os.fstat(descriptor).st_ino


def use_disk(disk: object) -> None:
    """Let the registry of this process call ``disk`` where it calls the module ``os``."""
    vars(durable_files)["os"] = disk
