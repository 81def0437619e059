"""The audit trail in memory: the reference. A restart forgets it."""

from collections import deque
from collections.abc import Sequence

from service.domain.records import AuditEntry


class MemoryAuditTrail:
    def __init__(self, max_entries: int = 1000) -> None:
        self._entries: deque[AuditEntry] = deque(maxlen=max_entries)

    def note(self, entry: AuditEntry) -> None:
        self._entries.append(entry)

    def newest(self, count: int, *, model_id: str | None = None) -> Sequence[AuditEntry]:
        found = [entry for entry in tuple(self._entries) if model_id in {None, entry.model_id}]
        return found[len(found) - min(count, len(found)) :]
