"""What is stored beside the parameters of a version, and how it comes from a draft."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from service.adapters.artifact import ArraySpec, Artifact
from service.adapters.record_json import from_json, to_json
from service.domain.records import VersionDraft, VersionRecord, utc_now

FORMAT = 1
RECORDED_LIBRARIES = ("gmm-service", "numpy", "scipy", "joblib")


@dataclass(frozen=True, slots=True)
class Manifest:
    format: int
    version: VersionRecord
    arrays: Sequence[ArraySpec]
    """The arrays in the parameter file, so that it can be checked, and read by others."""


def manifest_of(draft: VersionDraft, number: int, artifact: Artifact) -> Manifest:
    """Return the manifest of the version that this draft becomes, equal to how it reads later."""
    kept = {field.name for field in fields(VersionRecord)} & {field.name for field in fields(draft)}
    record = VersionRecord(
        number=number,
        created_at=utc_now(),
        artifact_digest=artifact.digest,
        artifact_bytes=len(artifact.data),
        libraries=installed_libraries(),
        **{name: getattr(draft, name) for name in kept},
    )
    manifest = Manifest(format=FORMAT, version=record, arrays=artifact.arrays)
    return from_json(Manifest, to_json(manifest))  # lists and tuples, NumPy's and Python's floats


@cache
def installed_libraries() -> Mapping[str, str]:
    """Return the versions that a stored number may depend on."""
    found = {"python": platform.python_version()}
    for name in RECORDED_LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # run from a checkout that is not installed
            continue
    return found
