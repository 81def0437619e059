"""Fits over HTTP: waited for, queued, cancelled, failed; and their jobs."""

import errno
import os
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import anyio
import httpx
import numpy as np
import pytest

from gmm_engine import FitOptions, Mixture, fit
from service.adapters.job_store_memory import MemoryJobStore
from service.adapters.registry_memory import MemoryRegistry
from service.api.services import Services, available_cores
from service.domain.data import Table
from service.domain.fitting import Fitting
from service.domain.records import JobRecord, VersionDraft, VersionRecord
from service.errors import InvalidInput, StorageFull, Unavailable
from service.settings import Settings
from tests.service.client import Client, serving
from tests.service.held_runner import HeldRunner
from tests.service.rows import TWO_GROUPS
from tests.support.data import iris


def test_a_fit_done_in_time_answers_with_its_result(client: Client) -> None:
    client.post("/models", {"id": "groups", "n_components": 2, "random_state": 0})

    response = client.post("/models/groups/fit", {"X": TWO_GROUPS})

    assert response.status_code == 200
    assert response.headers["content-location"] == "/models/groups/versions/1"
    assert response.headers["cache-control"] == "no-store"
    result = response.json()
    assert result["model"] == "groups"
    assert result["version"] == 1
    assert result["converged"] is True
    assert result["stop_reason"] == "converged"
    assert (result["n_samples"], result["n_features"], result["n_parameters"]) == (8, 2, 11)
    assert len(result["log_likelihood_history"]) == result["n_iter"]
    assert result["log_likelihood"] == result["log_likelihood_history"][-1]
    assert result["weights"] == pytest.approx([0.5, 0.5])
    assert result["warnings"] == []


def test_the_service_fits_what_the_engine_fits(client: Client) -> None:
    client.post("/models", {"id": "groups", "n_components": 2, "random_state": 0})
    result = client.post("/models/groups/fit", {"X": TWO_GROUPS}).json()

    direct = fit(np.array(TWO_GROUPS), FitOptions(n_components=2, random_state=0))

    assert result["log_likelihood"] == direct.criteria.log_likelihood
    assert result["bic"] == direct.criteria.bic
    assert client.get("/models/groups/parameters").json()["means"] == direct.mixture.means.tolist()


def test_each_fit_makes_the_next_version(fitted: Client) -> None:
    assert fitted.post("/models/groups/fit", {"X": TWO_GROUPS}).json()["version"] == 2


def test_weights_count_as_repeated_rows(client: Client) -> None:
    client.post("/models", {"id": "groups", "n_components": 2, "random_state": 0})
    doubled = client.post("/models/groups/fit", {"X": TWO_GROUPS + TWO_GROUPS}).json()
    weighted = client.post(
        "/models/groups/fit", {"X": TWO_GROUPS, "sample_weight": [2.0] * len(TWO_GROUPS)}
    ).json()

    assert weighted["n_samples"] == doubled["n_samples"] == 16
    assert weighted["log_likelihood"] == pytest.approx(doubled["log_likelihood"])


@pytest.mark.parametrize(
    ("query", "headers"),
    [("?wait=0", {}), ("", {"prefer": "respond-async"}), ("", {"prefer": "wait=0"})],
)
def test_a_client_that_will_not_wait_is_given_a_job(
    held_client: Client, query: str, headers: dict[str, str]
) -> None:
    response = held_client.post(f"/models/groups/fit{query}", {"X": TWO_GROUPS}, headers)

    assert response.status_code == 202
    job = response.json()
    assert response.headers["location"] == f"/jobs/{job['id']}"
    assert int(response.headers["retry-after"]) >= 1
    assert (job["status"], job["done"], job["result"]) == ("queued", False, None)
    assert response.headers.get("preference-applied") == headers.get("prefer")


def test_a_fit_not_done_in_time_answers_with_its_job() -> None:
    with serving(Settings(fit_wait_seconds=0.05), runner=HeldRunner()) as client:
        client.post("/models", {"id": "groups", "n_components": 2})
        assert client.post("/models/groups/fit", {"X": TWO_GROUPS}).status_code == 202


