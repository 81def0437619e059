"""Choosing the number of components and the family over HTTP: the table, its best, refusals."""

from collections.abc import Mapping

import numpy as np
import pytest

from gmm_engine import FitOptions, Grid, select, value_of
from service.settings import Settings
from tests.service.client import Client, serving
from tests.service.held_runner import HeldRunner
from tests.service.rows import TWO_GROUPS
from tests.support.data import iris

SMALL = "n_components=1-2&covariance_type=full&covariance_type=spherical"


@pytest.fixture
def declared(client: Client) -> Client:
    client.post("/models", {"id": "groups", "n_components": 5, "random_state": 0})
    return client


def selected(client: Client, query: str = SMALL, rows: object = TWO_GROUPS) -> Mapping[str, object]:
    response = client.post(f"/models/groups/select?{query}", {"X": rows})
    assert response.status_code == 200, response.text
    body: Mapping[str, object] = response.json()
    return body


def refusal(client: Client, query: str, rows: object = TWO_GROUPS) -> tuple[int, str, list[str]]:
    response = client.post(f"/models/groups/select?{query}", {"X": rows})
    problem = response.json()
    return response.status_code, problem["code"], [e["pointer"] for e in problem["errors"]]


def test_a_selection_answers_with_the_table_of_the_engine(declared: Client) -> None:
    body = declared.post(
        "/models/groups/select?n_components=1-3&covariance_type=tied&covariance_type=diag",
        {"X": iris().tolist()},
    ).json()

    expected = select(iris(), Grid((1, 2, 3), ("tied", "diag")), FitOptions(random_state=0))
    table = body["selection"]["candidates"]
    assert [(line["n_components"], line["covariance_type"]) for line in table] == [
        (candidate.key.n_components, candidate.key.covariance_type)
        for candidate in expected.candidates
    ]
    assert [line["value"] for line in table] == [
        value_of(candidate, "bic") for candidate in expected.candidates
    ]
    assert sorted(line["rank"] for line in table) == [1, 2, 3, 4, 5, 6]
    assert all(line["bic"] == line["value"] for line in table)
    assert body["selection"]["complete"] is True


def test_the_best_becomes_the_next_version_and_answers(declared: Client) -> None:
    body = declared.post("/models/groups/select?n_components=1-3", {"X": iris().tolist()}).json()
    best = body["selection"]["best"]

    assert body["version"] == 1
    assert body["bic"] == best["value"]
    parameters = declared.get("/models/groups/parameters").json()
    assert len(parameters["weights"]) == best["n_components"]
    assert parameters["covariance_type"] == best["covariance_type"]
    version = declared.get("/models/groups/versions/1").json()
    assert version["hyperparameters"]["n_components"] == best["n_components"]
    assert version["selection"] == body["selection"]


def test_the_model_stays_as_it_was_declared(declared: Client) -> None:
    selected(declared)
    model = declared.get("/models/groups").json()
    assert (model["n_components"], model["covariance_type"]) == (5, "full")
    assert model["latest_version"] == 1


def test_the_job_of_a_selection_keeps_its_table(declared: Client) -> None:
    body = selected(declared)
    job = declared.get(f"/jobs/{body['job']}").json()
    assert (job["kind"], job["status"]) == ("select", "succeeded")
    assert job["selection"] == body["selection"]
    assert job["result"]["version"] == 1


def test_a_fit_has_no_table(fitted: Client) -> None:
    job = fitted.get("/jobs").json()["jobs"][0]
    assert (job["kind"], job["selection"]) == ("fit", None)
    assert fitted.get("/models/groups/versions/1").json()["selection"] is None


def test_a_selection_that_is_not_waited_for_is_a_job(held_client: Client, held: HeldRunner) -> None:
    response = held_client.post(f"/models/groups/select?wait=0&{SMALL}", {"X": TWO_GROUPS})
    job = response.json()
    assert (response.status_code, job["kind"]) == (202, "select")

    held.release()
    ended = held_client.get(response.headers["location"]).json()
    assert ended["status"] == "succeeded"
    leaders = ended["progress"]["leaderboard"]["leaders"]
    assert ended["progress"]["leaderboard"]["n_candidates"] == 4
    assert [leader["value"] for leader in leaders] == sorted(leader["value"] for leader in leaders)


def test_candidates_can_be_compared_by_rows_that_they_did_not_see(declared: Client) -> None:
    body = declared.post(
        "/models/groups/select?n_components=1-2&covariance_type=full"
        "&criterion=held_out_log_likelihood&n_folds=3",
        {"X": iris().tolist()},
    ).json()
    selection = body["selection"]
    by_rank = sorted(selection["candidates"], key=lambda line: line["rank"])
    assert selection["n_folds"] == 3
    assert by_rank[0]["value"] == by_rank[0]["held_out_log_likelihood"] > by_rank[1]["value"]
    assert all(line["held_out_standard_error"] > 0 for line in by_rank)


def test_single_numbers_and_ranges_of_components_go_together(declared: Client) -> None:
    table = selected(declared, "n_components=4&n_components=1-2&covariance_type=spherical")
    lines = table["selection"]["candidates"]  # type: ignore[index]  # a JSON object
    assert [line["n_components"] for line in lines] == [1, 2, 4]


