"""The registry in a directory: what it acknowledged survives a power cut.

Readers take no lock: what they read is replaced or renamed in one step, never edited. Changes of
one model take turns by the lock of its directory, across threads and processes. A version becomes
visible by one rename, after all of it is on the disk and was read back.

The directory's layout is in ``registry_layout``, the parameter file in ``artifact``, files and
fsync in ``durable_files``.
"""

import errno
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from pathlib import Path

from gmm_engine import Mixture
from service.adapters import refusals
from service.adapters import registry_layout as layout
from service.adapters.artifact import Artifact, ArtifactError, artifact_of, mixture_of
from service.adapters.durable_files import Directory, NotPlainError
from service.adapters.file_cache import FileCache
from service.adapters.known_damage import KnownDamage, signature_of
from service.adapters.manifest import FORMAT, Manifest, manifest_of
from service.adapters.model_file import ModelBundle
from service.adapters.record_json import DamagedRecordError, sealed, unsealed
from service.domain.identifiers import is_legal_id
from service.domain.records import AliasBook, ModelRecord, VersionDraft, VersionRecord
from service.errors import Conflict, InvalidInput, NotFound, StorageFull, Unavailable

MIN_FREE_BYTES = 32 * 2**20
"""Left free on the disk, so that deletes, logs and the job store still work."""

MAX_ARTIFACT_BYTES = 2**31
MAX_RECORD_BYTES = 64 * 2**20
CACHED_MODEL_BYTES = 32 * 2**20
CACHED_ALIAS_BYTES = 32 * 2**20
CACHED_MANIFEST_BYTES = 32 * 2**20

DAMAGE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EISDIR})
"""What the disk answers where a file of ours should be and isn't, or is a link."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StoredModel:
    """What ``model.json`` holds."""

    format: int
    record: ModelRecord


@dataclass(frozen=True, slots=True)
class StoredAliases:
    """What ``aliases.json`` holds; there is none before the first alias."""

    format: int
    model_id: str
    book: AliasBook


@dataclass(frozen=True, slots=True)
class _Place:
    """A model's directory, open, and where it hangs."""

    model_id: str
    root: Directory
    models: Directory
    model: Directory

    def is_current(self) -> bool:
        """Tell whether the model was neither deleted nor made anew since it was opened."""
        return self.models.holds(self.model_id, self.model)

    @contextmanager
    def locked(self) -> Iterator[None]:
        with self.model.locked():
            if not self.is_current():
                raise NotFound.model(self.model_id)
            yield