@pytest.mark.parametrize("digits", [9, 12, 400])
def test_a_wait_is_cut_to_the_longest_however_it_is_asked_for(digits: int) -> None:
    wait = "9" * digits
    with serving(Settings(max_wait_seconds=0.05), runner=HeldRunner()) as client:
        client.post("/models", {"id": "groups", "n_components": 2})
        asked = client.post(f"/models/groups/fit?wait={wait}", {"X": TWO_GROUPS})
        preferred = client.post("/models/groups/fit", {"X": TWO_GROUPS}, {"prefer": f"wait={wait}"})
        job = client.get(f"/jobs/{asked.json()['id']}?wait={wait}")

    assert (asked.status_code, preferred.status_code, job.status_code) == (202, 202, 200)
    assert preferred.headers["preference-applied"] == "wait=0"


@pytest.mark.parametrize("headers", [{}, {"idempotency-key": "one"}])
def test_rows_are_let_go_of_while_the_request_waits_for_their_fit(
    monkeypatch: pytest.MonkeyPatch, headers: dict[str, str]
) -> None:
    start, job_within = Fitting.start, Services.job_within
    rows: list[weakref.ref[object]] = []
    are_held: list[bool] = []

    def start_with_copy(fitting: Fitting, model_id: str, table: Table, **others: Any) -> JobRecord:
        rows.append(weakref.ref(table.X))
        return start(fitting, model_id, replace(table, X=table.X.copy()), **others)

    async def wait_noted(door: Services, job_id: str, seconds: float) -> JobRecord:
        (row,) = rows
        for _ in range(100):  # the thread that began the fit may not be through with its call
            if row() is None:
                break
            await anyio.sleep(0.02)
        are_held.append(row() is not None)
        return await job_within(door, job_id, seconds)

    monkeypatch.setattr(Fitting, "start", start_with_copy)
    monkeypatch.setattr(Services, "job_within", wait_noted)
    with serving() as client:
        client.post("/models", {"id": "groups", "n_components": 2})
        response = client.post("/models/groups/fit", {"X": TWO_GROUPS}, headers)

    assert response.status_code == 200
    assert are_held == [False]


def test_a_waiting_client_hears_of_the_end_at_once(held_client: Client, held: HeldRunner) -> None:
    threading.Timer(0.2, held.release).start()
    begun = time.monotonic()

    response = held_client.post("/models/groups/fit?wait=30", {"X": TWO_GROUPS})

    assert response.status_code == 200
    assert time.monotonic() - begun < 10


def test_a_job_can_be_waited_for(held_client: Client, held: HeldRunner) -> None:
    job = held_client.post("/models/groups/fit?wait=0", {"X": TWO_GROUPS}).json()
    early = held_client.get(f"/jobs/{job['id']}?wait=0.01").json()
    threading.Timer(0.2, held.release).start()
    late = held_client.get(f"/jobs/{job['id']}?wait=30").json()

    assert early["done"] is False
    assert late["done"] is True
    assert late["status"] == "succeeded"
    assert late["result"]["version"] == 1
    assert late["progress"]["iteration"] >= 1
    assert late["created_at"] <= late["started_at"] <= late["finished_at"]


def test_a_queued_fit_can_be_cancelled(held_client: Client) -> None:
    job = held_client.post("/models/groups/fit?wait=0", {"X": TWO_GROUPS}).json()

    first = held_client.send("POST", f"/jobs/{job['id']}/cancel")
    second = held_client.send("POST", f"/jobs/{job['id']}/cancel")

    assert (first.status_code, second.status_code) == (202, 200)
    assert second.json()["status"] == "cancelled"
    assert held_client.get("/models/groups").json()["status"] == "created"


