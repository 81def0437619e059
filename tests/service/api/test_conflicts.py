"""Fits of a model that is being fitted already, and fits that have little time."""

import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest

from service.adapters.database import Database
from service.adapters.fit_spool import FitSpool
from service.adapters.job_store_memory import MemoryJobStore
from service.adapters.job_store_sql import SqlJobStore
from service.adapters.registry_memory import MemoryRegistry
from service.adapters.runner_process import ProcessRunner
from service.adapters.runner_read_only import ReadOnlyRunner
from service.domain.records import JobRecord
from tests.service.api.wire import CSV
from tests.service.client import Client, serving
from tests.service.held_runner import HeldRunner
from tests.service.rows import TWO_GROUPS

FIT = "/models/groups/fit?wait=0"
WAIT_SECONDS = 30


def statuses(client: Client) -> list[str]:
    """Return how the jobs stand, in the order in which they came."""
    return [job["status"] for job in reversed(client.get("/jobs").json()["jobs"])]


@pytest.mark.parametrize("query", ["", "&on_conflict=queue"])
def test_a_second_fit_waits_for_the_first(
    held_client: Client, held: HeldRunner, query: str
) -> None:
    for _ in range(2):
        assert held_client.post(FIT + query, {"X": TWO_GROUPS}).status_code == 202
    held.release()

    assert statuses(held_client) == ["succeeded", "succeeded"]


def test_a_fit_waits_for_its_turn_and_those_of_other_models_do_not(tmp_path: Path) -> None:
    runner = ProcessRunner(processes=2, queue_size=4, spool=FitSpool(tmp_path))
    X = np.random.default_rng(0).normal(size=(2000, 2))
    long = {"n_components": 8, "tol": 0, "max_iter": 100_000, "random_state": 0}
    asked = [
        "/models/long/fit?wait=0&budget_seconds=2",
        "/models/long/fit?wait=0&budget_seconds=0.2&on_conflict=queue",
        "/models/long/select?wait=0&budget_seconds=0.2&n_components=1-2",
        "/models/other/fit?wait=0",
    ]
    with serving(runner=runner) as client:
        client.post("/models", {"id": "long", **long})
        client.post("/models", {"id": "other"})
        jobs = [client.post(path, {"X": X}).json()["id"] for path in asked]

        first, second, third, other = (
            client.get(f"/jobs/{job}?wait={WAIT_SECONDS}").json() for job in jobs
        )

    assert [first["result"]["version"], second["result"]["version"]] == [1, 2]
    assert third["result"]["version"] == 3
    assert first["finished_at"] <= second["started_at"]
    assert second["finished_at"] <= third["started_at"]
    assert other["finished_at"] < first["finished_at"]


def test_a_fit_that_waits_for_its_turn_is_cancelled_at_once(
    held_client: Client, held: HeldRunner
) -> None:
    jobs = [held_client.post(FIT, {"X": TWO_GROUPS}).json()["id"] for _ in range(3)]

    held_client.post(f"/jobs/{jobs[1]}/cancel")
    assert statuses(held_client) == ["queued", "cancelled", "queued"]
    held.release_one()
    assert statuses(held_client) == ["succeeded", "cancelled", "queued"]
    held.release_one()
    assert statuses(held_client) == ["succeeded", "cancelled", "succeeded"]


def test_the_next_one_begins_when_the_one_before_it_is_cancelled(
    held_client: Client, held: HeldRunner
) -> None:
    jobs = [held_client.post(FIT, {"X": TWO_GROUPS}).json()["id"] for _ in range(2)]
    held_client.post(f"/jobs/{jobs[0]}/cancel")

    held.release_one()

    assert statuses(held_client) == ["cancelled", "succeeded"]


def test_deleting_the_model_cancels_what_waits_for_its_turn(
    held_client: Client, held: HeldRunner
) -> None:
    for _ in range(2):
        held_client.post(FIT, {"X": TWO_GROUPS})

    held_client.delete("/models/groups")
    held.release()

    assert statuses(held_client) == ["cancelled", "cancelled"]


