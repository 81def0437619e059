"""What the domain asks of the world: a registry, a store of jobs, a runner of fits.

Each method's docstring is its promise; the contract suites under ``tests/service`` hold every
implementation to it. Methods are plain functions and may block: callers on the event loop reach
them through a thread.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gmm_engine import Mixture
from service.domain.fit_task import FitOutcome, FitTask
from service.domain.pictures import Picture, Style
from service.domain.records import (
    AliasBook,
    AuditEntry,
    FitOrder,
    JobProgress,
    JobRecord,
    ModelRecord,
    VersionDraft,
    VersionRecord,
)
from service.domain.request_keys import Claim, KeptAnswer, RequestKey


class ModelRegistry(Protocol):
    """Models and their versions. Safe to call from several threads at once."""

    def create_model(self, record: ModelRecord) -> None:
        """Store a new model; of several racing creates of one id exactly one succeeds.

        Raises ``Conflict`` (``model_exists``), ``Unavailable`` (``registry_read_only``) or
        ``StorageFull``; then nothing is stored.
        """

    def get_model(self, model_id: str) -> ModelRecord:
        """Return the declared model; raise ``NotFound`` (``model_not_found``)."""

    def list_models(self) -> Sequence[ModelRecord]:
        """Return every model, ordered by id."""

    def replace_model(self, record: ModelRecord) -> None:
        """Replace the declared model, atomically, if the stored revision is the one before.

        Raises ``NotFound``, or ``PreconditionFailed`` (``revision_mismatch``) when another
        change came between.
        """

    def delete_model(self, model_id: str, *, seen: ModelRecord | None = None) -> None:
        """Remove a model with all its versions, in one step; raise ``NotFound``.

        With ``seen`` only while the declared model is still that one; else raises
        ``PreconditionFailed`` (``revision_mismatch``) and removes nothing.

        A commit of a version racing with it either happened before (and is removed too) or
        fails with ``NotFound``: a deleted model is never resurrected.
        """

    def commit_version(self, draft: VersionDraft, mixture: Mixture) -> VersionRecord:
        """Store a version durably under the next number, starting at 1, never one used before.

        When this returns, the version survives a power cut; when it raises, no version is
        visible. Raises ``NotFound``, ``StorageFull`` or ``Unavailable``.
        """

    def get_version(self, model_id: str, number: int) -> VersionRecord:
        """Return a committed version; raise ``NotFound`` for the model or the version."""

    def list_versions(self, model_id: str) -> Sequence[VersionRecord]:
        """Return the versions of a model, oldest first; raise ``NotFound``."""

    def latest_version(self, model_id: str) -> VersionRecord | None:
        """Return the version with the highest number, or None; raise ``NotFound``."""

    def delete_version(self, model_id: str, number: int) -> None:
        """Remove one version; its number is never given again.

        Raises ``NotFound``, or ``Conflict`` (``version_aliased``) when an alias names it.
        """

    def get_aliases(self, model_id: str) -> AliasBook:
        """Return the aliases of a model; raise ``NotFound``, ``Unavailable`` when damaged."""

    def update_aliases(self, model_id: str, change: Callable[[AliasBook], AliasBook]) -> AliasBook:
        """Apply ``change`` to the stored aliases as one durable step and return the new ones.

        No version comes, goes or changes its alias meanwhile. ``change`` may read from the
        registry; what it raises is passed on and nothing is stored.
        """

    def state_of(self, model_id: str) -> object | None:
        """Return what is another value once a version or alias of the model has changed.

        None where that can't be told, as of what is gone or has changed a moment ago. Answers at
        once, on any thread; never raises.
        """

    def load_mixture(self, version: VersionRecord) -> Mixture:
        """Return the verified mixture of a version, ready to answer.

        Raises ``NotFound``, or ``Unavailable`` (``model_corrupt``) when any check fails; never
        another version in its place.
        """

    def read_artifact(self, version: VersionRecord) -> bytes:
        """Return the stored parameter file, verified against its digest; errors as above."""

    def require_sound(self, version: VersionRecord) -> None:
        """Raise ``Unavailable`` (``model_corrupt``) of a version that is known to fail its checks.

        It is known once one was tried here, and as long as the stored file is the same; nothing is
        read for it, so that a version that nobody asked for yet passes. May raise ``NotFound``.
        """

    def check_usable(self) -> None:
        """Return when the registry can be read and written; raise ``Unavailable`` otherwise."""

    def require_room(self) -> None:
        """Return unless even the smallest version would find no room; raise ``StorageFull``."""


class JobStore(Protocol):
    """Jobs, by id. Safe to call from several threads at once."""

    def add(self, job: JobRecord, *, is_alone: bool = False) -> None:
        """Store a new job.

        With ``is_alone`` only while every other job of its model is done, else raise ``Conflict``
        (``fit_in_progress``); of several racing ones one succeeds.
        """

    def get(self, job_id: str) -> JobRecord:
        """Return a job; raise ``NotFound`` (``job_not_found``)."""

    def list(
        self, *, model_id: str | None = None, is_done: bool | None = None
    ) -> Sequence[JobRecord]:
        """Return the kept jobs, newest first; of one model, or those done or not, if asked."""

    def update(self, job_id: str, change: Callable[[JobRecord], JobRecord]) -> JobRecord:
        """Apply ``change`` to the stored job as one step and return the new one.

        ``change`` may raise ``IllegalTransition``; then nothing is stored and it is passed on.
        """

    def note_progress(self, job_id: str, progress: JobProgress) -> JobRecord | None:
        """Remember how far a job is; unlike any other change it may be lost by a crash.

        Returns the job when it was looked up on this occasion, which it is now and then. Unknown
        and ended jobs are ignored.
        """

    def when_done(self, job_id: str, call: Callable[[], None]) -> Callable[[], None]:
        """Call ``call`` once the job is done, at once if it is; return what takes that back.

        It counts as done, too, when it is forgotten. ``call`` may come from any thread and must be
        quick; it may call the store.
        """

    def when_changed(self, job_id: str, call: Callable[[], None]) -> Callable[[], None]:
        """Call ``call`` after each change and each progress, until the end or that is taken back.

        As above; a change of another process may be told late, and several by one call.
        """

    def remove(self, job_id: str) -> None:
        """Forget a job that was refused before it began; unknown ones are ignored.

        Whoever waits for it is told.
        """

    def abandoned(self) -> Sequence[JobRecord]:
        """Return the jobs that are not done and whose process lives no more."""

    def adopt(self, job_id: str) -> bool:
        """Make such a job one of this process; of several processes only one is told True."""


class AnswerStore(Protocol):
    """Idempotency keys and the first answers under them, each kept for ``KEPT_FOR``.

    Safe to call from several threads at once, and from every process that answers requests.
    """

    def claim(self, key: RequestKey, fingerprint: str, token: str) -> Claim | KeptAnswer:
        """Take the key with this token, or return the answer that is kept under it.

        Of several racing claims one succeeds. A key that was abandoned, or whose process died, is
        taken again with the token that it has. Raises ``InvalidInput`` (``idempotency_mismatch``)
        when the key came with another fingerprint, or ``Conflict`` (``request_in_progress``)
        while the request of another claim is at work, or ``TooManyRequests`` (``too_many_keys``)
        for a new key past the bound.
        """

    def knows(self, key: RequestKey) -> bool:
        """Tell whether the key was taken, and neither given back nor forgotten."""

    def keep(self, claim: Claim, answer: KeptAnswer) -> None:
        """Remember the answer; it survives a power cut."""

    def forget(self, claim: Claim) -> None:
        """Give the key back as if it had never come: the request was refused, nothing was made."""

    def abandon(self, claim: Claim) -> None:
        """Leave the key to the next claim: it is not known what was made."""


class AuditTrail(Protocol):
    """Who changed what, when, and how it ended. Safe to call from several threads at once."""

    def note(self, entry: AuditEntry) -> None:
        """Add an entry; the oldest ones beyond the bound are forgotten."""

    def newest(self, count: int, *, model_id: str | None = None) -> Sequence[AuditEntry]:
        """Return the newest entries, or those of one model, oldest first."""


@dataclass(frozen=True, slots=True)
class Silhouette:
    """The mean silhouette of rows: how much nearer they are to their own cluster than the next."""

    value: float
    n_rows: int
    """That it was measured on."""
    standard_error: float | None
    """Of a random part of the rows; None where it is that of all."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far two labellings of the same rows agree: 1 where they are one but for the names."""

    adjusted_rand_index: float
    adjusted_mutual_information: float