def test_whoever_waits_for_a_cancelled_fit_is_told(held_client: Client) -> None:
    answers: list[httpx.Response] = []
    waiting = threading.Thread(
        target=lambda: answers.append(
            held_client.post("/models/groups/fit?wait=30", {"X": TWO_GROUPS})
        )
    )
    waiting.start()
    while not (jobs := held_client.get("/jobs").json()["jobs"]):
        time.sleep(0.01)
    held_client.send("POST", f"/jobs/{jobs[0]['id']}/cancel")
    waiting.join()

    assert (answers[0].status_code, answers[0].json()["code"]) == (409, "fit_cancelled")


def test_a_full_queue_refuses_and_keeps_no_job() -> None:
    with serving(runner=HeldRunner(queue_size=1)) as client:
        client.post("/models", {"id": "groups", "n_components": 2})
        client.post("/models/groups/fit?wait=0", {"X": TWO_GROUPS})

        response = client.post("/models/groups/fit?wait=0", {"X": TWO_GROUPS})

        assert (response.status_code, response.json()["code"]) == (429, "fit_queue_full")
        assert int(response.headers["retry-after"]) >= 1
        assert len(client.get("/jobs").json()["jobs"]) == 1


def test_a_fit_that_breaks_while_running_is_a_failed_job(client: Client) -> None:
    client.post("/models", {"id": "flat", "n_components": 2, "reg_covar": 0, "random_state": 0})
    same = [[1.0, 2.0]] * 4 + [[3.0, 4.0]] * 4

    response = client.post("/models/flat/fit", {"X": same})

    assert (response.status_code, response.json()["code"]) == (422, "singular_covariance")
    (job,) = client.get("/jobs?model=flat").json()["jobs"]
    assert (job["status"], job["result"]) == ("failed", None)
    assert job["error"]["code"] == "singular_covariance"
    assert job["error"]["status"] == 422
    assert client.get("/models/flat").json()["status"] == "created"


def test_jobs_are_listed_the_newest_first_and_found_by_model_and_status(client: Client) -> None:
    for name in ("a", "b"):
        client.post("/models", {"id": name, "n_components": 2})
        client.post(f"/models/{name}/fit", {"X": TWO_GROUPS})

    def models(query: str) -> list[str]:
        return [job["model"] for job in client.get(f"/jobs{query}").json()["jobs"]]

    assert models("") == ["b", "a"]
    assert models("?model=a") == ["a"]
    assert models("?status=failed") == []
    assert models("?status=succeeded&page_size=1") == ["b"]


def test_a_drain_lets_waiting_clients_go_and_takes_no_more_fits(held_client: Client) -> None:
    threading.Timer(2.0, held_client.services.lifecycle.begin_draining).start()
    begun = time.monotonic()

    waited = held_client.post("/models/groups/fit?wait=60", {"X": TWO_GROUPS})
    refused = held_client.post("/models/groups/fit", {"X": TWO_GROUPS})

    assert waited.status_code == 202
    assert time.monotonic() - begun < 30
    assert (refused.status_code, refused.json()["code"]) == (503, "draining")
    assert "retry-after" in refused.headers
    assert held_client.get("/readyz").status_code == 503
    assert held_client.get("/livez").status_code == 200


class BrokenRegistry(MemoryRegistry):
    """A registry that fails when a version is to be stored or loaded."""

    def __init__(self, *, commit: Exception | None = None, load: Exception | None = None) -> None:
        super().__init__()
        self._commit, self._load = commit, load

    def commit_version(self, draft: VersionDraft, mixture: Mixture) -> VersionRecord:
        if self._commit is not None:
            raise self._commit
        return super().commit_version(draft, mixture)

    def load_mixture(self, version: VersionRecord) -> Mixture:
        if self._load is not None:
            raise self._load
        return super().load_mixture(version)


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (StorageFull("storage_full", "no room"), 507, "storage_full"),
        (Unavailable("registry_read_only", "read-only"), 503, "registry_read_only"),
        (RuntimeError("a bug"), 500, "internal_error"),
    ],
)
def test_a_version_that_can_not_be_stored_is_a_failed_job(
    error: Exception, status: int, code: str
) -> None:
    with serving(registry=BrokenRegistry(commit=error)) as client:
        client.post("/models", {"id": "groups", "n_components": 2})

        response = client.post("/models/groups/fit", {"X": TWO_GROUPS})

        assert (response.status_code, response.json()["code"]) == (status, code)
        assert ("retry-after" in response.headers) == (status == 503)
        assert "a bug" not in response.text
        (job,) = client.get("/jobs").json()["jobs"]
        assert (job["status"], job["error"]["code"]) == ("failed", code)
        assert client.get("/models/groups").json()["status"] == "created"


