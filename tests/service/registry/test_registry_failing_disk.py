"""A disk that fails, is full or read-only: named refusals, and nothing acknowledged is lost."""

import errno
import itertools
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from service.adapters import durable_files
from service.adapters.artifact import artifact_of
from service.adapters.registry_files import FileRegistry
from service.domain.records import ModelRecord, VersionRecord
from service.errors import NotFound, ServiceError, StorageFull
from tests.support.disks import WatchedDisk, failing_with, inodes_under
from tests.support.records import SMALL_MIXTURE, a_draft, a_mixture, a_model, is_same_mixture
from tests.support.registries import code_of

PAGE_BYTES = 4096

Verb = Callable[[FileRegistry], object]


def name_champion(registry: FileRegistry) -> object:
    return registry.update_aliases(
        "iris", lambda book: book.with_alias(book.alias("champion").moved("set", 1))
    )


def verbs_of(model: ModelRecord) -> dict[str, Verb]:
    new = a_model("new")
    return {
        "create": lambda registry: registry.create_model(new),
        "replace": lambda registry: registry.replace_model(model.updated(description="new")),
        "name": name_champion,
        "commit": lambda registry: registry.commit_version(
            a_draft(model, SMALL_MIXTURE), SMALL_MIXTURE
        ),
        "delete version": lambda registry: registry.delete_version("iris", 1),
        "delete model": lambda registry: registry.delete_model("iris"),
    }


def state_of(path: Path) -> object:
    registry = FileRegistry(path)
    models = list(registry.list_models())
    return [(model, list(registry.list_versions(model.id))) for model in models]


@pytest.mark.parametrize(
    ("verb", "error", "code_of_error"),
    [
        ("create", errno.EIO, "storage_failed"),
        ("replace", errno.EIO, "storage_failed"),
        ("name", errno.EIO, "storage_failed"),
        ("commit", errno.EIO, "storage_failed"),
        ("commit", errno.ENOSPC, "storage_full"),
        ("commit", errno.EROFS, "registry_read_only"),
        ("delete version", errno.EIO, "storage_failed"),
        ("delete model", errno.EIO, "storage_failed"),
    ],
)
def test_a_failing_call_to_the_disk_is_a_named_refusal_and_leaves_the_old_state_or_the_new(
    tmp_path: Path, verb: str, error: int, code_of_error: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fail each open, mkdir, write, fsync, rename and unlink of the verb in turn."""
    for fail_at in itertools.count(1):
        path = tmp_path / str(fail_at)
        registry, model = FileRegistry(path), a_model()
        registry.create_model(model)
        registry.commit_version(a_draft(model, SMALL_MIXTURE), SMALL_MIXTURE)
        before = state_of(path)
        disk = WatchedDisk(at=fail_at, disturb=failing_with(error))
        with monkeypatch.context() as patch:
            patch.setattr(durable_files, "os", disk)
            code = code_of(lambda: verbs_of(model)[verb](registry))  # noqa: B023 - called at once
        after = state_of(path)
        assert code in {"done", code_of_error}, f"call {fail_at}"
        if verb in {"create", "commit"}:
            assert (after == before) == (code != "done"), f"call {fail_at}"
        assert list((path / ".staging").iterdir()) == list((path / ".trash").iterdir()) == []
        with suppress(ServiceError):
            assert registry.commit_version(a_draft(model, SMALL_MIXTURE), SMALL_MIXTURE).number >= 2
        if disk.is_undisturbed:
            assert code == "done"
            break
    assert fail_at > 5


@pytest.mark.parametrize(
    "verb", ["create", "replace", "name", "commit", "delete version", "delete model"]
)
def test_when_a_change_is_acknowledged_a_power_cut_takes_nothing_of_it(
    path: Path,
    registry: FileRegistry,
    version: VersionRecord,
    verb: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = registry.get_model("iris")
    disk = WatchedDisk()
    at_risk_when_renamed: set[int] = set()
    disk.before_rename = lambda source: at_risk_when_renamed.update(
        inodes_under(source) & disk.at_risk
    )
    with monkeypatch.context() as patch:
        patch.setattr(durable_files, "os", disk)
        verbs_of(model)[verb](registry)
    assert at_risk_when_renamed == set(), "something was renamed before it was on the disk"
    assert inodes_under(path / "models") & disk.at_risk == set()


def reads_of(model: ModelRecord, version: VersionRecord) -> dict[str, tuple[Verb, object]]:
    """Return verbs that read, each with what it answers while the model is there."""
    return {
        "get": (lambda registry: registry.get_model("iris"), model),
        "list": (lambda registry: registry.list_models(), [model]),
        "latest": (lambda registry: registry.latest_version("iris"), version),
        "all": (lambda registry: registry.list_versions("iris"), [version]),
        "load": (lambda registry: registry.read_artifact(version), artifact_of(SMALL_MIXTURE).data),
    }


@pytest.mark.parametrize("verb", ["get", "list", "latest", "all", "load"])
def test_what_is_read_while_its_model_is_deleted_is_whole_or_not_found(
    path: Path, registry: FileRegistry, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Delete the model before each call to the disk in turn."""
    for moment in itertools.count(1):
        model = a_model()
        registry.create_model(model)
        version = registry.commit_version(a_draft(model, SMALL_MIXTURE), SMALL_MIXTURE)
        read, whole = reads_of(model, version)[verb]
        disk = WatchedDisk(at=moment, disturb=lambda: FileRegistry(path).delete_model("iris"))
        with monkeypatch.context() as patch:
            patch.setattr(durable_files, "os", disk)
            try:
                answer = read(registry)
            except NotFound:
                answer = "not found"
        gone = [] if verb == "list" else "not found"
        assert answer in (whole, gone), f"moment {moment}"
        if disk.is_undisturbed:
            break
        assert list(registry.list_models()) == []
    assert answer == whole
    assert moment > 3


def test_without_room_nothing_is_begun(path: Path, registry: FileRegistry) -> None:
    full = FileRegistry(path, min_free_bytes=2**60)
    with pytest.raises(StorageFull) as refusal:
        full.create_model(a_model())
    assert refusal.value.code == "storage_full"
    assert f"{2**60} bytes of its disk are kept free" in refusal.value.detail
    assert list(registry.list_models()) == []


def test_room_is_told_apart_from_none_before_there_is_a_version(
    path: Path, registry: FileRegistry
) -> None:
    FileRegistry(path, min_free_bytes=0).require_room()
    registry.require_room()
    with pytest.raises(StorageFull) as refusal:
        FileRegistry(path, min_free_bytes=2**60).require_room()
    assert refusal.value.code == "storage_full"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Give a disk of 256 KiB; needs the right to mount."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:  # noqa: S603, PLW1510 - fixed words; the answer is the return code
        pytest.skip("mounting a small disk is not permitted here")
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)  # noqa: S603, S607 - as above


