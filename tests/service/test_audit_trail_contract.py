"""What every audit trail promises, held over each of them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.adapters.audit_memory import MemoryAuditTrail
from service.adapters.audit_sql import SqlAuditTrail
from service.adapters.database import Database
from service.domain.ports import AuditTrail
from service.domain.records import AuditEntry
from tests.support.databases import DATABASES, database_url


@pytest.fixture(params=["memory", *DATABASES])
def trail(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[AuditTrail]:
    if request.param == "memory":
        yield MemoryAuditTrail(max_entries=4)
        return
    database = Database.at(database_url(request, request.param), tmp_path)
    yield SqlAuditTrail(database, max_entries=4)
    database.close()


def entry(number: int, *, model: str = "a") -> AuditEntry:
    return AuditEntry(
        action="put_alias",
        actor="192.0.2.1",
        status=200 + number,
        code=None,
        model_id=model,
        version=number,
        alias="champion",
        request_id=f"request-{number}",
    )


def test_every_field_of_an_entry_is_kept(trail: AuditTrail) -> None:
    noted = entry(1)
    trail.note(noted)

    assert list(trail.newest(10)) == [noted]


def test_the_newest_entries_come_in_their_order(trail: AuditTrail) -> None:
    noted = [entry(number, model="ab"[number % 2]) for number in range(4)]
    for one in noted:
        trail.note(one)

    assert list(trail.newest(2)) == noted[2:]
    assert list(trail.newest(10, model_id="a")) == noted[::2]
    assert list(trail.newest(0)) == []


def test_the_oldest_entries_beyond_the_bound_are_forgotten(trail: AuditTrail) -> None:
    for number in range(9):
        trail.note(entry(number))

    assert [one.version for one in trail.newest(10)] == [5, 6, 7, 8]
