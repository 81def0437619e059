"""A request's head, looked at for the one thing that the door decides.

Whatever is unusual in it is for the server's parser: this one only tells a POST with a large or
middling body of known length, and the id that its client gave.
"""

import re

import numpy as np
from numba import njit

from service.api.middleware import WELL_FORMED_REQUEST_ID
from service.api.payloads.numerals.compiling import COMPILED, INLINED
from service.api.short_way import LARGE_BODY_BYTES

OTHER, MIDDLING, LARGE = 0, 1, 2
"""Kinds of requests: with a large body, or one that takes its time on the loop, or neither."""
MIDDLING_BODY_BYTES = 16 * 1024

MAX_ID_BYTES = 128
_MAX_DIGITS = 18

_SPACE, _TAB, _RETURN, _NEWLINE, _COLON, _SLASH, _ZERO, _NINE, _UPPER_A, _UPPER_Z, _DELETE = (
    b" \t\r\n:/09AZ\x7f"
)
_TO_LOWER = 0x20


def _text(text):
    return np.frombuffer(text, dtype=np.uint8)


_POST, _VERSION = _text(b"POST "), _text(b" HTTP/1.1")
_V2, _BELOW_V2 = _text(b"/v2"), _text(b"/v2/")
_LENGTH, _CODING, _ID = map(_text, (b"content-length", b"transfer-encoding", b"x-request-id"))

_ALLOWED_IN_IDS = np.array(
    [re.fullmatch(WELL_FORMED_REQUEST_ID, chr(byte)) is not None for byte in range(256)]
)
_ALLOWED_IN_NAMES = np.array(
    [re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]", chr(byte)) is not None for byte in range(256)]
)


@njit(**INLINED)
def _is_at(text, head, begin, end):
    if end - begin < text.size:
        return False
    for place in range(text.size):
        if head[begin + place] != text[place]:
            return False
    return True


@njit(**INLINED)
def _is_all(text, head, begin, end):
    return end - begin == text.size and _is_at(text, head, begin, end)


@njit(**INLINED)
def _is_name(name, head, begin, end):
    """Say whether the name, which is of small letters, stands there in whatever case."""
    if end - begin != name.size:
        return False
    for place in range(name.size):
        byte = head[begin + place]
        if _UPPER_A <= byte <= _UPPER_Z:
            byte += _TO_LOWER
        if byte != name[place]:
            return False
    return True


@njit(**INLINED)
def _line_end(head, begin, end):
    """Return where the line ends; -1 if it does not, or has what belongs in none."""
    for place in range(begin, end):
        byte = head[place]
        if byte == _RETURN:
            return place if place + 1 < end and head[place + 1] == _NEWLINE else -1
        if (byte < _SPACE and byte != _TAB) or byte == _DELETE:
            return -1
    return -1


@njit(**INLINED)
def _trimmed(head, begin, end):
    while begin < end and (head[begin] == _SPACE or head[begin] == _TAB):
        begin += 1
    while begin < end and (head[end - 1] == _SPACE or head[end - 1] == _TAB):
        end -= 1
    return begin, end


@njit(**INLINED)
def _number(head, begin, end):
    """Return the number that the digits make; -1 if they are no number, or too many."""
    if begin == end or end - begin > _MAX_DIGITS:
        return -1
    number = 0
    for place in range(begin, end):
        if head[place] < _ZERO or head[place] > _NINE:
            return -1
        number = 10 * number + (head[place] - _ZERO)
    return number


@njit(**INLINED)
def _is_id(head, begin, end):
    if begin == end or end - begin > MAX_ID_BYTES:
        return False
    for place in range(begin, end):
        if not _ALLOWED_IN_IDS[head[place]]:
            return False
    return True


@njit(**INLINED)
def _target(head, end):
    """Return where the target of a POST by HTTP/1.1 begins and ends; -1 if the line is no such."""
    begin, last = _POST.size, end - _VERSION.size
    if last <= begin or not _is_at(_POST, head, 0, end) or not _is_all(_VERSION, head, last, end):
        return -1, -1
    if head[begin] != _SLASH:
        return -1, -1
    for place in range(begin, last):
        if head[place] <= _SPACE or head[place] >= _DELETE:
            return -1, -1
    return begin, last


@njit(**INLINED)
def _kind_of(length):
    if length > LARGE_BODY_BYTES:
        return LARGE
    return MIDDLING if length > MIDDLING_BODY_BYTES else OTHER


@njit(**COMPILED)
def judge(head, end):
    """Return what the head of a request is, whether it is for /v2, and where the id in it is.

    The place of the id is empty where the client has given none, or none that is well-formed.
    """
    line_end = _line_end(head, 0, end)
    target, target_end = _target(head, line_end)
    if target < 0:
        return OTHER, False, 0, 0
    is_v2 = _is_all(_V2, head, target, target_end) or _is_at(_BELOW_V2, head, target, target_end)
    length, id_begin, id_end = -1, 0, 0
    has_id = False
    while True:
        begin = line_end + 2
        line_end = _line_end(head, begin, end)
        if line_end == begin:
            return _kind_of(length), is_v2, id_begin, id_end
        colon = begin
        while colon < line_end and _ALLOWED_IN_NAMES[head[colon]]:
            colon += 1
        if line_end < 0 or colon == begin or colon >= line_end or head[colon] != _COLON:
            return OTHER, False, 0, 0
        value, value_end = _trimmed(head, colon + 1, line_end)
        if _is_name(_CODING, head, begin, colon):
            return OTHER, False, 0, 0
        if _is_name(_LENGTH, head, begin, colon):
            if length >= 0:
                return OTHER, False, 0, 0
            length = _number(head, value, value_end)
            if length < 0:
                return OTHER, False, 0, 0
        if _is_name(_ID, head, begin, colon):
            if has_id:
                return OTHER, False, 0, 0
            has_id = True
            if _is_id(head, value, value_end):
                id_begin, id_end = value, value_end
