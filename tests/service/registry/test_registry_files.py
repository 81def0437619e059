"""What the file registry promises beyond the contract: its directory, its start, its neighbours."""

import json
import os
import stat
import subprocess
import sys
import time
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from service.adapters import file_cache
from service.adapters.durable_files import Directory
from service.adapters.record_json import sealed
from service.adapters.registry_files import FileRegistry, StoredModel
from service.domain.records import ModelRecord, VersionRecord
from service.errors import Unavailable
from tests.support.records import SMALL_MIXTURE, a_draft, a_model, is_same_mixture
from tests.support.registries import code_of, contents, place_of

PROJECT = Path(__file__).resolve().parents[3]


# The directory


def test_the_directory_looks_as_it_is_documented(path: Path, version: VersionRecord) -> None:
    assert contents(path) == {
        "format",
        ".staging",
        ".trash",
        "models",
        "models/iris",
        "models/iris/model.json",
        "models/iris/versions",
        "models/iris/versions/000001",
        "models/iris/versions/000001/manifest.json",
        "models/iris/versions/000001/params.joblib",
    }
    assert (path / "format").read_text() == "gmm-registry 1\n"


def test_nobody_else_may_look_inside(path: Path, version: VersionRecord) -> None:
    for entry in [path, *path.rglob("*")]:
        mode = stat.S_IMODE(entry.stat().st_mode)
        assert mode == (0o700 if entry.is_dir() else 0o600), entry


def test_the_manifest_can_be_read_and_checked_without_this_program(
    path: Path, version: VersionRecord
) -> None:
    raw = (place_of(path, version) / "manifest.json").read_bytes()
    manifest = json.loads(raw)
    body = raw[raw.index(b'"body":') + len(b'"body":') : -len(b"}\n")]
    assert sha256(body).hexdigest() == manifest["sha256"]
    assert manifest["body"]["arrays"] == [
        {"name": "weights", "dtype": "<f8", "shape": [1]},
        {"name": "means", "dtype": "<f8", "shape": [1, 1]},
        {"name": "covariances", "dtype": "<f8", "shape": [1, 1, 1]},
    ]
    assert manifest["body"]["version"]["artifact_digest"] == version.artifact_digest


def test_deletes_leave_nothing_but_the_number(
    path: Path, registry: FileRegistry, version: VersionRecord
) -> None:
    registry.delete_version("iris", 1)
    assert {"models/iris/versions/000001.deleted"} == {
        entry for entry in contents(path) if "0000" in entry
    }
    registry.delete_model("iris")
    assert contents(path) == {"format", ".staging", ".trash", "models"}


def test_only_the_highest_deleted_number_is_kept(
    path: Path, registry: FileRegistry, model: ModelRecord
) -> None:
    for _ in range(5):
        number = registry.commit_version(a_draft(model, SMALL_MIXTURE), SMALL_MIXTURE).number
        registry.delete_version("iris", number)
    assert os.listdir(path / "models/iris/versions") == ["000005.deleted"]  # noqa: PTH208 - names


# Start


@pytest.mark.parametrize("text", ["gmm-registry 2\n", "gmm-registry 10\n", "", "other 1\n"])
def test_an_unknown_format_is_refused_and_left_alone(path: Path, text: str) -> None:
    path.mkdir()
    (path / "format").write_text(text)
    with pytest.raises(Unavailable) as refusal:
        FileRegistry(path)
    assert refusal.value.code == "registry_format_unknown"
    assert contents(path) == {"format"}


def test_a_later_minor_of_the_format_is_taken(path: Path, registry: FileRegistry) -> None:
    (path / "format").write_text("gmm-registry 1.7\n")
    FileRegistry(path).check_usable()


def test_models_without_a_format_are_refused(path: Path, version: VersionRecord) -> None:
    (path / "format").unlink()
    assert code_of(lambda: FileRegistry(path)) == "registry_format_unknown"


def test_a_start_clears_what_a_crash_left(path: Path, registry: FileRegistry) -> None:
    (path / ".staging" / "0123").mkdir()
    (path / ".staging" / "0123" / "params.joblib").write_bytes(b"half")
    (path / ".trash" / "4567" / "versions").mkdir(parents=True)
    FileRegistry(path)
    assert contents(path) == {"format", ".staging", ".trash", "models"}


def test_a_start_leaves_alone_what_another_process_is_making(
    path: Path, registry: FileRegistry
) -> None:
    (path / ".staging" / "0123").mkdir()
    with Directory.at(path / ".staging" / "0123") as stage:
        assert stage.claim()
        FileRegistry(path)
        assert (path / ".staging" / "0123").is_dir()
    FileRegistry(path)
    assert not (path / ".staging" / "0123").exists()


def test_strangers_in_the_directory_are_passed_over(
    path: Path, registry: FileRegistry, version: VersionRecord
) -> None:
    (path / "models" / "lost+found").mkdir()
    (path / "models" / "Notes.txt").write_text("mine")
    (path / "models" / "iris" / "versions" / "7").mkdir()
    (path / "models" / "iris" / "versions" / "README").write_text("mine")
    assert [record.id for record in registry.list_models()] == ["iris"]
    assert list(registry.list_versions("iris")) == [version]


