"""Jobs followed over real connections: left and taken up again, at another process, to the end."""

import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.e2e.server import Server, running

Event = tuple[str, int, Mapping[str, Any]]

LONG = {"id": "long", "n_components": 8, "tol": 0, "max_iter": 100_000}
X = np.random.default_rng(0).normal(size=(3000, 2)).tolist()


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Server]]:
    registry = tmp_path_factory.mktemp("events") / "registry"
    with running(registry) as first, running(registry) as second:
        with first.client() as client:
            client.post("/models", json=LONG)
        yield first, second


@contextmanager
def following(
    client: httpx.Client, job: str, last_id: int | None = None
) -> Iterator[Iterator[Event]]:
    headers = {} if last_id is None else {"Last-Event-ID": str(last_id)}
    with client.stream("GET", f"/jobs/{job}/events", headers=headers) as answer:
        assert answer.status_code == 200
        yield events_in(answer.iter_lines())


def events_in(lines: Iterator[str]) -> Iterator[Event]:
    fields: dict[str, str] = {}
    for line in lines:
        if not line and fields:
            yield fields["event"], int(fields["id"]), json.loads(fields["data"])
            fields = {}
        elif line and not line.startswith(":"):
            name, _, value = line.partition(": ")
            fields[name] = value


def begun(client: httpx.Client) -> str:
    return str(client.post("/models/long/fit?wait=0", json={"X": X}).json()["id"])


def test_a_job_is_followed_left_and_taken_up_again(two: tuple[Server, Server]) -> None:
    with two[0].client() as client:
        job = begun(client)
        with following(client, job) as events:
            seen = [next(events) for _ in range(3)]
        with following(client, job, last_id=seen[-1][1]) as events:
            seen.append(next(events))
            with two[0].client() as another:
                another.post(f"/jobs/{job}/cancel")
            seen += list(events)

    names, ids, data = zip(*seen, strict=True)
    assert set(names[:-1]) == {"progress"}
    assert list(ids) == sorted(set(ids))
    assert all(one["max_iter"] == 100_000 for one in data[:-1])
    assert (names[-1], data[-1]["status"]) == ("done", "cancelled")


def test_a_job_is_followed_at_another_process(two: tuple[Server, Server]) -> None:
    with two[0].client() as owner, two[1].client() as other:
        job = begun(owner)
        with following(other, job) as events:
            first = next(events)
            owner.post(f"/jobs/{job}/cancel")
            *_, last = events

    assert (first[0], last[0]) == ("progress", "done")
    assert first[1] < last[1]


@pytest.mark.parametrize("asked", [0, 1], ids=["its own", "another"])
def test_a_fit_that_is_cancelled_at_any_process_may_keep_its_best(
    two: tuple[Server, Server], asked: int
) -> None:
    with two[0].client() as owner, two[asked].client() as canceller:
        job = begun(owner)
        with following(owner, job) as events:
            next(events)
            first = canceller.post(f"/jobs/{job}/cancel?keep=best")
            *_, (name, _, ended) = events
        again = canceller.post(f"/jobs/{job}/cancel?keep=best")
        result = canceller.get(f"/jobs/{job}").json()["result"]
        answer = canceller.post("/models/long/predict", json={"X": X[:3]})

    assert (first.status_code, again.status_code) == (202, 200)
    assert (name, ended["status"], result["stop_reason"]) == ("done", "succeeded", "cancelled")
    assert answer.json()["version"] == result["version"]


def selecting(client: httpx.Client, query: str, rows: object = X) -> str:
    client.post("/models", json={"id": "choice", "random_state": 0})
    path = f"/models/choice/select?wait=0&{query}"
    return str(client.post(path, json={"X": rows}).json()["id"])


def test_the_leaderboard_of_a_selection_fills_in_its_events(two: tuple[Server, Server]) -> None:
    with two[0].client() as client:
        job = selecting(client, "n_components=1-6", rows=X[:500])
        with following(client, job) as events:
            *progress, (name, _, ended) = events

    boards = [one["leaderboard"] for _, _, one in progress]
    counts = [len(board["leaders"]) for board in boards]
    best = ended["selection"]["best"]
    assert counts == sorted(counts)
    assert counts[0] < 24
    assert {board["n_candidates"] for board in boards} == {24}
    for board in boards:
        values = [leader["value"] for leader in board["leaders"]]
        assert values == sorted(values)
    assert (name, ended["status"]) == ("done", "succeeded")
    assert best["value"] == min(one["value"] for one in ended["selection"]["candidates"])


@pytest.mark.parametrize("asked", [0, 1], ids=["its own", "another"])
def test_a_selection_that_is_cancelled_at_any_process_ends_or_keeps_its_best(
    two: tuple[Server, Server], asked: int
) -> None:
    ended = {}
    with two[0].client() as owner, two[asked].client() as canceller:
        for keep in ("best", "nothing"):
            job = selecting(owner, "n_components=1-30")
            with following(owner, job) as events:
                next(one for _, _, one in events if one["leaderboard"]["leaders"])
                canceller.post(f"/jobs/{job}/cancel" + ("?keep=best" if keep == "best" else ""))
                *_, (_, _, ended[keep]) = events

    assert ended["best"]["status"] == "succeeded"
    assert ended["best"]["selection"]["complete"] is False
    assert ended["best"]["result"]["version"] >= 1
    assert (ended["nothing"]["status"], ended["nothing"]["result"]) == ("cancelled", None)


def test_a_selection_whose_time_is_up_compares_what_it_has_found(
    two: tuple[Server, Server],
) -> None:
    with two[0].client() as client:
        job = selecting(client, "n_components=1-30&budget_seconds=1")
        ended = client.get(f"/jobs/{job}?wait=60").json()

    assert ended["status"] == "succeeded"
    assert ended["selection"]["complete"] is False
    assert ended["result"]["duration_seconds"] < 10


def test_a_fit_is_cancelled_at_another_process(two: tuple[Server, Server]) -> None:
    with two[0].client() as owner, two[1].client() as other:
        job = begun(owner)
        other.post(f"/jobs/{job}/cancel")
        ended = other.get(f"/jobs/{job}?wait=30").json()

    assert (ended["status"], ended["result"]) == ("cancelled", None)


def test_a_shutdown_ends_the_streams(tmp_path: Path) -> None:
    ends: list[str] = []
    with running(tmp_path / "registry", {"GMM_DRAIN_SECONDS": "5"}) as server:
        with server.client() as client:
            client.post("/models", json=LONG)
            job = begun(client)

            def follow() -> None:
                with server.client() as own, following(own, job) as events:
                    ends.extend(name for name, _, _ in events)

            followers = [threading.Thread(target=follow) for _ in range(5)]
            for follower in followers:
                follower.start()
            while len(ends) < len(followers):
                time.sleep(0.01)
        code = server.stop()
        for follower in followers:
            follower.join()

    assert code == 0
    assert "unexpected_error" not in server.log.read_text()


def test_a_follower_that_goes_away_gives_its_place_back(tmp_path: Path) -> None:
    with (
        running(tmp_path / "registry", {"GMM_MAX_EVENT_STREAMS": "1"}) as server,
        server.client() as client,
    ):
        client.post("/models", json=LONG)
        job = begun(client)
        with following(client, job) as events:
            next(events)
            assert client.get(f"/jobs/{job}/events").status_code == 429
        for _ in range(100):
            with client.stream("GET", f"/jobs/{job}/events") as answer:
                if answer.status_code == 200:
                    break
            time.sleep(0.1)

    assert answer.status_code == 200
