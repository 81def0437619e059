"""One page of an ordered list, and the token for the next.

A token holds the place where the page ended, not a number of items to skip, so that what is
created or deleted in between neither repeats nor hides the others. It belongs to its listing: in
another one, of other things, filtered or ordered otherwise, the place would mean nothing.
"""

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Generic, TypeVar

from service.errors import InvalidInput, Issue

T = TypeVar("T")

Place = tuple[str, ...]
"""What the list is ordered by, ending in something unique."""


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    items: Sequence[T]
    next_token: str | None


def page_of(
    items: Sequence[T],
    *,
    place_of: Callable[[T], Place],
    page_size: int,
    token: str | None,
    listing: Sequence[str],
    descending: bool = False,
) -> Page[T]:
    """Return the items behind the place that ``token`` names.

    ``listing`` says what is listed: of what, in which order, which of them.
    """
    ordered = sorted(items, key=place_of, reverse=descending)
    if token is not None:
        last = _place_in(token, listing)
        ordered = [
            item
            for item in ordered
            if (place_of(item) < last if descending else place_of(item) > last)
        ]
    page = ordered[:page_size]
    is_last = len(ordered) <= page_size
    return Page(page, None if is_last else _token_of(place_of(page[-1]), listing))


def _token_of(place: Place, listing: Sequence[str]) -> str:
    content = json.dumps([_mark_of(listing), *place])
    return base64.urlsafe_b64encode(content.encode()).decode().rstrip("=")


def _mark_of(listing: Sequence[str]) -> str:
    return sha256(json.dumps(listing).encode()).hexdigest()[:16]


def _place_in(token: str, listing: Sequence[str]) -> Place:
    try:
        parts = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    except (ValueError, binascii.Error, RecursionError) as error:
        raise _unknown_token() from error
    if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
        raise _unknown_token()
    if parts[:1] != [_mark_of(listing)]:
        raise _unknown_token()
    return tuple(parts[1:])


def _unknown_token() -> InvalidInput:
    detail = "page_token is not one that this service gave for this list; start again without it"
    return InvalidInput(
        "invalid_parameter",
        detail,
        issues=[Issue("#/query/page_token", "invalid_parameter", detail)],
    )
