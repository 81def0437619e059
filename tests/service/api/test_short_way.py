"""The short way answers as the long one does, and passes by nothing that the long one checks."""

import inspect

import httpx
import pytest

from service.api.dependencies import refuse_stray_query
from service.api.forms import QUESTIONS
from service.api.questions import ask_latest
from tests.service.client import Client
from tests.service.rows import ONE_OF_EACH, TWO_GROUPS

LONG_WAY = "?version=1"
VARYING = {"server-timing", "x-request-id", "date"}


def told(response: httpx.Response) -> tuple[int, dict[str, object], dict[str, str]]:
    headers = {name: value for name, value in response.headers.items() if name not in VARYING}
    content: dict[str, object] = response.json()
    if response.status_code >= 400:
        content = {name: content[name] for name in ("code", "detail", "errors", "title")}
    return response.status_code, content, headers


@pytest.mark.parametrize("path", sorted(QUESTIONS))
def test_it_stands_in_for_no_other_check_than_those_it_knows(path: str) -> None:
    route = QUESTIONS[path]
    assert [each.dependency for each in route.dependencies] == [refuse_stray_query, ask_latest]
    assert list(inspect.signature(route.endpoint).parameters) == ["question"]


@pytest.mark.parametrize("path", sorted(QUESTIONS))
@pytest.mark.parametrize("n_rows", [2, 20_000])
def test_both_ways_tell_the_same(fitted: Client, path: str, n_rows: int) -> None:
    rows = {"X": ONE_OF_EACH * (n_rows // 2)}
    address = f"/models/groups{path}"
    first, again = (told(fitted.post(address, rows)) for _ in range(2))
    assert first == again == told(fitted.post(address + LONG_WAY, rows))
    assert first[0] == 200


@pytest.mark.parametrize(
    ("model", "body", "headers"),
    [
        ("nobody", {"X": ONE_OF_EACH}, {}),
        ("groups", {"X": [[1.0]]}, {}),
        ("groups", {"X": []}, {}),
        ("groups", {"X": ONE_OF_EACH}, {"content-type": "text/plain"}),
        ("groups", {"X": ONE_OF_EACH}, {"accept": "image/png"}),
        ("groups", {"X": ONE_OF_EACH}, {"request-timeout": "0"}),
    ],
    ids=["no model", "dimensions", "no rows", "media type", "accept", "too late"],
)
def test_both_ways_refuse_alike(
    fitted: Client, model: str, body: object, headers: dict[str, str]
) -> None:
    fitted.post("/models/groups/predict", {"X": ONE_OF_EACH})
    address = f"/models/{model}/predict"
    refused = told(fitted.post(address, body, headers))
    assert refused[0] >= 400
    long = told(fitted.post(address + LONG_WAY, body, headers))
    assert (refused[0], refused[1]["code"]) == (long[0], long[1]["code"])


def test_what_is_kept_at_hand_follows_every_fit_alias_and_deletion(fitted: Client) -> None:
    def version() -> int:
        answers = [fitted.post("/models/groups/predict", {"X": ONE_OF_EACH}) for _ in range(3)]
        numbers = {int(answer.headers["gmm-model-version"]) for answer in answers}
        assert len(numbers) == 1
        return numbers.pop()

    assert version() == 1
    fitted.post("/models/groups/fit", {"X": TWO_GROUPS})
    assert version() == 2
    fitted.put("/models/groups/aliases/champion", {"version": 1})
    assert version() == 1
    fitted.delete("/models/groups/aliases/champion")
    assert version() == 2
    fitted.delete("/models/groups/versions/2")
    assert version() == 1
    fitted.delete("/models/groups")
    assert fitted.post("/models/groups/predict", {"X": ONE_OF_EACH}).status_code == 404
