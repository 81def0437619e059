"""Requests that come again under their ``Idempotency-Key``."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import httpx
import numpy as np
import pytest

from service.adapters.answer_store_memory import MemoryAnswerStore
from service.adapters.answer_store_sql import SqlAnswerStore
from service.adapters.database import Database
from service.adapters.job_store_memory import MemoryJobStore
from service.adapters.job_store_sql import SqlJobStore
from service.adapters.registry_memory import MemoryRegistry
from service.domain.records import JobRecord
from service.domain.request_keys import Claim, KeptAnswer
from service.errors import Unavailable
from tests.service.client import Client, serving
from tests.service.held_runner import HeldRunner
from tests.service.rows import TWO_GROUPS

KEY = {"Idempotency-Key": '"8e03978e-40d5"'}
OTHER_KEY = {"Idempotency-Key": "another"}
FIT = "/models/groups/fit"


def n_versions(client: Client) -> int:
    return len(client.get("/models/groups/versions").json()["versions"])


def test_a_model_that_is_declared_again_under_its_key_is_declared_once(client: Client) -> None:
    first = client.post("/models", {"n_components": 2}, KEY)
    again = client.post("/models", {"n_components": 2}, KEY)

    assert (first.status_code, again.status_code) == (201, 201)
    assert again.content == first.content
    for header in ("location", "etag", "content-type", "cache-control"):
        assert again.headers[header] == first.headers[header]
    assert again.headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in first.headers
    assert again.headers["x-request-id"] != first.headers["x-request-id"]
    assert len(client.get("/models").json()["models"]) == 1


def test_two_keys_of_one_request_are_refused(client: Client) -> None:
    def declare(*keys: str) -> httpx.Response:
        headers = [("content-type", "application/json")]
        headers += [("idempotency-key", key) for key in keys]
        post = partial(client.http.post, "/models", content=b'{"id": "iris"}', headers=headers)
        return client.portal.call(post)

    refused = declare("one", "two")

    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_parameter")
    assert refused.json()["errors"][0]["pointer"] == "#/header/idempotency-key"
    assert client.get("/models").json()["models"] == []
    assert declare("one", "one").status_code == 201


def test_a_fit_that_is_sent_again_under_its_key_fits_once(fitted: Client) -> None:
    first = fitted.post(FIT, {"X": TWO_GROUPS}, KEY)
    again = fitted.post(f"{FIT}?wait=60", {"instances": TWO_GROUPS}, KEY)
    another = fitted.post(FIT, {"X": TWO_GROUPS}, OTHER_KEY)

    assert again.json() == first.json()
    assert again.headers["idempotency-replayed"] == "true"
    assert another.json()["version"] == first.json()["version"] + 1
    assert n_versions(fitted) == 3


@pytest.mark.parametrize(
    "change",
    [
        {"X": [*TWO_GROUPS[:-1], [4.9, 6.2]]},
        {"X": [*TWO_GROUPS, [4.9, 6.2]]},
        {"X": TWO_GROUPS, "sample_weight": [1.0] * 8},
        {"X": TWO_GROUPS, "feature_names": ["a", "b"]},
        {"X": np.array(TWO_GROUPS).reshape(4, 4)},
    ],
)
def test_another_payload_under_a_key_is_refused(fitted: Client, change: dict[str, object]) -> None:
    fitted.post(FIT, {"X": TWO_GROUPS}, KEY)

    answer = fitted.post(FIT, change, KEY)

    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_mismatch")
    assert n_versions(fitted) == 2


def test_another_format_of_the_answer_under_a_key_is_refused(fitted: Client) -> None:
    """What is kept is the first answer as it was given."""

    def fit(accept: str) -> httpx.Response:
        return fitted.post(FIT, {"X": TWO_GROUPS}, {**KEY, "Accept": accept})

    first, other, again = fit("text/csv"), fit("application/json"), fit("text/csv")

    assert first.headers["content-type"].startswith("text/csv")
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_mismatch")
    assert (again.status_code, again.content) == (200, first.content)
    assert again.headers["content-type"] == first.headers["content-type"]
    assert n_versions(fitted) == 2


def test_another_model_under_a_key_is_refused(client: Client) -> None:
    client.post("/models", {"id": "a"}, KEY)

    answer = client.post("/models", {"id": "a", "n_components": 2}, KEY)

    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_mismatch")


def test_a_request_whose_first_one_is_not_answered_yet_is_told_so(
    held_client: Client, held: HeldRunner
) -> None:
    answers: list[httpx.Response] = []
    waiting = threading.Thread(
        target=lambda: answers.append(
            held_client.post(f"{FIT}?wait=30", {"X": TWO_GROUPS}, KEY),
        )
    )
    waiting.start()
    while not held_client.get("/jobs").json()["jobs"]:
        time.sleep(0.01)
    early = held_client.post(f"{FIT}?wait=30", {"X": TWO_GROUPS}, KEY)
    held.release()
    waiting.join()
    late = held_client.post(FIT, {"X": TWO_GROUPS}, KEY)

    assert (early.status_code, early.json()["code"]) == (409, "request_in_progress")
    assert int(early.headers["retry-after"]) >= 1
    assert late.content == answers[0].content


def test_fifty_equal_requests_at_once_make_one_job(fitted: Client) -> None:
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: fitted.post(FIT, {"X": TWO_GROUPS}, KEY), range(50)))

    results = {answer.content for answer in answers if answer.status_code == 200}
    others = {answer.json()["code"] for answer in answers if answer.status_code != 200}
    assert len(results) == 1
    assert others <= {"request_in_progress"}
    assert n_versions(fitted) == 2
    assert len(fitted.get("/jobs").json()["jobs"]) == 2


def test_a_fit_that_failed_is_answered_so_again(client: Client) -> None:
    client.post("/models", {"id": "flat", "n_components": 2, "reg_covar": 0, "random_state": 0})
    same = {"X": [[1.0, 2.0]] * 4 + [[3.0, 4.0]] * 4}

    first = client.post("/models/flat/fit", same, KEY)
    again = client.post("/models/flat/fit", same, KEY)

    assert (first.status_code, first.json()["code"]) == (422, "singular_covariance")
    assert again.content == first.content
    assert len(client.get("/jobs").json()["jobs"]) == 1


def test_a_request_that_was_refused_may_be_sent_again(client: Client) -> None:
    early = client.post(FIT, {"X": TWO_GROUPS}, KEY)
    client.post("/models", {"id": "groups", "n_components": 2})
    mended = client.post(FIT, {"X": TWO_GROUPS[:1]}, KEY)
    late = client.post(FIT, {"X": TWO_GROUPS}, KEY)

    assert (early.status_code, mended.status_code, late.status_code) == (404, 422, 200)


@pytest.mark.parametrize("key", ["", "x" * 256, "caf\u00e9".encode("latin-1").decode("latin-1")])
def test_a_key_that_can_be_none_is_refused(client: Client, key: str) -> None:
    call = client.http.post("/models", json={}, headers=[(b"idempotency-key", key.encode())])
    answer = client.portal.call(lambda: call)

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_parameter")


class Unsteady(MemoryJobStore):
    """Fails to find a job once it was stored, as a database that goes away does."""

    is_down = False

    def get(self, job_id: str) -> JobRecord:
        if self.is_down:
            raise Unavailable("storage_failed", "the storage failed")
        return super().get(job_id)

    def add(self, job: JobRecord, *, is_alone: bool = False) -> None:
        super().add(job, is_alone=is_alone)
        self.is_down = True


def test_after_a_failure_of_the_service_the_job_is_found_and_not_made_again() -> None:
    jobs = Unsteady()
    with serving(jobs=jobs, runner=HeldRunner()) as client:
        client.post("/models", {"id": "groups", "n_components": 2})
        failed = client.post(f"{FIT}?wait=0", {"X": TWO_GROUPS}, KEY)
        jobs.is_down = False
        again = client.post(f"{FIT}?wait=0", {"X": TWO_GROUPS}, KEY)
        listed = client.get("/jobs").json()["jobs"]

    assert (failed.status_code, again.status_code) == (503, 202)
    assert [job["id"] for job in listed] == [again.json()["id"]]


class Forgetful(MemoryAnswerStore):
    """Loses the first answer, as a process does that dies before it has kept it."""

    def keep(self, claim: Claim, answer: KeptAnswer) -> None:
        self.abandon(claim)


@pytest.mark.parametrize("body", [{"id": "mine"}, {}])
def test_a_model_whose_answer_was_lost_is_found_and_not_made_again(body: dict[str, str]) -> None:
    with serving(answers=Forgetful()) as client:
        first = client.post("/models", body, KEY)
        again = client.post("/models", body, KEY)

        assert (again.status_code, again.content) == (201, first.content)
        assert len(client.get("/models").json()["models"]) == 1


def test_an_answer_is_replayed_after_a_restart(tmp_path: Path) -> None:
    registry = MemoryRegistry()

    def served(act: Callable[[Client], httpx.Response]) -> httpx.Response:
        database = Database.at(None, tmp_path)
        stores = SqlJobStore(database), SqlAnswerStore(database)
        with serving(registry=registry, jobs=stores[0], answers=stores[1]) as client:
            answer = act(client)
        database.close()
        return answer

    served(lambda client: client.post("/models", {"id": "groups", "n_components": 2}))
    first = served(lambda client: client.post(FIT, {"X": TWO_GROUPS}, KEY))
    again = served(lambda client: client.post(FIT, {"X": TWO_GROUPS}, KEY))

    assert again.content == first.content
    assert again.headers["idempotency-replayed"] == "true"


def test_the_first_answer_comes_again_when_its_model_is_gone(client: Client) -> None:
    client.post("/models", {"id": "groups", "n_components": 2, "random_state": 0})
    once = {"idempotency-key": "k"}
    first = client.post("/models/groups/fit", {"X": TWO_GROUPS}, once)
    client.delete("/models/groups")

    again = client.post("/models/groups/fit", {"X": TWO_GROUPS}, once)

    assert first.status_code == 200
    assert (again.status_code, again.content) == (200, first.content)
    assert again.headers["idempotency-replayed"] == "true"
