"""JSON bytes to a document, stricter than the parser: no duplicate keys, bounded depth.

The parser (orjson) refuses what is not UTF-8, lone surrogates, NaN and trailing bytes, but keeps
the last of two equal keys and nests to 1,024. Both are judged on the *skeleton*, the bytes that
structure the text, which for rows of numbers is a small part of it; only a text whose strings
hold such bytes, or that has nested objects, is walked token by token.
"""

import math
import re
import secrets
from collections.abc import Iterable, Iterator
from itertools import islice

import orjson

from service.errors import MAX_NAMED_ISSUES, InvalidInput, Issue, MalformedRequest

JsonValue = str | int | float | bool | list["JsonValue"] | dict[str, "JsonValue"] | None
Place = tuple[str | int, ...]
"""The names and indices on the way to a value."""

MAX_DEPTH = 16
MAX_NAME_LENGTH = 64
"""Of a name that may stand in a pointer."""
BEYOND_DOUBLES = "beyond the range of a double"
MAX_TRACED_BYTES = 1024**2
"""So far into what is no JSON its brackets are followed."""

PIECE_BYTES = 64 * 1024
"""Searched for such numbers at once."""

STRUCTURE = b'[]{}":\\'
NOT_STRUCTURE = bytes(byte for byte in range(256) if byte not in STRUCTURE)
TOKEN = re.compile(rb'"((?:[^"\\]|\\.)*)"([ \t\r\n]*:)?|[\[\]{}]', re.DOTALL)
BRACKET = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[\]{}]', re.DOTALL)
"""A bracket, or a string whole, closed or not: so that nothing is looked at twice."""
LARGE_NUMBER = re.compile(
    rb"[0-9](?<![\w.+].)(?<![eE]-.)(?=[0-9.]{199}|[0-9.]*+[eE]\+?[0-9]{3})"
    rb"[0-9]*+(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?"
)
"""A number, but for its sign, with digits or an exponent that may take it beyond a double."""
_STAND_IN = (1.0 + secrets.randbits(52) / 2**52) * 1e300
_STAND_IN_TEXT = repr(_STAND_IN).encode()
STAND_INS = (_STAND_IN, -_STAND_IN)
"""Numbers that no client can know: where one is in a document, one beyond a double was."""
NOT_A_NUMBER = re.compile(r"[^a-z]?[+-]?(nan|inf(inity)?)\b", re.IGNORECASE)
"""At the place where the parser stopped: before or behind the sign."""


def parse_json(body: bytes) -> JsonValue:
    """Return the document; raise ``MalformedRequest``, or ``InvalidInput`` for 1e400."""
    try:
        document: JsonValue = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise _refusal(body, error) from error
    _require_sound(body, document)
    return document


def _require_shallow(body: bytes) -> None:
    """Look for deep nesting in what is no JSON, such as brackets that are never closed."""
    depth = 0
    for token in BRACKET.finditer(body, 0, MAX_TRACED_BYTES):
        match token.group()[:1]:
            case b"{" | b"[":
                depth += 1
            case b"}" | b"]":
                depth -= 1
        if depth > MAX_DEPTH:
            raise _too_deep()


def _too_deep() -> MalformedRequest:
    return MalformedRequest("nesting_too_deep", f"the body nests deeper than {MAX_DEPTH} levels")


def _refusal(body: bytes, error: orjson.JSONDecodeError) -> MalformedRequest | InvalidInput:
    if "infinity" in error.msg:
        return InvalidInput(
            "non_finite_number",
            "a number is beyond the range of a double",
            issues=[
                Issue(_pointer(place), "non_finite_number", BEYOND_DOUBLES)
                for place in places_beyond_doubles(with_stand_ins(body))
            ],
        )
    if body.startswith(b"\xef\xbb\xbf"):
        return MalformedRequest("malformed_json", "the body must not begin with a byte order mark")
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return MalformedRequest("not_utf8", "the body is not UTF-8")
    _require_shallow(body)
    if NOT_A_NUMBER.match(text, max(0, error.pos - 1)):
        return MalformedRequest(
            "malformed_json",
            "NaN and Infinity are not JSON (RFC 8259); impute missing values or leave their rows "
            f"out: line {error.lineno}, column {error.colno}",
        )
    return MalformedRequest(
        "malformed_json",
        f"the body is not JSON (RFC 8259): line {error.lineno}, column {error.colno}",
    )


