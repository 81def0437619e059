"""Jobs in memory: the reference. A restart forgets them; the versions they made stay."""

import threading
from collections.abc import Callable, Sequence
from itertools import islice

from service.domain.records import JobRecord
from service.errors import NotFound

MAX_ENDED_JOBS = 1000
"""How many ended jobs are kept; the oldest are forgotten first."""

DoneCall = Callable[[], None]


class MemoryJobStore:
    def __init__(self, max_ended_jobs: int = MAX_ENDED_JOBS) -> None:
        self._max_ended_jobs = max_ended_jobs
        self._jobs: dict[str, JobRecord] = {}
        self._waiting: dict[str, list[DoneCall]] = {}
        self._lock = threading.Lock()

    def add(self, job: JobRecord) -> None:
        with self._lock:
            self._jobs[job.id] = job

    def get(self, job_id: str) -> JobRecord:
        with self._lock:
            return self._found(job_id)

    def list(self, *, model_id: str | None = None) -> Sequence[JobRecord]:
        with self._lock:
            newest_first = list(reversed(self._jobs.values()))
        return [job for job in newest_first if model_id is None or job.model_id == model_id]

    def update(self, job_id: str, change: Callable[[JobRecord], JobRecord]) -> JobRecord:
        with self._lock:
            job = self._jobs[job_id] = change(self._found(job_id))
            calls = self._waiting.pop(job_id, []) if job.is_done else []
            if job.is_done:
                self._forget_oldest()
        for call in calls:
            call()
        return job

    def wait(self, job_id: str, timeout_seconds: float) -> JobRecord:
        done = threading.Event()
        forget = self.when_done(job_id, done.set)
        try:
            done.wait(timeout_seconds)
            return self.get(job_id)
        finally:
            forget()

    def when_done(self, job_id: str, call: DoneCall) -> Callable[[], None]:
        with self._lock:
            is_done = self._found(job_id).is_done
            if not is_done:
                self._waiting.setdefault(job_id, []).append(call)
        if is_done:
            call()
        return lambda: self._stop_waiting(job_id, call)

    def remove(self, job_id: str) -> None:
        with self._lock:
            self._jobs.pop(job_id, None)
            self._waiting.pop(job_id, None)

    def _stop_waiting(self, job_id: str, call: DoneCall) -> None:
        with self._lock:
            calls = self._waiting.get(job_id, [])
            if call in calls:
                calls.remove(call)
            if not calls:
                self._waiting.pop(job_id, None)

    def _found(self, job_id: str) -> JobRecord:
        try:
            return self._jobs[job_id]
        except KeyError:
            raise NotFound.job(job_id) from None

    def _forget_oldest(self) -> None:
        ended = [job_id for job_id, job in self._jobs.items() if job.is_done]
        for job_id in islice(ended, max(0, len(ended) - self._max_ended_jobs)):
            del self._jobs[job_id]
