"""The domain's records as JSON on disk: every field, every float to its last bit.

The fields and their types are read from the dataclasses, so a new field is stored by itself; a
field that a file lacks takes its default, one that a file has besides is passed over. What JSON
can't say is text: infinities and NaN, times. A file carries the digest of its body, so that a
damaged or truncated one is refused. How records look to a client is the API's business.
"""

import json
import math
import types
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from datetime import datetime
from enum import StrEnum
from functools import cache
from hashlib import sha256
from numbers import Integral, Real
from typing import Literal, TypeAlias, TypeVar, Union, cast, get_args, get_origin, get_type_hints

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"
Record = TypeVar("Record")
Decode: TypeAlias = Callable[[JsonValue], object]

NON_FINITE = frozenset({"inf", "-inf", "nan"})

_HEAD = b'{"sha256":"'
_BODY = b'","body":'
_TAIL = b"}\n"
_DIGEST_LENGTH = 64


class DamagedRecordError(ValueError):
    """The bytes are not a record as ``sealed`` wrote it."""


def sealed(record: object) -> bytes:
    """Return a record as a JSON file that carries its own digest."""
    body = json.dumps(to_json(record), allow_nan=False, separators=(",", ":")).encode()
    return _HEAD + sha256(body).hexdigest().encode() + _BODY + body + _TAIL


def unsealed(kind: type[Record], data: bytes) -> Record:
    """Return the record in such a file; raise ``DamagedRecordError``."""
    body = data[len(_HEAD) + _DIGEST_LENGTH + len(_BODY) : -len(_TAIL)]
    if data != _HEAD + sha256(body).hexdigest().encode() + _BODY + body + _TAIL:
        raise DamagedRecordError("the digest does not match")
    try:
        return from_json(kind, json.loads(body))
    except (ValueError, OverflowError, RecursionError) as error:
        raise DamagedRecordError("the content is not such a record") from error


def to_json(value: object) -> JsonValue:
    match value:
        case None | bool() | str():
            return value
        case Integral() | Real() | datetime():
            return _scalar_to_json(value)
        case Mapping():
            return {str(key): to_json(item) for key, item in value.items()}
        case Sequence():
            return [to_json(item) for item in value]
    if is_dataclass(value):
        return {field.name: to_json(getattr(value, field.name)) for field in fields(value)}
    raise TypeError(f"{type(value).__name__} can't be stored")


def _scalar_to_json(value: Integral | Real | datetime) -> JsonValue:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Integral):
        return int(value)
    number = float(value)
    return number if math.isfinite(number) else str(number)


def from_json(kind: type[Record], value: JsonValue) -> Record:
    """Return a record of this class; raise ``ValueError`` where the value doesn't fit it."""
    record = _decoder(cast("Hashable", kind))(value)  # mypy forgets that classes can be hashed
    if not isinstance(record, kind):
        raise DamagedRecordError(f"not a {kind.__name__}")
    return record


@cache
def _decoder(kind: Hashable) -> Decode:
    """Return the function that reads a value of this type."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in {Union, types.UnionType}:
        return _first_of([_decoder(argument) for argument in arguments])
    if origin is Literal:
        return _one_of(arguments)
    if origin is Mapping:
        return _mapping(_decoder(arguments[1]))
    if origin is Sequence:
        return _sequence(_decoder(arguments[0]))
    if isinstance(kind, type):
        return _of_class(kind)
    raise TypeError(f"{kind} can't be read")


def _of_class(kind: type) -> Decode:
    if is_dataclass(kind):
        return _dataclass(kind)
    if issubclass(kind, StrEnum):
        return kind
    return _SCALARS[kind]


def _first_of(choices: Sequence[Decode]) -> Decode:
    def decode(value: JsonValue) -> object:
        for choice in choices:
            try:
                return choice(value)
            except ValueError:
                continue
        raise DamagedRecordError("none of the types that fit here")

    return decode


def _one_of(allowed: Sequence[object]) -> Decode:
    def decode(value: JsonValue) -> object:
        if value not in allowed:
            raise DamagedRecordError("none of the values that fit here")
        return value

    return decode


def _mapping(decode_item: Decode) -> Decode:
    def decode(value: JsonValue) -> object:
        if not isinstance(value, dict):
            raise DamagedRecordError("not an object")
        return {key: decode_item(item) for key, item in value.items()}

    return decode


def _sequence(decode_item: Decode) -> Decode:
    def decode(value: JsonValue) -> object:
        if not isinstance(value, list):
            raise DamagedRecordError("not an array")
        return tuple(map(decode_item, value))

    return decode


def _dataclass(kind: type) -> Decode:
    hints = get_type_hints(kind)
    decoders = [(field, _decoder(hints[field.name])) for field in fields(kind)]

    def decode(value: JsonValue) -> object:
        if not isinstance(value, dict):
            raise DamagedRecordError("not an object")
        return kind(
            **{
                field.name: decode_field(value[field.name])
                for field, decode_field in decoders
                if _is_given(field, value)
            }
        )

    return decode


def _is_given(field: "Field[object]", value: Mapping[str, JsonValue]) -> bool:
    if field.name in value:
        return True
    if field.default is MISSING and field.default_factory is MISSING:
        raise DamagedRecordError(f"{field.name} is missing")
    return False


def _exactly(kind: type) -> Decode:
    def decode(value: JsonValue) -> object:
        if type(value) is not kind:
            raise DamagedRecordError(f"not {kind.__name__}")
        return value

    return decode


def _float(value: JsonValue) -> object:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, str) and value in NON_FINITE:
        return float(value)
    raise DamagedRecordError("not a number")


def _datetime(value: JsonValue) -> object:
    if not isinstance(value, str):
        raise DamagedRecordError("not a time")
    return datetime.fromisoformat(value)


_SCALARS: Mapping[object, Decode] = {
    bool: _exactly(bool),
    int: _exactly(int),
    float: _float,
    str: _exactly(str),
    types.NoneType: _exactly(types.NoneType),
    datetime: _datetime,
}