class FileRegistry:
    """Implements ``ModelRegistry``; several processes may use one directory."""

    def __init__(
        self,
        path: Path,
        *,
        min_free_bytes: int = MIN_FREE_BYTES,
        max_artifact_bytes: int = MAX_ARTIFACT_BYTES,
        may_make: bool = True,
    ) -> None:
        self._path = path
        self._min_free_bytes = min_free_bytes
        self._max_artifact_bytes = max_artifact_bytes
        self._models = FileCache(partial(unsealed, StoredModel), max_bytes=CACHED_MODEL_BYTES)
        self._books = FileCache(partial(unsealed, StoredAliases), max_bytes=CACHED_ALIAS_BYTES)
        self._manifests = FileCache(partial(unsealed, Manifest), max_bytes=CACHED_MANIFEST_BYTES)
        self._known_damage = KnownDamage()
        layout.prepare(path, may_make=may_make)

    def create_model(self, record: ModelRecord) -> None:
        if not is_legal_id(record.id):
            raise InvalidInput("invalid_parameter", "The id of a model is not a legal one.")
        content = sealed(StoredModel(FORMAT, record))
        with refusals.writing(), self._root() as root, root.subdirectory(layout.MODELS) as models:
            self._check_room(root, len(content))
            with layout.staged(root) as (stage, staged_name):
                stage.write_new(layout.MODEL_FILE, content)
                stage.ensure(layout.VERSIONS)
                _publish_model(root, staged_name, models, record.id)

    def get_model(self, model_id: str) -> ModelRecord:
        with refusals.reading(), self._place(model_id) as place:
            return self._record(place)

    def list_models(self) -> Sequence[ModelRecord]:
        with refusals.reading(), self._root() as root, root.subdirectory(layout.MODELS) as models:
            found = (self._listed(root, models, name) for name in sorted(models.names()))
            return [record for record in found if record is not None]

    def replace_model(self, record: ModelRecord) -> None:
        content = sealed(StoredModel(FORMAT, record))
        with refusals.writing(), self._place(record.id) as place:
            self._check_room(place.root, len(content))
            with layout.staged(place.root) as (stage, _), place.locked():
                if not record.follows(self._record(place)):
                    raise refusals.revision_mismatch(record.id)
                layout.replace_file(stage, place.model, layout.MODEL_FILE, content)

    def delete_model(self, model_id: str, *, seen: ModelRecord | None = None) -> None:
        with refusals.writing(), self._place(model_id) as place:
            with place.locked():
                if seen is not None and self._record(place) != seen:
                    raise refusals.revision_mismatch(model_id)
                trashed_name = layout.withdraw(place.root, place.models, model_id)
            layout.empty_trash(place.root, trashed_name)

    def commit_version(self, draft: VersionDraft, mixture: Mixture) -> VersionRecord:
        artifact = artifact_of(mixture)
        if len(artifact.data) > self._max_artifact_bytes:
            raise refusals.artifact_too_large(len(artifact.data), self._max_artifact_bytes)
        with refusals.writing(), self._place(draft.model_id) as place:
            self._check_room(place.root, len(artifact.data))
            with layout.staged(place.root) as (stage, staged_name):
                stage.write_new(layout.PARAMETERS_FILE, artifact.data)
                with place.locked(), place.model.subdirectory(layout.VERSIONS) as versions:
                    self._check_same_model(place, draft)
                    manifest = manifest_of(draft, layout.last_number(versions) + 1, artifact)
                    _complete(stage, artifact, manifest)
                    name = layout.version_name(manifest.version.number)
                    layout.publish(place.root, staged_name, versions, name)
        return manifest.version

    def get_version(self, model_id: str, number: int) -> VersionRecord:
        with (
            refusals.reading(),
            self._versions(model_id) as versions,
            self._version(versions, model_id, number) as (_, manifest),
        ):
            return manifest.version

    def list_versions(self, model_id: str) -> Sequence[VersionRecord]:
        with refusals.reading(), self._versions(model_id) as versions:
            found: list[VersionRecord] = []
            for number in layout.version_numbers(versions):
                with (
                    suppress(NotFound, Unavailable),  # deleted meanwhile; or damaged, and logged
                    self._version(versions, model_id, number) as (_, manifest),
                ):
                    found.append(manifest.version)
            return found

    def latest_version(self, model_id: str) -> VersionRecord | None:
        with refusals.reading(), self._versions(model_id) as versions:
            while numbers := layout.version_numbers(versions):
                with (
                    suppress(NotFound),  # deleted since it was listed
                    self._version(versions, model_id, numbers[-1]) as (_, manifest),
                ):
                    return manifest.version
            return None

    def delete_version(self, model_id: str, number: int) -> None:
        with refusals.writing(), self._place(model_id) as place:
            with place.locked(), place.model.subdirectory(layout.VERSIONS) as versions:
                if number not in layout.version_numbers(versions):
                    raise NotFound.version(model_id, number)
                if number in self._book(place).targets.values():
                    raise Conflict.version_aliased(model_id, number)
                layout.keep_number(versions, number)
                name = layout.version_name(number)
                trashed_name = layout.withdraw(place.root, versions, name)
            layout.empty_trash(place.root, trashed_name)

    def get_aliases(self, model_id: str) -> AliasBook:
        with refusals.reading(), self._place(model_id) as place:
            book = self._book(place)
            if not place.is_current():  # what was read may be what a deletion had left
                raise NotFound.model(model_id)
            return book

    def update_aliases(self, model_id: str, change: Callable[[AliasBook], AliasBook]) -> AliasBook:
        with refusals.writing(), self._place(model_id) as place:
            with layout.staged(place.root) as (stage, _), place.locked():
                book = self._book(place)
                changed = change(book)
                if changed != book:
                    content = sealed(StoredAliases(FORMAT, model_id, changed))
                    self._check_room(place.root, len(content))
                    layout.replace_file(stage, place.model, layout.ALIASES_FILE, content)
            return changed

    def state_of(self, model_id: str) -> object | None:
        return layout.state_of(self._path, model_id) if is_legal_id(model_id) else None

    def load_mixture(self, version: VersionRecord) -> Mixture:
        with self._parameters(version) as (manifest, data):
            return mixture_of(
                data, covariance_type=manifest.version.covariance_type, arrays=manifest.arrays
            )

    def read_artifact(self, version: VersionRecord) -> bytes:
        with self._parameters(version) as (_, data):
            return data

    def require_sound(self, version: VersionRecord) -> None:
        if not self._known_damage.has(version):
            return
        with (
            refusals.reading(),
            self._versions(version.model_id) as versions,
            self._version(versions, version.model_id, version.number) as (directory, _),
        ):
            if self._known_damage.is_still(version, directory):
                raise Unavailable.model_corrupt(version.model_id, version.number)

    def check_usable(self) -> None:
        try:
            with refusals.writing(), self._root() as root, layout.staged(root) as (stage, _):
                stage.write_new("probe", b"probe")
        except StorageFull as error:
            raise Unavailable(error.code, error.detail) from error

    def require_room(self) -> None:
        with refusals.reading(), self._root() as root:
            self._check_room(root, 0)

    def is_read_only(self) -> bool:
        try:
            self.check_usable()
        except Unavailable as error:
            return error.code == refusals.READ_ONLY
        return False

    def export_model(self, model_id: str) -> ModelBundle:
        """Return a model with all that belongs to it, as it is at one moment, verified."""
        with refusals.writing(), self._place(model_id) as place, place.locked():
            versions = [self.get_version(model_id, n) for n in self.stored_versions(model_id)]
            return ModelBundle(
                self._record(place),
                self._book(place),
                [(version, self.load_mixture(version)) for version in versions],
            )

    def import_model(self, bundle: ModelBundle) -> None:
        """Store a whole model in one step; raise ``Conflict`` when there is one of its id."""
        with (
            refusals.writing(),
            self._root() as root,
            root.subdirectory(layout.MODELS) as models,
            layout.staged(root) as (stage, staged_name),
        ):
            stage.write_new(layout.MODEL_FILE, sealed(StoredModel(FORMAT, bundle.record)))
            if bundle.book.aliases:
                stored = StoredAliases(FORMAT, bundle.record.id, bundle.book)
                stage.write_new(layout.ALIASES_FILE, sealed(stored))
            stage.ensure(layout.VERSIONS)
            with stage.subdirectory(layout.VERSIONS) as versions:
                for version, mixture in bundle.versions:
                    self._import_version(root, versions, version, mixture)
                if bundle.last_number > layout.last_number(versions):
                    layout.keep_number(versions, bundle.last_number)
                versions.sync()
            stage.sync()
            _publish_model(root, staged_name, models, bundle.record.id)

    def _import_version(
        self, root: Directory, versions: Directory, version: VersionRecord, mixture: Mixture
    ) -> None:
        artifact = artifact_of(mixture)
        self._check_room(root, len(artifact.data))
        stored = replace(
            version, artifact_digest=artifact.digest, artifact_bytes=len(artifact.data)
        )
        name = layout.version_name(version.number)
        versions.make(name)
        with versions.subdirectory(name) as directory:
            directory.write_new(layout.PARAMETERS_FILE, artifact.data)
            _complete(directory, artifact, Manifest(FORMAT, stored, artifact.arrays))

    def stored_models(self) -> Sequence[str]:
        """Return the ids of all models, damaged ones too."""
        with refusals.reading(), self._root() as root, root.subdirectory(layout.MODELS) as models:
            return sorted(filter(is_legal_id, models.names()))

    def stored_versions(self, model_id: str) -> Sequence[int]:
        """Return the numbers of all versions of a model, damaged ones too."""
        with refusals.reading(), self._versions(model_id) as versions:
            return layout.version_numbers(versions)

    def _root(self) -> Directory:
        return Directory.at(self._path)

    @contextmanager
    def _place(self, model_id: str) -> Iterator[_Place]:
        if not is_legal_id(model_id):  # before it becomes a name on the disk
            raise NotFound.model(model_id)
        with self._root() as root, root.subdirectory(layout.MODELS) as models:
            try:
                model = models.subdirectory(model_id)
            except FileNotFoundError:
                raise NotFound.model(model_id) from None
            except NotADirectoryError:
                raise _damaged_model(model_id, "it is a link or a file") from None
            with model:
                yield _Place(model_id, root, models, model)

    @contextmanager
    def _versions(self, model_id: str) -> Iterator[Directory]:
        """Open a model's versions; what was read while the model was deleted doesn't count."""
        with self._place(model_id) as place:
            with _damage_refused(place), place.model.subdirectory(layout.VERSIONS) as versions:
                yield versions
            if not place.is_current():
                raise NotFound.model(model_id)

    @contextmanager
    def _version(
        self, versions: Directory, model_id: str, number: int
    ) -> Iterator[tuple[Directory, Manifest]]:
        """Open a version; whatever shows it to be damaged, here or later, becomes a refusal."""
        if not 1 <= number <= layout.MAX_VERSION_NUMBER:
            raise NotFound.version(model_id, number)
        name = layout.version_name(number)
        try:
            with versions.subdirectory(name) as directory:
                yield directory, self._manifest(directory, model_id, number)
        except (DamagedRecordError, ArtifactError, OSError) as error:
            if not _is_damage(error):
                raise
            if not versions.has(name):
                raise NotFound.version(model_id, number) from None
            raise _damaged_version(model_id, number, error) from error

    def _manifest(self, directory: Directory, model_id: str, number: int) -> Manifest:
        manifest = self._manifests.read(
            directory,
            layout.MANIFEST_FILE,
            key=(model_id, layout.version_name(number)),
            max_bytes=MAX_RECORD_BYTES,
        )
        found = (manifest.format, manifest.version.model_id, manifest.version.number)
        if found != (FORMAT, model_id, number):
            raise DamagedRecordError("the manifest is that of another version or format")
        return manifest

    @contextmanager
    def _parameters(self, version: VersionRecord) -> Iterator[tuple[Manifest, bytes]]:
        """Give the verified parameter file of a version, read once."""
        with (
            refusals.reading(),
            self._versions(version.model_id) as versions,
            self._version(versions, version.model_id, version.number) as (directory, manifest),
            self._damage_noted(version, directory),
        ):
            stored = manifest.version
            if (stored.job_id, stored.created_at) != (version.job_id, version.created_at):
                raise NotFound.version(version.model_id, version.number)
            max_bytes = min(stored.artifact_bytes, self._max_artifact_bytes)
            data, _ = directory.read(layout.PARAMETERS_FILE, max_bytes=max_bytes)
            digest = sha256(data).hexdigest()
            if digest != stored.artifact_digest or digest != version.artifact_digest:
                raise ArtifactError("the parameter file has another digest")
            yield manifest, data

    @contextmanager
    def _damage_noted(self, version: VersionRecord, directory: Directory) -> Iterator[None]:
        signature = signature_of(directory)
        try:
            yield
        except (ArtifactError, OSError) as error:
            if _is_damage(error):
                self._known_damage.note(version, signature)
            raise

    def _record(self, place: _Place) -> ModelRecord:
        with _damage_refused(place):
            stored = self._models.read(
                place.model,
                layout.MODEL_FILE,
                key=(place.model_id,),
                max_bytes=MAX_RECORD_BYTES,
            )
            if (stored.format, stored.record.id) != (FORMAT, place.model_id):
                raise DamagedRecordError("the record is that of another model or format")
            return stored.record

    def _book(self, place: _Place) -> AliasBook:
        if not place.model.has(layout.ALIASES_FILE):
            return AliasBook()
        with _damage_refused(place):
            stored = self._books.read(
                place.model,
                layout.ALIASES_FILE,
                key=(place.model_id,),
                max_bytes=MAX_RECORD_BYTES,
            )
            if (stored.format, stored.model_id) != (FORMAT, place.model_id):
                raise DamagedRecordError("the aliases are those of another model or format")
            return stored.book

    def _listed(self, root: Directory, models: Directory, name: str) -> ModelRecord | None:
        if not is_legal_id(name):
            return None
        try:
            with models.subdirectory(name) as model:
                return self._record(_Place(name, root, models, model))
        except (FileNotFoundError, NotADirectoryError, NotFound, Unavailable):
            return None  # deleted meanwhile; or damaged, and logged

    def _check_room(self, root: Directory, n_bytes: int) -> None:
        free_bytes = root.free_bytes()
        if free_bytes < n_bytes + self._min_free_bytes:
            raise refusals.reserve_touched(n_bytes, self._min_free_bytes, free_bytes)

    def _check_same_model(self, place: _Place, draft: VersionDraft) -> None:
        if draft.model_uid not in {None, self._record(place).uid}:
            raise NotFound.model(draft.model_id)