class FullRegistry(MemoryRegistry):
    """A registry whose disk has been filled up since its models were declared."""

    def require_room(self) -> None:
        raise StorageFull("storage_full", "no room")


@pytest.mark.parametrize("path", ["fit", "select?n_components=1-2"])
def test_no_fit_begins_that_no_room_is_known_for(path: str) -> None:
    with serving(registry=FullRegistry()) as client:
        client.post("/models", {"id": "groups", "n_components": 2})

        response = client.post(f"/models/groups/{path}", {"X": TWO_GROUPS})
        estimate = client.post("/models/groups/fit?validate_only=true", {"X": TWO_GROUPS})

        assert (response.status_code, response.json()["code"]) == (507, "storage_full")
        assert client.get("/jobs").json()["jobs"] == []
        assert estimate.status_code == 200


def test_a_corrupt_version_is_unavailable_and_never_replaced() -> None:
    corrupt = Unavailable.model_corrupt("groups", 2)
    registry = BrokenRegistry(load=corrupt)
    with serving(registry=registry) as client:
        client.post("/models", {"id": "groups", "n_components": 2})
        client.post("/models/groups/fit", {"X": TWO_GROUPS})

        response = client.post("/models/groups/predict", {"X": TWO_GROUPS})

        assert (response.status_code, response.json()["code"]) == (503, "model_corrupt")
        assert "retry-after" in response.headers


@pytest.mark.parametrize(
    ("limit", "code"),
    [
        ({"max_rows": 7}, "work_budget_exceeded"),
        ({"max_features": 1}, "work_budget_exceeded"),
        ({"max_components": 1}, "invalid_parameter"),
    ],
)
def test_a_fit_over_a_limit_is_refused_before_there_is_a_job(
    limit: dict[str, int], code: str
) -> None:
    registry = MemoryRegistry()
    with serving(registry=registry) as client:
        client.post("/models", {"id": "groups", "n_components": 2})
    with serving(Settings.model_validate(limit), registry=registry) as client:
        response = client.post("/models/groups/fit", {"X": TWO_GROUPS})

        assert (response.status_code, response.json()["code"]) == (422, code)
        assert client.get("/jobs").json()["jobs"] == []


@pytest.mark.parametrize(
    "path",
    ["fit", "fit?wait=0", "fit?validate_only=true", "select?n_components=1-2", "select?wait=0"],
)
@pytest.mark.parametrize("preprocessing", [{}, {"standardize": True}, {"pca_components": 2}])
def test_rows_whose_squares_are_out_of_range_are_refused_before_there_is_a_job(
    client: Client, path: str, preprocessing: dict[str, object]
) -> None:
    client.post("/models", {"id": "iris", "n_components": 3, **preprocessing})

    response = client.post(f"/models/iris/{path}", {"X": iris() * 1e-200})

    assert (response.status_code, response.json()["code"]) == (422, "value_out_of_range")
    assert client.get("/jobs").json()["jobs"] == []


def test_rows_on_the_disk_whose_squares_are_out_of_range_are_refused_before_there_is_a_job(
    client: Client,
) -> None:
    client.post("/models", {"id": "iris", "n_components": 3})
    fitting = client.services.fitting

    for ask in (fitting.start, fitting.estimate):
        with pytest.raises(InvalidInput) as refused:
            ask("iris", Table(iris() * 1e-200, None, is_on_disk=True))
        assert refused.value.code == "value_out_of_range"
    assert client.get("/jobs").json()["jobs"] == []


