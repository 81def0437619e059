"""What the service remembers: models, versions and jobs, and their legal transitions.

Frozen values only. How they are stored is the adapters' business, how they look in an answer
the API's.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Literal
from uuid import uuid4

from gmm_engine import FitOptions
from gmm_engine.preprocessing import AS_THEY_COME, Preprocessing
from gmm_engine.selection import HELD_OUT


def utc_now() -> datetime:
    return datetime.now(UTC)


def new_uid() -> str:
    return uuid4().hex


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """A declared model: what the next fit will do."""

    id: str
    options: FitOptions
    """Hyperparameters of the next fit; each version keeps those it was fitted with."""
    preprocessing: Preprocessing = AS_THEY_COME
    """What the rows of the next fit go through first."""
    description: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    created_at: datetime = field(default_factory=utc_now)
    updated_at: datetime = field(default_factory=utc_now)
    revision: int = 1
    """Counts the changes of this record; part of the ETag."""
    uid: str = field(default_factory=new_uid)
    """Tells this model from an earlier, deleted one of the same id; never shown to clients."""

    def updated(
        self,
        *,
        options: FitOptions | None = None,
        preprocessing: Preprocessing | None = None,
        description: str | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> "ModelRecord":
        return replace(
            self,
            options=self.options if options is None else options,
            preprocessing=self.preprocessing if preprocessing is None else preprocessing,
            description=self.description if description is None else description,
            labels=self.labels if labels is None else labels,
            updated_at=utc_now(),
            revision=self.revision + 1,
        )

    def is_as(self, other: "ModelRecord") -> bool:
        """Tell whether a client sees the same in both, but for when it was changed."""
        return replace(self, updated_at=other.updated_at, revision=other.revision) == other

    def follows(self, stored: "ModelRecord") -> bool:
        """Tell whether this is the next change of that very model."""
        return self.uid == stored.uid and self.revision == stored.revision + 1


@dataclass(frozen=True, slots=True)
class FitWarningRecord:
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class FitSummary:
    """What a fit found out, besides the parameters; kept with the version."""

    converged: bool
    stop_reason: str
    n_iter: int
    n_samples: float
    """The sum of the sample weights; the number of rows when there are none."""
    n_features: int
    n_parameters: int
    log_likelihood: float
    mean_log_likelihood: float
    bic: float
    aic: float
    aicc: float
    icl: float
    log_likelihood_history: Sequence[float]
    weights: Sequence[float]
    warnings: Sequence[FitWarningRecord]
    duration_seconds: float
    space: str = "original"
    """What the likelihoods are densities over: rows as they came, or as they were mapped to."""


@dataclass(frozen=True, slots=True)
class JobFailure:
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class SelectionPlan:
    """What a selection has to choose from, and by which criterion."""

    n_components: Sequence[int]
    covariance_types: Sequence[str]
    criterion: str
    n_folds: int
    """Of the cross-validation; only held-out rows are counted in folds."""

    @property
    def n_candidates(self) -> int:
        return len(self.n_components) * len(self.covariance_types)

    @property
    def is_cross_validated(self) -> bool:
        return self.criterion == HELD_OUT


@dataclass(frozen=True, slots=True)
class SelectionRequest:
    """A plan, and what else a caller may ask for."""

    plan: SelectionPlan
    n_init: int | None = None
    """Restarts of every candidate; None takes the model's."""


@dataclass(frozen=True, slots=True)
class CandidateFigures:
    """What the fit of a candidate came to; less than a summary, as there are many."""

    n_parameters: int
    log_likelihood: float
    mean_log_likelihood: float
    bic: float
    aic: float
    aicc: float
    icl: float
    converged: bool
    n_iter: int
    warnings: Sequence[FitWarningRecord]
    held_out_log_likelihood: float | None = None
    """Mean of rows that the fit did not see, nats a row."""
    held_out_standard_error: float | None = None


@dataclass(frozen=True, slots=True)
class CandidateRecord:
    """One line of a selection's table: its figures, or why there are none."""

    n_components: int
    covariance_type: str
    rank: int | None
    """1 is the best; None has no value to be ranked by."""
    value: float | None
    """The criterion."""
    origin: str
    """Where its best run began: fresh, or from a neighbour by a split, a merger or its family."""
    figures: CandidateFigures | None
    failure: JobFailure | None = None


@dataclass(frozen=True, slots=True)
class SelectionRecord:
    """What a selection found: the whole table, of which the best became a version."""

    plan: SelectionPlan
    candidates: Sequence[CandidateRecord]
    """By number of components, then as the plan names the families; what the time did not suffice
    for is left out."""
    is_complete: bool
    """False where the time budget ended the search."""

    @property
    def best(self) -> CandidateRecord:
        return next(candidate for candidate in self.candidates if candidate.rank == 1)


