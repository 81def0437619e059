"""SQL databases for tests: SQLite in a file, a real PostgreSQL server where it is installed."""

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from service.adapters.database import Database
from service.adapters.job_store_sql import SqlJobStore

DATABASES = ("sqlite", "postgresql")


@contextmanager
def store_in(
    request: pytest.FixtureRequest, kind: str, *, max_ended_jobs: int
) -> Iterator[SqlJobStore]:
    """Give a store of jobs over a new database of this kind."""
    database = Database.at(database_url(request, kind), request.getfixturevalue("tmp_path"))
    yield SqlJobStore(database, max_ended_jobs=max_ended_jobs)
    database.close()


def database_url(request: pytest.FixtureRequest, kind: str) -> str | None:
    """Return the address of a new database; None stands for a file of SQLite."""
    url: str | None = request.getfixturevalue("new_database") if kind == "postgresql" else None
    return url


@contextmanager
def postgresql_server(directory: Path) -> Iterator[str]:
    """Run a server of our own on a socket in the directory; give its socket's directory."""
    programs = {name: _program(name) for name in ("initdb", "pg_ctl")}
    absent = [name for name, program in programs.items() if program is None]
    if absent:
        pytest.skip(f"PostgreSQL is not installed: no {', '.join(absent)}")
    user = _server_user()
    sockets = directory / "sockets"
    sockets.mkdir(mode=0o777)
    for path in (directory, sockets):
        if user is not None:
            shutil.chown(path, user)
    data = directory / "data"
    _run(user, programs["initdb"], "-D", data, "-U", "gmm", "-A", "trust", "--no-sync")
    options = f"-k {sockets} -c listen_addresses='' -c fsync=off"
    log = directory / "log"
    _run(user, programs["pg_ctl"], "-D", data, "-o", options, "-w", "-l", log, "start")
    try:
        yield str(sockets)
    finally:
        _run(user, programs["pg_ctl"], "-D", data, "-m", "immediate", "stop")


def create_database(sockets: str, name: str) -> str:
    with psycopg.connect(host=sockets, user="gmm", dbname="postgres", autocommit=True) as session:
        session.execute(f'CREATE DATABASE "{name}"'.encode())
    return f"postgresql://gmm@/{name}?host={sockets}"


def _program(name: str) -> str | None:
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    path = os.pathsep.join([os.environ.get("PATH", ""), *map(str, places)])
    return shutil.which(name, path=path)


def _server_user() -> str | None:
    """Return the user to run the server as: it refuses to be root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    pytest.skip("PostgreSQL does not run as root and there is no other user to run it as")


def _run(user: str | None, *command: object) -> None:
    # The server keeps what it inherits open, so its output must not be a pipe that is waited for.
    subprocess.run(  # noqa: S603  # a server of our own
        list(map(str, command)),
        user=user,
        cwd="/",
        check=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