def _publish_model(root: Directory, staged_name: str, models: Directory, model_id: str) -> None:
    try:
        layout.publish(root, staged_name, models, model_id)
    except OSError as error:
        if error.errno in {errno.EEXIST, errno.ENOTEMPTY}:
            raise Conflict.model_exists(model_id) from None
        raise


def _complete(stage: Directory, artifact: Artifact, manifest: Manifest) -> None:
    """Add the manifest to the staged parameters, and hold that the disk gives both back."""
    contents = {layout.PARAMETERS_FILE: artifact.data, layout.MANIFEST_FILE: sealed(manifest)}
    stage.write_new(layout.MANIFEST_FILE, contents[layout.MANIFEST_FILE])
    for name, content in contents.items():
        if stage.read(name, max_bytes=len(content))[0] != content:
            raise OSError(errno.EIO, "a file reads back differently")
    stage.sync()


@contextmanager
def _damage_refused(place: _Place) -> Iterator[None]:
    try:
        yield
    except (DamagedRecordError, OSError) as error:
        if not _is_damage(error):
            raise
        if not place.is_current():
            raise NotFound.model(place.model_id) from None
        raise _damaged_model(place.model_id, str(error)) from error


def _is_damage(error: Exception) -> bool:
    if isinstance(error, OSError):
        return isinstance(error, NotPlainError) or error.errno in DAMAGE
    return True


def _damaged_model(model_id: str, reason: str) -> Unavailable:
    log.error("model_corrupt", extra={"model": model_id, "reason": reason})
    return refusals.record_corrupt(model_id)


def _damaged_version(model_id: str, number: int, error: Exception) -> Unavailable:
    log.error("model_corrupt", extra={"model": model_id, "version": number, "reason": str(error)})
    return Unavailable.model_corrupt(model_id, number)
