"""What is stored of one model is damaged: that model is refused, the others are answered for."""

from pathlib import Path

import pytest

from service.adapters.registry_files import FileRegistry
from service.errors import Unavailable
from tests.service.client import serving
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