def test_when_the_time_is_up_the_table_says_that_it_is_not_complete(declared: Client) -> None:
    body = declared.post(
        "/models/groups/select?n_components=1-9&budget_seconds=1e-9", {"X": iris().tolist()}
    ).json()
    assert body["selection"]["complete"] is False
    assert len(body["selection"]["candidates"]) < 36
    assert (body["version"], body["stop_reason"], body["converged"]) == (1, "time_budget", False)


def test_the_same_request_under_its_key_makes_one_version(declared: Client) -> None:
    key = {"Idempotency-Key": "once"}
    path = f"/models/groups/select?{SMALL}"
    first = declared.post(path, {"X": TWO_GROUPS}, key)
    again = declared.post(path, {"X": TWO_GROUPS}, key)
    other = declared.post(f"{path}&criterion=aic", {"X": TWO_GROUPS}, key)
    assert first.json() == again.json()
    assert again.headers["idempotency-replayed"] == "true"
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_mismatch")


def test_a_candidate_that_fails_says_why_in_the_table(client: Client) -> None:
    client.post("/models", {"id": "groups", "reg_covar": 0.0, "random_state": 0})
    rows = np.repeat(np.arange(4.0), 5)[:, np.newaxis]
    body = selected(client, "n_components=1&n_components=4&covariance_type=full", rows.tolist())
    failed = body["selection"]["candidates"][1]  # type: ignore[index]  # a JSON object
    assert failed["error"]["code"] == "singular_covariance"
    assert (failed["rank"], failed["bic"], failed["converged"]) == (None, None, None)


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("n_components=0", "#/query/n_components"),
        ("n_components=1-", "#/query/n_components"),
        ("n_components=5-2", "#/query/n_components"),
        ("n_components=1-5000", "#/query/n_components"),
        ("covariance_type=round", "#/query/covariance_type"),
        ("criterion=likelihood", "#/query/criterion"),
        ("n_folds=1", "#/query/n_folds"),
        ("budget_seconds=-1", "#/query/budget_seconds"),
        ("n_init=0", "#/query/n_init"),
    ],
)
def test_a_grid_without_sense_is_refused_with_its_place(
    declared: Client, query: str, pointer: str
) -> None:
    status, _, pointers = refusal(declared, query)
    assert status == 422
    assert pointers == [pointer]


@pytest.mark.parametrize(
    ("query", "code", "pointers"),
    [
        ("n_components=1-9", "too_few_samples", ["#/query/n_components"]),
        (
            "n_components=6&criterion=held_out_log_likelihood&n_folds=2",
            "too_few_samples",
            ["#/query/n_components"],
        ),
        (
            "n_components=1&criterion=held_out_log_likelihood&n_folds=9",
            "invalid_parameter",
            ["#/query/n_folds"],
        ),
        ("n_components=2&criterion=aicc", "invalid_parameter", ["#/query/criterion"]),
        (
            "n_components=1-300&covariance_type=full",
            "work_budget_exceeded",
            ["#/query/n_components"],
        ),
        ("n_components=1025", "invalid_parameter", ["#/query/n_components"]),
        ("n_components=5&n_init=101", "invalid_parameter", ["#/query/n_init"]),
    ],
)
def test_what_can_t_succeed_is_refused_before_there_is_a_job(
    declared: Client, query: str, code: str, pointers: list[str]
) -> None:
    status, found, where = refusal(declared, query)
    assert (status, found, where) == (422, code, pointers)
    assert declared.get("/jobs").json()["jobs"] == []


@pytest.mark.parametrize("n_folds", [2, 8])
def test_as_many_folds_as_rows_can_be_held_out(declared: Client, n_folds: int) -> None:
    grid = "n_components=1&covariance_type=spherical&criterion=held_out_log_likelihood"
    body = selected(declared, f"{grid}&n_folds={n_folds}")
    assert body["selection"]["complete"] is True  # type: ignore[index]  # a JSON object


def test_aicc_compares_those_that_have_a_value(declared: Client) -> None:
    body = selected(declared, "n_components=1-2&criterion=aicc")
    table = body["selection"]["candidates"]  # type: ignore[index]  # a JSON object
    by_rank = sorted(table, key=lambda line: line["rank"])
    known = [line["value"] for line in by_rank if line["value"] is not None]
    assert 0 < len(known) < len(table)
    assert by_rank[0]["value"] == min(known)


def test_of_principal_axes_those_that_are_kept_count_for_aicc(client: Client) -> None:
    client.post("/models", {"id": "groups", "pca_components": 1, "random_state": 0})
    rows = np.random.default_rng(0).standard_normal((6, 3)).tolist()
    body = selected(client, "n_components=1&criterion=aicc&covariance_type=full", rows)
    assert body["aicc"] is not None


@pytest.mark.parametrize("text", ["2,4", "many", "1..3", "-1"])
def test_a_wrong_number_of_components_is_told_how_it_is_written(
    declared: Client, text: str
) -> None:
    problem = declared.post(f"/models/groups/select?n_components={text}", {"X": TWO_GROUPS}).json()
    assert "such as 3, and ranges, such as 1-9" in problem["detail"]


def test_the_number_of_candidates_is_bounded_by_a_setting() -> None:
    with serving(Settings(max_candidates=3)) as client:
        client.post("/models", {"id": "groups"})
        assert refusal(client, SMALL)[:2] == (422, "work_budget_exceeded")


def test_there_is_no_selection_for_a_model_that_is_not_there(client: Client) -> None:
    response = client.post("/models/absent/select", {"X": TWO_GROUPS})
    assert (response.status_code, response.json()["code"]) == (404, "model_not_found")
