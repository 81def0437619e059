"""Models over HTTP: declared, looked at, listed, changed, deleted."""

import re

import pytest

from tests.service.client import JSON_HEADERS, Client
from tests.service.held_runner import HeldRunner
from tests.service.rows import TWO_GROUPS


def test_a_declared_model_says_everything_about_itself(client: Client) -> None:
    response = client.post(
        "/models",
        {"id": "iris", "n_components": 3, "random_state": 0, "labels": {"team": "botany"}},
    )

    assert response.status_code == 201
    assert response.headers["location"] == "/models/iris"
    assert response.headers["etag"]
    model = response.json()
    moments = [model.pop("created_at"), model.pop("updated_at")]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", moment) for moment in moments)
    assert model == {
        "id": "iris",
        "n_components": 3,
        "covariance_type": "full",
        "tol": 1e-6,
        "max_iter": 500,
        "n_init": 1,
        "init_params": "auto",
        "reg_covar": "auto",
        "random_state": 0,
        "standardize": False,
        "pca_components": None,
        "description": "",
        "labels": {"team": "botany"},
        "status": "created",
        "latest_version": None,
        "aliases": {},
        "feature_names": None,
        "n_features": None,
    }


def test_a_model_without_an_id_is_given_one(client: Client) -> None:
    first, second = (client.post("/models", {}).json()["id"] for _ in range(2))

    assert first != second
    assert client.get(f"/models/{first}").status_code == 200


def test_a_new_model_was_last_changed_when_it_was_made(client: Client) -> None:
    model = client.post("/models", {}).json()

    assert model["created_at"] == model["updated_at"]


def test_an_id_is_given_once(client: Client) -> None:
    client.post("/models", {"id": "iris"})

    response = client.post("/models", {"id": "iris"})

    assert response.status_code == 409
    assert response.json()["code"] == "model_exists"


def test_a_fitted_model_tells_its_version_and_its_features(client: Client) -> None:
    client.post("/models", {"id": "groups", "n_components": 2})
    client.post("/models/groups/fit", {"columns": ["width", "height"], "data": TWO_GROUPS})

    model = client.get("/models/groups").json()

    assert model["status"] == "fitted"
    assert model["latest_version"] == 1
    assert model["feature_names"] == ["width", "height"]
    assert model["n_features"] == 2


def test_a_model_is_fitting_while_a_fit_of_it_is_not_done(
    held_client: Client, held: HeldRunner
) -> None:
    held_client.post("/models/groups/fit?wait=0", {"X": TWO_GROUPS})
    before = held_client.get("/models/groups").json()["status"]
    held.release()
    after = held_client.get("/models/groups").json()["status"]

    assert (before, after) == ("fitting", "fitted")


def test_an_unchanged_model_is_not_sent_again(client: Client) -> None:
    tag = client.post("/models", {"id": "iris"}).headers["etag"]

    response = client.get("/models/iris", {"if-none-match": f'"another", W/{tag}'})

    assert response.status_code == 304
    assert response.content == b""
    assert response.headers["etag"] == tag


def test_a_fit_changes_the_tag_of_its_model(client: Client) -> None:
    tag = client.post("/models", {"id": "groups", "n_components": 2}).headers["etag"]
    client.post("/models/groups/fit", {"X": TWO_GROUPS})

    assert client.get("/models/groups", {"if-none-match": tag}).status_code == 200


def test_a_change_touches_only_what_it_names(client: Client) -> None:
    client.post("/models", {"id": "iris", "n_components": 3, "random_state": 7})

    response = client.patch("/models/iris", {"n_init": 5, "description": "more starts"})

    assert response.status_code == 200
    model = response.json()
    assert (model["n_components"], model["random_state"]) == (3, 7)
    assert (model["n_init"], model["description"]) == (5, "more starts")


