"""First answers in memory: the reference. A restart forgets them."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from service.domain.request_keys import (
    KEPT_FOR,
    MAX_KEYS,
    Claim,
    KeptAnswer,
    RequestKey,
    in_progress,
    require_same_request,
    too_many_keys,
)


@dataclass(slots=True)
class _Entry:
    fingerprint: str
    token: str
    created_at: float
    is_claimed: bool = True
    answer: KeptAnswer | None = None


class MemoryAnswerStore:
    def __init__(self, clock: Callable[[], float] = time.time, *, max_keys: int = MAX_KEYS) -> None:
        self._clock = clock
        self._max_keys = max_keys
        self._entries: dict[RequestKey, _Entry] = {}
        self._lock = threading.Lock()

    def claim(self, key: RequestKey, fingerprint: str, token: str) -> Claim | KeptAnswer:
        with self._lock:
            self._forget_old()
            if key not in self._entries and len(self._entries) >= self._max_keys:
                raise too_many_keys()
            entry = self._entries.setdefault(key, _Entry(fingerprint, token, self._clock(), False))
            require_same_request(entry.fingerprint, fingerprint)
            if entry.answer is not None:
                return entry.answer
            if entry.is_claimed:
                raise in_progress()
            entry.is_claimed = True
            return Claim(key, entry.token)

    def knows(self, key: RequestKey) -> bool:
        with self._lock:
            self._forget_old()
            return key in self._entries

    def keep(self, claim: Claim, answer: KeptAnswer) -> None:
        with self._lock:
            if claim.key in self._entries:
                self._entries[claim.key].answer = answer

    def forget(self, claim: Claim) -> None:
        with self._lock:
            self._entries.pop(claim.key, None)

    def abandon(self, claim: Claim) -> None:
        with self._lock:
            if claim.key in self._entries:
                self._entries[claim.key].is_claimed = False

    def _forget_old(self) -> None:
        oldest = self._clock() - KEPT_FOR.total_seconds()
        self._entries = {
            key: entry for key, entry in self._entries.items() if entry.created_at > oldest
        }
