"""A model with all its versions and aliases as one file: to carry it to another registry.

The file is a ZIP without compression that any tool can open: ``model.json``, with the digest of
its own content, and each array of each version as a ``.npy`` file. Its last 64 bytes, the comment
of the archive, are the SHA-256 of all before. Nothing in it is a pickle. Reading it checks the
digests, then every size before anything is allocated, then that each version is a mixture; a file
that was forged whole can therefore bring in wrong numbers, but never code or a broken model.
"""

import io
import math
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from gmm_engine import Mixture
from gmm_engine.errors import GmmEngineError
from gmm_engine.preprocessing import mixture_from_arrays
from service.adapters.artifact import ARRAYS, DTYPE
from service.adapters.record_json import DamagedRecordError, sealed, unsealed
from service.adapters.registry_layout import MAX_VERSION_NUMBER, version_name
from service.domain.identifiers import LATEST, is_legal_alias, is_legal_id
from service.domain.records import AliasBook, ModelRecord, VersionRecord, new_uid

FORMAT = 1
MODEL_ENTRY = "model.json"
DIGEST_LENGTH = 64
EPOCH = (1980, 1, 1, 0, 0, 0)
"""The earliest time a ZIP can say: equal models make equal files."""

DTYPE_BYTES = 8
MAX_HEADER_BYTES = 10_000

BROKEN_ARCHIVE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    OSError,
    RuntimeError,
    ValueError,
)
"""What the ZIP reader raises where it can't go on."""


class ModelFileError(Exception):
    """The bytes are not a model as ``model_file_of`` wrote it."""


@dataclass(frozen=True, slots=True)
class ModelBundle:
    """A model with everything that belongs to it."""

    record: ModelRecord
    book: AliasBook
    versions: Sequence[tuple[VersionRecord, Mixture]]

    @property
    def last_number(self) -> int:
        """The highest number that is known to have been given."""
        numbers = [version.number for version, _ in self.versions]
        for alias in self.book.aliases.values():
            numbers += [change.version for change in alias.history if change.version is not None]
        return max(numbers, default=0)

    def as_new(self, model_id: str) -> "ModelBundle":
        """Return the same under this id, as a model of its own."""
        return ModelBundle(
            replace(self.record, id=model_id, uid=new_uid()),
            self.book,
            [(replace(version, model_id=model_id), mixture) for version, mixture in self.versions],
        )


@dataclass(frozen=True, slots=True)
class Contents:
    """What ``model.json`` of a model file holds."""

    format: int
    record: ModelRecord
    book: AliasBook
    versions: Sequence[VersionRecord]


def model_file_of(bundle: ModelBundle) -> bytes:
    versions = [version for version, _ in bundle.versions]
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        contents = Contents(FORMAT, bundle.record, bundle.book, versions)
        archive.writestr(zipfile.ZipInfo(MODEL_ENTRY, EPOCH), sealed(contents))
        for version, mixture in bundle.versions:
            for name, array in mixture.to_arrays().items():
                entry = zipfile.ZipInfo(_entry(version.number, name), EPOCH)
                archive.writestr(entry, _npy_of(array))
        archive.comment = bytes(DIGEST_LENGTH)
    content = stream.getvalue()[:-DIGEST_LENGTH]
    return content + sha256(content).hexdigest().encode()


def bundle_of(data: bytes) -> ModelBundle:
    """Return the model in such a file; raise ``ModelFileError``."""
    if sha256(data[:-DIGEST_LENGTH]).hexdigest().encode() != data[-DIGEST_LENGTH:]:
        raise ModelFileError("the file is damaged or no model file: its digest does not match")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = dict(_entries(archive, max_bytes=len(data)))
        contents = unsealed(Contents, entries.pop(MODEL_ENTRY))
        bundle = ModelBundle(contents.record, contents.book, list(_versions(contents, entries)))
    except (*BROKEN_ARCHIVE, DamagedRecordError, GmmEngineError, KeyError) as error:
        raise ModelFileError(f"the file is no model file: {type(error).__name__}") from error
    if contents.format != FORMAT or entries:
        raise ModelFileError("the file has another format, or more in it than a model")
    _require_sound(bundle)
    return bundle


def _entries(archive: zipfile.ZipFile, *, max_bytes: int) -> Iterator[tuple[str, bytes]]:
    if sum(entry.file_size for entry in archive.infolist()) > max_bytes:
        raise ModelFileError("the entries lie over one another")
    for entry in archive.infolist():
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
            raise ModelFileError("an entry is compressed")
        yield entry.filename, archive.read(entry)


def _versions(
    contents: Contents, entries: dict[str, bytes]
) -> Iterator[tuple[VersionRecord, Mixture]]:
    for version in contents.versions:
        if version.model_id != contents.record.id:
            raise ModelFileError("a version is that of another model")
        found = {name: entries.pop(_entry(version.number, name), None) for name in ARRAYS}
        arrays = {name: _array_of(entry) for name, entry in found.items() if entry is not None}
        mixture = mixture_from_arrays(arrays, version.covariance_type)
        _require_fit(version, mixture)
        yield version, mixture


def _require_fit(version: VersionRecord, mixture: Mixture) -> None:
    names = version.feature_names
    if mixture.n_features != version.summary.n_features or (
        names is not None and len(names) != mixture.n_features
    ):
        raise ModelFileError("the arrays of a version are not those of its record")


def _require_sound(bundle: ModelBundle) -> None:
    numbers = [version.number for version, _ in bundle.versions]
    is_numbered = sorted(set(numbers)) == numbers and all(
        1 <= number <= MAX_VERSION_NUMBER for number in [*numbers, bundle.last_number or 1]
    )
    are_names = all(
        is_legal_alias(name) and name != LATEST and alias.name == name
        for name, alias in bundle.book.aliases.items()
    )
    is_whole = set(bundle.book.targets.values()) <= set(numbers)
    if not (is_legal_id(bundle.record.id) and is_numbered and are_names and is_whole):
        raise ModelFileError("the file's ids, numbers or aliases can't be")


def _entry(number: int, array: str) -> str:
    return f"versions/{version_name(number)}/{array}.npy"


def _npy_of(array: NDArray[np.float64]) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(
        stream, np.ascontiguousarray(array, dtype=DTYPE), version=(1, 0), allow_pickle=False
    )
    return stream.getvalue()


def _array_of(data: bytes) -> NDArray[np.float64]:
    """Read a ``.npy`` file whose description fits its size; nothing is allocated for a lie."""
    stream = io.BytesIO(data)
    try:
        if np.lib.format.read_magic(stream) != (1, 0):
            raise ModelFileError("an array has another version of the format")
        shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(
            stream, max_header_size=MAX_HEADER_BYTES
        )
    except ValueError as error:
        raise ModelFileError("an array can't be read") from error
    content = data[stream.tell() :]
    is_plain = dtype == np.dtype(DTYPE) and not is_fortran and all(side > 0 for side in shape)
    if not is_plain or DTYPE_BYTES * math.prod(shape) != len(content):
        raise ModelFileError("an array is not what it says")
    return np.frombuffer(content, dtype=DTYPE).reshape(shape)