def test_an_answer_that_needs_too_much_memory_is_refused() -> None:
    with serving(Settings(max_memory_bytes=2**20)) as client:
        client.post("/models", {"id": "groups", "n_components": 2})
        client.post("/models/groups/fit", {"X": TWO_GROUPS})

        response = client.post("/models/groups/predict", {"X": np.zeros((20_000, 2))})

        assert (response.status_code, response.json()["code"]) == (422, "work_budget_exceeded")


def test_of_many_racing_declarations_one_is_taken(client: Client) -> None:
    statuses: list[int] = []
    racers = [
        threading.Thread(
            target=lambda: statuses.append(client.post("/models", {"id": "same"}).status_code)
        )
        for _ in range(20)
    ]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()

    assert sorted(statuses) == [201] + [409] * 19


def test_a_model_made_anew_is_not_being_fitted_by_the_jobs_of_the_one_before() -> None:
    class Slow(HeldRunner):
        def cancel(self, job_id: str, *, keep_best: bool = False) -> None:
            """Take its time."""

    with serving(runner=Slow()) as client:
        client.post("/models", {"id": "m"})
        job = client.post("/models/m/fit?wait=0", {"X": TWO_GROUPS}).json()
        fitting = client.get("/models/m").json()["status"]
        client.delete("/models/m")
        client.post("/models", {"id": "m"})
        status = client.get("/models/m").json()["status"]
        old_job = client.get(f"/jobs/{job['id']}").json()["status"]

    assert (fitting, status, old_job) == ("fitting", "created", "queued")


class FailingJobStore(MemoryJobStore):
    """Can't write down that a job succeeded, for a while."""

    is_down = True

    def update(self, job_id: str, change: Callable[[JobRecord], JobRecord]) -> JobRecord:
        def checked(job: JobRecord) -> JobRecord:
            changed = change(job)
            if self.is_down and changed.is_done:
                raise Unavailable("storage_failed", "down")
            return changed

        return super().update(job_id, checked)


def test_an_end_that_can_not_be_written_down_is_not_told_as_another() -> None:
    jobs = FailingJobStore()
    with serving(Settings(recovery_seconds=0.05), jobs=jobs) as client:
        client.post("/models", {"id": "groups", "n_components": 2, "random_state": 0})
        job = client.post("/models/groups/fit?wait=0.2", {"X": TWO_GROUPS})
        open_job = client.get(f"/jobs/{job.json()['id']}").json()
        jobs.is_down = False
        ended = client.get(f"/jobs/{job.json()['id']}?wait=30").json()

    assert (job.status_code, open_job["status"]) == (202, "running")
    assert (ended["status"], ended["result"]["version"]) == ("succeeded", 1)


def test_recovery_goes_on_after_the_system_has_failed_it() -> None:
    failed = threading.Event()

    class Store(FailingJobStore):
        is_down = False
        is_out_of_files = False

        def abandoned(self) -> Sequence[JobRecord]:
            if self.is_out_of_files:
                failed.set()
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            return super().abandoned()

    jobs = Store()
    with serving(Settings(recovery_seconds=0.05), jobs=jobs) as client:
        client.post("/models", {"id": "groups", "n_components": 2, "random_state": 0})
        jobs.is_out_of_files = True
        assert failed.wait(10)
        jobs.is_out_of_files, jobs.is_down = False, True
        job = client.post("/models/groups/fit?wait=0.2", {"X": TWO_GROUPS})
        jobs.is_down = False
        ended = client.get(f"/jobs/{job.json()['id']}?wait=30").json()

    assert (job.status_code, ended["status"]) == (202, "succeeded")


def test_a_fit_begins_although_questions_fill_their_queue() -> None:
    is_over = threading.Event()
    with serving(Settings(compute_queue_size=0)) as client:
        client.post("/models", {"id": "groups", "n_components": 2})
        busy = [
            client.portal.start_task_soon(client.services.threads.compute, is_over.wait)
            for _ in range(available_cores())
        ]
        try:
            assert client.post("/models/groups/fit", {"X": TWO_GROUPS}).status_code == 200
        finally:
            is_over.set()
        assert all(task.result() for task in busy)
