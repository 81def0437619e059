"""The search over a grid of candidates, numbers of components by families, that share starts.

Besides the fresh starts of a fit, each candidate is begun from its neighbours: from the same family
with fewer components by splitting one of them, with more by merging two, and from the other
families with as many. So a family that contains another never ends below it, nor a number of
components below a smaller one, unless one of the two has collapsed. The search goes by rounds: the
tasks of one depend on what the rounds before have found and not on each other, so that several
workers may share them, and find the same as one. Which candidate wins is ``selection``'s to say.
"""

import math
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from gmm_engine.bench import Bench, HeldOut, Outcome, Place, Task, is_degenerate
from gmm_engine.errors import GmmEngineError
from gmm_engine.fitting import FitOptions, FitResult, FitWarning, StepCallback
from gmm_engine.grid import Grid, Key, Origin
from gmm_engine.samples import Samples

SEED_BITS = 32
MAX_ROUNDS = 24
"""How often neighbours are begun from at the most, as long as candidates get better."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One line of the table; one that failed has the reason in place of a result."""

    key: Key
    origin: Origin = Origin.FRESH
    result: FitResult | None = None
    held_out: HeldOut | None = None
    failure: GmmEngineError | None = None

    @property
    def is_degenerate(self) -> bool:
        """Tell whether the likelihood means less than that of other candidates.

        A component has collapsed, or nearly, here or in a fold that was held out; or the data is
        flat, and with correlations the variance floor decides.
        """
        if self.result is None:
            return False
        codes = {warning.code for warning in self.result.warnings}
        return is_degenerate(self.result) or "collinear_features" in codes


CandidateCallback = Callable[[Candidate], None]
Spread = Callable[[Sequence[Task], Callable[[Task], Outcome]], Iterator[tuple[Task, Outcome]]]
"""Does tasks, by the function given or by a ``Bench`` elsewhere, and yields what came of each."""


def one_by_one(
    tasks: Sequence[Task], do: Callable[[Task], Outcome]
) -> Iterator[tuple[Task, Outcome]]:
    for task in tasks:
        yield task, do(task)


class Sweep:
    """The candidates found so far, and the ways to better ones."""

    def __init__(
        self,
        samples: Samples,
        grid: Grid,
        options: FitOptions,
        *,
        on_candidate: CandidateCallback | None = None,
        on_step: StepCallback | None = None,
        deadline: float = math.inf,
        should_end: Callable[[], bool] | None = None,
        spread: Spread = one_by_one,
    ) -> None:
        if options.random_state is None:
            options = replace(options, random_state=secrets.randbits(SEED_BITS))
        self._bench = Bench(
            samples, options, on_step=on_step, deadline=deadline, should_end=should_end
        )
        self._grid = grid
        self._on_candidate = on_candidate
        self._spread = spread
        self._found: dict[Key, Candidate] = {}
        self._begun_from: dict[tuple[Key, Key], FitResult] = {}
        """By candidate and neighbour: what the neighbour was like when it was last begun from."""
        self.is_complete = True
        """False once something was left out because the time was up."""

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        return tuple(self._found[key] for key in self._grid.keys if key in self._found)

    def run(self) -> None:
        """Fit every candidate, then better them by their neighbours until nothing changes."""
        first, *others = self._grid.keys
        self._take(Task(first), self._bench.do(Task(first), is_needed=True))
        self._do([Task(key) for key in others])
        for _ in range(MAX_ROUNDS):
            if not self.is_complete:
                return
            tasks = [task for key in self._grid.keys if (task := self._betterment(key)).near]
            if not tasks:
                return
            self._do(tasks)

    def cross_validate(self, n_folds: int) -> None:
        """Find for every candidate how well it describes rows that it has not seen."""
        if self.is_complete:
            fitted = [found.key for found in self.candidates if found.result is not None]
            self._do([Task(key, n_folds=n_folds) for key in fitted])

    def _betterment(self, key: Key) -> Task:
        """Return the task to begin a candidate from each neighbour that has changed."""
        near = []
        for origin, neighbour in self._grid.neighbours(key):
            result = self._found[neighbour].result
            if result is None or is_degenerate(result):
                continue
            if self._begun_from.get((key, neighbour)) is not result:
                self._begun_from[key, neighbour] = result
                near.append((origin, Place.of(result)))
        found = self._found[key].result
        return Task(key, None if found is None else Place.of(found), near)

    def _do(self, tasks: Sequence[Task]) -> None:
        for task, outcome in self._spread(tasks, self._bench.do):
            self._take(task, outcome)

    def _take(self, task: Task, outcome: Outcome) -> None:
        self.is_complete &= not outcome.is_late
        key, known = task.key, self._found.get(task.key)
        if outcome.result is not None:
            self._report(Candidate(key, outcome.origin, outcome.result))
        elif outcome.failure is not None:
            self._report(Candidate(key, failure=outcome.failure))
        elif outcome.held_out is not None and known is not None:
            self._report(_cross_validated(known, outcome.held_out))

    def _report(self, candidate: Candidate) -> None:
        self._found[candidate.key] = candidate
        if self._on_candidate is not None:
            self._on_candidate(candidate)


def _cross_validated(candidate: Candidate, held_out: HeldOut) -> Candidate:
    """Return the candidate with what came of it, and named where that means little."""
    result = candidate.result
    if result is not None and held_out.n_collapsed:
        warning = FitWarning(
            "degenerate_fold",
            "fitted without the rows that are held out a component collapses, in "
            f"{held_out.n_collapsed} folds; a selection prefers candidates whose folds are healthy",
        )
        result = replace(result, warnings=(*result.warnings, warning))
    return replace(candidate, result=result, held_out=held_out)