def with_stand_ins(body: bytes) -> JsonValue:
    """Return a document with ``STAND_INS`` for numbers beyond a double; None for no JSON."""
    pieces, begin = [], 0
    while begin < len(body):  # piece by piece: other threads go on in between
        end = body.find(b",", begin + PIECE_BYTES) + 1 or len(body)
        pieces.append(LARGE_NUMBER.sub(_within_doubles, body[begin:end]))
        begin = end
    try:
        document: JsonValue = orjson.loads(b"".join(pieces))
    except orjson.JSONDecodeError:
        return None
    return document


def _within_doubles(number: re.Match[bytes]) -> bytes:
    return _STAND_IN_TEXT if math.isinf(float(number.group())) else number.group()


def places_beyond_doubles(document: JsonValue) -> Iterator[Place]:
    """Yield where the first numbers stand that have a stand-in."""
    if document in STAND_INS:
        yield ()
    yield from islice(_places_of_stand_ins(document, ()), MAX_NAMED_ISSUES)


def _places_of_stand_ins(value: JsonValue, place: Place) -> Iterator[Place]:
    items: Iterable[tuple[str | int, JsonValue]] = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for step, item in items:
        if item in STAND_INS:
            yield (*place, step)
        elif isinstance(item, list | dict) and len(place) < MAX_DEPTH:
            yield from _places_of_stand_ins(item, (*place, step))


def _pointer(place: Place) -> str:
    return "".join(["#", *(f"/{step}" for step in place if _is_tellable(step))])


def _is_tellable(step: str | int) -> bool:
    return isinstance(step, int) or (step.isidentifier() and len(step) < MAX_NAME_LENGTH)


def _require_sound(body: bytes, document: JsonValue) -> None:
    n_keys = len(document) if isinstance(document, dict) else 0
    # Every key has its colon: no more colons than distinct keys of the one object means that
    # no key was there twice. And what opens few brackets can't nest them deeply.
    if body.count(b"{") <= 1 and body.count(b":") == n_keys and body.count(b"[") < MAX_DEPTH:
        return
    skeleton = body.translate(None, NOT_STRUCTURE)
    if skeleton.count(b"{") <= 1 and skeleton.count(b":") == n_keys and _is_shallow(skeleton):
        return
    _walk(body)


def _is_shallow(skeleton: bytes) -> bool:
    """Peel the innermost brackets off, one level a turn, until nothing is left."""
    left = skeleton.replace(b":", b"").replace(b'""', b"")
    for _ in range(MAX_DEPTH):
        left = left.replace(b"[]", b"").replace(b"{}", b"")
        if not left:
            return True
    return not left


def _walk(body: bytes) -> None:
    keys_of_open: list[set[str]] = []
    for token in TOKEN.finditer(body):
        match token.group()[:1]:
            case b"{" | b"[":
                keys_of_open.append(set())
                if len(keys_of_open) > MAX_DEPTH:
                    raise _too_deep()
            case b"}" | b"]":
                keys_of_open.pop()
            case _ if token.group(2) is not None:
                _note_key(token.group(1), keys_of_open[-1])


def _note_key(raw: bytes, seen: set[str]) -> None:
    key: str = orjson.loads(b'"' + raw + b'"') if b"\\" in raw else raw.decode()
    if key in seen:
        raise MalformedRequest("duplicate_key", "an object has the same key twice")
    seen.add(key)
