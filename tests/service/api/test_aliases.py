"""Aliases over HTTP: set, asked by, moved, rolled back, deleted."""

import threading
from collections.abc import Iterator

import pytest

from tests.service.client import Client, serving
from tests.service.rows import ONE_OF_EACH, TWO_GROUPS

CHAMPION = "/models/groups/aliases/champion"


@pytest.fixture
def three() -> Iterator[Client]:
    """Serve the model ``groups`` with the versions 1, 2 and 3: of one, two, three components."""
    with serving() as client:
        client.post("/models", {"id": "groups", "random_state": 0})
        for n_components in (1, 2, 3):
            client.patch("/models/groups", {"n_components": n_components})
            client.post("/models/groups/fit", {"X": TWO_GROUPS})
        yield client


def asked(client: Client, query: str = "") -> int:
    """Return the version that answers a prediction."""
    response = client.post(f"/models/groups/predict{query}", {"X": ONE_OF_EACH})
    assert response.status_code == 200, response.text
    assert response.headers["gmm-model-version"] == str(response.json()["version"])
    return int(response.json()["version"])


def code(response: object) -> tuple[int, str]:
    return response.status_code, response.json()["code"]  # type: ignore[attr-defined] # a response


def test_an_alias_is_set_and_got_back(three: Client) -> None:
    put = three.put(CHAMPION, {"version": 2})
    got = three.get(CHAMPION)

    assert (put.status_code, got.status_code) == (200, 200)
    assert put.json() == got.json()
    assert {**got.json(), "updated_at": ""} == {
        "model": "groups",
        "alias": "champion",
        "version": 2,
        "updated_at": "",
    }
    assert three.get("/models/groups/aliases").json() == {"aliases": [got.json()]}
    assert three.get("/models/groups").json()["aliases"] == {"champion": 2}


def test_the_champion_answers_by_default_and_the_latest_without_one(three: Client) -> None:
    before = asked(three)
    three.put(CHAMPION, {"version": 1})
    champion = asked(three)
    three.delete(CHAMPION)

    assert (before, champion, asked(three)) == (3, 1, 3)


def test_every_question_can_name_an_alias(three: Client) -> None:
    three.put("/models/groups/aliases/safe", {"version": 2})

    assert asked(three, "?alias=safe") == 2
    for path in ("/parameters", "/score", "/score/bic"):
        assert three.get(f"/models/groups{path}?alias=safe").json()["version"] == 2
    assert three.post("/models/groups/sample?alias=safe", {}).json()["version"] == 2
    bare = three.post("/predict?alias=safe", {"X": ONE_OF_EACH})
    assert bare.headers["content-location"] == "/models/groups/versions/2/predict"


def test_latest_moves_by_itself_and_by_nothing_else(three: Client) -> None:
    latest = "/models/groups/aliases/latest"
    three.put(CHAMPION, {"version": 1})

    assert three.get(latest).json()["version"] == asked(three, "?alias=latest") == 3
    three.post("/models/groups/fit", {"X": TWO_GROUPS})
    assert three.get(latest).json()["version"] == asked(three, "?alias=latest") == 4
    refused = [three.put(latest, {"version": 1}), three.delete(latest)]
    refused.append(three.post(f"{latest}/rollback"))
    assert [code(answer) for answer in refused] == [(409, "alias_reserved")] * 3


def test_the_history_of_latest_is_the_versions(three: Client) -> None:
    three.post("/models", {"id": "unfitted"})
    three.delete("/models/groups/versions/2")

    answer = three.get("/models/groups/aliases/latest/history").json()
    versions = three.get("/models/groups/versions").json()["versions"]

    assert (answer["model"], answer["alias"]) == ("groups", "latest")
    assert answer["history"] == [
        {"action": "set", "version": version["version"], "changed_at": version["created_at"]}
        for version in reversed(versions)
    ]
    assert len(answer["history"]) == 2
    for path in ("", "/history"):
        unfitted = three.get(f"/models/unfitted/aliases/latest{path}")
        nowhere = three.get(f"/models/nowhere/aliases/latest{path}")
        assert code(unfitted) == (404, "alias_not_found")
        assert code(nowhere) == (404, "model_not_found")


