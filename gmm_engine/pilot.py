"""A pilot: what a fit will take, found by beginning it and leaving off soon.

What steps cost is in ``costs``; how many a fit takes is up to its data. So the fit is begun as it
would be, for a moment. If it ends, all is known. If not, its pace is known, and another fit of a
few of the rows tells about how many steps there are to the end: the rate of EM belongs to the
mixture more than to the number of rows. Where even one step takes too long, the costs must do.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from gmm_engine.costs import Clock, Costs, Work, expected_work, most_work
from gmm_engine.em import EMStep
from gmm_engine.errors import GmmEngineError
from gmm_engine.fitting import FINAL_STEPS, FitOptions, fit, n_start_rows
from gmm_engine.initialization import INITIALIZERS
from gmm_engine.samples import Samples

PILOT_SECONDS, FEW_SECONDS = 0.15, 0.25
"""What the two fits of a pilot may take: of all rows, and of few."""
LONGEST_STEP_SECONDS = 0.02
"""A fit is begun on so many rows that a step takes no longer, for it can't be left in between."""
FEW_ROWS = 2000
"""Of the fit that tells how many steps there are to the end."""
LEAST_ROWS = 500
"""On fewer, unless there are no more, the pace says little."""
LEAST_STEPS = 2
"""That a run takes on all rows once it has converged on a part."""
STILL_AHEAD = 2
"""What has not ended yet is taken to be half done."""

ENDED, COUNTED, FORETOLD, TYPICAL = 1.5, 2.0, 4.0, 20.0
"""Factors that hardly any fit is off by: the pilot took the whole fit; the number of steps is
given; it is foretold from what the pilot saw; it is what is typical."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a fit is expected to take."""

    work: Work
    seconds: float
    seconds_at_most: float
    """Were every step taken that the options allow."""
    uncertainty: float
    """Factor, upwards and downwards, that ``seconds`` may well be off by."""


def forecast(
    X: ArrayLike,
    options: FitOptions,
    *,
    costs: Costs,
    sample_weight: ArrayLike | None = None,
    clock: Clock = time.perf_counter,
) -> Forecast:
    """Say what a fit of these rows will take; does so in half a second at the most.

    Raises
    ------
    InvalidDataError
        One of its kinds, as ``fit`` does.
    """
    samples = Samples.checked(X, sample_weight)
    n_rows = _rows_to_begin_with(samples, options, costs)
    if n_rows is not None:
        try:
            return _Pilot(samples, options, costs, clock).forecast(n_rows)
        except GmmEngineError:
            # The fit itself may have another seed, or more rows to hold its covariances up.
            pass
    return _modelled(samples, options, costs)


def _modelled(samples: Samples, options: FitOptions, costs: Costs) -> Forecast:
    work = expected_work(options, samples.n_rows, samples.n_features)
    most = most_work(options, samples.n_rows, samples.n_features)
    return Forecast(
        work=work,
        seconds=costs.seconds(work, options, samples.n_features),
        seconds_at_most=costs.seconds(most, options, samples.n_features),
        uncertainty=TYPICAL if options.tol > 0.0 else FORETOLD,
    )


def _rows_to_begin_with(samples: Samples, options: FitOptions, costs: Costs) -> int | None:
    """Return on how many rows starts and steps are short enough for a pilot, if on any."""
    n_rows, least = samples.n_rows, max(LEAST_ROWS, 20 * options.n_components)
    while not _are_short(n_rows, options, samples.n_features, costs):
        n_rows //= 2
        if n_rows < least:
            return None
    return n_rows


def _are_short(n_rows: int, options: FitOptions, n_features: int, costs: Costs) -> bool:
    part_rows = min(n_rows, n_start_rows(options, n_features))
    return (
        costs.seconds_of_step(n_rows, options, n_features) <= LONGEST_STEP_SECONDS
        and costs.seconds_of_start(part_rows, options, n_features) <= PILOT_SECONDS
    )


@dataclass(frozen=True, slots=True)
class _Tally:
    """What one restart has done."""

    starts: float = 0
    part_steps: float = 0
    """Those that compare starts."""
    steps: float = 0
    """Those of the run that is carried on."""

    def __add__(self, other: "_Tally") -> "_Tally":
        return _Tally(
            self.starts + other.starts,
            self.part_steps + other.part_steps,
            self.steps + other.steps,
        )

    def times(self, factor: float) -> "_Tally":
        return _Tally(self.starts * factor, self.part_steps * factor, self.steps * factor)


class _Watch:
    """Counts the steps of a fit, restart by restart."""

    def __init__(self, samples: Samples, options: FitOptions) -> None:
        self._n_rows = samples.n_rows
        part_rows = n_start_rows(options, samples.n_features)
        self.tries_on_part = part_rows < samples.n_copies
        self._n_compared = FINAL_STEPS if len(INITIALIZERS[options.init_params]) > 1 else 0
        self.restarts: list[_Tally] = []
        self._at_end: _Tally | None = None

    @property
    def seen(self) -> _Tally:
        """What the last restart had done when it was told to end.

        It still takes a step or two of the best start so far, whose time was not to come yet.
        """
        return self.restarts[-1] if self._at_end is None else self._at_end

    def should_end(self, *, is_late: bool) -> bool:
        if is_late and self._at_end is None:
            self._at_end = self.restarts[-1]
        return is_late

    def on_step(self, step: EMStep) -> None:
        if step.restart == len(self.restarts):
            self.restarts.append(_Tally())
        self.restarts[-1] = self.restarts[-1] + self._counted(step)

    def _counted(self, step: EMStep) -> _Tally:
        if self.tries_on_part:
            is_of_part = step.n_rows < self._n_rows
        else:
            is_of_part = step.iteration <= self._n_compared
        is_start = is_of_part and step.iteration == 0
        return _Tally(starts=is_start, part_steps=is_of_part, steps=not is_of_part)