@pytest.mark.parametrize("change", [{}, {"n_components": 3}, {"labels": {"team": "botany"}}])
def test_a_change_that_changes_nothing_leaves_the_tag(
    client: Client, change: dict[str, object]
) -> None:
    made = client.post("/models", {"id": "iris", "n_components": 3, "labels": {"team": "botany"}})

    response = client.patch("/models/iris", change, {"if-match": made.headers["etag"]})

    assert response.status_code == 200
    assert response.headers["etag"] == made.headers["etag"]
    assert response.json() == client.get("/models/iris").json() == made.json()


def test_a_seed_can_be_taken_back(client: Client) -> None:
    client.post("/models", {"id": "iris", "random_state": 7})

    assert client.patch("/models/iris", {"random_state": None}).json()["random_state"] is None


def test_a_change_of_an_old_copy_is_refused(client: Client) -> None:
    old = client.post("/models", {"id": "iris"}).headers["etag"]
    new = client.patch("/models/iris", {"n_init": 2}, {"if-match": old}).headers["etag"]

    refused = client.patch("/models/iris", {"n_init": 3}, {"if-match": old})
    taken = client.patch("/models/iris", {"n_init": 4}, {"if-match": new})

    assert (refused.status_code, refused.json()["code"]) == (412, "precondition_failed")
    assert (taken.status_code, taken.json()["n_init"]) == (200, 4)


def test_a_version_keeps_the_hyperparameters_of_its_fit(fitted: Client) -> None:
    fitted.patch("/models/groups", {"n_components": 4})

    version = fitted.get("/models/groups/versions/1").json()

    assert version["hyperparameters"]["n_components"] == 2
    assert fitted.get("/models/groups").json()["n_components"] == 4


def test_a_deleted_model_is_gone_with_its_versions(fitted: Client) -> None:
    response = fitted.delete("/models/groups")

    assert (response.status_code, response.content) == (204, b"")
    for path in ("", "/versions", "/versions/1", "/parameters"):
        answer = fitted.get(f"/models/groups{path}")
        assert (answer.status_code, answer.json()["code"]) == (404, "model_not_found")


def test_a_deletion_of_an_old_copy_is_refused(client: Client) -> None:
    old = client.post("/models", {"id": "iris"}).headers["etag"]
    new = client.patch("/models/iris", {"n_init": 2}, {"if-match": old}).headers["etag"]

    refused = client.delete("/models/iris", {"if-match": old})
    kept = client.get("/models/iris").status_code
    taken = client.delete("/models/iris", {"if-match": f'"another", {new}'})

    assert (refused.status_code, refused.json()["code"]) == (412, "precondition_failed")
    assert (kept, taken.status_code) == (200, 204)
    assert client.delete("/models/iris", {"if-match": "*"}).status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PATCH", "/models/groups", b'{"n_init":7}'),
        ("DELETE", "/models/groups", b""),
        ("DELETE", "/models/groups/versions/1", b""),
    ],
)
def test_what_is_there_is_not_changed_for_who_wants_none(
    fitted: Client, method: str, path: str, body: bytes
) -> None:
    tag = fitted.get(path).headers["etag"]

    def changed(path: str, unwanted: str) -> int:
        headers = {**JSON_HEADERS, "if-none-match": unwanted}
        return fitted.send(method, path, body=body, headers=headers).status_code

    assert [changed(path, unwanted) for unwanted in ("*", tag, f'"another", W/{tag}')] == [412] * 3
    assert fitted.get(path).headers["etag"] == tag
    assert changed(path.replace("groups", "none"), "*") == 404
    assert changed(path, '"another"') in (200, 204)


def test_a_deletion_of_another_version_than_the_one_seen_is_refused(fitted: Client) -> None:
    path = "/models/groups/versions/1"
    tag = fitted.get(path).headers["etag"]

    refused = fitted.delete(path, {"if-match": '"another"'})
    kept = fitted.get(path).status_code
    taken = fitted.delete(path, {"if-match": tag})

    assert (refused.status_code, refused.json()["code"]) == (412, "precondition_failed")
    assert (kept, taken.status_code) == (200, 204)


def test_a_model_made_anew_begins_at_version_one(fitted: Client) -> None:
    fitted.delete("/models/groups")
    fitted.post("/models", {"id": "groups", "n_components": 2})

    assert fitted.get("/models/groups").json()["status"] == "created"
    assert fitted.post("/models/groups/fit", {"X": TWO_GROUPS}).json()["version"] == 1


