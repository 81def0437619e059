"""What every store of first answers promises, held over each of them."""

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from service.adapters.answer_store_memory import MemoryAnswerStore
from service.adapters.answer_store_sql import SqlAnswerStore
from service.adapters.database import Database
from service.domain.ports import AnswerStore
from service.domain.request_keys import KEPT_FOR, Claim, KeptAnswer, RequestKey
from service.errors import Conflict, InvalidInput, TooManyRequests
from tests.support.databases import DATABASES, database_url

KEY = RequestKey("POST /models", "k-1")
MAX_KEYS = 100
ANSWER = KeptAnswer(201, {"etag": '"x"'}, b'{"id":"\xc3\xa9"}')

DYING = """
import os, sys
from pathlib import Path
from service.adapters.answer_store_sql import SqlAnswerStore
from service.adapters.database import Database
from service.domain.request_keys import RequestKey
store = SqlAnswerStore(Database.at(sys.argv[1] or None, Path(sys.argv[2])))
store.claim(RequestKey("POST /models", "k-1"), "payload", "first")
os.kill(os.getpid(), 9)
"""


@dataclass
class Clock:
    now: float = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=DATABASES)
def url(request: pytest.FixtureRequest) -> str | None:
    return database_url(request, request.param)


@pytest.fixture
def database(url: str | None, tmp_path: Path) -> Iterator[Database]:
    database = Database.at(url, tmp_path)
    yield database
    database.close()


@pytest.fixture(params=["memory", *DATABASES])
def store(request: pytest.FixtureRequest, clock: Clock, tmp_path: Path) -> Iterator[AnswerStore]:
    if request.param == "memory":
        yield MemoryAnswerStore(clock, max_keys=MAX_KEYS)
        return
    database = Database.at(database_url(request, request.param), tmp_path)
    yield SqlAnswerStore(database, clock, max_keys=MAX_KEYS)
    database.close()


def claimed(store: AnswerStore, name: str = "mine") -> Claim:
    claim = store.claim(KEY, "payload", name)
    assert isinstance(claim, Claim)
    return claim


def test_a_key_is_known_until_it_is_given_back_or_forgotten(
    store: AnswerStore, clock: Clock
) -> None:
    assert not store.knows(KEY)
    claim = store.claim(KEY, "payload", "first")
    assert isinstance(claim, Claim)
    assert store.knows(KEY)
    assert not store.knows(RequestKey(KEY.scope, "k-2"))
    store.forget(claim)
    assert not store.knows(KEY)

    claim = store.claim(KEY, "payload", "second")
    assert isinstance(claim, Claim)
    store.abandon(claim)
    assert store.knows(KEY)
    store.keep(claim, ANSWER)
    assert store.knows(KEY)
    clock.now += KEPT_FOR.total_seconds() + 1
    assert not store.knows(KEY)


def test_the_first_answer_is_kept(store: AnswerStore) -> None:
    store.keep(claimed(store), ANSWER)

    assert store.claim(KEY, "payload", "other") == ANSWER
    assert store.claim(RequestKey("POST /models", "k-2"), "payload", "t") != ANSWER
    assert store.claim(RequestKey("POST /models/a/fit", "k-1"), "payload", "t") != ANSWER


def test_another_payload_under_the_key_is_refused(store: AnswerStore) -> None:
    claim = claimed(store)
    for _ in range(2):
        with pytest.raises(InvalidInput) as refused:
            store.claim(KEY, "another payload", "token")
        assert refused.value.code == "idempotency_mismatch"
        store.keep(claim, ANSWER)


def test_of_racing_claims_one_succeeds(store: AnswerStore) -> None:
    won: list[object] = []
    lost: list[str] = []

    def race(number: int) -> None:
        try:
            won.append(store.claim(KEY, "payload", f"token-{number}"))
        except Conflict as error:
            lost.append(error.code)

    racers = [threading.Thread(target=race, args=(number,)) for number in range(20)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()

    assert len(won) == 1
    assert lost == ["request_in_progress"] * 19


def test_a_key_that_was_given_back_is_as_new(store: AnswerStore) -> None:
    store.forget(claimed(store, "first"))

    claim = store.claim(KEY, "another payload", "second")

    assert claim == Claim(KEY, "second")


def test_an_abandoned_key_is_taken_again_with_its_token(store: AnswerStore) -> None:
    store.abandon(claimed(store, "first"))

    assert claimed(store, "second") == Claim(KEY, "first")
    with pytest.raises(Conflict):
        claimed(store, "third")


def test_a_key_is_forgotten_after_its_time(store: AnswerStore, clock: Clock) -> None:
    store.keep(claimed(store), ANSWER)
    clock.now += KEPT_FOR.total_seconds() - 1
    assert store.claim(KEY, "payload", "other") == ANSWER

    clock.now += 2

    assert store.claim(KEY, "another payload", "new") == Claim(KEY, "new")


def test_answers_survive_a_restart(url: str | None, database: Database, tmp_path: Path) -> None:
    before = Database.at(url, tmp_path)
    SqlAnswerStore(before).keep(claimed(SqlAnswerStore(before)), ANSWER)
    before.close()

    assert SqlAnswerStore(database).claim(KEY, "payload", "other") == ANSWER


def test_the_key_of_a_dead_process_is_taken_again_with_its_token(
    url: str | None, database: Database, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", DYING, url or "", str(tmp_path)]
    died = subprocess.run(command, check=False)  # noqa: S603  # our own code
    assert died.returncode == -signal.SIGKILL

    assert claimed(SqlAnswerStore(database), "second") == Claim(KEY, "first")


def test_the_key_of_another_living_process_is_in_progress(
    url: str | None, database: Database, tmp_path: Path
) -> None:
    other = Database.at(url, tmp_path)
    claimed(SqlAnswerStore(other))

    with pytest.raises(Conflict) as refused:
        SqlAnswerStore(database).claim(KEY, "payload", "mine")

    assert refused.value.code == "request_in_progress"
    other.close()


def test_past_the_bound_new_keys_are_refused_and_known_ones_answered(
    store: AnswerStore, clock: Clock
) -> None:
    store.keep(claimed(store), ANSWER)
    for number in range(MAX_KEYS - 1):
        store.claim(RequestKey("POST /models", f"n-{number}"), "payload", "token")

    with pytest.raises(TooManyRequests) as refused:
        store.claim(RequestKey("POST /models", "new"), "payload", "token")

    assert refused.value.code == "too_many_keys"
    assert store.claim(KEY, "payload", "other") == ANSWER
    clock.now += KEPT_FOR.total_seconds() + 1
    assert isinstance(store.claim(RequestKey("POST /models", "new"), "payload", "token"), Claim)
