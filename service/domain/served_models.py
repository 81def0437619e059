"""Which models are loaded and how they were asked: what a protocol of model servers wants to know.

A model of ours is ready as soon as it has a version, and its parameters are read when they are
needed. To unload it is therefore a word of the operator's, kept in this process alone: it is not
answered for here until it is loaded again or the process starts anew.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from service.domain.inference import FittedModel, Inference
from service.domain.ports import ModelRegistry
from service.domain.records import VersionRecord
from service.errors import Conflict, NotFound, ServiceError, Unavailable

MAX_COUNTED_VERSIONS = 10_000
"""Versions whose questions are counted; those not asked for longest are forgotten."""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model in the listing of a model server."""

    model_id: str
    version: VersionRecord | None
    """The one that answers; None when none does."""
    reason: str
    """Why none does."""


@dataclass(slots=True)
class Tally:
    """How often something happened and how long it took altogether."""

    count: int = 0
    nanoseconds: int = 0

    def add(self, milliseconds: float) -> None:
        self.count += 1
        self.nanoseconds += round(1e6 * milliseconds)


@dataclass(slots=True)
class VersionStatistics:
    """Questions to one version, since the process started."""

    rows: int = 0
    last_asked_ms: int = 0
    """Milliseconds since 1970."""
    succeeded: Tally = field(default_factory=Tally)
    failed: Tally = field(default_factory=Tally)
    phases: dict[str, Tally] = field(default_factory=dict)
    """By the names of the durations that were given."""


class ServedModels:
    def __init__(self, registry: ModelRegistry, inference: Inference) -> None:
        self._registry = registry
        self._inference = inference
        self._unloaded: dict[str, str] = {}
        """The model's ``uid`` by its id, so that a later model of that id is not meant."""
        self._counted: OrderedDict[tuple[str, int, str], VersionStatistics] = OrderedDict()
        self._lock = threading.Lock()

    def index(self) -> Iterator[ServedModel]:
        """Yield every model, by id."""
        for record in self._registry.list_models():
            try:
                yield ServedModel(record.id, self.ready_version(record.id), "")
            except NotFound:  # deleted since the list was read
                continue
            except ServiceError as error:
                yield ServedModel(record.id, None, error.detail)

    def load(self, model_id: str) -> None:
        """Read the parameters that answer by default and answer for the model again."""
        with _unfitted_as_unavailable():
            self._inference.open(model_id)
        self._unloaded.pop(model_id, None)

    def unload(self, model_id: str) -> None:
        self._unloaded[model_id] = self._registry.get_model(model_id).uid

    def version(self, model_id: str, number: int | None = None) -> VersionRecord:
        """Return the version that answers; raise ``NotFound`` or ``Unavailable``."""
        self._require_loaded(model_id)
        with _unfitted_as_unavailable():
            return self._inference.version(model_id, number)

    def ready_version(self, model_id: str, number: int | None = None) -> VersionRecord:
        """Return the same unless it is known to be damaged; else raise ``Unavailable``."""
        version = self.version(model_id, number)
        self._inference.require_sound(version)
        return version

    def versions(self, model_id: str) -> list[int]:
        return [version.number for version in self._registry.list_versions(model_id)]

    def open(self, model_id: str, number: int | None = None) -> FittedModel:
        self._require_loaded(model_id)
        with _unfitted_as_unavailable():
            return self._inference.open(model_id, number)

    def statistics(self, version: VersionRecord) -> VersionStatistics:
        with self._lock:
            return self._counted.get(_key(version), VersionStatistics())

    def count_answer(
        self, version: VersionRecord, n_rows: int, milliseconds: Mapping[str, float]
    ) -> None:
        """Count a question that was answered, and how long each phase of that took."""
        with self._lock:
            counted = self._counter(version)
            counted.rows += n_rows
            counted.succeeded.add(sum(milliseconds.values()))
            for phase, duration in milliseconds.items():
                counted.phases.setdefault(phase, Tally()).add(duration)

    def count_refusal(self, version: VersionRecord, milliseconds: Mapping[str, float]) -> None:
        with self._lock:
            self._counter(version).failed.add(sum(milliseconds.values()))

    def _counter(self, version: VersionRecord) -> VersionStatistics:
        key = _key(version)
        counted = self._counted.setdefault(key, VersionStatistics())
        counted.last_asked_ms = time.time_ns() // 1_000_000
        self._counted.move_to_end(key)
        if len(self._counted) > MAX_COUNTED_VERSIONS:
            self._counted.popitem(last=False)
        return counted

    def _require_loaded(self, model_id: str) -> None:
        uid = self._unloaded.get(model_id)
        if uid is not None and self._registry.get_model(model_id).uid == uid:
            raise Unavailable("model_unloaded", f"Model '{model_id}' is unloaded; load it first.")


@contextmanager
def _unfitted_as_unavailable() -> Iterator[None]:
    """Say of a model without a version that it is not ready yet."""
    try:
        yield
    except Conflict as error:
        raise Unavailable(error.code, error.detail) from error


def _key(version: VersionRecord) -> tuple[str, int, str]:
    return version.model_id, version.number, version.job_id