def test_a_full_disk_is_said_and_what_is_stored_is_served(small_disk: Path) -> None:
    registry = FileRegistry(small_disk / "registry", min_free_bytes=0)
    model = a_model()
    registry.create_model(model)
    version = registry.commit_version(a_draft(model, SMALL_MIXTURE), SMALL_MIXTURE)
    (small_disk / "filler").write_bytes(bytes(os.statvfs(small_disk).f_bavail * 4096 - 4096))
    large = a_mixture(n_components=4, n_features=8)
    changes: list[Callable[[], object]] = [
        lambda: registry.commit_version(a_draft(model, large), large),
        lambda: registry.commit_version(a_draft(model, SMALL_MIXTURE), SMALL_MIXTURE),
    ]
    assert [code_of(change) for change in changes] == ["storage_full"] * 2
    assert is_same_mixture(registry.load_mixture(version), SMALL_MIXTURE)
    assert list((small_disk / "registry" / ".staging").iterdir()) == []
    (small_disk / "filler").unlink()
    assert registry.commit_version(a_draft(model, large), large).number == 2


def test_a_disk_that_is_full_to_the_last_page_or_the_one_before_loses_nothing(
    small_disk: Path,
) -> None:
    """Leave no page free, then one, then two …, until every change finds room."""
    model, mixture = a_model(), a_mixture(n_components=4, n_features=8)
    for n_pages in itertools.count():
        shutil.rmtree(small_disk / "registry", ignore_errors=True)
        registry = FileRegistry(small_disk / "registry", min_free_bytes=0)
        registry.create_model(model)
        registry.commit_version(a_draft(model, SMALL_MIXTURE), SMALL_MIXTURE)
        before = state_of(small_disk / "registry")
        n_free = os.statvfs(small_disk).f_bavail
        (small_disk / "filler").write_bytes(bytes(max(0, n_free - n_pages) * PAGE_BYTES))
        codes = [
            code_of(lambda: registry.commit_version(a_draft(model, mixture), mixture)),  # noqa: B023 - called at once
            code_of(lambda: name_champion(registry)),  # noqa: B023 - as above
        ]
        (small_disk / "filler").unlink()
        assert set(codes) <= {"done", "storage_full"}
        assert (state_of(small_disk / "registry") == before) == (codes[0] != "done")
        assert registry.get_aliases("iris").targets == (
            {"champion": 1} if codes[1] == "done" else {}
        )
        assert list((small_disk / "registry" / ".staging").iterdir()) == []
        if codes == ["done", "done"]:
            break
    assert n_pages > 2


def test_a_read_only_disk_is_said_and_what_is_stored_is_served(small_disk: Path) -> None:
    registry = FileRegistry(small_disk / "registry", min_free_bytes=0)
    model = a_model()
    registry.create_model(model)
    version = registry.commit_version(a_draft(model, SMALL_MIXTURE), SMALL_MIXTURE)
    remount = ["mount", "-o", "remount,ro", str(small_disk)]
    subprocess.run(remount, check=True)  # noqa: S603 - fixed words
    reopened = FileRegistry(small_disk / "registry", min_free_bytes=0)
    for opened in (registry, reopened):
        changes = [partial_verb(opened, verb) for verb in verbs_of(model).values()]
        assert [code_of(change) for change in changes] == ["registry_read_only"] * len(changes)
        assert code_of(opened.check_usable) == "registry_read_only"
        assert is_same_mixture(opened.load_mixture(version), SMALL_MIXTURE)
        assert list(opened.list_models()) == [model]


def partial_verb(registry: FileRegistry, verb: Verb) -> Callable[[], object]:
    return lambda: verb(registry)