def test_what_waits_for_its_turn_counts_in_the_bounded_queue() -> None:
    with serving(runner=HeldRunner(queue_size=2)) as client:
        client.post("/models", {"id": "groups"})

        answers = [client.post(FIT, {"X": TWO_GROUPS}) for _ in range(3)]

        assert [answer.status_code for answer in answers] == [202, 202, 429]
        assert statuses(client) == ["queued", "queued"]


def test_a_fit_waits_for_that_of_another_process_over_the_same_jobs(tmp_path: Path) -> None:
    databases = [Database.at(None, tmp_path) for _ in range(2)]
    registry, runners = MemoryRegistry(), [HeldRunner() for _ in range(2)]
    with (
        serving(registry=registry, jobs=SqlJobStore(databases[0]), runner=runners[0]) as here,
        serving(registry=registry, jobs=SqlJobStore(databases[1]), runner=runners[1]) as there,
    ):
        here.post("/models", {"id": "groups"})
        here.post(FIT, {"X": TWO_GROUPS})
        second = there.post(FIT, {"X": TWO_GROUPS}).json()["id"]
        cancelled = there.post(FIT, {"X": TWO_GROUPS}).json()["id"]

        assert runners[1].ready() == []
        here.post(f"/jobs/{cancelled}/cancel")
        there.services.fitting.recover()
        assert statuses(there) == ["queued", "queued", "cancelled"]
        runners[0].release()
        until = time.monotonic() + WAIT_SECONDS
        while runners[1].ready() != [second]:
            assert time.monotonic() < until
            time.sleep(0.01)
        runners[1].release()

        assert statuses(here) == ["succeeded", "succeeded", "cancelled"]
        assert here.get("/models/groups/versions/2").json()["fit"]["job"] == second
    for database in databases:
        database.close()


def test_turns_are_kept_over_the_death_of_the_process(tmp_path: Path) -> None:
    registry, spool = MemoryRegistry(), FitSpool(tmp_path)
    first = Database.at(None, tmp_path)
    waiting = ProcessRunner(processes=0, queue_size=4, spool=spool)
    with serving(registry=registry, jobs=SqlJobStore(first), runner=waiting) as client:
        client.post("/models", {"id": "groups", "n_components": 2})
        jobs = [client.post(FIT, {"X": TWO_GROUPS}).json()["id"] for _ in range(3)]
        waiting.close(0.0)
    first.close()

    second = Database.at(None, tmp_path)
    runner = ProcessRunner(processes=2, queue_size=0, spool=spool)
    with serving(registry=registry, jobs=SqlJobStore(second), runner=runner) as client:
        ended = [client.get(f"/jobs/{job}?wait={WAIT_SECONDS}").json() for job in jobs]
    second.close()

    assert [job["result"]["version"] for job in ended] == [1, 2, 3]
    assert ended[0]["finished_at"] <= ended[1]["started_at"]
    assert ended[1]["finished_at"] <= ended[2]["started_at"]


def test_a_fit_does_not_wait_for_one_that_is_refused_meanwhile(held: HeldRunner) -> None:
    jobs = MemoryJobStore()
    with serving(jobs=jobs, runner=held) as client:
        client.post("/models", {"id": "groups"})
        jobs.add(JobRecord(id="refused", model_id="groups"))
        client.post(FIT, {"X": TWO_GROUPS})
        assert held.ready() == []

        jobs.remove("refused")
        held.release()

        assert statuses(client) == ["succeeded"]


def test_a_second_fit_is_rejected_when_that_is_asked_for(
    held_client: Client, held: HeldRunner
) -> None:
    held_client.post("/models", {"id": "other"})
    reject = f"{FIT}&on_conflict=reject"

    answers = [
        held_client.post(reject, {"X": TWO_GROUPS}),
        held_client.post(reject, {"X": TWO_GROUPS}),
        held_client.post(reject.replace("groups", "other"), {"X": TWO_GROUPS}),
    ]
    held.release()
    answers.append(held_client.post(reject, {"X": TWO_GROUPS}))

    assert [answer.status_code for answer in answers] == [202, 409, 202, 202]
    assert answers[1].json()["code"] == "fit_in_progress"
    assert statuses(held_client) == ["succeeded", "succeeded", "queued"]