@dataclass(frozen=True, slots=True)
class VersionDraft:
    """A fitted mixture on its way into the registry; the registry gives it its number."""

    model_id: str
    job_id: str
    options: FitOptions
    summary: FitSummary
    covariance_type: str
    feature_names: Sequence[str] | None
    data_digest: str
    """SHA-256 over the training rows, so that equal data can be recognised."""
    model_uid: str | None = None
    """``uid`` of the model that was fitted; a later model of the same id refuses the draft."""
    selection: SelectionRecord | None = None
    """The table that it was chosen from."""
    preprocessing: Preprocessing = AS_THEY_COME


@dataclass(frozen=True, slots=True)
class VersionRecord:
    """An immutable version as committed."""

    model_id: str
    number: int
    job_id: str
    created_at: datetime
    options: FitOptions
    summary: FitSummary
    covariance_type: str
    feature_names: Sequence[str] | None
    data_digest: str
    artifact_digest: str
    """SHA-256 (hex) of the stored parameter file."""
    artifact_bytes: int
    libraries: Mapping[str, str]
    selection: SelectionRecord | None = None
    preprocessing: Preprocessing = AS_THEY_COME


MAX_ALIAS_CHANGES = 1000
"""Changes that an alias remembers; the oldest are forgotten first."""


@dataclass(frozen=True, slots=True)
class AliasChange:
    action: Literal["set", "rollback", "delete"]
    version: int | None
    """What the alias has named since; None once it was deleted."""
    changed_at: datetime = field(default_factory=utc_now)


@dataclass(frozen=True, slots=True)
class AliasRecord:
    """A name that leads to one version at a time, and what it led to before."""

    name: str
    history: Sequence[AliasChange] = ()
    """Oldest first; kept when the alias is deleted."""

    @property
    def version(self) -> int | None:
        return self.history[-1].version if self.history else None

    def moved(
        self, action: Literal["set", "rollback", "delete"], version: int | None
    ) -> "AliasRecord":
        history = (*self.history, AliasChange(action, version))
        return replace(self, history=history[-MAX_ALIAS_CHANGES:])

    def earlier_versions(self) -> Sequence[int]:
        """Return what a rollback may lead to, the nearest first.

        A rollback goes back on the trail and is no step of it: the next one goes further back.
        """
        trail: list[int | None] = []
        for change in self.history:
            if change.action == "rollback":
                while trail and trail[-1] != change.version:
                    trail.pop()
                trail = trail or [change.version]
            else:
                trail.append(change.version)
        earlier = dict.fromkeys(reversed(trail[:-1]))
        return [version for version in earlier if version not in {None, self.version}]


@dataclass(frozen=True, slots=True)
class AliasBook:
    """Every alias that a model has or had."""

    aliases: Mapping[str, AliasRecord] = field(default_factory=dict)

    @property
    def targets(self) -> Mapping[str, int]:
        """Versions by the aliases that name them now."""
        versions = {name: alias.version for name, alias in sorted(self.aliases.items())}
        return {name: version for name, version in versions.items() if version is not None}

    def alias(self, name: str) -> AliasRecord:
        return self.aliases.get(name, AliasRecord(name))

    def with_alias(self, alias: AliasRecord) -> "AliasBook":
        return AliasBook({**self.aliases, alias.name: alias})


