"""The formats of data bodies. A new one is one file and its line in ``CODECS``."""

from collections.abc import Mapping

from service.api.payloads.json_format import JsonCodec
from service.api.payloads.values import Codec

CODECS: Mapping[str, Codec] = {codec.media_type: codec for codec in (JsonCodec(),)}
"""By media type; the first is answered with when the client has no preference."""