def test_a_fit_that_supersedes_cancels_those_before_it(
    held_client: Client, held: HeldRunner
) -> None:
    held_client.post("/models", {"id": "other"})
    for model in ("groups", "other", "groups"):
        held_client.post(FIT.replace("groups", model), {"X": TWO_GROUPS})

    last = held_client.post(f"{FIT}&on_conflict=supersede", {"X": TWO_GROUPS}).json()
    held.release()

    assert statuses(held_client) == ["cancelled", "succeeded", "cancelled", "succeeded"]
    version = held_client.get("/models/groups/versions/1").json()
    assert version["fit"]["job"] == last["id"]


def test_a_fit_that_supersedes_takes_the_place_of_those_in_a_full_queue() -> None:
    runner = HeldRunner(queue_size=1)
    with serving(runner=runner) as client:
        for name in ("groups", "other"):
            client.post("/models", {"id": name})
        client.post(FIT, {"X": TWO_GROUPS})

        taken = client.post(f"{FIT}&on_conflict=supersede", {"X": TWO_GROUPS})
        refused = client.post(
            f"{FIT}&on_conflict=supersede".replace("groups", "other"), {"X": TWO_GROUPS}
        )

        assert (taken.status_code, refused.status_code) == (202, 429)
        assert int(refused.headers["retry-after"]) >= 1
        assert statuses(client) == ["cancelled", "queued"]


def test_a_refused_fit_supersedes_nothing(held_client: Client, held: HeldRunner) -> None:
    held_client.post(FIT, {"X": TWO_GROUPS})
    refused = held_client.post(f"{FIT}&on_conflict=supersede", {"X": TWO_GROUPS[:1]})
    held.release()

    assert refused.status_code == 422
    assert statuses(held_client) == ["succeeded"]


def test_the_job_of_a_dead_process_is_not_in_the_way(tmp_path: Path) -> None:
    first = Database.at(None, tmp_path)
    second = Database.at(None, tmp_path)
    with serving(jobs=SqlJobStore(second)) as client:
        client.post("/models", {"id": "groups"})
        SqlJobStore(first).add(JobRecord(id="left", model_id="groups"))
        in_the_way = client.post(f"{FIT}&on_conflict=reject", {"X": TWO_GROUPS})
        first.close()

        answer = client.post("/models/groups/fit?on_conflict=reject", {"X": TWO_GROUPS})

        assert (in_the_way.status_code, answer.status_code) == (409, 200)
        assert client.get("/jobs/left").json()["status"] == "interrupted"
    second.close()


def test_a_fit_ends_within_its_budget_with_the_best_it_has(client: Client) -> None:
    X = np.random.default_rng(0).normal(size=(2000, 2))
    client.post("/models", {"id": "long", "n_components": 8, "tol": 0, "max_iter": 100_000})

    answer = client.post("/models/long/fit?budget_seconds=0.3", {"X": X})

    result = answer.json()
    assert (answer.status_code, result["stop_reason"], result["converged"]) == (
        200,
        "time_budget",
        False,
    )
    assert 1 <= result["n_iter"] < 100_000
    assert result["duration_seconds"] < 30
    assert client.post("/models/long/predict", {"X": X[:3]}).status_code == 200


def test_a_queued_fit_has_no_best_to_keep(held_client: Client) -> None:
    job = held_client.post(FIT, {"X": TWO_GROUPS}).json()["id"]

    held_client.post(f"/jobs/{job}/cancel?keep=best")

    assert statuses(held_client) == ["cancelled"]


