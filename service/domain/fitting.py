"""A fit from the request to the version: refused early, queued, run, committed, or cancelled.

The arithmetic is ``fit_task``'s; where it runs is the runner's business.
"""

import logging
import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gmm_engine import FitOptions, FitResult, Grid, Mixture
from gmm_engine.costs import Costs
from gmm_engine.preprocessing import Preprocessing
from gmm_engine.regularization import DataScale
from gmm_engine.samples import Samples
from gmm_engine.selection import require_comparable
from gmm_engine.validation import as_sample_weight, as_samples
from service.domain.data import Table
from service.domain.estimates import FitEstimate, estimate_of
from service.domain.fit_task import FitOutcome, FitTask, digest_of
from service.domain.fit_turns import FitTurns
from service.domain.identifiers import job_id_of
from service.domain.limits import Limits
from service.domain.paging import Page, page_of
from service.domain.ports import FitListener, JobRunner, JobStore, ModelRegistry
from service.domain.records import (
    FitOrder,
    FitSummary,
    FitWarningRecord,
    IllegalTransition,
    JobFailure,
    JobProgress,
    JobRecord,
    JobStatus,
    SelectionRecord,
    SelectionRequest,
    StopWish,
    VersionDraft,
    VersionRecord,
    new_uid,
)
from service.domain.refusals import engine_refusals
from service.domain.retention import Retention
from service.errors import (
    Conflict,
    InternalFailure,
    InvalidInput,
    Issue,
    NotFound,
    ServiceError,
    StorageFull,
    TooManyRequests,
    Unavailable,
)

logger = logging.getLogger(__name__)

INTERNAL_ERROR = "internal_error"
FAILURE_KINDS: dict[str, type[ServiceError]] = {
    INTERNAL_ERROR: InternalFailure,
    "out_of_memory": Unavailable,
    "time_limit_exceeded": Unavailable,
    "worker_died": Unavailable,
    "worker_protocol": InternalFailure,
    "worker_unresponsive": Unavailable,
    "registry_read_only": Unavailable,
    "storage_full": StorageFull,
    "model_not_found": NotFound,
}
"""What kind of refusal a failed fit is, by its code; every other code is the data's fault."""

SEED_BITS = 32
Change = Callable[[JobRecord], JobRecord]

MAX_RESUMES = 10
"""A fit that was cut off more often than that may be why."""


class OnConflict(StrEnum):
    """What becomes of a fit of a model that is being fitted already."""

    QUEUE = "queue"
    REJECT = "reject"
    SUPERSEDE = "supersede"


