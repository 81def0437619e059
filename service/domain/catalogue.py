"""Models and their versions: declared, listed, changed, deleted. Fitting is in ``fitting``."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeVar

from gmm_engine import COVARIANCE_FAMILIES, INITIALIZERS, SELECTION_CRITERIA, FitOptions
from gmm_engine.preprocessing import AS_THEY_COME, Preprocessing
from service.domain.fitting import Fitting
from service.domain.identifiers import ID_RULE, is_legal_id, model_id_of
from service.domain.limits import Limits
from service.domain.paging import Page, Place, page_of
from service.domain.ports import JobStore, ModelRegistry
from service.domain.records import ModelRecord, VersionRecord, new_uid, utc_now
from service.domain.refusals import engine_refusals
from service.errors import (
    MODEL_CORRUPT,
    Conflict,
    InvalidInput,
    Issue,
    NotFound,
    PreconditionFailed,
    Unavailable,
)

T = TypeVar("T")

COVARIANCE_TYPES = tuple(COVARIANCE_FAMILIES)
INIT_PARAMS = tuple(INITIALIZERS)
CRITERIA = SELECTION_CRITERIA

UPDATE_ATTEMPTS = 8
"""How often a change without a precondition is tried again when another came between."""


class ModelStatus(StrEnum):
    CREATED = "created"
    FITTING = "fitting"
    FITTED = "fitted"


@dataclass(frozen=True, slots=True)
class ModelView:
    """A model with what follows from its versions and jobs."""

    record: ModelRecord
    status: ModelStatus
    latest: VersionRecord | None
    aliases: Mapping[str, int]


class ModelOrder(StrEnum):
    ID = "id"
    ID_DESC = "id desc"
    CREATED = "created_at"
    CREATED_DESC = "created_at desc"
    UPDATED = "updated_at"
    UPDATED_DESC = "updated_at desc"

    @property
    def is_descending(self) -> bool:
        return self.value.endswith(" desc")

    def place_of(self, record: ModelRecord) -> Place:
        field = self.value.removesuffix(" desc")
        if field == "id":
            return (record.id,)
        moment = record.created_at if field == "created_at" else record.updated_at
        return moment.isoformat(timespec="microseconds"), record.id


@dataclass(frozen=True, slots=True)
class ModelChange:
    """What a client wants changed; None leaves a field as it is."""

    options: Mapping[str, object]
    """Hyperparameters by the names of ``FitOptions``."""
    preprocessing: Mapping[str, object] = field(default_factory=dict)
    """By the names of ``Preprocessing``."""
    description: str | None = None
    labels: Mapping[str, str] | None = None


class Catalogue:
    def __init__(
        self, registry: ModelRegistry, jobs: JobStore, fitting: Fitting, limits: Limits
    ) -> None:
        self._registry = registry
        self._jobs = jobs
        self._fitting = fitting
        self._limits = limits

    def create_model(
        self, model_id: str | None, change: ModelChange, *, uid: str | None = None
    ) -> ModelView:
        """Declare a model; if the one that is there was made under this very ``uid``, return it."""
        uid, now = uid or new_uid(), utc_now()
        record = ModelRecord(
            id=model_id_of(uid) if model_id is None else _legal(model_id),
            uid=uid,
            options=self._options(change.options),
            preprocessing=self._preprocessing(change.preprocessing, base=AS_THEY_COME),
            description=change.description or "",
            labels=change.labels or {},
            created_at=now,
            updated_at=now,
        )
        try:
            self._registry.create_model(record)
        except Conflict:
            found = self._registry.get_model(record.id)
            if found.uid != uid:
                raise
            return self._view(found)
        return ModelView(record, ModelStatus.CREATED, None, {})

    def get_model(self, model_id: str) -> ModelView:
        return self._view(self._registry.get_model(model_id))

    def list_models(
        self,
        *,
        labels: Sequence[tuple[str, str]],
        order: ModelOrder,
        page_size: int,
        page_token: str | None,
    ) -> Page[ModelView]:
        records = [
            record
            for record in self._registry.list_models()
            if all(record.labels.get(key) == value for key, value in labels)
        ]
        page = page_of(
            records,
            place_of=order.place_of,
            page_size=page_size,
            token=page_token,
            listing=("models", order, *sorted(f"{key}:{value}" for key, value in labels)),
            descending=order.is_descending,
        )
        return Page(self._views_of(page.items), page.next_token)

    def update_model(
        self,
        model_id: str,
        change: ModelChange,
        *,
        is_current: Callable[[ModelView], bool] | None = None,
    ) -> ModelView:
        """Apply ``change``; with ``is_current`` only to what the client has seen."""
        for attempts_left in reversed(range(UPDATE_ATTEMPTS)):
            view = self.get_model(model_id)
            _require_current("model", view, is_current)
            changed = view.record.updated(
                options=self._options(change.options, base=view.record.options),
                preprocessing=self._preprocessing(
                    change.preprocessing, base=view.record.preprocessing
                ),
                description=change.description,
                labels=change.labels,
            )
            if changed.is_as(view.record):
                return view
            try:
                self._registry.replace_model(changed)
            except PreconditionFailed:
                if not attempts_left:
                    raise Conflict(
                        "concurrent_update", "other changes kept coming between; try again"
                    ) from None
                continue
            return self._view(changed)
        raise AssertionError("the last attempt returns or raises")

    def delete_model(
        self, model_id: str, *, is_current: Callable[[ModelView], bool] | None = None
    ) -> None:
        """Remove the model first, so that no fit can still begin or commit, then stop its fits."""
        seen = None
        if is_current is not None:
            view = self.get_model(model_id)
            _require_current("model", view, is_current)
            seen = view.record
        self._registry.delete_model(model_id, seen=seen)
        self._fitting.cancel_all(model_id)

    def get_version(self, model_id: str, number: int) -> VersionRecord:
        return self._registry.get_version(model_id, number)

    def list_versions(
        self, model_id: str, *, page_size: int, page_token: str | None
    ) -> Page[VersionRecord]:
        return page_of(
            self._registry.list_versions(model_id),
            place_of=lambda version: (f"{version.number:09d}",),
            page_size=page_size,
            token=page_token,
            listing=("versions", model_id),
        )

    def delete_version(
        self,
        model_id: str,
        number: int,
        *,
        is_current: Callable[[VersionRecord], bool] | None = None,
    ) -> None:
        if is_current is not None:
            _require_current("version", self._registry.get_version(model_id, number), is_current)
        self._registry.delete_version(model_id, number)

    def read_artifact(self, model_id: str, number: int) -> tuple[VersionRecord, bytes]:
        version = self._registry.get_version(model_id, number)
        return version, self._registry.read_artifact(version)

    def check_usable(self) -> None:
        self._registry.check_usable()

    def _options(
        self, given: Mapping[str, object], *, base: FitOptions | None = None
    ) -> FitOptions:
        with engine_refusals():
            options = _replaced(base or FitOptions(), given)
        self._limits.require_options(options)
        return options

    def _preprocessing(self, given: Mapping[str, object], *, base: Preprocessing) -> Preprocessing:
        known = {name: getattr(base, name) for name in Preprocessing.__dataclass_fields__}
        with engine_refusals():
            preprocessing = Preprocessing(**(known | dict(given)))
        self._limits.require_preprocessing(preprocessing)
        return preprocessing

    def _view(self, record: ModelRecord) -> ModelView:
        # Those of an earlier model of the same id may still be ending.
        is_fitting = any(
            job.order is None or job.order.model_uid == record.uid
            for job in self._jobs.list(model_id=record.id, is_done=False)
        )
        latest = self._registry.latest_version(record.id)
        settled = ModelStatus.FITTED if latest else ModelStatus.CREATED
        return ModelView(
            record,
            status=ModelStatus.FITTING if is_fitting else settled,
            latest=latest,
            aliases=self._registry.get_aliases(record.id).targets,
        )

    def _views_of(self, records: Sequence[ModelRecord]) -> list[ModelView]:
        """Leave out what is damaged, as the registry does; asked for by its id it is refused."""
        views = []
        for record in records:
            try:
                views.append(self._view(record))
            except NotFound:  # deleted since the list was read
                continue
            except Unavailable as error:
                if error.code != MODEL_CORRUPT:
                    raise
        return views


def _require_current(noun: str, seen: T, is_current: Callable[[T], bool] | None) -> None:
    if is_current is not None and not is_current(seen):
        raise PreconditionFailed(
            "precondition_failed",
            f"the {noun} is not the one that the request's condition names; get it again",
        )


def _replaced(options: FitOptions, given: Mapping[str, object]) -> FitOptions:
    fields = {name: getattr(options, name) for name in FitOptions.__dataclass_fields__}
    return FitOptions(**(fields | dict(given)))


def _legal(model_id: str) -> str:
    if not is_legal_id(model_id):
        raise InvalidInput(
            "invalid_parameter", ID_RULE, issues=[Issue("#/id", "invalid_parameter", ID_RULE)]
        )
    return model_id
