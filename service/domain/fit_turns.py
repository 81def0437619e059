"""Whose turn it is: the fits of one model begin one after the other, in the order they came."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import dropwhile

from service.domain.ports import JobRunner, JobStore
from service.domain.records import JobRecord, StopWish
from service.errors import NotFound, ServiceError


@dataclass(slots=True)
class _Waiting:
    job: JobRecord
    behind: str | None = None
    """The job whose end is waited for."""


class FitTurns:
    """Lets held fits begin; safe to use from several threads at once.

    The job store says what came before, so that a fit waits for those of other processes, too.
    """

    def __init__(self, jobs: JobStore, runner: JobRunner) -> None:
        self._jobs = jobs
        self._runner = runner
        self._waiting: dict[str, _Waiting] = {}

    def take(self, job: JobRecord) -> None:
        """Let a fit that the runner holds begin once those of its model before it have ended."""
        waiting = self._waiting[job.id] = _Waiting(job)
        self._look(waiting)

    def look_again(self) -> None:
        """Do what could not be done, or was not heard of, when it was time."""
        for waiting in list(self._waiting.values()):
            self._look(waiting)

    def before(self, job: JobRecord) -> Sequence[JobRecord]:
        """Return the unfinished jobs of the model that came before this one, newest first."""
        return self._from(job)[1:]

    def _from(self, job: JobRecord) -> Sequence[JobRecord]:
        newest_first = self._jobs.list(model_id=job.model_id, is_done=False)
        return list(dropwhile(lambda other: other.id != job.id, newest_first))

    def _look(self, waiting: _Waiting) -> None:
        try:
            is_its_turn = not self._is_behind(waiting)
        except ServiceError:  # logged by the store; looked at again
            waiting.behind = None
            return
        if is_its_turn:
            self._waiting.pop(waiting.job.id, None)
            self._runner.admit(waiting.job.id)

    def _is_behind(self, waiting: _Waiting) -> bool:
        """Tell whether others come first; if so, the look is repeated at the end of the last."""
        while found := self._from(waiting.job):
            job, *earlier = found
            if job.stop is not None:  # perhaps asked for at another process
                self._runner.cancel(job.id, keep_best=job.stop is StopWish.KEEP_BEST)
            if not earlier:
                return False
            if waiting.behind == earlier[0].id:
                return True
            waiting.behind = earlier[0].id
            try:
                self._jobs.when_done(waiting.behind, partial(self._look, waiting))
            except NotFound:  # refused at this very moment
                waiting.behind = None
            else:
                return True
        return False
