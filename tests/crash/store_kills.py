"""Kill a process that changes a registry, again and again, and look at what is left each time.

``python -m tests.crash.store_kills [CYCLES] [--seed SEED]``
"""

import tempfile
import time
from pathlib import Path
from random import Random

from service.adapters.registry_files import FileRegistry
from tests.crash.ledger import State, found
from tests.crash.report import Report, command_line
from tests.crash.victims import changing

LONGEST_LIFE_SECONDS = 0.15


def main(cycles: int, *, seed: int = 0) -> Report:
    rng, report = Random(seed), Report("kill -9 of the store")
    state: State = {}
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "registry"
        for _ in range(cycles):
            state = _one(path, state, rng, report)
    return report


def _one(path: Path, state: State, rng: Random, report: Report) -> State:
    victim = changing(FileRegistry(path), state, Random(rng.random()))
    time.sleep(rng.uniform(0, LONGEST_LIFE_SECONDS))
    victim.kill()
    told = victim.told(state)
    report.cycles += 1
    reopened = FileRegistry(path)
    state = report.judged(told, lambda: found(reopened))
    report.hold(not list((path / ".staging").iterdir()), "a leftover in .staging")
    report.hold(not list((path / ".trash").iterdir()), "a leftover in .trash")
    return state


if __name__ == "__main__":
    words = command_line(__doc__, cycles=100).parse_args()
    main(words.cycles, seed=words.seed).finish()
