"""The audit trail in the SQL database.

An entry survives the death of the process; a power cut may take those of the last moments.
"""

import json
from collections.abc import Sequence

from sqlalchemy import delete, insert, select

from service.adapters.database import AUDIT, Database
from service.adapters.record_json import from_json, to_json
from service.domain.records import AuditEntry


class SqlAuditTrail:
    """Implements ``AuditTrail``; several processes may use one database."""

    def __init__(self, database: Database, *, max_entries: int) -> None:
        self._database = database
        self._max_entries = max_entries

    def note(self, entry: AuditEntry) -> None:
        values = {"model_id": entry.model_id, "record": json.dumps(to_json(entry))}
        with self._database.changing(is_durable=False) as connection:
            place = connection.scalar(insert(AUDIT).values(**values).returning(AUDIT.c.place))
            last_forgotten = (place or 0) - self._max_entries
            connection.execute(delete(AUDIT).where(AUDIT.c.place <= last_forgotten))

    def newest(self, count: int, *, model_id: str | None = None) -> Sequence[AuditEntry]:
        query = select(AUDIT.c.record).order_by(AUDIT.c.place.desc()).limit(count)
        if model_id is not None:
            query = query.where(AUDIT.c.model_id == model_id)
        with self._database.reading() as connection:
            records = connection.scalars(query).all()
        return [from_json(AuditEntry, json.loads(record)) for record in reversed(records)]