# Neighbours


def test_another_registry_over_the_directory_sees_every_change_at_once(
    path: Path, registry: FileRegistry, model: ModelRecord
) -> None:
    other = FileRegistry(path)
    assert other.latest_version("iris") is None
    for revision in range(2, 8):
        model = model.updated(description=str(revision))
        registry.replace_model(model)
        assert other.get_model("iris") == model
        assert list(other.list_models()) == [model]
        committed = registry.commit_version(a_draft(model, SMALL_MIXTURE), SMALL_MIXTURE)
        assert other.latest_version("iris") == committed
        assert is_same_mixture(other.load_mixture(committed), SMALL_MIXTURE)
    other.delete_version("iris", 6)
    latest = registry.latest_version("iris")
    assert latest is not None
    assert latest.number == 5
    other.delete_model("iris")
    assert list(registry.list_models()) == []


def test_a_kept_record_is_dropped_when_its_file_is_another(
    path: Path, registry: FileRegistry, model: ModelRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_cache, "SETTLED_NS", -1)  # a clock: every file is old at once
    registry.commit_version(a_draft(model, SMALL_MIXTURE), SMALL_MIXTURE)
    assert registry.get_model("iris") is registry.get_model("iris")
    assert registry.get_version("iris", 1) is registry.get_version("iris", 1)
    FileRegistry(path).replace_model(model.updated(description="changed elsewhere"))
    assert registry.get_model("iris").description == "changed elsewhere"
    FileRegistry(path).delete_version("iris", 1)
    assert code_of(lambda: registry.get_version("iris", 1)) == "version_not_found"


def test_every_change_makes_another_state_of_the_model_and_what_is_recent_has_none(
    path: Path, registry: FileRegistry, model: ModelRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = FileRegistry(path)
    draft = a_draft(model, SMALL_MIXTURE)
    assert registry.state_of("iris") is None
    monkeypatch.setattr(file_cache, "SETTLED_NS", -1)  # a clock: every file is old at once
    states = []
    for change in (
        lambda: other.commit_version(draft, SMALL_MIXTURE),
        lambda: other.commit_version(draft, SMALL_MIXTURE),
        lambda: other.update_aliases(
            "iris", lambda book: book.with_alias(book.alias("champion").moved("set", 1))
        ),
        lambda: other.delete_version("iris", 2),
    ):
        time.sleep(0.02)  # a tick of the file system's clock
        change()
        states.append(registry.state_of("iris"))
    assert None not in states
    assert len(set(states)) == len(states)
    other.delete_model("iris")
    assert registry.state_of("iris") is None


def committing_process(path: Path, count: int) -> subprocess.Popen[str]:
    return subprocess.Popen(  # noqa: S603 - this interpreter, our own module
        [sys.executable, "-m", "tests.support.committer", str(path), "iris", str(count)],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_processes_that_commit_at_once_share_the_numbers_out(
    path: Path, registry: FileRegistry, model: ModelRecord
) -> None:
    others = [committing_process(path, 15) for _ in range(2)]
    for other in others:
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
    ours = [
        registry.commit_version(a_draft(model, SMALL_MIXTURE), SMALL_MIXTURE).number
        for _ in range(15)
    ]
    theirs = [int(line) for other in others for line in other.communicate()[0].split()]
    assert sorted(ours + theirs) == list(range(1, 46))
    assert [version.number for version in registry.list_versions("iris")] == list(range(1, 46))


@pytest.mark.crash
def test_a_killed_process_takes_nothing_acknowledged_along(
    path: Path, registry: FileRegistry, model: ModelRecord
) -> None:
    acknowledged: list[int] = []
    for n_lines in (1, 4, 9):
        victim = committing_process(path, 10_000)
        assert victim.stdout is not None
        lines = [victim.stdout.readline() for _ in range(n_lines)]
        victim.kill()
        rest = victim.communicate()[0].splitlines()
        acknowledged += [int(line) for line in [*lines[1:], *rest] if line.strip().isdigit()]
        reopened = FileRegistry(path)
        assert list((path / ".staging").iterdir()) == []
        found = {version.number: version for version in reopened.list_versions("iris")}
        assert set(acknowledged) <= set(found)
        for version in found.values():
            reopened.load_mixture(version)
    assert acknowledged == sorted(set(acknowledged))


# Size


@pytest.mark.slow
def test_ten_thousand_models_open_at_once_and_are_listed_in_a_moment(path: Path) -> None:
    FileRegistry(path)
    template = a_model()
    for number in range(10_000):
        record = replace(template, id=f"m{number}")
        place = path / "models" / record.id
        place.mkdir()
        (place / "model.json").write_bytes(sealed(StoredModel(1, record)))
    begun = time.perf_counter()
    registry = FileRegistry(path)
    opened = time.perf_counter()
    assert len(registry.list_models()) == 10_000
    listed = time.perf_counter()
    print(f"10,000 models: opened {opened - begun:.3f} s, listed {listed - opened:.3f} s")  # noqa: T201 - the figure
    assert opened - begun < 1
    assert listed - opened < 8
