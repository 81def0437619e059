"""The SQL database of jobs, idempotency keys and the audit trail: SQLite, or PostgreSQL.

Its tables are here, how a change is committed, and what its failures mean. SQLite runs with a
write-ahead log and syncs it with every durable change; a change that may be lost by a power cut,
though not by the death of this process, is not synced. What is kept is ``job_store_sql``'s
business and that of its neighbours.
"""

import logging
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Engine,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    event,
    make_url,
    text,
)
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry, NullPool, StaticPool

from service.adapters import refusals
from service.adapters.liveness import AllAlive, FileLiveness, Liveness, SessionLiveness
from service.errors import Unavailable

logger = logging.getLogger(__name__)

BUSY_SECONDS = 30
"""How long a change waits for those of other processes."""

SQLITE_FULL = frozenset({"SQLITE_FULL"})
SQLITE_READ_ONLY = frozenset({"SQLITE_READONLY", "SQLITE_PERM", "SQLITE_CANTOPEN"})
POSTGRESQL_FULL = frozenset({"53100"})
POSTGRESQL_READ_ONLY = frozenset({"25006"})
SCHEMA_LOCK = 0x676D6D
"""Of PostgreSQL: held while the tables are made, so that two first starts don't collide."""

METADATA = MetaData()

JOBS = Table(
    "gmm_jobs",
    METADATA,
    Column("place", Integer, primary_key=True, autoincrement=True),
    Column("id", String(63), nullable=False, unique=True),
    Column("model_id", String(63), nullable=False),
    Column("owner", BigInteger, nullable=False),
    Column("is_done", Boolean, nullable=False),
    Column("record", Text, nullable=False),
    Index("gmm_jobs_of_model", "model_id", "is_done"),
    Index("gmm_jobs_done", "is_done", "place"),
    sqlite_autoincrement=True,
)
"""``record`` is the whole job; the columns beside it are there to find it by."""

ANSWERS = Table(
    "gmm_answers",
    METADATA,
    Column("scope", String(200), primary_key=True),
    Column("key", String(255), primary_key=True),
    Column("fingerprint", String(64), nullable=False),
    Column("token", String(64), nullable=False),
    Column("owner", BigInteger),
    Column("created_at", BigInteger, nullable=False),
    Column("status", Integer),
    Column("headers", Text),
    Column("body", LargeBinary),
    Index("gmm_answers_by_age", "created_at"),
)
"""``status``, ``headers`` and ``body`` are the first answer; null while it is being made."""

AUDIT = Table(
    "gmm_audit_trail",
    METADATA,
    Column("place", Integer, primary_key=True, autoincrement=True),
    Column("model_id", String(63)),
    Column("record", Text, nullable=False),
    Index("gmm_audit_trail_of_model", "model_id", "place"),
    sqlite_autoincrement=True,
)
"""``record`` is the whole entry, as for jobs."""


