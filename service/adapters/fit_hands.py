"""How the workers share a selection: one leads it and hands tasks to those that have nothing to do.

The leader works too. A task that a helper fails at, dies over or leaves is done by the leader, so
that the table depends on nobody's help.
"""

import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence

import gmm_engine
from gmm_engine.bench import Bench, Outcome, Place, Task
from gmm_engine.sweep import Spread
from service.adapters.fit_protocol import (
    Chore,
    Done,
    Hand,
    Near,
    PlaceHead,
    ProtocolError,
    Wire,
)
from service.adapters.fit_results import (
    head_of_mixture,
    head_of_result,
    receive_mixture,
    receive_result,
    send_arrays,
    send_result_arrays,
)

WATCH_SECONDS = 0.05
"""How often a leader that waits for its helpers looks whether the search is to end."""
GONE = (EOFError, OSError, ProtocolError)
"""What a wire to another worker may end with."""


class Hands:
    """The leader's side: the tasks of a round, and who does them."""

    def __init__(self, *, n_features: int, most_steps: int) -> None:
        self._n_features = n_features
        self._most_steps = most_steps
        self._changed = threading.Condition()
        self._waiting: deque[Task] = deque()
        self._returned: deque[Task] = deque()
        """What a helper could not do."""
        self._finished: deque[tuple[Task, Outcome]] = deque()
        self._wires: set[Wire] = set()
        self._has_ended = False

    def welcome(self, hand: Hand, file: int) -> None:
        """Let another worker help from now on."""
        wire = Wire(socket.socket(fileno=file))
        with self._changed:
            if self._has_ended:
                wire.close()
                return
            self._wires.add(wire)
            gmm_engine.set_thread_count(hand.n_threads)
        threading.Thread(target=self._lead, args=(wire,), daemon=True).start()

    def end(self) -> None:
        """Let the helpers go."""
        with self._changed:
            self._has_ended = True
            for wire in self._wires:
                wire.hang_up()
            self._changed.notify_all()

    def shared(self, is_over: Callable[[], bool]) -> Spread:
        """Return what spreads tasks; ``is_over`` tells when helpers are to leave theirs undone."""

        def spread(
            tasks: Sequence[Task], do: Callable[[Task], Outcome]
        ) -> Iterator[tuple[Task, Outcome]]:
            with self._changed:
                self._waiting.extend(tasks)
                self._changed.notify_all()
            for _ in tasks:
                yield self._next(do, is_over)

        return spread

    def _next(
        self, do: Callable[[Task], Outcome], is_over: Callable[[], bool]
    ) -> tuple[Task, Outcome]:
        """Return what a helper has finished, or do a task."""
        while True:
            with self._changed:
                if self._finished:
                    return self._finished.popleft()
                own = self._returned or self._waiting
                task = own.popleft() if own else None
                if task is None:
                    self._changed.wait(WATCH_SECONDS)
            if task is not None:
                return task, do(task)
            if is_over():
                self.end()

    def _lead(self, wire: Wire) -> None:
        """Hand one task after another to a helper, the largest first."""
        task: Task | None = None
        try:
            while (task := self._handed()) is not None:
                outcome = self._outcome_of(wire, task)
                with self._changed:
                    if outcome is None:
                        self._returned.append(task)
                    else:
                        self._finished.append((task, outcome))
                    self._changed.notify_all()
        except GONE:
            with self._changed:
                if task is not None:
                    self._returned.append(task)
                self._changed.notify_all()
        finally:
            with self._changed:
                self._wires.discard(wire)
            wire.close()

    def _handed(self) -> Task | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._has_ended)
            return None if self._has_ended else self._waiting.pop()

    def _outcome_of(self, wire: Wire, task: Task) -> Outcome | None:
        """Let the helper do it; None where it could not."""
        places = ([] if task.found is None else [task.found]) + [place for _, place in task.near]
        wire.send(
            Chore(
                task.key,
                None if task.found is None else head_of_place(task.found),
                [Near(origin, head_of_place(place)) for origin, place in task.near],
                task.n_folds,
            )
        )
        for place in places:
            send_arrays(wire, place.mixture)
        done = wire.receive()
        if not isinstance(done, Done):
            raise ProtocolError("no answer to a task")
        if done.has_failed:
            return None
        if done.result is None:
            return Outcome(held_out=done.held_out)
        result = receive_result(wire, done.result, self._n_features, most_steps=self._most_steps)
        return Outcome(result, done.origin)


def help_leader(wire: Wire, bench: Bench, n_features: int) -> None:
    """Do tasks until the leader has no more; raises one of ``GONE`` then."""
    while True:
        chore = wire.receive()
        if not isinstance(chore, Chore):
            raise ProtocolError("no task")
        outcome = bench.do(_task_of(wire, chore, n_features))
        result = outcome.result
        wire.send(
            Done(
                outcome.origin,
                None if result is None else head_of_result(result),
                outcome.held_out,
                outcome.failure is not None,
            )
        )
        if result is not None:
            send_result_arrays(wire, result)


def head_of_place(place: Place) -> PlaceHead:
    return PlaceHead(head_of_mixture(place.mixture), place.log_likelihood, place.is_degenerate)


def _task_of(wire: Wire, chore: Chore, n_features: int) -> Task:
    found = None if chore.found is None else _place_of(wire, chore.found, n_features)
    near = [(one.origin, _place_of(wire, one.place, n_features)) for one in chore.near]
    return Task(chore.key, found, near, chore.n_folds)


def _place_of(wire: Wire, head: PlaceHead, n_features: int) -> Place:
    mixture = receive_mixture(wire, head.mixture, n_features)
    return Place(mixture, head.log_likelihood, head.is_degenerate)
