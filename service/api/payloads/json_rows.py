"""JSON in which one array of numbers, most of its text, is read apart from the rest.

A compiled pass reads the array where it stands and makes no object for a number; the document,
with a stand-in for the array, is parsed like any other. So whatever is to be said against it is
said by the one parser. An array that is anything but regular is left to it, too.
"""

import re
import secrets

import numpy as np
from numpy.typing import NDArray

from service.api.payloads.json_document import JsonValue, parse_json
from service.api.payloads.numerals import read_numbers
from service.api.payloads.values import Body
from service.errors import InvalidInput, MalformedRequest

STAND_IN = secrets.token_hex()
"""A text that no client can know: where it is found in a document, the array was."""
_STAND_IN_TEXT = b'"%b"' % STAND_IN.encode()


class NotRegular(Exception):
    """The text is not a document with a regular array of numbers in it."""


def key_before_array(*names: str) -> re.Pattern[bytes]:
    """Return what finds the first array under one of these names, or what looks like it."""
    either = "|".join(names)
    return re.compile(rf'"(?:{either})"[ \t\r\n]*:[ \t\r\n]*(?=\[)'.encode())


def parse_apart(body: Body, key: re.Pattern[bytes]) -> tuple[JsonValue, NDArray[np.float64]]:
    """Return the document with ``STAND_IN`` for its array of numbers, and the array.

    It may not be where it is looked for: ``key`` is found in a nested object, too, or in a longer
    name. Raises ``NotRegular``, for what is no JSON as well.
    """
    found = key.search(body)
    read = read_numbers(body, found.end()) if found else None
    if found is None or read is None:
        raise NotRegular
    numbers, end = read
    try:
        document = parse_json(b"".join([body[: found.end()], _STAND_IN_TEXT, body[end:]]))
    except (MalformedRequest, InvalidInput) as refusal:
        raise NotRegular from refusal
    return document, numbers