@dataclass(frozen=True, slots=True)
class Clustering:
    """What k-means found."""

    labels: NDArray[np.int64]  # (n_samples,)
    centers: NDArray[np.float64]  # (n_clusters, n_features)
    inertia: float
    n_iter: int


class Analyst(Protocol):
    """Analyses that kept libraries have."""

    def silhouette(self, X: NDArray[np.float64], labels: NDArray[np.int64]) -> Silhouette | None:
        """Measure all rows, or a random part of many, always the same; None without two clusters.

        Rows that are alone in their cluster count as 0.
        """

    def agreement(self, left: NDArray[np.int64], right: NDArray[np.int64]) -> Agreement:
        """Compare two labellings of the same rows."""

    def k_means(
        self, X: NDArray[np.float64], n_clusters: int, *, n_init: int, random_state: int | None
    ) -> Clustering:
        """Return the best of ``n_init`` runs; there are as many distinct rows as clusters."""


class Painter(Protocol):
    """Draws pictures."""

    def paint(self, picture: Picture, *, title: str, style: Style) -> bytes:
        """Return the file; the same picture makes the same bytes. Any thread may call."""


class FitListener(Protocol):
    """What a runner calls while it runs a fit. Each call may come from any thread."""

    def started(self) -> None:
        """Say that the fit leaves the queue."""

    def progressed(self, progress: JobProgress) -> None:
        """Report an EM step."""

    def finished(self, outcome: FitOutcome, duration_seconds: float) -> None:
        """Hand over the result; called at most once, and then nothing else is."""

    def failed(self, code: str, detail: str) -> None:
        """Report why there is no result; called at most once, and then nothing else is."""

    def cancelled(self) -> None:
        """Report that the fit was stopped as asked; called at most once, as above."""