def test_only_the_best_can_be_kept(held_client: Client) -> None:
    job = held_client.post(FIT, {"X": TWO_GROUPS}).json()["id"]

    answer = held_client.post(f"/jobs/{job}/cancel?keep=everything")

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_parameter")
    assert statuses(held_client) == ["queued"]


@pytest.mark.parametrize("budget", ["0", "-1", "nan", "inf", "soon", ""])
def test_a_budget_that_can_not_be_meant_is_refused(fitted: Client, budget: str) -> None:
    answer = fitted.post(f"/models/groups/fit?budget_seconds={budget}", {"X": TWO_GROUPS})

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_parameter")
    assert answer.json()["errors"][0]["pointer"] == "#/query/budget_seconds"


def test_a_budget_beyond_every_clock_is_a_long_one(fitted: Client) -> None:
    answer = fitted.post(f"/models/groups/fit?budget_seconds={'9' * 400}", {"X": TWO_GROUPS})

    assert answer.status_code == 200


@dataclass(slots=True)
class CountedBody:
    """Rows that are sent as they are asked for."""

    n_sent: int = 0

    async def rows(self) -> AsyncIterator[bytes]:
        for _ in range(4):
            self.n_sent += 1
            yield b"1.5,2.5\n" * 2**16


def unread_refusal(client: Client, path: str, headers: Mapping[str, str]) -> tuple[int, str]:
    """Return how a fit is refused, of whose body nothing may be read before."""
    body = CountedBody()

    async def ask() -> httpx.Response:
        said = {"content-type": CSV, **headers}
        return await client.http.post(path, content=body.rows(), headers=said)

    response = client.portal.call(ask)
    assert body.n_sent == 0
    return response.status_code, response.json()["code"]


KEYS = pytest.mark.parametrize("headers", [{}, {"idempotency-key": "new"}], ids=["plain", "keyed"])
VERBS = pytest.mark.parametrize("verb", ["fit", "select"])


@KEYS
@VERBS
@pytest.mark.parametrize("on_conflict", ["queue", "supersede"])
def test_a_full_queue_refuses_before_the_rows_are_read(
    headers: dict[str, str], verb: str, on_conflict: str
) -> None:
    with serving(runner=HeldRunner(queue_size=1)) as client:
        for model_id in ("groups", "other"):
            client.post("/models", {"id": model_id, "n_components": 2})
        client.post("/models/other/fit?wait=0", {"X": TWO_GROUPS})

        path = f"/models/groups/{verb}?on_conflict={on_conflict}"
        assert unread_refusal(client, path, headers) == (429, "fit_queue_full")
        assert statuses(client) == ["queued"]


@KEYS
@VERBS
def test_a_second_fit_is_rejected_before_its_rows_are_read(
    held_client: Client, headers: dict[str, str], verb: str
) -> None:
    held_client.post(FIT, {"X": TWO_GROUPS})

    path = f"/models/groups/{verb}?on_conflict=reject"
    assert unread_refusal(held_client, path, headers) == (409, "fit_in_progress")


@KEYS
@VERBS
def test_a_service_that_fits_nothing_reads_no_rows(headers: dict[str, str], verb: str) -> None:
    with serving(runner=ReadOnlyRunner()) as client:
        client.post("/models", {"id": "groups", "n_components": 2})

        refusal = unread_refusal(client, f"/models/groups/{verb}", headers)

        assert refusal == (503, "registry_read_only")


@pytest.mark.parametrize("on_conflict", ["queue", "reject", "supersede"])
def test_what_came_before_is_answered_again_although_no_other_fit_is_taken(
    on_conflict: str,
) -> None:
    with serving(runner=HeldRunner(queue_size=1)) as client:
        client.post("/models", {"id": "groups", "n_components": 2})
        path, key = f"{FIT}&on_conflict={on_conflict}", {"idempotency-key": "first"}
        first, second = (client.post(path, {"X": TWO_GROUPS}, key) for _ in range(2))

        assert second.headers["idempotency-replayed"] == "true"
        assert (second.status_code, second.json()) == (202, first.json())
        assert statuses(client) == ["queued"]