class Fitting:
    def __init__(
        self,
        registry: ModelRegistry,
        jobs: JobStore,
        runner: JobRunner,
        limits: Limits,
        *,
        retention: Retention,
        costs: Callable[[], Costs],
    ) -> None:
        self._registry = registry
        self._costs = costs
        self._jobs = jobs
        self._runner = runner
        self._turns = FitTurns(jobs, runner)
        self._limits = limits
        self._retention = retention
        self._unwritten: dict[str, Change] = {}
        """Ends of jobs that the store could not take when they came."""

    def start(
        self,
        model_id: str,
        table: Table,
        *,
        sample_weight: NDArray[np.float64] | None = None,
        budget_seconds: float | None = None,
        on_conflict: OnConflict = OnConflict.QUEUE,
        token: str | None = None,
        selection: SelectionRequest | None = None,
    ) -> JobRecord:
        """Queue a fit of the model as it is declared now; refuse at once what can't succeed.

        The job is named after the ``token``; if there is such a job already, return that. With
        ``budget_seconds`` the fit ends in that time with the best parameters that it has found.
        With a ``selection`` every candidate of its plan is fitted, and the best is kept.
        """
        job_id = job_id_of(token or new_uid())
        with suppress(NotFound):
            return self._jobs.get(job_id)
        model = self._registry.get_model(model_id)
        self._registry.require_room()
        options = _seeded(model.options)
        if selection is None:
            self._limits.require_options(options)
            task = self._checked_task(job_id, options, table, sample_weight)
        else:
            task = self._selection_task(
                job_id,
                options,
                table,
                sample_weight,
                selection,
                preprocessing=model.preprocessing,
            )
        task = _mapping(task, table, model.preprocessing)
        task = replace(task, budget_seconds=budget_seconds)
        order = FitOrder(
            model_uid=model.uid,
            options=task.options,
            data_digest=digest_of(task.X, task.sample_weight),
            feature_names=table.feature_names,
            budget_seconds=task.budget_seconds,
            plan=task.plan,
            preprocessing=model.preprocessing,
        )
        kind: Literal["fit", "select"] = "fit" if task.plan is None else "select"
        job = JobRecord(id=job_id, model_id=model.id, kind=kind, order=order)
        self._add(job, on_conflict)
        try:
            self._submit(job, task, self._listener(job, order), on_conflict)
        except ServiceError:
            self._jobs.remove(job_id)
            raise
        if on_conflict is OnConflict.SUPERSEDE:
            self._cancel_earlier(job)
        self._turns.take(job)
        self._cancel_if_deleted(model.id, model.uid, job_id)
        return self._jobs.get(job_id)

    def require_model(self, model_id: str) -> None:
        """Raise ``NotFound`` for a model that no fit could be of."""
        self._registry.get_model(model_id)

    def require_startable(self, model_id: str, on_conflict: OnConflict = OnConflict.QUEUE) -> None:
        """Refuse what ``start`` would refuse now whatever the rows.

        An unknown model, no room for a version, another fit that this one must not meet, or no
        place in the queue.
        """
        self.require_model(model_id)
        self._registry.require_room()
        if on_conflict is OnConflict.REJECT:
            self._require_alone(model_id)
        try:
            self._runner.require_place()
        except TooManyRequests:
            is_superseding = on_conflict is OnConflict.SUPERSEDE
            if not is_superseding or not self._has_queued(model_id):
                raise

    def _require_alone(self, model_id: str) -> None:
        if self._jobs.list(model_id=model_id, is_done=False):
            self.recover()  # as in ``_add``
            if self._jobs.list(model_id=model_id, is_done=False):
                raise Conflict.fit_in_progress(model_id)

    def _has_queued(self, model_id: str) -> bool:
        jobs = self._jobs.list(model_id=model_id, is_done=False)
        return any(job.status is JobStatus.QUEUED for job in jobs)

    def estimate(
        self,
        model_id: str,
        table: Table,
        *,
        sample_weight: NDArray[np.float64] | None = None,
        budget_seconds: float | None = None,
    ) -> FitEstimate:
        """Check a fit as ``start`` does and return what it is expected to take; nothing begins."""
        model = self._registry.get_model(model_id)
        self._limits.require_options(model.options)
        task = self._checked_task(job_id_of(new_uid()), model.options, table, sample_weight)
        task = _mapping(task, table, model.preprocessing)
        task = replace(task, budget_seconds=budget_seconds)
        with engine_refusals():
            return estimate_of(task, model.id, self._costs())

    def cancel(self, job_id: str, *, keep_best: bool = False) -> JobRecord:
        """Ask a fit to stop; one that has ended stays as it is.

        With ``keep_best`` the best that a running fit has found becomes a version.
        """
        job = self._jobs.get(job_id)
        if not job.is_done:
            self._stop(job_id, StopWish.KEEP_BEST if keep_best else StopWish.DISCARD)
        return self._jobs.get(job_id)

    def check_usable(self) -> None:
        """Return while fits can be run; raise ``Unavailable`` otherwise."""
        self._runner.check_usable()

    def cancel_all(self, model_id: str) -> None:
        for job in self._jobs.list(model_id=model_id, is_done=False):
            self._stop(job.id)

    def _stop(self, job_id: str, wish: StopWish = StopWish.DISCARD) -> None:
        """Stop a fit here, or leave the wish where the process that runs it will find it."""
        heard: StopWish | None = wish
        try:
            with suppress(NotFound):  # refused, or forgotten, at this very moment
                heard = self._jobs.update(job_id, partial(JobRecord.asked_to_stop, wish=wish)).stop
        finally:  # also where the wish could not be written down
            self._runner.cancel(job_id, keep_best=heard is StopWish.KEEP_BEST)

    def _add(self, job: JobRecord, on_conflict: OnConflict) -> None:
        is_alone = on_conflict is OnConflict.REJECT
        try:
            self._jobs.add(job, is_alone=is_alone)
        except Conflict:
            self.recover()  # what is in the way may be left over from a process that died
            self._jobs.add(job, is_alone=is_alone)

    def _submit(
        self, job: JobRecord, task: FitTask, listener: FitListener, on_conflict: OnConflict
    ) -> None:
        try:
            self._runner.submit(task, listener, is_held=True)
        except TooManyRequests:
            is_superseding = on_conflict is OnConflict.SUPERSEDE
            if not is_superseding or not self._cancel_earlier(job, status=JobStatus.QUEUED):
                raise
            self._runner.submit(task, listener, is_held=True)

    def _cancel_earlier(self, job: JobRecord, *, status: JobStatus | None = None) -> bool:
        """Cancel the jobs of a model that came before this one; tell whether there were any."""
        found = [other for other in self._turns.before(job) if status in {None, other.status}]
        for other in found:
            self._stop(other.id)
        return bool(found)

    def recover(self) -> None:
        """Settle the jobs of dead processes: ended if there is a version, otherwise gone on with.

        A version is committed before its job is moved, so that the version is what counts. What
        can't go on is told as interrupted. Ends of this process's own jobs that could not be
        written down when they came are written down now, and fits whose turn came meanwhile begin.
        """
        for job_id, end in list(self._unwritten.items()):
            with suppress(NotFound, IllegalTransition):
                self._jobs.update(job_id, end)
            del self._unwritten[job_id]
        for job in self._jobs.abandoned():
            if self._jobs.adopt(job.id):
                settled = self._settled(job)
                logger.info("job_recovered", extra={"job": job.id, "status": settled.status.value})
        self._turns.look_again()
        self._runner.clear(self._is_open)

    def _settled(self, job: JobRecord) -> JobRecord:
        version = self._version_of(job)
        if version is not None:
            return self._jobs.update(job.id, partial(_succeeded, version=version))
        if job.order is None or job.n_resumed >= MAX_RESUMES:
            return self._jobs.update(job.id, JobRecord.interrupted)
        self._jobs.update(job.id, JobRecord.resumed)
        listener = self._listener(job, job.order)
        if not self._runner.resume(job.id, job.order, listener, is_held=True):
            return self._jobs.update(job.id, JobRecord.interrupted)
        self._turns.take(job)
        self._cancel_if_deleted(job.model_id, job.order.model_uid, job.id)
        return self._jobs.get(job.id)

    def _is_open(self, job_id: str) -> bool:
        try:
            return not self._jobs.get(job_id).is_done
        except NotFound:
            return False

    def _listener(self, job: JobRecord, order: FitOrder) -> "_Listener":
        return _Listener(
            job_id=job.id,
            model_id=job.model_id,
            order=order,
            registry=self._registry,
            jobs=self._jobs,
            runner=self._runner,
            retention=self._retention,
            unwritten=self._unwritten,
        )

    def _version_of(self, job: JobRecord) -> VersionRecord | None:
        try:
            versions = self._registry.list_versions(job.model_id)
        except NotFound:
            return None
        return next((version for version in versions if version.job_id == job.id), None)

    def get_job(self, job_id: str) -> JobRecord:
        return self._jobs.get(job_id)

    def version_made_by(self, job_id: str, model_id: str) -> int:
        """Return the number of the version that a job of this model made."""
        job = self._jobs.get(job_id)
        if job.model_id != model_id:
            raise NotFound.job(job_id)
        if job.version is None:
            raise refusal_of(job)
        return job.version

    def when_done(self, job_id: str, call: Callable[[], None]) -> Callable[[], None]:
        return self._jobs.when_done(job_id, call)

    def when_changed(self, job_id: str, call: Callable[[], None]) -> Callable[[], None]:
        return self._jobs.when_changed(job_id, call)

    def list_jobs(
        self,
        *,
        model_id: str | None,
        status: JobStatus | None,
        page_size: int,
        page_token: str | None,
    ) -> Page[JobRecord]:
        jobs = self._jobs.list(model_id=model_id)
        return page_of(
            [job for job in jobs if status is None or job.status is status],
            place_of=lambda job: (job.created_at.isoformat(timespec="microseconds"), job.id),
            page_size=page_size,
            token=page_token,
            listing=("jobs", model_id or "", status or ""),
            descending=True,
        )

    def _checked_task(
        self,
        job_id: str,
        options: FitOptions,
        table: Table,
        sample_weight: NDArray[np.float64] | None,
        *,
        size_given_at: str | None = None,
    ) -> FitTask:
        """Check what the rows can't be fitted for; a size that was asked for has its place."""
        n_samples, n_features = table.X.shape
        require = self._limits.require_blocks if table.is_on_disk else self._limits.require_work
        require(n_samples, n_features, options.n_components)
        with engine_refusals(table):
            X = as_samples(table.X)
        with engine_refusals(place="#/sample_weight"):
            weight = None if sample_weight is None else as_sample_weight(sample_weight, len(X))
        n_counting = n_samples if weight is None else int(np.count_nonzero(weight))
        if n_counting < options.n_components:
            detail = (
                f"{n_counting} rows can't support {options.n_components} components; "
                "send more rows or declare fewer components"
            )
            places = [] if size_given_at is None else [size_given_at]
            issues = [Issue(place, "too_few_samples", detail) for place in places]
            raise InvalidInput("too_few_samples", detail, issues=issues)
        return FitTask(job_id=job_id, options=options, X=X, sample_weight=weight)

    def _selection_task(
        self,
        job_id: str,
        options: FitOptions,
        table: Table,
        sample_weight: NDArray[np.float64] | None,
        selection: SelectionRequest,
        *,
        preprocessing: Preprocessing,
    ) -> FitTask:
        """Check a selection by its largest candidate."""
        plan = selection.plan
        self._limits.require_candidates(plan.n_candidates)
        with engine_refusals():
            options = replace(
                options,
                n_components=max(plan.n_components),
                n_init=selection.n_init or options.n_init,
            )
        self._limits.require_options(options, place="#/query")
        task = self._checked_task(
            job_id, options, table, sample_weight, size_given_at="#/query/n_components"
        )
        with engine_refusals(
            n_components="query/n_components",
            n_folds="query/n_folds",
            criterion="query/criterion",
        ):
            require_comparable(
                Samples(task.X, task.sample_weight),
                Grid(plan.n_components, plan.covariance_types),
                plan.criterion,
                n_folds=plan.n_folds,
                n_features=preprocessing.pca_components or task.X.shape[1],
            )
        return replace(task, plan=plan)

    def _cancel_if_deleted(self, model_id: str, model_uid: str, job_id: str) -> None:
        """Stop a fit whose model was deleted between the look and the queue.

        The deletion may have looked for jobs before this one was there.
        """
        try:
            is_gone = self._registry.get_model(model_id).uid != model_uid
        except NotFound:
            is_gone = True
        if is_gone:
            self._stop(job_id)


