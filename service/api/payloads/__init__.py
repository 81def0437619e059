"""The formats of data bodies. A new one is one file and its line in ``FORMATS``."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec

from service.api.payloads.values import Codec


@dataclass(frozen=True, slots=True)
class Format:
    """A media type, and where its codec is: imported when it is first asked for."""

    media_type: str
    module: str
    needs: str | None = None
    """The package that the base install does not have; the extra ``formats`` brings it."""

    @property
    def is_offered(self) -> bool:
        return self.needs is None or find_spec(self.needs) is not None


FORMATS = (
    Format("application/json", "json_format"),
    Format("application/x-ndjson", "ndjson_format"),
    Format("application/x-npy", "npy_format"),
    Format("text/csv", "csv_format", needs="pyarrow"),
    Format("application/vnd.apache.arrow.stream", "arrow_format", needs="pyarrow"),
    Format("application/vnd.apache.parquet", "parquet_format", needs="pyarrow"),
)
"""The first is answered with when the client has no preference."""

CODECS: Mapping[str, Format] = {each.media_type: each for each in FORMATS if each.is_offered}
"""Those that this installation has, by media type."""

REMARK = (
    ""
    if len(CODECS) == len(FORMATS)
    else " Other formats come with the extra `formats`, which is not installed here."
)
"""What a client is told beside the list of formats."""


@cache
def codec_of(media_type: str) -> Codec:
    """Return the codec of one of ``CODECS``."""
    module = import_module(f"{__name__}.{CODECS[media_type].module}")
    codec: Codec = module.CODEC
    return codec


def load_codecs() -> None:
    """Import every codec, so that no request waits for it."""
    for media_type in CODECS:
        codec_of(media_type)
