"""What a codec turns bytes into, and what it turns into bytes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from service.domain.data import Table

JsonSchema = Mapping[str, object]
Value = NDArray[np.float64] | NDArray[np.int64] | float | str
"""One field of an answer."""

TRAINING_FIELDS = frozenset({"sample_weight", "feature_names"})
"""What a fit takes besides the rows."""
BARE_FIELDS = frozenset({"model"})
"""What the bare forms take besides the rows."""


@dataclass(frozen=True, slots=True)
class DataPayload:
    """The data of one request."""

    table: Table
    sample_weight: NDArray[np.float64] | None = None  # (n_samples,)
    model: str | None = None
    """The model as the body names it; on the bare forms only."""


@dataclass(frozen=True, slots=True)
class DataAnswer:
    """The answer of one version, by field."""

    model: str
    version: int
    values: Mapping[str, Value]


class Codec(Protocol):
    """One media type, both ways. Plain functions: callers choose the thread."""

    media_type: str

    def decode(self, body: bytes, *, extra_fields: frozenset[str]) -> DataPayload:
        """Return the data; raise ``MalformedRequest`` or ``InvalidInput``.

        ``extra_fields`` are allowed besides the rows; a format without names ignores them.
        """

    def encode(self, answer: DataAnswer) -> bytes:
        """Return the answer; what is not finite becomes the format's missing value."""

    def encode_in_parts(self, answer: DataAnswer) -> Iterator[bytes]:
        """Yield the same bytes in parts, each made in a few milliseconds.

        For large answers: encoders hold the interpreter's lock, and nothing else would go on while
        they make hundreds of megabytes at once, which also need not be in memory together.
        """

    def request_schema(self, *, extra_fields: frozenset[str]) -> JsonSchema:
        """Return what ``decode`` takes as a JSON Schema, with examples."""
