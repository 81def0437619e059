"""Processes that change a registry and tell what they ask and what was acknowledged, until killed.

Victims are forked from a process that has loaded everything, so that a cycle takes milliseconds.
Nothing here may start threads: a fork keeps only one.
"""

import json
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from random import Random
from typing import NoReturn

from service.adapters.registry_files import FileRegistry
from service.errors import ServiceError
from tests.crash.ledger import Change, State, after, drawn, perform
from tests.crash.report import Told

ACKNOWLEDGED = "ok"


@dataclass(frozen=True, slots=True)
class Victim:
    pid: int
    pipe: int

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def told(self, state: State) -> Told:
        """Wait for the victim's end and return what it told, from this state on."""
        with os.fdopen(self.pipe) as pipe:
            lines = pipe.read().splitlines()
        os.waitpid(self.pid, 0)
        n_acknowledged, pending = 0, None
        for line in lines:
            if line != ACKNOWLEDGED:
                pending = Change(**json.loads(line))
            elif pending is not None:
                state = after(state, pending)
                n_acknowledged, pending = n_acknowledged + 1, None
        return Told(state, n_acknowledged, pending)


def forked(work: Callable[[Callable[[str], None]], None]) -> Victim:
    """Let a new process do ``work``; the function that it is given tells us a line."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _run(lambda: work(lambda line: _tell(writing, line)))
    os.close(writing)
    return Victim(pid, reading)


def changing(registry: FileRegistry, state: State, rng: Random) -> Victim:
    """Fork a victim that changes the registry at random until it is killed."""

    def work(tell: Callable[[str], None]) -> None:
        kept = state
        while True:
            change = drawn(kept, rng)
            tell(json.dumps(asdict(change)))
            try:
                perform(registry, change)
            except (OSError, ServiceError):  # the disk is gone, and soon we are
                return
            tell(ACKNOWLEDGED)
            kept = after(kept, change)

    return forked(work)


def _tell(pipe: int, line: str) -> None:
    try:
        os.write(pipe, line.encode() + b"\n")
    except OSError:  # nobody heard it, so it was not acknowledged
        os._exit(1)


def _run(work: Callable[[], None]) -> NoReturn:
    code = 1
    logging.disable()
    try:
        work()
        code = 0
    except BaseException:  # the fork must not go on as its parent
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)
