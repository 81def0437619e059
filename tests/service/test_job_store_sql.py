"""Jobs in a database over the death of their process, and between processes."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from service.adapters.database import Database
from service.adapters.job_store_sql import SqlJobStore
from service.adapters.registry_memory import MemoryRegistry
from service.domain.records import JobRecord
from service.errors import ServiceError
from service.settings import Settings
from tests.service.client import serving
from tests.service.rows import TWO_GROUPS
from tests.support.databases import DATABASES, database_url

PATIENCE_SECONDS = 20.0

DYING = """
import os, sys
from pathlib import Path
from service.adapters.database import Database
from service.adapters.job_store_sql import SqlJobStore
from service.domain.records import JobRecord
store = SqlJobStore(Database.at(sys.argv[1] or None, Path(sys.argv[2])))
store.add(JobRecord(id="queued", model_id="m"))
store.add(JobRecord(id="running", model_id="m"))
store.update("running", JobRecord.started)
os.kill(os.getpid(), 9)
"""


@pytest.fixture(params=DATABASES)
def url(request: pytest.FixtureRequest) -> str | None:
    return database_url(request, request.param)


@pytest.fixture
def database(url: str | None, tmp_path: Path) -> Iterator[Database]:
    database = Database.at(url, tmp_path)
    yield database
    database.close()


def leave_jobs_and_die(url: str | None, directory: Path) -> None:
    command = [sys.executable, "-c", DYING, url or "", str(directory)]
    assert subprocess.run(command, check=False).returncode == -9  # noqa: S603  # our own code


def test_the_jobs_of_a_dead_process_are_abandoned(
    url: str | None, database: Database, tmp_path: Path
) -> None:
    store = SqlJobStore(database)
    store.add(JobRecord(id="mine", model_id="m"))
    leave_jobs_and_die(url, tmp_path)

    assert {job.id for job in store.abandoned()} == {"queued", "running"}


def test_of_several_processes_one_adopts_the_job_of_a_dead_one(
    url: str | None, database: Database, tmp_path: Path
) -> None:
    other = Database.at(url, tmp_path)
    stores = [SqlJobStore(database), SqlJobStore(other)]
    leave_jobs_and_die(url, tmp_path)

    with ThreadPoolExecutor() as threads:
        adopted = list(threads.map(lambda store: store.adopt("running"), stores * 2))

    assert sum(adopted) == 1
    assert not stores[0].adopt("nowhere")
    assert [job.id for job in stores[0].abandoned()] == ["queued"]
    other.close()


def test_a_job_that_has_ended_is_not_adopted(database: Database) -> None:
    store = SqlJobStore(database)
    store.add(JobRecord(id="job", model_id="m"))
    store.update("job", JobRecord.cancelled)

    assert not store.adopt("job")


def test_the_jobs_of_another_living_process_are_not_abandoned(
    url: str | None, database: Database, tmp_path: Path
) -> None:
    other = Database.at(url, tmp_path)
    SqlJobStore(other).add(JobRecord(id="job", model_id="m"))

    assert SqlJobStore(database).abandoned() == []
    other.close()
    assert [job.id for job in SqlJobStore(database).abandoned()] == ["job"]


def test_the_end_of_a_job_of_another_process_is_told(
    url: str | None, database: Database, tmp_path: Path
) -> None:
    other = Database.at(url, tmp_path)
    theirs, mine = SqlJobStore(other), SqlJobStore(database)
    theirs.add(JobRecord(id="job", model_id="m"))
    done, changed = threading.Event(), threading.Event()
    mine.when_done("job", done.set)
    mine.when_changed("job", changed.set)

    theirs.update("job", JobRecord.started)
    assert changed.wait(PATIENCE_SECONDS)
    theirs.update("job", JobRecord.cancelled)

    assert done.wait(PATIENCE_SECONDS)
    other.close()


def test_the_removal_of_a_job_of_another_process_is_told(
    url: str | None, database: Database, tmp_path: Path
) -> None:
    other = Database.at(url, tmp_path)
    theirs, mine = SqlJobStore(other), SqlJobStore(database)
    theirs.add(JobRecord(id="job", model_id="m"))
    done = threading.Event()
    mine.when_done("job", done.set)

    theirs.remove("job")

    assert done.wait(PATIENCE_SECONDS)
    other.close()


def test_a_restart_keeps_results_and_tells_of_fits_that_it_cut_off(tmp_path: Path) -> None:
    registry = MemoryRegistry()
    first = Database.at(None, tmp_path)
    with serving(registry=registry, jobs=SqlJobStore(first)) as client:
        client.post("/models", {"id": "m", "n_components": 2})
        fitted = client.post("/models/m/fit", {"X": TWO_GROUPS}).json()
        before = client.get(f"/jobs/{fitted['job']}").json()
    first.close()
    leave_jobs_and_die(None, tmp_path)

    second = Database.at(None, tmp_path)
    with serving(registry=registry, jobs=SqlJobStore(second)) as client:
        after = client.get(f"/jobs/{fitted['job']}").json()
        cut_off = client.get("/jobs?status=interrupted").json()["jobs"]
        status = client.get("/models/m").json()["status"]
    second.close()

    assert after == before
    assert after["result"] == fitted
    assert {job["id"] for job in cut_off} == {"queued", "running"}
    assert status == "fitted"


def test_a_fit_that_was_committed_before_its_process_died_has_succeeded(tmp_path: Path) -> None:
    registry = MemoryRegistry()
    with serving(registry=registry) as client:
        client.post("/models", {"id": "m", "n_components": 2})
        fitted = client.post("/models/m/fit", {"X": TWO_GROUPS}).json()
    first = Database.at(None, tmp_path)
    SqlJobStore(first).add(JobRecord(id=fitted["job"], model_id="m"))
    first.close()

    second = Database.at(None, tmp_path)
    with serving(registry=registry, jobs=SqlJobStore(second)) as client:
        job = client.get(f"/jobs/{fitted['job']}").json()
    second.close()

    assert (job["status"], job["result"]) == ("succeeded", fitted)


def test_a_url_of_another_kind_is_refused(tmp_path: Path) -> None:
    for url in ("mysql://host/name", "not a url"):
        with pytest.raises(ServiceError) as refused:
            Database.at(url, tmp_path)
        assert refused.value.code == "database_unknown"


def test_a_database_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "service.sqlite3").write_bytes(b"not a database" * 100)

    with pytest.raises(ServiceError) as refused:
        Database.at(None, tmp_path)
    assert refused.value.code == "storage_failed"


def test_the_password_of_the_database_is_not_shown() -> None:
    settings = Settings.model_validate({"database_url": "postgresql://u:s3cret@h/n"})

    assert "s3cret" not in json.dumps(settings.model_dump(mode="json"))
    assert settings.database == "postgresql://u:s3cret@h/n"