def test_rollbacks_go_back_step_by_step_and_stop_at_the_first(three: Client) -> None:
    for version in (1, 2, 3):
        three.put(CHAMPION, {"version": version})

    back = [three.post(f"{CHAMPION}/rollback") for _ in range(3)]

    assert [answer.json()["version"] for answer in back[:2]] == [2, 1]
    assert code(back[2]) == (409, "nothing_to_roll_back_to")
    assert asked(three) == 1
    history = three.get(f"{CHAMPION}/history").json()["history"]
    assert [(entry["action"], entry["version"]) for entry in history] == [
        ("rollback", 1),
        ("rollback", 2),
        ("set", 3),
        ("set", 2),
        ("set", 1),
    ]


def test_a_rollback_passes_over_versions_deleted_since(three: Client) -> None:
    for version in (1, 2, 3):
        three.put(CHAMPION, {"version": version})
    three.delete("/models/groups/versions/2")

    assert three.post(f"{CHAMPION}/rollback").json()["version"] == 1


def test_a_deleted_alias_keeps_its_history_and_can_be_brought_back(three: Client) -> None:
    three.put(CHAMPION, {"version": 1})

    assert three.delete(CHAMPION).status_code == 204
    assert code(three.get(CHAMPION)) == (404, "alias_not_found")
    assert code(three.delete(CHAMPION)) == (404, "alias_not_found")
    assert code(three.post("/models/groups/predict?alias=champion", {"X": ONE_OF_EACH})) == (
        404,
        "alias_not_found",
    )
    assert three.get(f"{CHAMPION}/history").json()["history"][0]["version"] is None
    assert three.post(f"{CHAMPION}/rollback").json()["version"] == 1


def test_setting_an_alias_to_what_it_names_changes_nothing(three: Client) -> None:
    first = three.put(CHAMPION, {"version": 1})

    assert three.put(CHAMPION, {"version": 1}).headers["etag"] == first.headers["etag"]
    assert len(three.get(f"{CHAMPION}/history").json()["history"]) == 1


def test_a_named_version_is_not_deleted(three: Client) -> None:
    three.put(CHAMPION, {"version": 1})

    assert code(three.delete("/models/groups/versions/1")) == (409, "version_aliased")
    three.put(CHAMPION, {"version": 2})
    assert three.delete("/models/groups/versions/1").status_code == 204


def test_an_alias_moves_only_from_where_the_client_saw_it(three: Client) -> None:
    seen = three.put(CHAMPION, {"version": 1}, {"if-none-match": "*"}).headers["etag"]
    changed = three.put(CHAMPION, {"version": 2}, {"if-match": seen})

    assert changed.status_code == 200
    old = {"if-match": seen}
    refused = [
        three.put(CHAMPION, {"version": 3}, old),
        three.put(CHAMPION, {"version": 3}, {"if-none-match": "*"}),
        three.post(f"{CHAMPION}/rollback", None, old),
        three.delete(CHAMPION, old),
        three.put("/models/groups/aliases/new", {"version": 1}, {"if-match": "*"}),
    ]
    assert [code(answer) for answer in refused] == [(412, "precondition_failed")] * 5
    assert asked(three) == 2
    assert three.get(CHAMPION, {"if-none-match": changed.headers["etag"]}).status_code == 304


