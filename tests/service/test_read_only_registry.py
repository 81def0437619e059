"""A service on a registry that can't be written: what is stored is served, no change is made."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from service.adapters import database, durable_files
from service.settings import Settings
from service.wiring import build_services, open_audit
from tests.service.client import Client, asking
from tests.service.rows import TWO_GROUPS
from tests.support.disks import ReadOnlyDisk
from tests.support.registries import code_of

Served = tuple[Client, str]


@contextmanager
def serving_in(directory: Path) -> Iterator[Client]:
    with asking(build_services(Settings(registry_dir=directory))) as client:
        yield client


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Give a registry with a fitted model ``groups``, and the id of the job that fitted it."""
    directory = tmp_path_factory.mktemp("filled") / "registry"
    with serving_in(directory) as client:
        client.post("/models", {"id": "groups", "n_components": 2, "random_state": 0})
        fit = client.post("/models/groups/fit?wait=60", {"X": TWO_GROUPS})
        assert fit.status_code == 200, fit.text
    return directory, fit.json()["job"]


@pytest.fixture
def served(filled: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    directory, job = filled
    monkeypatch.setattr(durable_files, "os", ReadOnlyDisk())
    before = state_of(directory)
    with serving_in(directory) as client:
        yield client, job
    assert state_of(directory) == before


def state_of(directory: Path) -> set[tuple[str, int]]:
    return {(str(entry), entry.lstat().st_mtime_ns) for entry in directory.rglob("*")}


def test_what_is_stored_is_served(served: Served) -> None:
    client, job = served

    answer = client.post("/predict", {"X": TWO_GROUPS})
    reads = ["/models", "/models/groups", "/models/groups/versions/1/artifact", "/jobs", "/livez"]

    assert answer.status_code == 200
    assert len(answer.json()["labels"]) == len(TWO_GROUPS)
    assert [client.get(path).status_code for path in reads] == [200] * len(reads)
    assert client.get("/models/groups").json()["status"] == "fitted"
    assert client.get(f"/jobs/{job}").json()["status"] == "succeeded"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/models", {"id": "new"}),
        ("PATCH", "/models/groups", {"description": "new"}),
        ("DELETE", "/models/groups", None),
        ("POST", "/models/groups/fit", {"X": TWO_GROUPS}),
        ("PUT", "/models/groups/aliases/champion", {"version": 1}),
        ("DELETE", "/models/groups/versions/1", None),
    ],
)
@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "k"}], ids=["plain", "with key"])
def test_every_change_is_refused(
    served: Served, method: str, path: str, body: object, headers: dict[str, str]
) -> None:
    client, _ = served

    response = client.send_json(method, path, body, headers)

    assert (response.status_code, response.json()["code"]) == (503, "registry_read_only")
    assert int(response.headers["retry-after"]) > 0
    assert len(client.get("/jobs").json()["jobs"]) == 1


def test_it_is_not_ready(served: Served) -> None:
    response = served[0].get("/readyz")

    assert (response.status_code, response.json()["code"]) == (503, "registry_read_only")


def test_jobs_are_none_where_none_were_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving_in(tmp_path) as client:
        client.post("/models", {"id": "m"})
    (tmp_path / "service.sqlite3").unlink()
    monkeypatch.setattr(durable_files, "os", ReadOnlyDisk())

    with serving_in(tmp_path) as client:
        assert client.get("/jobs").json()["jobs"] == []
        assert client.get("/models/m").status_code == 200
    assert not (tmp_path / "service.sqlite3").exists()


def test_a_database_that_alone_can_not_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "os", ReadOnlyDisk())

    refusal = code_of(lambda: build_services(Settings(registry_dir=tmp_path / "registry")))

    assert refusal == "database_read_only"


def test_the_audit_trail_is_read(filled: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable_files, "os", ReadOnlyDisk())

    with open_audit(Settings(registry_dir=filled[0])) as trail:
        assert [entry.action for entry in trail.newest(9)] == ["create_model", "fit_model"]
