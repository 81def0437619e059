"""``gmm-service registry list | fsck | gc`` over a directory, as an operator runs them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from service.adapters import durable_files
from service.adapters.registry_files import FileRegistry
from service.cli import app
from service.domain.records import AliasBook, ModelRecord, VersionRecord
from tests.support.disks import ReadOnlyDisk
from tests.support.records import (
    FAMILIES,
    SMALL_MIXTURE,
    a_draft,
    a_mixture,
    a_model,
    is_same_mixture,
)
from tests.support.registries import contents, place_of


def run(path: Path, command: str, *options: str) -> Result:
    return CliRunner().invoke(app, ["registry", command, "--registry-dir", str(path), *options])


def lines(ended: Result) -> list[object]:
    return [json.loads(line) for line in ended.stdout.splitlines()]


def name(registry: FileRegistry, alias: str, number: int) -> AliasBook:
    return registry.update_aliases(
        "iris", lambda book: book.with_alias(book.alias(alias).moved("set", number))
    )


def test_models_are_listed(path: Path, registry: FileRegistry, version: VersionRecord) -> None:
    registry.create_model(a_model("empty"))
    name(registry, "champion", 1)

    ended = run(path, "list")

    assert ended.exit_code == 0
    assert lines(ended) == [
        {"model": "empty", "versions": 0, "latest_version": None, "aliases": {}},
        {"model": "iris", "versions": 1, "latest_version": 1, "aliases": {"champion": 1}},
    ]


def test_a_damaged_model_is_listed_as_such(
    path: Path, registry: FileRegistry, version: VersionRecord
) -> None:
    registry.create_model(a_model("other"))
    (path / "models" / "iris" / "model.json").unlink()

    ended = run(path, "list")

    assert ended.exit_code == 0
    assert lines(ended)[0] == {"model": "iris", "fault": "model_corrupt"}
    assert len(lines(ended)) == 2


def test_a_sound_registry_passes_its_check(path: Path, version: VersionRecord) -> None:
    ended = run(path, "fsck")

    assert (ended.exit_code, ended.stdout) == (0, "")
    assert ended.stderr == "3 looked at, 0 damaged\n"


def test_every_damage_is_found_and_nothing_is_changed(
    path: Path, registry: FileRegistry, version: VersionRecord
) -> None:
    for model_id in ("a", "b", "c"):
        registry.create_model(a_model(model_id))
    second = registry.commit_version(
        a_draft(registry.get_model("iris"), SMALL_MIXTURE), SMALL_MIXTURE
    )
    name(registry, "champion", 7)
    parameters = place_of(path, version) / "params.joblib"
    parameters.write_bytes(parameters.read_bytes()[:-1])
    (place_of(path, second) / "manifest.json").unlink()
    (path / "models" / "a" / "model.json").write_bytes(b"{}")
    (path / "models" / "b" / "aliases.json").write_bytes(b"{}")
    (path / "models" / "c" / "versions").rmdir()
    before = contents(path)

    ended = run(path, "fsck")

    assert ended.exit_code == 1
    assert lines(ended) == [
        {"model": "a", "what": "model", "fault": "model_corrupt"},
        {"model": "b", "what": "aliases", "fault": "model_corrupt"},
        {"model": "c", "what": "versions", "fault": "model_corrupt"},
        {"model": "iris", "what": "alias champion", "fault": "version_not_found"},
        {"model": "iris", "what": "version 1", "fault": "model_corrupt"},
        {"model": "iris", "what": "version 2", "fault": "model_corrupt"},
    ]
    assert contents(path) == before


def test_collecting_clears_leftovers_and_what_is_too_many(
    path: Path, registry: FileRegistry, version: VersionRecord
) -> None:
    for _ in range(3):
        registry.commit_version(a_draft(registry.get_model("iris"), SMALL_MIXTURE), SMALL_MIXTURE)
    name(registry, "champion", 2)
    (path / ".staging" / "0123").mkdir()
    (path / ".trash" / "4567").mkdir()

    kept_all, kept_two = run(path, "gc"), run(path, "gc", "--keep", "2")

    assert (kept_all.exit_code, kept_all.stdout) == (0, "")
    assert lines(kept_two) == [{"model": "iris", "deleted_versions": [1, 3]}]
    assert [found.number for found in registry.list_versions("iris")] == [2, 4]
    assert not list((path / ".staging").iterdir()) + list((path / ".trash").iterdir())


def test_a_damaged_model_does_not_keep_others_from_being_collected(
    path: Path, registry: FileRegistry, version: VersionRecord
) -> None:
    registry.create_model(a_model("damaged"))
    for model in ("damaged", "damaged", "iris"):
        registry.commit_version(a_draft(registry.get_model(model), SMALL_MIXTURE), SMALL_MIXTURE)
    (path / "models" / "damaged" / "aliases.json").write_bytes(b"{}")

    ended = run(path, "gc", "--keep", "1")

    assert ended.exit_code == 0
    assert lines(ended) == [
        {"model": "damaged", "fault": "model_corrupt"},
        {"model": "iris", "deleted_versions": [1]},
    ]


@pytest.mark.parametrize("command", [["list"], ["fsck"], ["gc"], ["export", "iris", "x"]])
@pytest.mark.parametrize("is_empty", [True, False], ids=["empty", "missing"])
def test_where_there_is_no_registry_it_is_said_and_none_is_made(
    path: Path, command: list[str], *, is_empty: bool
) -> None:
    if is_empty:
        path.mkdir()

    ended = run(path, *command)

    assert ended.exit_code == 2
    assert "There is no registry there" in ended.stderr
    assert contents(path) == set()
    assert path.exists() == is_empty


@pytest.mark.parametrize("is_empty", [True, False], ids=["empty", "missing"])
def test_an_import_makes_the_registry(
    path: Path, version: VersionRecord, tmp_path: Path, *, is_empty: bool
) -> None:
    run(path, "export", "iris", str(tmp_path / "iris.gmm"))
    new = tmp_path / "new"
    if is_empty:
        new.mkdir()

    imported = run(new, "import", str(tmp_path / "iris.gmm"))

    assert (imported.exit_code, lines(imported)) == (0, [{"model": "iris"}])
    assert [found.number for found in FileRegistry(new).list_versions("iris")] == [1]


def test_an_import_of_what_is_no_model_file_makes_nothing(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"x")

    ended = run(tmp_path / "new", "import", str(tmp_path / "x"))

    assert ended.exit_code == 2
    assert not (tmp_path / "new").exists()


def test_a_registry_that_can_not_be_made_is_said_to_be_missing(
    tmp_path: Path, version: VersionRecord, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(path, "export", "iris", str(tmp_path / "iris.gmm"))
    monkeypatch.setattr(durable_files, "os", ReadOnlyDisk())

    ended = run(tmp_path / "new", "import", str(tmp_path / "iris.gmm"))

    assert ended.exit_code == 2
    assert "none can be made" in ended.stderr


def a_rich_model(registry: FileRegistry) -> None:
    """Give ``iris`` four versions of every family, of which one is deleted, and aliases."""
    for number, family in enumerate(FAMILIES, 1):
        mixture = a_mixture(covariance_type=family, n_components=3, n_features=2, seed=number)
        registry.commit_version(a_draft(registry.get_model("iris"), mixture), mixture)
        name(registry, "champion", number)
    name(registry, "champion", 1)
    registry.delete_version("iris", 4)


def test_a_model_is_carried_to_another_registry(
    path: Path, registry: FileRegistry, model: ModelRecord, tmp_path: Path
) -> None:
    a_rich_model(registry)
    other, file = FileRegistry(tmp_path / "other"), tmp_path / "iris.gmm"

    exported = run(path, "export", "iris", str(file))
    imported = run(tmp_path / "other", "import", str(file))
    renamed = run(tmp_path / "other", "import", str(file), "--as", "flowers")

    assert (exported.exit_code, imported.exit_code, renamed.exit_code) == (0, 0, 0)
    assert [record.id for record in other.list_models()] == ["flowers", "iris"]
    assert other.get_aliases("iris") == registry.get_aliases("iris")
    assert list(other.list_versions("iris")) == list(registry.list_versions("iris"))
    for version in other.list_versions("flowers"):
        assert version.model_id == "flowers"
        original = registry.load_mixture(registry.get_version("iris", version.number))
        assert is_same_mixture(other.load_mixture(version), original)
    assert replace(other.get_model("iris"), uid=model.uid) == model
    assert len({record.uid for record in other.list_models()} | {model.uid}) == 3
    draft = a_draft(other.get_model("iris"), SMALL_MIXTURE)
    assert other.commit_version(draft, SMALL_MIXTURE).number == 5  # 4 was given, and is remembered
    assert run(tmp_path / "other", "fsck").exit_code == 0


def test_the_arrays_of_a_model_file_can_be_read_without_this_program(
    path: Path, registry: FileRegistry, version: VersionRecord, tmp_path: Path
) -> None:
    run(path, "export", "iris", str(tmp_path / "iris.gmm"))

    with np.load(tmp_path / "iris.gmm", allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["versions/000001/means"], SMALL_MIXTURE.means)


def test_what_is_there_is_not_written_over(
    path: Path, registry: FileRegistry, version: VersionRecord, tmp_path: Path
) -> None:
    file = tmp_path / "iris.gmm"
    run(path, "export", "iris", str(file))

    ended = [run(path, "export", "iris", str(file)), run(path, "import", str(file))]
    ended += [run(path, "import", str(tmp_path / "none")), run(path, "export", "none", "x")]
    ended.append(run(path, "import", str(file), "--as", "../x"))

    assert [end.exit_code for end in ended] == [2] * 5
    assert [registry.get_version("iris", 1)] == list(registry.list_versions("iris"))
