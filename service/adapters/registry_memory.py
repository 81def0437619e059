"""The registry in memory: the reference for the contract, and what tests run on.

It keeps what the file registry keeps, the parameter files included, so that both give the same
answers; nothing survives the process.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from gmm_engine import Mixture
from service.adapters import refusals
from service.adapters.artifact import artifact_of, mixture_of
from service.adapters.manifest import Manifest, manifest_of
from service.domain.records import AliasBook, ModelRecord, VersionDraft, VersionRecord
from service.errors import Conflict, NotFound


@dataclass(slots=True)
class _Shelf:
    """One model and its versions by number."""

    record: ModelRecord
    versions: dict[int, tuple[Manifest, bytes]] = field(default_factory=dict)
    last_number: int = 0
    book: AliasBook = field(default_factory=AliasBook)


class MemoryRegistry:
    """Implements ``ModelRegistry``."""

    def __init__(self) -> None:
        self._shelves: dict[str, _Shelf] = {}
        self._lock = threading.RLock()

    def create_model(self, record: ModelRecord) -> None:
        with self._lock:
            if record.id in self._shelves:
                raise Conflict.model_exists(record.id)
            self._shelves[record.id] = _Shelf(record)

    def get_model(self, model_id: str) -> ModelRecord:
        with self._lock:
            return self._shelf(model_id).record

    def list_models(self) -> Sequence[ModelRecord]:
        with self._lock:
            return [shelf.record for _, shelf in sorted(self._shelves.items())]

    def replace_model(self, record: ModelRecord) -> None:
        with self._lock:
            shelf = self._shelf(record.id)
            if not record.follows(shelf.record):
                raise refusals.revision_mismatch(record.id)
            shelf.record = record

    def delete_model(self, model_id: str, *, seen: ModelRecord | None = None) -> None:
        with self._lock:
            stored = self._shelf(model_id).record
            if seen is not None and stored != seen:
                raise refusals.revision_mismatch(model_id)
            del self._shelves[model_id]

    def commit_version(self, draft: VersionDraft, mixture: Mixture) -> VersionRecord:
        artifact = artifact_of(mixture)
        with self._lock:
            shelf = self._shelf(draft.model_id)
            if draft.model_uid not in {None, shelf.record.uid}:
                raise NotFound.model(draft.model_id)
            manifest = manifest_of(draft, shelf.last_number + 1, artifact)
            shelf.last_number += 1
            shelf.versions[shelf.last_number] = (manifest, artifact.data)
            return manifest.version

    def get_version(self, model_id: str, number: int) -> VersionRecord:
        return self._stored(model_id, number)[0].version

    def list_versions(self, model_id: str) -> Sequence[VersionRecord]:
        with self._lock:
            versions = self._shelf(model_id).versions
            return [manifest.version for _, (manifest, _) in sorted(versions.items())]

    def latest_version(self, model_id: str) -> VersionRecord | None:
        with self._lock:
            versions = self._shelf(model_id).versions
            return versions[max(versions)][0].version if versions else None

    def delete_version(self, model_id: str, number: int) -> None:
        with self._lock:
            self._stored(model_id, number)
            if number in self._shelf(model_id).book.targets.values():
                raise Conflict.version_aliased(model_id, number)
            del self._shelf(model_id).versions[number]

    def get_aliases(self, model_id: str) -> AliasBook:
        with self._lock:
            return self._shelf(model_id).book

    def update_aliases(self, model_id: str, change: Callable[[AliasBook], AliasBook]) -> AliasBook:
        with self._lock:
            shelf = self._shelf(model_id)
            shelf.book = change(shelf.book)
            return shelf.book

    def state_of(self, model_id: str) -> object | None:
        with self._lock:
            shelf = self._shelves.get(model_id)
            return shelf and (shelf.record.uid, sorted(shelf.versions), shelf.book)

    def load_mixture(self, version: VersionRecord) -> Mixture:
        manifest, data = self._stored_as(version)
        return mixture_of(data, covariance_type=version.covariance_type, arrays=manifest.arrays)

    def read_artifact(self, version: VersionRecord) -> bytes:
        return self._stored_as(version)[1]

    def require_sound(self, version: VersionRecord) -> None:
        self._stored_as(version)

    def check_usable(self) -> None:
        return

    def require_room(self) -> None:
        return

    def _shelf(self, model_id: str) -> _Shelf:
        try:
            return self._shelves[model_id]
        except KeyError:
            raise NotFound.model(model_id) from None

    def _stored(self, model_id: str, number: int) -> tuple[Manifest, bytes]:
        with self._lock:
            try:
                return self._shelf(model_id).versions[number]
            except KeyError:
                raise NotFound.version(model_id, number) from None

    def _stored_as(self, version: VersionRecord) -> tuple[Manifest, bytes]:
        stored = self._stored(version.model_id, version.number)
        if stored[0].version != version:
            raise NotFound.version(version.model_id, version.number)
        return stored