class JobStatus(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"

    @property
    def is_done(self) -> bool:
        return not TRANSITIONS[self]


TRANSITIONS: Mapping[JobStatus, frozenset[JobStatus]] = {
    JobStatus.QUEUED: frozenset(
        {JobStatus.RUNNING, JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.INTERRUPTED}
    ),
    JobStatus.RUNNING: frozenset(
        {
            JobStatus.QUEUED,  # again, by another process than the one that died
            JobStatus.SUCCEEDED,
            JobStatus.FAILED,
            JobStatus.CANCELLED,
            JobStatus.INTERRUPTED,
        }
    ),
    JobStatus.SUCCEEDED: frozenset(),
    JobStatus.FAILED: frozenset(),
    JobStatus.CANCELLED: frozenset(),
    JobStatus.INTERRUPTED: frozenset(),
}


class IllegalTransition(Exception):
    """A job was asked to leave a state it can't leave that way."""


@dataclass(frozen=True, slots=True)
class Leader:
    """A candidate as far as it is while the selection goes on."""

    n_components: int
    covariance_type: str
    value: float | None
    log_likelihood: float


@dataclass(frozen=True, slots=True)
class Leaderboard:
    """How far a selection is."""

    n_candidates: int
    """Of the whole grid."""
    leaders: Sequence[Leader] = ()
    """Those that have a result so far, the best first."""


@dataclass(frozen=True, slots=True)
class JobProgress:
    restart: int
    n_init: int
    iteration: int
    max_iter: int
    log_likelihood: float
    delta: float | None
    eta_seconds: float | None
    leaderboard: Leaderboard | None = None
    """Of a selection; the other fields then tell of the candidate that is being fitted."""
    run: int = 0
    """Of EM within the restart, which compares several; only steps of one run follow each other."""
    at: datetime = field(default_factory=utc_now)
    """When this was so."""

    def at_the_end(self, summary: FitSummary) -> "JobProgress":
        """Return the progress of a fit that is over: that of the parameters it chose."""
        *_, before, last = (math.nan, math.nan, *summary.log_likelihood_history)
        delta = last - before
        return replace(
            self,
            iteration=summary.n_iter,
            log_likelihood=summary.log_likelihood,
            delta=delta if math.isfinite(delta) else None,
            eta_seconds=0.0,
        )


class StopWish(StrEnum):
    """What becomes of what a fit has found when it is asked to stop."""

    DISCARD = "discard"
    KEEP_BEST = "keep_best"


@dataclass(frozen=True, slots=True)
class FitOrder:
    """What a fit was asked for, besides its rows: what it takes to go on with it."""

    model_uid: str
    options: FitOptions
    """With the seed that was drawn if none was given."""
    data_digest: str
    feature_names: Sequence[str] | None = None
    budget_seconds: float | None = None
    plan: SelectionPlan | None = None
    preprocessing: Preprocessing = AS_THEY_COME


@dataclass(frozen=True, slots=True)
class JobRecord:
    id: str
    model_id: str
    kind: Literal["fit", "select"] = "fit"
    status: JobStatus = JobStatus.QUEUED
    created_at: datetime = field(default_factory=utc_now)
    started_at: datetime | None = None
    finished_at: datetime | None = None
    progress: JobProgress | None = None
    version: int | None = None
    """The version that the job made; set if and only if it succeeded."""
    summary: FitSummary | None = None
    selection: SelectionRecord | None = None
    """Of a selection that succeeded; ``version`` is its best candidate."""
    failure: JobFailure | None = None
    order: FitOrder | None = None
    """Until the job is done."""
    stop: StopWish | None = None
    """That somebody asked the job to stop, at whatever process."""
    n_resumed: int = 0

    @property
    def is_done(self) -> bool:
        return self.status.is_done

    def started(self) -> "JobRecord":
        return replace(self._moved(JobStatus.RUNNING), started_at=self.started_at or utc_now())

    def asked_to_stop(self, wish: StopWish) -> "JobRecord":
        """Remember the wish while it can be met; to discard outweighs to keep.

        A fit that has not begun has nothing to keep.
        """
        if self.is_done or self.stop is StopWish.DISCARD:
            return self
        return replace(self, stop=StopWish.DISCARD if self.started_at is None else wish)

    def resumed(self) -> "JobRecord":
        status = JobStatus.QUEUED
        queued = self if self.status is status else self._moved(status)
        return replace(queued, n_resumed=self.n_resumed + 1)

    def succeeded(
        self, version: int, summary: FitSummary, selection: SelectionRecord | None = None
    ) -> "JobRecord":
        job = self._ended(JobStatus.SUCCEEDED)
        return replace(
            job,
            version=version,
            summary=summary,
            selection=selection,
            progress=job.progress and job.progress.at_the_end(summary),
        )

    def failed(self, failure: JobFailure) -> "JobRecord":
        return replace(self._ended(JobStatus.FAILED), failure=failure)

    def cancelled(self) -> "JobRecord":
        return self._ended(JobStatus.CANCELLED)

    def interrupted(self) -> "JobRecord":
        return self._ended(JobStatus.INTERRUPTED)

    def _ended(self, status: JobStatus) -> "JobRecord":
        progress = self.progress and replace(self.progress, eta_seconds=None)
        return replace(self._moved(status), finished_at=utc_now(), order=None, progress=progress)

    def _moved(self, status: JobStatus) -> "JobRecord":
        if status not in TRANSITIONS[self.status]:
            raise IllegalTransition(f"job '{self.id}' can't go from {self.status} to {status}")
        return replace(self, status=status)


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """A request that changed something, or was refused to."""

    action: str
    """The operation's id, such as ``fit_model``."""
    actor: str
    """Who asked: as long as no one has to tell who they are, where they asked from."""
    status: int
    """Of the answer, as HTTP numbers them."""
    code: str | None = None
    """Of the refusal; None when it succeeded."""
    model_id: str | None = None
    version: int | None = None
    alias: str | None = None
    job_id: str | None = None
    request_id: str | None = None
    at: datetime = field(default_factory=utc_now)
