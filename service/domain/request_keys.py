"""Idempotency keys: a request that comes again under its key is answered as the first time.

A claim carries a *token* from which the ids of what the request makes are derived. When a process
dies before it has answered, the next claim of the key gets the same token, finds by it what was
made already, and makes nothing twice.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from service.errors import Conflict, InvalidInput, TooManyRequests

KEPT_FOR = timedelta(hours=24)
"""How long a key and its answer are remembered."""
MAX_KEYS = 100_000
"""How many are remembered at once; a new one beyond is refused, for none is forgotten early."""
IN_PROGRESS_RETRY_SECONDS = 1
FULL_RETRY_SECONDS = 60


@dataclass(frozen=True, slots=True)
class RequestKey:
    scope: str
    """What is asked for, such as ``POST /models``; a key says nothing about any other request."""
    key: str
    """As the client chose it."""


@dataclass(frozen=True, slots=True)
class Claim:
    """The right, and the duty, to answer the request of a key."""

    key: RequestKey
    token: str


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """The first answer, as it was sent."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def require_same_request(known: str, asked: str) -> None:
    """Refuse a fingerprint that is not the one that the key came with first."""
    if known != asked:
        raise InvalidInput(
            "idempotency_mismatch",
            "this Idempotency-Key came with another payload before; take a new key for a new "
            "request",
        )


def in_progress() -> Conflict:
    return Conflict(
        "request_in_progress",
        "the first request under this Idempotency-Key is not answered yet; try again shortly",
        retry_after_seconds=IN_PROGRESS_RETRY_SECONDS,
    )


def too_many_keys() -> TooManyRequests:
    return TooManyRequests(
        "too_many_keys",
        "as many Idempotency-Keys are remembered as this service keeps for a day; try again "
        "later, or without one",
        retry_after_seconds=FULL_RETRY_SECONDS,
    )
