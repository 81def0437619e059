"""Fits that are checked and estimated, and not begun."""

import pytest

from service.settings import Settings
from tests.service.client import Client, serving
from tests.service.held_runner import HeldRunner
from tests.service.rows import TWO_GROUPS

ASK = "/models/groups/fit?validate_only=true"


def test_an_estimate_begins_and_stores_nothing(held_client: Client) -> None:
    key = {"Idempotency-Key": "k"}
    answer = held_client.post(ASK, {"X": TWO_GROUPS}, key)

    estimate = answer.json()
    assert answer.status_code == 200
    assert estimate["model"] == "groups"
    assert (estimate["n_samples"], estimate["n_features"], estimate["n_components"]) == (8, 2, 2)
    assert estimate["work"] > 8 * 2
    assert estimate["memory_bytes"] > 8 * 2 * 8
    assert 0 < estimate["seconds"] <= estimate["seconds_at_most"]
    assert held_client.get("/jobs").json()["jobs"] == []
    assert held_client.post("/models/groups/fit?wait=0", {"X": TWO_GROUPS}, key).status_code == 202


def test_more_rows_components_and_restarts_are_more_work(client: Client) -> None:
    client.post("/models", {"id": "groups", "n_components": 2})
    client.post("/models", {"id": "larger", "n_components": 4, "n_init": 3})

    small = client.post(ASK, {"X": TWO_GROUPS}).json()
    large = client.post(ASK.replace("groups", "larger"), {"X": TWO_GROUPS * 100}).json()

    for field in ("work", "memory_bytes", "seconds", "seconds_at_most"):
        assert small[field] < large[field]


def test_rows_are_estimated_as_they_are_mapped(client: Client) -> None:
    client.post("/models", {"id": "groups", "n_components": 2, "pca_components": 1})
    client.post("/models", {"id": "narrow", "n_components": 2, "pca_components": 3})

    assert client.post(ASK, {"X": TWO_GROUPS}).json()["n_features"] == 2
    refused = client.post(ASK.replace("groups", "narrow"), {"X": TWO_GROUPS})
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_parameter")


def test_an_estimate_says_how_far_it_may_be_off(client: Client) -> None:
    client.post("/models", {"id": "groups", "n_components": 2})

    assert client.post(ASK, {"X": TWO_GROUPS}).json()["uncertainty"] == 1.5


def test_a_budget_bounds_the_time(fitted: Client) -> None:
    estimate = fitted.post(f"{ASK}&budget_seconds=0.000001", {"X": TWO_GROUPS}).json()

    assert estimate["seconds"] == estimate["seconds_at_most"] == 0.000001


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        (ASK, {"X": TWO_GROUPS[:1]}, 422, "too_few_samples"),
        (ASK, {"X": TWO_GROUPS * 2}, 422, "work_budget_exceeded"),
        (ASK.replace("groups", "nowhere"), {"X": TWO_GROUPS}, 404, "model_not_found"),
        (ASK.replace("true", "perhaps"), {"X": TWO_GROUPS}, 422, "invalid_parameter"),
    ],
)
def test_what_a_fit_would_be_refused_for_is_refused(
    path: str, body: object, status: int, code: str
) -> None:
    with serving(Settings(max_rows=10), runner=HeldRunner()) as client:
        client.post("/models", {"id": "groups", "n_components": 2})
        answer = client.post(path, body)

    assert (answer.status_code, answer.json()["code"]) == (status, code)
