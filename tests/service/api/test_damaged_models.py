"""What is stored of one model is damaged: that model is refused, the others are answered for."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from service.adapters.registry_files import FileRegistry
from service.errors import Unavailable
from tests.service.client import Client, serving
from tests.service.rows import TWO_GROUPS


@pytest.mark.parametrize(
    "name", ["model.json", "aliases.json", "versions/000001/manifest.json"], ids=Path
)
def test_one_damaged_model_is_left_out_of_the_list(tmp_path: Path, name: str) -> None:
    with serving(registry=FileRegistry(tmp_path)) as client:
        for model in ("a", "b"):
            client.post("/models", {"id": model, "n_components": 2})
            client.post(f"/models/{model}/fit", {"X": TWO_GROUPS})
            client.put(f"/models/{model}/aliases/champion", {"version": 1})
        damage(tmp_path / "models" / "a" / name)

        listed = client.get("/models")
        damaged = client.get("/models/a")

        assert listed.status_code == 200
        assert [model["id"] for model in listed.json()["models"]] == ["b"]
        assert (damaged.status_code, damaged.json()["code"]) == (503, "model_corrupt")
        assert client.get("/models/b").status_code == 200


def damage(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[5] ^= 1
    file.write_bytes(content)


def test_the_pages_after_one_with_a_damaged_model_are_still_reached(tmp_path: Path) -> None:
    with serving(registry=FileRegistry(tmp_path)) as client:
        for model in ("a", "b", "c"):
            client.post("/models", {"id": model})
        (tmp_path / "models" / "a" / "aliases.json").write_bytes(b"x")

        found, page = [], client.get("/models?page_size=1").json()
        while page["next_page_token"] is not None:
            found += page["models"]
            page = client.get(f"/models?page_size=1&page_token={page['next_page_token']}").json()

        assert [model["id"] for model in found + page["models"]] == ["b", "c"]


class Failing(FileRegistry):
    def latest_version(self, model_id: str) -> None:
        raise Unavailable("storage_failed", "the storage failed")


def test_a_failing_disk_leaves_nothing_out(tmp_path: Path) -> None:
    with serving(registry=Failing(tmp_path)) as client:
        client.post("/models", {"id": "a"})

        response = client.get("/models")

        assert (response.status_code, response.json()["code"]) == (503, "storage_failed")


def test_a_version_that_was_found_damaged_is_not_ready_until_it_is_mended(tmp_path: Path) -> None:
    with serving(registry=FileRegistry(tmp_path)) as client:
        for model in ("a", "b"):
            client.post("/models", {"id": model, "n_components": 2})
            client.post(f"/models/{model}/fit", {"X": TWO_GROUPS})
        client.post("/models/a/fit", {"X": TWO_GROUPS})
        file = tmp_path / "models" / "a" / "versions" / "000002" / "params.joblib"
        whole = file.read_bytes()
        damage(file)
        asked = client.post("/models/a/predict", {"X": TWO_GROUPS})
        damaged = readiness(client)
        replacement = file.with_name("new")
        replacement.write_bytes(whole)
        replacement.rename(file)
        mended = readiness(client)
        again = client.post("/models/a/predict", {"X": TWO_GROUPS})

    assert (asked.status_code, asked.json()["code"]) == (503, "model_corrupt")
    assert damaged.statuses == {"a": 503, "a/versions/2": 503, "a/versions/1": 200, "b": 200}
    reason = "failed its integrity check"
    assert reason in damaged.errors["a"]
    assert damaged.states["b"] == ("READY", "")
    assert damaged.states["a"][0] == "UNAVAILABLE"
    assert reason in damaged.states["a"][1]
    assert mended.statuses == {"a": 200, "a/versions/2": 200, "a/versions/1": 200, "b": 200}
    assert mended.states == {"a": ("READY", ""), "b": ("READY", "")}
    assert again.status_code == 200


def test_a_version_that_answers_from_memory_is_ready_whatever_has_become_of_its_file(
    tmp_path: Path,
) -> None:
    with serving(registry=FileRegistry(tmp_path)) as client:
        client.post("/models", {"id": "a", "n_components": 2})
        client.post("/models/a/fit", {"X": TWO_GROUPS})
        client.post("/models/a/predict", {"X": TWO_GROUPS})
        damage(tmp_path / "models" / "a" / "versions" / "000001" / "params.joblib")
        downloaded = client.get("/models/a/versions/1/artifact")
        asked = client.post("/models/a/predict", {"X": TWO_GROUPS})
        ready = client.get("/v2/models/a/ready")

    assert downloaded.json()["code"] == "model_corrupt"
    assert (asked.status_code, ready.status_code) == (200, 200)


@dataclass(frozen=True, slots=True)
class Readiness:
    """What ``/v2`` says of the models ``a``, of two versions, and ``b``."""

    statuses: dict[str, int]
    errors: dict[str, str]
    states: dict[str, tuple[str, str]]
    """Of the index: state and reason."""


def readiness(client: Client) -> Readiness:
    targets = ("a", "a/versions/2", "a/versions/1", "b")
    answers = {target: client.get(f"/v2/models/{target}/ready") for target in targets}
    index = client.post("/v2/repository/index", {}).json()
    return Readiness(
        {target: answer.status_code for target, answer in answers.items()},
        {target: answer.json().get("error", "") for target, answer in answers.items()},
        {model["name"]: (model["state"], model["reason"]) for model in index},
    )
