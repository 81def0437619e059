"""Commit versions from a process of its own; print the number of each once it is acknowledged.

``python -m tests.support.committer DIRECTORY MODEL COUNT``
"""

import sys
from pathlib import Path

from service.adapters.registry_files import FileRegistry
from tests.support.records import a_draft, a_mixture


def main(directory: str, model_id: str, count: str) -> None:
    registry = FileRegistry(Path(directory))
    model = registry.get_model(model_id)
    mixture = a_mixture()
    print("ready", flush=True)  # noqa: T201 - the parent listens
    for _ in range(int(count)):
        version = registry.commit_version(a_draft(model, mixture), mixture)
        print(version.number, flush=True)  # noqa: T201 - the parent listens


if __name__ == "__main__":
    main(*sys.argv[1:])
