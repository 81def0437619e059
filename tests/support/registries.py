"""Looking at registries from outside: what a call was answered, what lies in the directory."""

from collections.abc import Callable
from pathlib import Path

from service.domain.records import VersionRecord
from service.errors import ServiceError


def code_of(call: Callable[[], object]) -> str:
    """Return the code of a refusal, ``done`` when there was none."""
    try:
        call()
    except ServiceError as error:
        return error.code
    return "done"


def contents(path: Path) -> set[str]:
    return {str(entry.relative_to(path)) for entry in path.rglob("*")}


def place_of(path: Path, version: VersionRecord) -> Path:
    return path / "models" / version.model_id / "versions" / f"{version.number:06d}"