def refusal_of(job: JobRecord) -> ServiceError:
    """Return why a job has no result, as the refusal that a waiting client gets."""
    if job.failure is None:
        return Conflict(f"fit_{job.status}", f"Job '{job.id}' has no result: it is {job.status}.")
    kind = FAILURE_KINDS.get(job.failure.code, InvalidInput)
    return kind(job.failure.code, job.failure.detail)


@dataclass(frozen=True, slots=True)
class _Listener:
    """A ``FitListener``: moves the job's record as the runner tells, and commits the version."""

    job_id: str
    model_id: str
    order: FitOrder
    registry: ModelRegistry
    jobs: JobStore
    runner: JobRunner
    retention: Retention
    unwritten: dict[str, Change]
    """Where an end goes that can't be written down now."""

    def started(self) -> None:
        self._heed(self.jobs.update(self.job_id, JobRecord.started))

    def progressed(self, progress: JobProgress) -> None:
        job = self.jobs.note_progress(self.job_id, progress)
        if job is not None:
            self._heed(job)

    def _heed(self, job: JobRecord) -> None:
        """Do as another process was asked to."""
        if job.stop is not None:
            self.runner.cancel(job.id, keep_best=job.stop is StopWish.KEEP_BEST)

    def finished(self, outcome: FitOutcome, duration_seconds: float) -> None:
        result, selection = outcome.result, outcome.selection
        space = self.order.preprocessing.space
        summary = replace(_summary_of(result, duration_seconds), space=space)
        draft = self._draft(summary, result.mixture, selection)
        try:
            version = self.registry.commit_version(draft, result.mixture)
        except ServiceError as error:
            self.failed(error.code, error.detail)
        except Exception:
            # A registry broke its promise; whoever waits for the job must still hear of its end.
            logger.exception("commit_failed", extra={"job": self.job_id})
            self.failed(INTERNAL_ERROR, "the version could not be stored")
        else:
            self._end(lambda job: job.succeeded(version.number, summary, selection))
            self.retention.collect_after_commit(self.model_id)

    def failed(self, code: str, detail: str) -> None:
        self._end(lambda job: job.failed(JobFailure(code, detail)))

    def cancelled(self) -> None:
        self._end(JobRecord.cancelled)

    def _end(self, end: Change) -> None:
        """Move the job; while the store is down it stays open, for nothing else would be true."""
        try:
            self.jobs.update(self.job_id, end)
        except ServiceError as error:
            logger.warning("job_end_kept_back", extra={"job": self.job_id, "code": error.code})
            self.unwritten[self.job_id] = end

    def _draft(
        self, summary: FitSummary, mixture: Mixture, selection: SelectionRecord | None
    ) -> VersionDraft:
        return VersionDraft(
            model_id=self.model_id,
            model_uid=self.order.model_uid,
            job_id=self.job_id,
            options=replace(
                self.order.options,
                n_components=mixture.n_components,
                covariance_type=mixture.covariance_type,
            ),
            summary=summary,
            covariance_type=mixture.covariance_type,
            selection=selection,
            preprocessing=self.order.preprocessing,
            feature_names=self.order.feature_names,
            data_digest=self.order.data_digest,
        )