class JobRunner(Protocol):
    """Runs fits away from the event loop."""

    def start(self) -> None:
        """Begin to run fits, and return at once; those that were queued before waited for it."""

    def submit(self, task: FitTask, listener: FitListener, *, is_held: bool = False) -> None:
        """Queue a fit and return at once; one that ``is_held`` does not begin before ``admit``.

        Raises ``TooManyRequests`` (``fit_queue_full``) past the bound of the queue,
        ``StorageFull`` for rows that its disk has no room for, or ``Unavailable`` (``draining``)
        after ``close``.
        """

    def require_place(self) -> None:
        """Raise as ``submit`` would now, whatever the fit; at once."""

    def resume(
        self, job_id: str, order: FitOrder, listener: FitListener, *, is_held: bool = False
    ) -> bool:
        """Queue a fit that a dead process left, to go on from where it was written down last.

        Returns False, and does nothing, when its rows are not there any more. No bound refuses it.
        """

    def admit(self, job_id: str) -> None:
        """Let a held fit begin when there is a worker for it; unknown ones are ignored."""

    def clear(self, is_open: Callable[[str], bool]) -> None:
        """Remove what is kept of fits whose job is not open, as ``is_open`` tells by its id."""

    def cancel(self, job_id: str, *, keep_best: bool = False) -> None:
        """Ask a queued or running fit to stop; unknown and ended ones are ignored.

        With ``keep_best`` a running one ends early, and finishes with the best it has found.
        """

    def check_usable(self) -> None:
        """Return while fits can be run; raise ``Unavailable`` (``no_worker``) otherwise."""

    def close(self, timeout_seconds: float) -> None:
        """Take no more fits, let go of those left when the time is up, and return.

        Nothing more is reported of those; a runner that keeps rows lets them be resumed.
        """
