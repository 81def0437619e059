"""Fits of a model that is being fitted already, and fits that have little time."""

from pathlib import Path

import numpy as np
import pytest

from service.adapters.database import Database
from service.adapters.job_store_sql import SqlJobStore
from service.domain.records import JobRecord
from tests.service.client import Client, serving
from tests.service.held_runner import HeldRunner
from tests.service.rows import TWO_GROUPS

FIT = "/models/groups/fit?wait=0"


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