@pytest.mark.parametrize(
    ("method", "path", "body", "expected"),
    [
        ("PUT", CHAMPION, {"version": 9}, (404, "version_not_found")),
        ("PUT", "/models/none/aliases/a", {"version": 1}, (404, "model_not_found")),
        ("PUT", CHAMPION, {"version": 0}, (422, "invalid_parameter")),
        ("PUT", CHAMPION, {"version": "1"}, (422, "invalid_parameter")),
        ("PUT", CHAMPION, {}, (422, "invalid_parameter")),
        ("PUT", CHAMPION, {"version": 1, "note": ""}, (422, "invalid_parameter")),
        ("PUT", "/models/groups/aliases/Best%20one", {"version": 1}, (422, "invalid_parameter")),
        ("PUT", "/models/groups/aliases/" + "a" * 64, {"version": 1}, (422, "invalid_parameter")),
        ("PUT", "/models/groups/aliases/..", {"version": 1}, (405, "method_not_allowed")),
        ("GET", "/models/groups/aliases/Best", None, (404, "alias_not_found")),
        ("GET", f"{CHAMPION}/history", None, (404, "alias_not_found")),
        ("POST", f"{CHAMPION}/rollback", None, (404, "alias_not_found")),
        ("GET", "/models/none/aliases", None, (404, "model_not_found")),
        ("GET", "/models/groups/score?alias=none", None, (404, "alias_not_found")),
        ("GET", "/models/groups/score?alias=latest&version=1", None, (422, "invalid_parameter")),
        ("POST", CHAMPION, None, (405, "method_not_allowed")),
    ],
)
def test_what_can_not_be_done_with_an_alias_is_said(
    three: Client, method: str, path: str, body: object, expected: tuple[int, str]
) -> None:
    response = {
        "PUT": lambda: three.put(path, body),
        "GET": lambda: three.get(path),
        "POST": lambda: three.post(path, body),
    }[method]()

    assert code(response) == expected


def test_under_flips_and_deletes_each_answer_is_of_one_version(three: Client) -> None:
    """Version n has as many components as its fit was told, so an answer shows its version."""
    three.put(CHAMPION, {"version": 1})
    sizes = {1: 1, 2: 2, 3: 3}
    wrong: list[object] = []
    is_over = threading.Event()

    def ask() -> None:
        while not is_over.is_set():
            response = three.post("/models/groups/predict_proba", {"X": ONE_OF_EACH})
            answer = response.json()
            if response.status_code != 200 or sizes.get(answer["version"]) != len(
                answer["probabilities"][0]
            ):
                wrong.append(answer)

    askers = [threading.Thread(target=ask) for _ in range(3)]
    for asker in askers:
        asker.start()
    for flip in range(40):
        if flip % 4 == 3:  # the newest version comes, is named, and goes
            number = three.post("/models/groups/fit", {"X": TWO_GROUPS}).json()["version"]
            sizes[number] = 3
            three.put(CHAMPION, {"version": number})
            three.put(CHAMPION, {"version": 1})
            assert three.delete(f"/models/groups/versions/{number}").status_code == 204
        else:
            three.put(CHAMPION, {"version": flip % 3 + 1})
    is_over.set()
    for asker in askers:
        asker.join()
    assert wrong == []


def test_under_deletes_of_the_model_each_answer_is_of_one_of_its_lives() -> None:
    """Life n has n components; while there is none, or none fitted, that is what is said."""
    wrong: list[object] = []
    n_answers, is_over = 0, threading.Event()
    with serving() as client:

        def ask() -> None:
            nonlocal n_answers
            while not is_over.is_set():
                response = client.post("/models/groups/predict_proba", {"X": ONE_OF_EACH})
                answer = response.json()
                if response.status_code == 200:
                    n_answers += 1
                    sizes = {len(row) for row in answer["probabilities"]}
                    if len(sizes) != 1 or not 1 <= sizes.pop() <= 3:
                        wrong.append(answer)
                elif answer["code"] not in {"model_not_found", "model_not_fitted"}:
                    wrong.append(answer)

        askers = [threading.Thread(target=ask) for _ in range(3)]
        for asker in askers:
            asker.start()
        for life in range(30):
            n_components = life % 3 + 1
            client.post("/models", {"id": "groups", "n_components": n_components})
            client.post("/models/groups/fit", {"X": TWO_GROUPS})
            asked_now = client.post("/models/groups/predict_proba", {"X": ONE_OF_EACH}).json()
            assert len(asked_now["probabilities"][0]) == n_components
            assert client.delete("/models/groups").status_code == 204
            gone = client.post("/models/groups/predict_proba", {"X": ONE_OF_EACH})
            assert code(gone) == (404, "model_not_found")
        is_over.set()
        for asker in askers:
            asker.join()

    assert wrong == []
    assert n_answers
