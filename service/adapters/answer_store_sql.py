"""First answers in the SQL database: they survive a restart, and every process has the same."""

import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from sqlalchemy import ColumnElement, Connection, and_, delete, func, select, update
from sqlalchemy.dialects import sqlite

from service.adapters.database import ANSWERS, Database
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

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql


class SqlAnswerStore:
    """Implements ``AnswerStore``; several processes may use one database."""

    def __init__(
        self,
        database: Database,
        clock: Callable[[], float] = time.time,
        *,
        max_keys: int = MAX_KEYS,
    ) -> None:
        self._database = database
        self._clock = clock
        self._max_keys = max_keys

    def claim(self, key: RequestKey, fingerprint: str, token: str) -> Claim | KeptAnswer:
        with self._database.changing() as connection:
            self._forget_old(connection)
            if self._is_first(connection, key, fingerprint, token):
                self._require_room(connection)
                return Claim(key, token)
            row = connection.execute(select(ANSWERS).where(_is(key)).with_for_update()).first()
            if row is None:  # given back at this very moment
                raise in_progress()
            require_same_request(row.fingerprint, fingerprint)
            if row.status is not None:
                return KeptAnswer(row.status, json.loads(row.headers), row.body)
            if row.owner is not None and self._database.is_alive(row.owner):
                raise in_progress()
            _set(connection, key, owner=self._database.owner)
            return Claim(key, row.token)

    def knows(self, key: RequestKey) -> bool:
        with self._database.reading() as connection:
            found = select(ANSWERS.c.token).where(_is(key), ANSWERS.c.created_at > self._oldest())
            return connection.execute(found).first() is not None

    def keep(self, claim: Claim, answer: KeptAnswer) -> None:
        headers = json.dumps(dict(answer.headers))
        with self._database.changing() as connection:
            _set(connection, claim.key, status=answer.status, headers=headers, body=answer.body)

    def forget(self, claim: Claim) -> None:
        with self._database.changing(is_durable=False) as connection:
            connection.execute(delete(ANSWERS).where(_is(claim.key)))

    def abandon(self, claim: Claim) -> None:
        with self._database.changing(is_durable=False) as connection:
            _set(connection, claim.key, owner=None)

    def _is_first(
        self, connection: Connection, key: RequestKey, fingerprint: str, token: str
    ) -> bool:
        """Write the key down if it is not there; of racing processes one does."""
        made = connection.execute(
            _insert(connection.dialect.name)
            .values(
                scope=key.scope,
                key=key.key,
                fingerprint=fingerprint,
                token=token,
                owner=self._database.owner,
                created_at=int(self._clock()),
            )
            .on_conflict_do_nothing()
            .returning(ANSWERS.c.token)
        )
        return made.first() is not None

    def _require_room(self, connection: Connection) -> None:
        """Refuse the key that was just written down, which is taken back then."""
        n_keys = connection.scalar(select(func.count()).select_from(ANSWERS))
        if n_keys is not None and n_keys > self._max_keys:
            raise too_many_keys()

    def _forget_old(self, connection: Connection) -> None:
        connection.execute(delete(ANSWERS).where(ANSWERS.c.created_at <= self._oldest()))

    def _oldest(self) -> int:
        return int(self._clock() - KEPT_FOR.total_seconds())


def _insert(dialect: str) -> "sqlite.Insert | postgresql.Insert":
    """Return the dialect's own insert, which alone may meet a row that is there already."""
    if dialect == "postgresql":
        from sqlalchemy.dialects import postgresql  # noqa: PLC0415 - it loads all its drivers

        return postgresql.insert(ANSWERS)
    return sqlite.insert(ANSWERS)


def _is(key: RequestKey) -> ColumnElement[bool]:
    return and_(ANSWERS.c.scope == key.scope, ANSWERS.c.key == key.key)


def _set(connection: Connection, key: RequestKey, **values: object) -> None:
    connection.execute(update(ANSWERS).where(_is(key)).values(**values))
