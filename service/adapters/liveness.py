"""Which processes are alive: each holds a lock for as long as it lives, which nothing outlasts.

Whose jobs are whose is recorded by a process's number. A lock is let go by the kernel, or by the
database's server, at the moment of death, so that nobody has to guess from a clock.
"""

import secrets
from pathlib import Path
from typing import Protocol

from sqlalchemy import Engine, text

from service.adapters.durable_files import DIRECTORY_MODE, Directory


class Liveness(Protocol):
    owner: int

    def is_alive(self, owner: int) -> bool:
        """Tell whether another process still holds its lock."""

    def close(self) -> None:
        """Let go of this process's lock."""


def new_owner() -> int:
    return secrets.randbits(62)


class AllAlive:
    """For a process that may take over nothing: every other one counts as alive."""

    def __init__(self) -> None:
        self.owner = new_owner()

    def is_alive(self, owner: int) -> bool:  # noqa: ARG002  # whichever
        return True

    def close(self) -> None:
        pass


class FileLiveness:
    """For processes of one machine: a locked directory each, beside the database's file."""

    def __init__(self, path: Path) -> None:
        path.mkdir(mode=DIRECTORY_MODE, exist_ok=True)
        self._path = path
        self.owner = new_owner()
        with Directory.at(path) as processes, processes.locked():
            processes.make(str(self.owner))
            self._mine = processes.subdirectory(str(self.owner))
            self._mine.claim()

    def is_alive(self, owner: int) -> bool:
        name = str(owner)
        with Directory.at(self._path) as processes, processes.locked():
            try:
                with processes.subdirectory(name) as other:
                    if not other.claim():
                        return True
            except FileNotFoundError:
                return False
            processes.remove_tree(name)
        return False

    def close(self) -> None:
        with self._mine, Directory.at(self._path) as processes, processes.locked():
            processes.remove_tree(str(self.owner))


class SessionLiveness:
    """For processes of several machines: an advisory lock of a PostgreSQL session each."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.owner = new_owner()
        self._session = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        self._session.execute(text("SELECT pg_advisory_lock(:owner)"), {"owner": self.owner})

    def is_alive(self, owner: int) -> bool:
        with self._engine.connect() as connection:
            held = connection.execute(
                text("SELECT NOT pg_try_advisory_xact_lock(:owner)"), {"owner": owner}
            )
            return bool(held.scalar_one())

    def close(self) -> None:
        self._session.invalidate()
        self._session.close()
