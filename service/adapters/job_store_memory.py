"""Jobs in memory: the reference. A restart forgets them; the versions they made stay."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice

from service.adapters.subscriptions import Call, Listeners
from service.domain.records import JobProgress, JobRecord
from service.errors import Conflict, NotFound

MAX_ENDED_JOBS = 1000
"""How many ended jobs are kept; the oldest are forgotten first."""


class MemoryJobStore:
    def __init__(self, max_ended_jobs: int = MAX_ENDED_JOBS) -> None:
        self._max_ended_jobs = max_ended_jobs
        self._jobs: dict[str, JobRecord] = {}
        self._listeners = Listeners()
        self._lock = threading.Lock()

    def add(self, job: JobRecord, *, is_alone: bool = False) -> None:
        with self._lock:
            under_way = (
                other
                for other in self._jobs.values()
                if other.model_id == job.model_id and not other.is_done
            )
            if is_alone and any(under_way):
                raise Conflict.fit_in_progress(job.model_id)
            self._jobs[job.id] = job

    def get(self, job_id: str) -> JobRecord:
        with self._lock:
            return self._found(job_id)

    def list(
        self, *, model_id: str | None = None, is_done: bool | None = None
    ) -> Sequence[JobRecord]:
        with self._lock:
            newest_first = list(reversed(self._jobs.values()))
        return [
            job
            for job in newest_first
            if model_id in {None, job.model_id} and is_done in {None, job.is_done}
        ]

    def update(self, job_id: str, change: Callable[[JobRecord], JobRecord]) -> JobRecord:
        with self._lock:
            job = self._jobs[job_id] = change(self._found(job_id))
            if job.is_done:
                self._forget_oldest()
        self._listeners.tell(job)
        return job

    def note_progress(self, job_id: str, progress: JobProgress) -> JobRecord | None:
        with self._lock:
            job = self._jobs.get(job_id)
            if job is None or job.is_done:
                return None
            job = self._jobs[job_id] = replace(job, progress=progress)
        self._listeners.tell(job)
        return job

    def when_done(self, job_id: str, call: Call) -> Call:
        with self._lock:
            is_done = self._found(job_id).is_done
            forget = self._listeners.until_done.add(job_id, call)
        if is_done and self._listeners.until_done.take(job_id, call):
            call()
        return forget

    def when_changed(self, job_id: str, call: Call) -> Call:
        with self._lock:
            self._found(job_id)
            return self._listeners.on_change.add(job_id, call)

    def remove(self, job_id: str) -> None:
        with self._lock:
            self._jobs.pop(job_id, None)
        self._listeners.tell_end(job_id)

    def abandoned(self) -> Sequence[JobRecord]:
        return []  # its jobs die with the process

    def adopt(self, job_id: str) -> bool:  # noqa: ARG002  # none is ever left
        return False

    def _found(self, job_id: str) -> JobRecord:
        try:
            return self._jobs[job_id]
        except KeyError:
            raise NotFound.job(job_id) from None

    def _forget_oldest(self) -> None:
        ended = [job_id for job_id, job in self._jobs.items() if job.is_done]
        for job_id in islice(ended, max(0, len(ended) - self._max_ended_jobs)):
            del self._jobs[job_id]
