"""The parameter file of a version: a mixture to bytes and back.

The file is what ``joblib.dump`` makes of a dict of plain arrays, numbers and strings, never of an
instance of a class, so that it needs no code of ours to be read elsewhere. It is read back by
``joblib_reader``, which runs nothing, and then checked for schema and mathematics. Digests and
files are the registry's business.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from gmm_engine import Mixture
from gmm_engine.errors import GmmEngineError
from gmm_engine.preprocessing import TRANSFORM_ARRAYS, mixture_from_arrays
from service.adapters.joblib_reader import UnreadableFileError, Value, read_joblib

SCHEMA = 1
PARAMETERS = ("weights", "means", "covariances")
FACTORS = "precisions_cholesky"
"""Beside the covariances where these, of nearly collinear features, say less."""
ARRAYS = (*PARAMETERS, FACTORS, *TRANSFORM_ARRAYS)
FORMS = [
    {*PARAMETERS, *factors, *of_transform}
    for factors in ((), (FACTORS,))
    for of_transform in ((), TRANSFORM_ARRAYS[:2], TRANSFORM_ARRAYS)
]
"""Which arrays a file may hold: a mixture alone, or with the map of the rows before it."""
SCALAR_NAMES = {"schema", "covariance_type"}
DTYPE = "<f8"
PICKLE_PROTOCOL = 4
"""Stated, so that a newer Python writes nothing that the reader doesn't know."""


class ArtifactError(Exception):
    """The bytes are not the parameters of a mixture, or not of the one that was declared."""


@dataclass(frozen=True, slots=True)
class ArraySpec:
    """One line of the array table in a manifest."""

    name: str
    dtype: str
    shape: Sequence[int]


@dataclass(frozen=True, slots=True)
class Artifact:
    """The parameter file as it is stored, and what the manifest says about it."""

    data: bytes
    arrays: Sequence[ArraySpec]

    @property
    def digest(self) -> str:
        return sha256(self.data).hexdigest()


def artifact_of(mixture: Mixture) -> Artifact:
    plain = {
        name: np.ascontiguousarray(array, dtype=DTYPE)
        for name, array in mixture.to_arrays().items()
    }
    import joblib  # noqa: PLC0415 - it prepares for work in processes, which no start waits for

    content = {"schema": SCHEMA, "covariance_type": mixture.covariance_type, **plain}
    stream = io.BytesIO()
    joblib.dump(content, stream, protocol=PICKLE_PROTOCOL)
    return Artifact(stream.getvalue(), _table_of(plain))


def mixture_of(data: bytes, *, covariance_type: str, arrays: Sequence[ArraySpec]) -> Mixture:
    """Return the mixture in a parameter file if it is the declared one; raise ``ArtifactError``."""
    try:
        content = read_joblib(data)
    except UnreadableFileError as error:
        raise ArtifactError(str(error)) from error
    found = _checked_arrays(content, covariance_type)
    if _table_of(found) != tuple(arrays):
        raise ArtifactError("the arrays are not those of the manifest")
    try:
        return mixture_from_arrays(found, covariance_type)
    except GmmEngineError as error:
        raise ArtifactError(f"the parameters are no mixture: {error.code}") from error


def _checked_arrays(
    content: Mapping[str, Value], covariance_type: str
) -> dict[str, NDArray[np.float64]]:
    arrays = {name: value for name, value in content.items() if isinstance(value, np.ndarray)}
    if arrays.keys() not in FORMS or content.keys() - arrays.keys() != SCALAR_NAMES:
        raise ArtifactError("the file has other entries than a mixture")
    if content["schema"] != SCHEMA or content["covariance_type"] != covariance_type:
        raise ArtifactError("the file has another schema or family")
    return arrays


def _table_of(arrays: Mapping[str, NDArray[np.float64]]) -> tuple[ArraySpec, ...]:
    return tuple(ArraySpec(name, DTYPE, arrays[name].shape) for name in ARRAYS if name in arrays)
