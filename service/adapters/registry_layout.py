"""The registry's directory: its names, its format, its staging and its trash.

registry/                     0700, one file system
  format                      "gmm-registry 1"; an unknown major is refused
  .staging/<uuid>/            what is being made; locked by its maker, never served
  .trash/<uuid>/              what was renamed away; nobody looks at it
  models/<id>/
      model.json              the declared model; replaced in one step
      aliases.json            what aliases name and named; replaced in one step
      versions/000001/        params.joblib and manifest.json, immutable
      versions/000002.deleted keeps the number of a deleted version from being given again

The lock of a model is the lock of its directory; the lock of ``.staging`` keeps a start from
taking a staging directory for a leftover before its maker has locked it.
"""

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from service.adapters import refusals
from service.adapters.durable_files import DIRECTORY_MODE, Directory
from service.adapters.file_cache import is_settled

FORMAT_FILE = "format"
FORMAT_MAJOR = 1
FORMAT_TEXT = f"gmm-registry {FORMAT_MAJOR}\n"
STAGING = ".staging"
TRASH = ".trash"
MODELS = "models"
VERSIONS = "versions"
MODEL_FILE = "model.json"
ALIASES_FILE = "aliases.json"
MANIFEST_FILE = "manifest.json"
PARAMETERS_FILE = "params.joblib"

MAX_VERSION_NUMBER = 999_999_999
MAX_FORMAT_BYTES = 64

_FORMAT = re.compile(r"gmm-registry (\d{1,6})(?:\.\d+)?\n?")
_NUMBERED = re.compile(r"(?P<number>\d{6,9})(?P<tombstone>\.deleted)?")

log = logging.getLogger(__name__)


def prepare(path: Path, *, may_make: bool = True) -> None:
    """Make the directory a registry, or take over what is there; clear what a crash left."""
    is_there = (path / FORMAT_FILE).exists()
    if not (is_there or may_make):
        raise refusals.no_registry()
    with refusals.writing() if is_there else refusals.making(refusals.registry_not_makeable()):
        path.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        with Directory.at(path) as root:
            _settle_format(root)
            for name in (STAGING, TRASH, MODELS):
                root.ensure(name)
            _clear_leftovers(root)


def state_of(path: Path, model_id: str) -> object | None:
    """Return what tells a model with its versions from any other state of theirs, if it is settled.

    Every change renames something into or out of one of these two directories.
    """
    model = f"{path}/{MODELS}/{model_id}"
    try:
        here = os.lstat(model)
        versions = os.lstat(f"{model}/{VERSIONS}")
    except OSError:
        return None
    here_ns, versions_ns = here.st_ctime_ns, versions.st_ctime_ns
    if not is_settled(max(here_ns, versions_ns)):
        return None
    return here.st_ino, here_ns, versions.st_ino, versions_ns


@contextmanager
def staged(root: Directory) -> Iterator[tuple[Directory, str]]:
    """Give a new directory under ``.staging`` and its name; remove it unless it was moved away."""
    name = uuid4().hex
    with root.subdirectory(STAGING) as staging:
        with staging.locked(is_shared=True):
            staging.make(name)
            stage = staging.subdirectory(name)
            stage.claim()
        try:
            with stage:
                yield stage, name
        finally:
            _discard(staging, name)


def publish(root: Directory, staged_name: str, target: Directory, name: str) -> None:
    """Rename a staged directory to its place: it is there wholly, or not at all.

    The place must be free: of several racers one succeeds, the others get an ``OSError``. When
    the name can't be made durable it is taken back.
    """
    with root.subdirectory(STAGING) as staging:
        staging.move(staged_name, target, name)
    try:
        target.sync()
    except OSError:
        with suppress(OSError):
            withdraw(root, target, name)
        raise


def replace_file(stage: Directory, target: Directory, name: str, content: bytes) -> None:
    """Put a file in the place of the one of that name, durably, by way of a staged one."""
    stage.write_new(name, content)
    stage.move(name, target, name)
    target.sync()


def withdraw(root: Directory, parent: Directory, name: str) -> str:
    """Rename a directory into the trash, durably; return its name there."""
    trashed_name = uuid4().hex
    with root.subdirectory(TRASH) as trash:
        parent.move(name, trash, trashed_name)
        parent.sync()
        trash.sync()
    return trashed_name


def empty_trash(root: Directory, name: str) -> None:
    """Remove one thing from the trash; if that fails, the next start does it."""
    with root.subdirectory(TRASH) as trash:
        _discard(trash, name)


def version_name(number: int) -> str:
    return f"{number:06d}"


def version_numbers(versions: Directory) -> list[int]:
    """Return the numbers of the versions that are there, ascending."""
    return sorted(number for number, is_deleted in _numbered(versions) if not is_deleted)


def last_number(versions: Directory) -> int:
    """Return the highest number ever given, 0 if none."""
    return max((number for number, _ in _numbered(versions)), default=0)


def keep_number(versions: Directory, number: int) -> None:
    """Remember, durably, that this number was given, if nothing else would tell."""
    if number < last_number(versions):
        return
    with suppress(FileExistsError):
        versions.write_new(_tombstone_name(number), b"")
    versions.sync()
    for other, is_deleted in _numbered(versions):
        if is_deleted and other < number:
            versions.remove_file(_tombstone_name(other))


def _tombstone_name(number: int) -> str:
    return f"{version_name(number)}.deleted"


def _numbered(versions: Directory) -> list[tuple[int, bool]]:
    matches = map(_NUMBERED.fullmatch, versions.names())
    return [(int(match["number"]), match["tombstone"] is not None) for match in matches if match]


def _settle_format(root: Directory) -> None:
    names = set(root.names())
    if FORMAT_FILE in names:
        _check_format(root)
    elif MODELS in names:
        raise refusals.unknown_format("none")
    else:
        _write_format(root)


def _check_format(root: Directory) -> None:
    data, _ = root.read(FORMAT_FILE, max_bytes=MAX_FORMAT_BYTES)
    match = _FORMAT.fullmatch(data.decode("ascii", errors="replace"))
    if match is None:
        raise refusals.unknown_format("unreadable")
    if int(match[1]) != FORMAT_MAJOR:
        raise refusals.unknown_format(match[0].strip())


def _write_format(root: Directory) -> None:
    root.ensure(STAGING)
    with staged(root) as (stage, _):
        stage.write_new(FORMAT_FILE, FORMAT_TEXT.encode())
        stage.move(FORMAT_FILE, root, FORMAT_FILE)
    root.sync()


def _clear_leftovers(root: Directory) -> None:
    with root.subdirectory(STAGING) as staging, staging.locked():
        for name in staging.names():
            if _is_abandoned(staging, name):
                _discard(staging, name)
    with root.subdirectory(TRASH) as trash:
        for name in trash.names():
            _discard(trash, name)


def _is_abandoned(staging: Directory, name: str) -> bool:
    try:
        with staging.subdirectory(name) as stage:
            return stage.claim()
    except FileNotFoundError:
        return False


def _discard(parent: Directory, name: str) -> None:
    """Remove what nobody looks at; what can't be removed is left to a later start."""
    try:
        parent.remove_tree(name)
    except OSError as error:
        log.warning("leftover_kept", extra={"entry": name, "errno": error.errno})