class Database:
    """One process's way to the database; safe to use from several threads at once."""

    def __init__(
        self,
        engine: Engine,
        liveness: Callable[[Engine], Liveness],
        *,
        is_read_only: bool = False,
    ) -> None:
        self._engine = engine
        self._is_read_only = is_read_only
        with storing():
            if not is_read_only:
                self._make_tables()
            self._liveness = liveness(engine)

    @classmethod
    def at(cls, url: str | None, directory: Path, *, is_read_only: bool = False) -> "Database":
        """Open the database of this URL, or ``service.sqlite3`` in the directory.

        One that is read-only refuses every change and takes over nothing.
        """
        in_file = cls.in_read_only_file if is_read_only else cls.in_file
        if url is None:
            return in_file(directory / "service.sqlite3")
        try:
            parsed = make_url(url)
            if parsed.get_backend_name() == "sqlite":
                return in_file(Path(parsed.database or "service.sqlite3"))
            if parsed.get_backend_name() != "postgresql":
                raise _unknown_kind()
            engine = create_engine(
                parsed.set(drivername="postgresql+psycopg"), pool_pre_ping=True, max_overflow=20
            )
        except (ArgumentError, NoSuchModuleError, ImportError) as error:
            raise _unknown_kind() from error
        event.listen(engine, "begin", _begin_on_postgresql)
        if is_read_only:
            return cls(engine, lambda _: AllAlive(), is_read_only=True)
        return cls(engine, SessionLiveness)

    @classmethod
    def in_file(cls, path: Path) -> "Database":
        with refusals.making(refusals.database_not_writable()):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Made here, so that it is not readable by others for even a moment.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        engine = create_engine(
            f"sqlite:///{path.absolute()}", connect_args={"timeout": BUSY_SECONDS}, max_overflow=20
        )
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "begin", _begin_on_sqlite)
        return cls(engine, lambda _: FileLiveness(path.with_name(f"{path.name}-processes")))

    @classmethod
    def in_read_only_file(cls, path: Path) -> "Database":
        """Read the file where nothing can be written; one that is not there holds nothing."""
        if path.exists():
            engine = create_engine(
                "sqlite://", creator=partial(_connected_to_read, path), poolclass=NullPool
            )
        else:
            engine = create_engine(
                "sqlite://", connect_args={"check_same_thread": False}, poolclass=StaticPool
            )
            METADATA.create_all(engine)
        return cls(engine, lambda _: AllAlive(), is_read_only=True)

    @property
    def owner(self) -> int:
        """The number that stands for this process."""
        return self._liveness.owner

    def is_alive(self, owner: int) -> bool:
        """Tell whether the process of this number still runs."""
        with storing():
            return owner == self.owner or self._liveness.is_alive(owner)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        with storing(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def changing(self, *, is_durable: bool = True) -> Iterator[Connection]:
        """Commit what happens inside as one step; on an error nothing of it."""
        if self._is_read_only:
            raise refusals.registry_read_only()
        with storing(), self._engine.connect() as connection:
            connection.execution_options(writes=True, durable=is_durable)
            with connection.begin():
                yield connection

    def close(self) -> None:
        self._liveness.close()
        self._engine.dispose()

    def _make_tables(self) -> None:
        with self._engine.connect() as connection:
            connection.execution_options(writes=True)
            with connection.begin():
                if connection.dialect.name == "postgresql":
                    connection.execute(
                        text("SELECT pg_advisory_xact_lock(:key)"), {"key": SCHEMA_LOCK}
                    )
                METADATA.create_all(connection)


@contextmanager
def storing() -> Iterator[None]:
    """Turn what the database answers into a refusal."""
    try:
        yield
    except SQLAlchemyError as error:
        code = _code_of(error)
        logger.exception("database_failed", extra={"code": code})
        if code in SQLITE_FULL | POSTGRESQL_FULL:
            raise refusals.storage_full() from error
        if code in SQLITE_READ_ONLY | POSTGRESQL_READ_ONLY:
            raise refusals.registry_read_only() from error
        raise refusals.storage_failed() from error


def _code_of(error: SQLAlchemyError) -> str | None:
    """Return the database's own name of the error, without the details of newer SQLite ones."""
    cause = error.orig if isinstance(error, DBAPIError) else None
    if isinstance(cause, sqlite3.Error):
        return "_".join(getattr(cause, "sqlite_errorname", "").split("_")[:2])
    state = getattr(cause, "sqlstate", None)
    return state if isinstance(state, str) else None


def _set_up_sqlite(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # transactions begin where we say
    cursor = connection.cursor()
    for statement in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {statement}")
    cursor.close()


def _connected_to_read(path: Path) -> sqlite3.Connection:
    """Open the file with its write-ahead log, or alone where that was not left in a state to read.

    SQLite reads the log by way of the file beside it that ends in ``-shm``, and can't make that.
    """
    is_alone = not path.with_name(f"{path.name}-shm").exists()
    options = "mode=ro&immutable=1" if is_alone else "mode=ro"
    return sqlite3.connect(f"{path.absolute().as_uri()}?{options}", uri=True, timeout=BUSY_SECONDS)


def _begin_on_sqlite(connection: Connection) -> None:
    options: Mapping[str, object] = connection.get_execution_options()
    synchronous = "FULL" if options.get("durable", True) else "NORMAL"
    connection.exec_driver_sql(f"PRAGMA synchronous={synchronous}")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if options.get("writes") else "BEGIN")


def _begin_on_postgresql(connection: Connection) -> None:
    if not connection.get_execution_options().get("durable", True):
        connection.exec_driver_sql("SET LOCAL synchronous_commit TO off")


def _unknown_kind() -> Unavailable:
    return Unavailable(
        "database_unknown",
        "The database's URL must begin with sqlite:/// or postgresql:// (which needs the "
        "package's extra 'postgresql').",
    )
