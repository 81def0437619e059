"""Print the part of requirements.lock that the base install, or some extras, need.

    python .ci/lock_subset.py            what the service itself needs
    python .ci/lock_subset.py build      what the extra `build` needs

There is one lock. The image must not carry the tests' packages, and pip takes hashes only from
the requirements it is given, so the image is given a subset of the lock: what can be reached
from the wanted names over the lock's own `# via` notes. Standard library only: it runs before
anything is installed.
"""

import re
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
PROJECT = "gmm-service"


def wanted_names(pyproject: Path, extras: Iterable[str]) -> set[str]:
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    groups = [project["optional-dependencies"][extra] for extra in extras]
    return {
        name_of(requirement)
        for group in groups or [project["dependencies"]]
        for requirement in group
    }


def name_of(requirement: str) -> str:
    match = NAME.match(requirement)
    if match is None:
        raise SystemExit(f"not a requirement: {requirement!r}")
    return re.sub(r"[-_.]+", "-", match[0]).lower()


def entries_of(lock: str) -> list[str]:
    """Split at the lines that start a package; one name may have one entry per Python version."""
    return [entry for entry in re.split(r"(?m)^(?=[A-Za-z0-9])", lock) if entry.strip()]


def dependants_of(entry: str) -> set[str]:
    notes = re.findall(r"(?m)^    #(?: via)? +([A-Za-z0-9][A-Za-z0-9._-]*)", entry)
    return {name_of(note) for note in notes} - {PROJECT, "via"}


def subset(entries: list[str], wanted: set[str]) -> list[str]:
    reached = set(wanted)
    grown = True
    while grown:
        more = {name_of(entry) for entry in entries if dependants_of(entry) & reached}
        grown = not more <= reached
        reached |= more
    return [entry for entry in entries if name_of(entry) in reached]


def main() -> None:
    entries = entries_of((ROOT / "requirements.lock").read_text(encoding="utf-8"))
    wanted = wanted_names(ROOT / "pyproject.toml", sys.argv[1:])
    missing = wanted - {name_of(entry) for entry in entries}
    if missing:
        raise SystemExit(f"not in requirements.lock, run `make lock`: {sorted(missing)}")
    sys.stdout.write("".join(subset(entries, wanted)))


if __name__ == "__main__":
    main()