def _mapping(task: FitTask, table: Table, preprocessing: Preprocessing) -> FitTask:
    """Let the rows go through the preprocessing, if they can, and what comes out can be fitted.

    Rows that may be more than memory holds are not mapped here, but where they are fitted.
    """
    task = replace(task, preprocessing=preprocessing)
    with engine_refusals(table):
        preprocessing.require_features(task.X.shape[1])
        if preprocessing.is_empty or not table.is_on_disk:
            mapped, _ = task.mapped()
            DataScale.of(Samples(mapped.X, mapped.sample_weight))
    return task


def _seeded(options: FitOptions) -> FitOptions:
    """Draw the seed here, where it is written down: the same order ends in the same parameters."""
    if options.random_state is not None:
        return options
    return replace(options, random_state=secrets.randbits(SEED_BITS))


def _succeeded(job: JobRecord, version: VersionRecord) -> JobRecord:
    if job.is_done:
        return job
    begun = job if job.status is JobStatus.RUNNING else job.started()
    return begun.succeeded(version.number, version.summary, version.selection)


def _summary_of(result: FitResult, duration_seconds: float) -> FitSummary:
    criteria = result.criteria
    return FitSummary(
        converged=result.converged,
        stop_reason=result.stop_reason.value,
        n_iter=result.n_iter,
        n_samples=criteria.n_samples,
        n_features=result.mixture.n_features,
        n_parameters=criteria.n_parameters,
        log_likelihood=criteria.log_likelihood,
        mean_log_likelihood=criteria.mean_log_likelihood,
        bic=criteria.bic,
        aic=criteria.aic,
        aicc=criteria.aicc,
        icl=criteria.icl,
        log_likelihood_history=tuple(result.log_likelihoods.tolist()),
        weights=tuple(result.mixture.weights.tolist()),
        warnings=tuple(FitWarningRecord(item.code, item.detail) for item in result.warnings),
        duration_seconds=duration_seconds,
    )
