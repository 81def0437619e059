"""The count of a crash experiment: what was lost, torn or made up; printed as one line.

The cycles of an experiment follow from its seed, so that a long one may be run in parts.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from service.errors import ServiceError
from tests.crash.ledger import Change, Expected, State, after


@dataclass(frozen=True, slots=True)
class Told:
    """What somebody who changed a registry knows at the end."""

    acknowledged: State
    n_acknowledged: int
    pending: Change | None
    """Asked and not acknowledged: it may have happened or not, wholly."""

    @property
    def possible(self) -> list[State]:
        if self.pending is None:
            return [self.acknowledged]
        return [self.acknowledged, after(self.acknowledged, self.pending)]


@dataclass(slots=True)
class Report:
    what: str
    cycles: int = 0
    acknowledged: int = 0
    faults: Counter[str] = field(default_factory=Counter)

    def judged(self, told: Told, look: Callable[[], State]) -> State:
        """Hold what is there against what was told; return the state to go on from."""
        self.acknowledged += told.n_acknowledged
        try:
            there = look()
        except (AssertionError, ServiceError):
            self.faults["torn"] += 1
            return told.acknowledged
        for possible in told.possible:
            if there == possible:
                return possible
        self.faults[kind_of_fault(there, told.possible)] += 1
        return _numbered(there, told.acknowledged)

    def hold(self, holds: bool, fault: str) -> None:
        if not holds:
            self.faults[fault] += 1

    @property
    def is_clean(self) -> bool:
        return not self.faults

    def line(self) -> str:
        return json.dumps(
            {
                "what": self.what,
                "cycles": self.cycles,
                "acknowledged": self.acknowledged,
                "violations": dict(self.faults) or 0,
            }
        )

    def finish(self) -> None:
        print(self.line())  # noqa: T201 - the figure
        sys.exit(not self.is_clean)


def command_line(description: str | None, *, cycles: int) -> argparse.ArgumentParser:
    """Return what reads how many cycles to run, ``cycles`` unless told, and from which seed."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("cycles", type=int, nargs="?", default=cycles)
    parser.add_argument("--seed", type=int, default=0)
    return parser


def kind_of_fault(there: State, possible: list[State]) -> str:
    """Say whether something acknowledged is missing, or something is there that nobody asked."""
    is_lost = all(
        any(not _holds(there, name, model) for name, model in state.items()) for state in possible
    )
    return "lost" if is_lost else "phantom"


def _holds(there: State, name: str, model: Expected) -> bool:
    kept = there.get(name)
    return (
        kept is not None
        and model.versions.items() <= kept.versions.items()
        and (model.description, model.champion) == (kept.description, kept.champion)
    )


def _numbered(there: State, known: State) -> State:
    """Give what was found the numbers that it may have given: nothing that was lost tells them."""
    return {
        name: replace(
            model,
            last_number=max(
                [known[name].last_number if name in known else 0, *model.versions], default=0
            ),
        )
        for name, model in there.items()
    }