def test_deleting_a_model_cancels_its_fits(held_client: Client, held: HeldRunner) -> None:
    job = held_client.post("/models/groups/fit?wait=0", {"X": TWO_GROUPS}).json()

    held_client.delete("/models/groups")
    held.release()

    assert held_client.get(f"/jobs/{job['id']}").json()["status"] == "cancelled"
    assert held_client.get("/models/groups").status_code == 404


def test_a_fit_that_ends_after_its_model_was_deleted_does_not_bring_it_back(
    held_client: Client, held: HeldRunner
) -> None:
    job = held_client.post("/models/groups/fit?wait=0", {"X": TWO_GROUPS}).json()
    held.before_end = lambda: held_client.services.catalogue.delete_model("groups")

    held.release()

    ended = held_client.get(f"/jobs/{job['id']}").json()
    assert (ended["status"], ended["error"]["code"]) == ("failed", "model_not_found")
    assert held_client.get("/models/groups").status_code == 404


def test_pages_follow_one_another_to_the_end(client: Client) -> None:
    for number in range(5):
        client.post("/models", {"id": f"m{number}"})

    found, path = [], "/models?page_size=2"
    while path:
        response = client.get(path)
        found.append([model["id"] for model in response.json()["models"]])
        link = response.headers.get("link", "")
        assert bool(link) == (response.json()["next_page_token"] is not None)
        path = link.removeprefix("<").removesuffix('>; rel="next"')

    assert found == [["m0", "m1"], ["m2", "m3"], ["m4"]]


def test_what_is_created_between_pages_repeats_nothing(client: Client) -> None:
    for name in ("b", "d", "f"):
        client.post("/models", {"id": name})
    token = client.get("/models?page_size=2").json()["next_page_token"]

    client.post("/models", {"id": "a"})
    rest = client.get(f"/models?page_size=2&page_token={token}").json()["models"]

    assert [model["id"] for model in rest] == ["f"]


@pytest.mark.parametrize(
    "other",
    [
        "/models?order_by=created_at",
        "/models?order_by=id%20desc",
        "/models?label=team:botany",
        "/models/a/versions",
        "/jobs",
    ],
)
def test_a_page_token_belongs_to_its_list(client: Client, other: str) -> None:
    for name in ("a", "b"):
        client.post("/models", {"id": name, "labels": {"team": "botany"}})
    token = client.get("/models?page_size=1").json()["next_page_token"]

    response = client.get(f"{other}{'&' if '?' in other else '?'}page_token={token}")

    assert (response.status_code, response.json()["code"]) == (422, "invalid_parameter")
    assert response.json()["errors"][0]["pointer"] == "#/query/page_token"
    assert client.get(f"/models?order_by=id&page_token={token}").json()["models"][0]["id"] == "b"


@pytest.mark.parametrize(
    ("order", "expected"),
    [("id", "abc"), ("id desc", "cba"), ("created_at", "bca"), ("created_at desc", "acb")],
)
def test_models_are_listed_in_the_order_asked_for(
    client: Client, order: str, expected: str
) -> None:
    for name in "bca":
        client.post("/models", {"id": name})

    listed = client.get(f"/models?order_by={order}").json()["models"]

    assert "".join(model["id"] for model in listed) == expected


def test_models_are_found_by_their_labels(client: Client) -> None:
    client.post("/models", {"id": "a", "labels": {"team": "botany", "stage": "test"}})
    client.post("/models", {"id": "b", "labels": {"team": "botany"}})
    client.post("/models", {"id": "c"})

    def ids(query: str) -> list[str]:
        return [model["id"] for model in client.get(f"/models?{query}").json()["models"]]

    assert ids("label=team:botany") == ["a", "b"]
    assert ids("label=team:botany&label=stage:test") == ["a"]
    assert ids("label=team:zoology") == []
    assert ids("label=team:botany&label=team:zoology") == []