@dataclass(frozen=True, slots=True)
class _Begun:
    """A fit that was begun: how far it came, and in what time."""

    restarts: Sequence[_Tally]
    last: _Tally
    """Of the last restart, what it had done before it was cut off."""
    seconds: float
    pace: float
    """Seconds by those that the costs say."""
    is_over: bool
    tries_on_part: bool

    @property
    def whole(self) -> _Tally | None:
        """What a restart takes on the average, if one has ended."""
        ended = self.restarts if self.is_over else self.restarts[:-1]
        return sum(ended, start=_Tally()).times(1 / len(ended)) if ended else None


@dataclass(frozen=True, slots=True)
class _Pilot:
    """What the fits of a pilot have in common."""

    samples: Samples
    """All rows."""
    options: FitOptions
    costs: Costs
    clock: Clock

    def forecast(self, n_rows: int) -> Forecast:
        """Begin the fit on so many of the rows."""
        is_whole, rng = n_rows == self.samples.n_rows, np.random.default_rng(0)
        rows = self.samples if is_whole else self.samples.drawn(n_rows, rng)
        begun = self._begun(rows, self.options, PILOT_SECONDS)
        if begun.is_over and is_whole:
            work = self._work(sum(begun.restarts, start=_Tally()), n_rows)
            return Forecast(
                work, begun.seconds, max(begun.seconds, self._at_most(begun.pace)), ENDED
            )
        restart, pace = begun.whole, begun.pace
        if restart is None:
            restart, pace = self._foretold(begun, rows, rng)
        restart = self._on_all_rows(restart, tried_on_part=begun.tries_on_part)
        work = self._work(restart.times(self.options.n_init), self.samples.n_rows)
        seconds = max(self._seconds(work, pace), begun.seconds * is_whole)
        return Forecast(
            work=work,
            seconds=seconds,
            seconds_at_most=max(seconds, self._at_most(pace)),
            uncertainty=FORETOLD if self.options.tol > 0.0 else COUNTED,
        )

    def _begun(self, rows: Samples, options: FitOptions, most_seconds: float) -> _Begun:
        watch, began = _Watch(rows, options), self.clock()
        fit(
            rows.X,
            options,
            sample_weight=rows.weight,
            on_step=watch.on_step,
            should_end=lambda: watch.should_end(is_late=self.clock() - began > most_seconds),
        )
        seconds = self.clock() - began
        work = self._work(sum(watch.restarts, start=_Tally()), rows.n_rows)
        return _Begun(
            watch.restarts,
            watch.seen,
            seconds,
            pace=seconds / self._seconds(work, 1.0),
            is_over=seconds <= most_seconds,
            tries_on_part=watch.tries_on_part,
        )

    def _foretold(
        self, begun: _Begun, rows: Samples, rng: np.random.Generator
    ) -> tuple[_Tally, float]:
        """Tell what a restart will take that was cut off, and the pace of it."""
        seen, pace = begun.last, begun.pace
        guess = seen.times(STILL_AHEAD)
        if rows.n_rows >= STILL_AHEAD * FEW_ROWS:
            one = replace(self.options, n_init=1)
            other = self._begun(rows.drawn(FEW_ROWS, rng), one, FEW_SECONDS)
            guess = other.whole or other.last.times(STILL_AHEAD)
            # The first kinds of starts are the quickest to go on from.
            pace = pace if seen.steps else max(pace, other.pace)
        steps = guess.steps if guess.steps > seen.steps else STILL_AHEAD * seen.steps
        compared = seen if seen.steps else self._compared(seen, guess)
        return replace(compared, steps=steps), pace

    def _compared(self, seen: _Tally, guess: _Tally) -> _Tally:
        """Tell how many starts are compared, and in how many steps, where not all were seen.

        Few rows agree on the best start sooner, so this is between them and what is typical.
        """
        typical = expected_work(self.options, 1, 1).part_steps / self.options.n_init
        between = math.sqrt(typical * guess.part_steps)
        return guess.times(max(between, seen.part_steps) / guess.part_steps)

    def _on_all_rows(self, restart: _Tally, *, tried_on_part: bool) -> _Tally:
        """Return what it takes where starts are compared on a part, and never too much."""
        one = replace(self.options, n_init=1)
        most = most_work(one, self.samples.n_rows, self.samples.n_features)
        steps = restart.steps
        if self.samples.n_rows > most.part_rows and not tried_on_part:
            steps = max(steps, LEAST_STEPS) + 1
        return _Tally(
            starts=min(restart.starts, most.starts),
            part_steps=min(restart.part_steps, most.part_steps),
            steps=min(steps, most.steps) if self.options.tol > 0.0 else most.steps,
        )

    def _work(self, tally: _Tally, n_rows: int) -> Work:
        return Work(
            starts=round(tally.starts),
            part_rows=min(n_rows, n_start_rows(self.options, self.samples.n_features)),
            part_steps=round(tally.part_steps),
            rows=n_rows,
            steps=round(tally.steps),
        )

    def _seconds(self, work: Work, pace: float) -> float:
        return pace * self.costs.seconds(work, self.options, self.samples.n_features)

    def _at_most(self, pace: float) -> float:
        most = most_work(self.options, self.samples.n_rows, self.samples.n_features)
        return self._seconds(most, pace)
