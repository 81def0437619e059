"""Files and directories whose changes survive a power cut, reached without following a link.

Every name is looked up below an open directory, one step at a time. What is promised: a file is
created, never overwritten; its bytes are on the disk when ``write_new`` returns; what a directory
holds is on the disk when its ``sync`` returns; a failed fsync is an error and is never retried,
since the kernel may have dropped the pages. What the files mean is the registry's business, and
so are the refusals that a failure becomes.
"""

import fcntl
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

DIRECTORY_MODE = 0o700
FILE_MODE = 0o600

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a FIFO doesn't block
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class NotPlainError(OSError):
    """A regular file of a bounded size was expected, and something else was found."""


@dataclass(frozen=True, slots=True)
class Signature:
    """Tells one content of a file from another, for files that are replaced and never edited."""

    inode: int
    size: int
    modified_ns: int
    changed_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Self:
        return cls(status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


class Directory:
    """An open directory; a context manager that closes it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def at(cls, path: Path) -> Self:
        return cls(os.open(path, _DIRECTORY))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        os.close(self._descriptor)

    def fileno(self) -> int:
        return self._descriptor

    def subdirectory(self, name: str) -> "Directory":
        flags = _DIRECTORY | os.O_NOFOLLOW
        return Directory(os.open(_single(name), flags, dir_fd=self._descriptor))

    def make(self, name: str) -> None:
        os.mkdir(_single(name), DIRECTORY_MODE, dir_fd=self._descriptor)

    def ensure(self, name: str) -> None:
        try:
            self.make(name)
        except FileExistsError:
            return
        self.sync()

    def names(self) -> list[str]:
        # Opened anew: a descriptor's reading position is shared by all who list through it.
        with Directory(os.open(".", _DIRECTORY, dir_fd=self._descriptor)) as again:
            return os.listdir(again.fileno())  # noqa: PTH208 - a Path has no descriptor

    def signature(self, name: str) -> Signature:
        return Signature.of(self._status(name))

    def write_new(self, name: str, data: bytes) -> None:
        """Create a file with these bytes, durably; its name needs the directory's ``sync`` too."""
        descriptor = os.open(_single(name), _CREATE, FILE_MODE, dir_fd=self._descriptor)
        try:
            _write_all(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def read(self, name: str, *, max_bytes: int) -> tuple[bytes, Signature]:
        """Return a regular file's bytes and what tells them from later ones."""
        descriptor = os.open(_single(name), _READ, dir_fd=self._descriptor)
        with os.fdopen(descriptor, "rb", buffering=0) as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_size > max_bytes:
                raise NotPlainError(f"'{name}' is no regular file of at most {max_bytes} bytes")
            return file.readall(), Signature.of(status)

    def move(self, name: str, target: "Directory", new_name: str) -> None:
        """Rename in one step; a file replaces a file, a directory only an empty directory."""
        os.rename(
            _single(name),
            _single(new_name),
            src_dir_fd=self._descriptor,
            dst_dir_fd=target.fileno(),
        )

    def remove_file(self, name: str) -> None:
        os.unlink(_single(name), dir_fd=self._descriptor)

    def remove_tree(self, name: str) -> None:
        """Remove a directory and all in it, also while another process does the same."""
        while self.has(name):
            with suppress(FileNotFoundError):
                shutil.rmtree(_single(name), dir_fd=self._descriptor)

    def sync(self) -> None:
        os.fsync(self._descriptor)

    def holds(self, name: str, other: "Directory") -> bool:
        """Tell whether ``other`` is still what this name leads to."""
        try:
            here = self._status(name)
        except FileNotFoundError:
            return False
        return os.path.samestat(here, os.fstat(other.fileno()))

    def free_bytes(self) -> int:
        status = os.statvfs(self._descriptor)
        return status.f_bavail * status.f_frsize

    @contextmanager
    def locked(self, *, is_shared: bool = False) -> Iterator[None]:
        """Hold this directory's lock against other threads and processes; waits for it."""
        fcntl.flock(self._descriptor, fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX)
        try:
            yield
        finally:
            with suppress(OSError):  # closing the directory lets go too; what was done is done
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def claim(self) -> bool:
        """Take the lock if nobody has it, and keep it until this object is closed."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _status(self, name: str) -> os.stat_result:
        return os.stat(_single(name), dir_fd=self._descriptor, follow_symlinks=False)

    def has(self, name: str) -> bool:
        try:
            self._status(name)
        except FileNotFoundError:
            return False
        return True


def _single(name: str) -> str:
    """Hold that a name is one step down: whatever was checked before, no text becomes a path."""
    if name in {"", ".", ".."} or "/" in name or "\0" in name:
        raise ValueError("a name must be one step of a path")
    return name


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
