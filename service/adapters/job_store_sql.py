"""Jobs in the SQL database: they and their results survive a restart.

A job's beginning and end are synced to the disk before anyone hears of them. That it started, and
how far it is, may be lost by a power cut. Progress is kept in memory and written down now and
then, for the other processes that look at the same database. Theirs are looked at in turn while
somebody waits for them.
"""

import json
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from sqlalchemy import Connection, Select, delete, func, insert, select, update

from service.adapters.database import JOBS, Database
from service.adapters.record_json import from_json, to_json
from service.adapters.subscriptions import Call, Listeners
from service.domain.records import JobProgress, JobRecord
from service.errors import Conflict, NotFound, ServiceError

MAX_ENDED_JOBS = 10_000
"""How many ended jobs are kept; the oldest are forgotten first."""
PROGRESS_SECONDS = 1.0
"""How often the progress of a job is written down."""
LOOK_SECONDS = 0.2
"""How often the jobs of other processes are looked at while somebody waits for them."""


@dataclass(slots=True)
class _Running:
    """A job of this process that is not done."""

    progress: JobProgress | None = None
    written_at: float = 0.0


class SqlJobStore:
    """Implements ``JobStore``; several processes may use one database."""

    def __init__(self, database: Database, *, max_ended_jobs: int = MAX_ENDED_JOBS) -> None:
        self._database = database
        self._max_ended_jobs = max_ended_jobs
        self._running: dict[str, _Running] = {}
        self._listeners = Listeners()
        self._lock = threading.Lock()
        """One change at a time: waiting for a lock here is cheaper than in the database."""
        self._looker: threading.Thread | None = None
        self._looker_lock = threading.Lock()

    def add(self, job: JobRecord, *, is_alone: bool = False) -> None:
        values = {"id": job.id, "model_id": job.model_id, "owner": self._database.owner}
        with self._lock, self._database.changing() as connection:
            _come_one_by_one(connection, job.model_id)
            if is_alone:
                _require_idle(connection, job.model_id)
            connection.execute(insert(JOBS).values(**values, **_stored(job)))
            self._running[job.id] = _Running()

    def get(self, job_id: str) -> JobRecord:
        with self._database.reading() as connection:
            return self._with_progress(_found(connection, job_id))

    def list(
        self, *, model_id: str | None = None, is_done: bool | None = None
    ) -> Sequence[JobRecord]:
        query = select(JOBS.c.record).order_by(JOBS.c.place.desc())
        if model_id is not None:
            query = query.where(JOBS.c.model_id == model_id)
        if is_done is not None:
            query = query.where(JOBS.c.is_done == is_done)
        return [self._with_progress(job) for job in self._jobs(query)]

    def update(self, job_id: str, change: Callable[[JobRecord], JobRecord]) -> JobRecord:
        with self._lock:
            job = self._changed(job_id, change)
        self._listeners.tell(job)
        return job

    def note_progress(self, job_id: str, progress: JobProgress) -> JobRecord | None:
        running = self._running.get(job_id)
        if running is None:
            return None
        running.progress = progress
        job = None
        if time.monotonic() - running.written_at >= PROGRESS_SECONDS:
            running.written_at = time.monotonic()
            with self._lock, suppress(ServiceError):  # logged; the fit goes on without
                job = self._changed(job_id, lambda job: job)
        self._listeners.tell_change(job_id)
        return job

    def when_done(self, job_id: str, call: Call) -> Call:
        forget = self._listeners.until_done.add(job_id, call)
        try:
            job = self.get(job_id)
        except ServiceError:
            forget()
            raise
        if job.is_done and self._listeners.until_done.take(job_id, call):
            call()
        self._look_at_others()
        return forget

    def when_changed(self, job_id: str, call: Call) -> Call:
        self.get(job_id)
        forget = self._listeners.on_change.add(job_id, call)
        self._look_at_others()
        return forget

    def remove(self, job_id: str) -> None:
        with self._lock, self._database.changing() as connection:
            connection.execute(delete(JOBS).where(JOBS.c.id == job_id))
            self._running.pop(job_id, None)
        self._listeners.tell_end(job_id)

    def abandoned(self) -> Sequence[JobRecord]:
        with self._database.reading() as connection:
            owners = connection.scalars(select(JOBS.c.owner).where(~JOBS.c.is_done).distinct())
            dead = [owner for owner in owners.all() if not self._database.is_alive(owner)]
        return self._jobs(select(JOBS.c.record).where(~JOBS.c.is_done, JOBS.c.owner.in_(dead)))

    def adopt(self, job_id: str) -> bool:
        is_it = (JOBS.c.id == job_id) & ~JOBS.c.is_done
        with self._lock, self._database.changing() as connection:
            owner = connection.scalar(select(JOBS.c.owner).where(is_it).with_for_update())
            if owner is None or self._database.is_alive(owner):
                return False
            connection.execute(update(JOBS).where(is_it).values(owner=self._database.owner))
            self._running[job_id] = _Running()
        return True

    def _jobs(self, query: Select[str]) -> Sequence[JobRecord]:
        with self._database.reading() as connection:
            return [_read(record) for record in connection.scalars(query)]

    def _changed(self, job_id: str, change: Callable[[JobRecord], JobRecord]) -> JobRecord:
        """Store the change, durably if it ends the job; the caller holds the lock."""
        before = self.get(job_id)
        is_last = change(before).is_done
        with self._database.changing(is_durable=is_last) as connection:
            # Read again: another process may have come between.
            job = change(self._with_progress(_found(connection, job_id, is_locked=True)))
            connection.execute(update(JOBS).where(JOBS.c.id == job_id).values(**_stored(job)))
            if job.is_done:
                self._forget_oldest(connection)
        if job.is_done:
            self._running.pop(job_id, None)
        return job

    def _with_progress(self, job: JobRecord) -> JobRecord:
        running = self._running.get(job.id)
        if job.is_done or running is None or running.progress is None:
            return job
        return replace(job, progress=running.progress)

    def _forget_oldest(self, connection: Connection) -> None:
        last_kept = connection.scalar(
            select(JOBS.c.place)
            .where(JOBS.c.is_done)
            .order_by(JOBS.c.place.desc())
            .offset(self._max_ended_jobs)
            .limit(1)
        )
        if last_kept is not None:
            connection.execute(delete(JOBS).where(JOBS.c.is_done, JOBS.c.place <= last_kept))

    def _look_at_others(self) -> None:
        """See to it that somebody looks while there is a job of another process to look at."""
        with self._looker_lock:
            if self._looker is None and self._others():
                self._looker = threading.Thread(target=self._look, name="jobs", daemon=True)
                self._looker.start()

    def _others(self) -> frozenset[str]:
        return self._listeners.job_ids() - self._running.keys()

    def _look(self) -> None:
        seen: dict[str, JobRecord] = {}
        while self._is_needed():
            time.sleep(LOOK_SECONDS)
            seen = self._looked(seen)

    def _is_needed(self) -> bool:
        with self._looker_lock:
            if self._others():
                return True
            self._looker = None
            return False

    def _looked(self, seen: dict[str, JobRecord]) -> dict[str, JobRecord]:
        others = self._others()
        try:
            jobs = self._jobs(select(JOBS.c.record).where(JOBS.c.id.in_(others)))
        except ServiceError:  # logged; who waits still has a time limit
            return seen
        for job in jobs:
            if job.is_done or seen.get(job.id) != job:
                self._listeners.tell(job)
        for forgotten in others - {job.id for job in jobs} - self._running.keys():
            self._listeners.tell_end(forgotten)
        return {job.id: job for job in jobs}


def _come_one_by_one(connection: Connection, model_id: str) -> None:
    """Let the jobs of a model be seen in the order of their places, none after a later one."""
    if connection.dialect.name == "postgresql":  # SQLite has one writer at a time anyway
        connection.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(model_id, 0))))


def _require_idle(connection: Connection, model_id: str) -> None:
    """Refuse when a job of the model is under way."""
    under_way = select(JOBS.c.id).where(JOBS.c.model_id == model_id, ~JOBS.c.is_done)
    if connection.scalar(under_way.limit(1)) is not None:
        raise Conflict.fit_in_progress(model_id)


def _stored(job: JobRecord) -> dict[str, object]:
    return {"is_done": job.is_done, "record": json.dumps(to_json(job), allow_nan=False)}


def _read(record: str) -> JobRecord:
    return from_json(JobRecord, json.loads(record))


def _found(connection: Connection, job_id: str, *, is_locked: bool = False) -> JobRecord:
    query = select(JOBS.c.record).where(JOBS.c.id == job_id)
    record = connection.scalar(query.with_for_update() if is_locked else query)
    if record is None:
        raise NotFound.job(job_id)
    return _read(record)
