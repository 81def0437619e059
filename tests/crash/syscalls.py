"""Fail, and kill at, every call to the file system that a change of the registry makes, in turn.

Calls are disturbed by strace where it may attach to our own processes; elsewhere by a double of
the module ``os`` that stands before the same calls. ``python -m tests.crash.syscalls [short]``
"""

import errno
import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from service.adapters.registry_files import FileRegistry
from service.errors import ServiceError
from tests.crash.ledger import Change, State, after, found, perform
from tests.crash.report import Report
from tests.crash.victims import ACKNOWLEDGED, Victim, forked
from tests.support.disks import WatchedDisk, failing_with, use_disk

CHANGES = (
    Change("commit", "a", 7),
    Change("create", "b"),
    Change("describe", "a", 8),
    Change("name", "a", 1),
    Change("delete_version", "a", 2),
    Change("delete_model", "a"),
)
LEAVES_NOTHING = {"commit", "create"}
"""When these are refused nothing of them may be seen."""

CALLS = ("openat", "mkdirat", "write", "fsync", "renameat", "unlinkat", "flock", "fstatfs", "read")
SHORT_CALLS = ("fsync", "renameat", "write")
ERRORS = {"EIO": errno.EIO, "ENOSPC": errno.ENOSPC, "EROFS": errno.EROFS}
KILL = "kill"


@dataclass(frozen=True, slots=True)
class Outcome:
    answer: str | None
    """``ok``, the code of a refusal, or None when the process died."""
    was_disturbed: bool


def main(*, is_short: bool = False) -> Report:
    changes = CHANGES[:1] if is_short else CHANGES
    how = traced if may_trace() else doubled
    calls = (SHORT_CALLS if is_short else CALLS) if may_trace() else ("any",)
    actions = (KILL, "EIO") if is_short else (KILL, *ERRORS)
    report = Report(f"every call failed or killed in turn, by {how.__name__}")
    with tempfile.TemporaryDirectory() as directory:
        template, before = _template(Path(directory))
        for change, call, action in itertools.product(changes, calls, actions):
            for number in itertools.count(1):
                path = Path(directory) / "registry"
                shutil.copytree(template, path)
                outcome = how(path, change, call, action, number)
                _judge(report, path, before, change, outcome)
                shutil.rmtree(path)
                if not outcome.was_disturbed:
                    break
    return report


def _template(directory: Path) -> tuple[Path, State]:
    path = directory / "template"
    state: State = {}
    registry = FileRegistry(path)
    for change in (Change("create", "a"), Change("commit", "a", 1), Change("commit", "a", 2)):
        perform(registry, change)
        state = after(state, change)
    return path, state


def _judge(report: Report, path: Path, before: State, change: Change, outcome: Outcome) -> None:
    report.cycles += 1
    expected = after(before, change)
    allowed = [before, expected]
    if outcome.answer == ACKNOWLEDGED:
        report.acknowledged += 1
        allowed = [expected]
    elif outcome.answer is not None and change.verb in LEAVES_NOTHING:
        allowed = [before]
    try:
        registry = FileRegistry(path)
        there = found(registry)
    except (AssertionError, ServiceError):
        report.hold(False, f"torn: {change.verb}")
        return
    report.hold(there in allowed, f"wrong state: {change.verb}, {outcome.answer}")
    report.hold(outcome.answer != "crash", f"an error that is no refusal: {change.verb}")
    _require_use(report, registry)


def _require_use(report: Report, registry: FileRegistry) -> None:
    """Hold that work goes on: no lock, name or number is left taken."""
    try:
        registry.check_usable()
        perform(registry, Change("create", "c"))
        perform(registry, Change("commit", "c", 3))
    except ServiceError as error:
        report.hold(False, f"unusable afterwards: {error.code}")


def _victim(path: Path, change: Change, prepare: Callable[[], None]) -> tuple[Victim, int]:
    """Fork a process that makes the change once a byte is written to the returned descriptor."""
    go_reading, go_writing = os.pipe()
    registry = FileRegistry(path)

    def work(tell: Callable[[str], None]) -> None:
        os.close(go_writing)
        with suppress(OSError):  # this call may be the one that is disturbed
            os.read(go_reading, 1)
        prepare()
        try:
            perform(registry, change)
        except ServiceError as error:
            tell(error.code)
        except Exception:
            tell("crash")
            raise
        else:
            tell(ACKNOWLEDGED)

    victim = forked(work)
    os.close(go_reading)
    return victim, go_writing


def _answer(victim: Victim) -> str | None:
    with os.fdopen(victim.pipe) as pipe:
        answer = pipe.read().strip()
    os.waitpid(victim.pid, 0)
    return answer or None


def traced(path: Path, change: Change, call: str, action: str, number: int) -> Outcome:
    victim, go = _victim(path, change, lambda: None)
    log = path.with_suffix(".strace")
    effect = "signal=SIGKILL" if action == KILL else f"error={action}"
    with subprocess.Popen(  # noqa: S603 - fixed words
        [
            *("strace", "-p", str(victim.pid), "-o", str(log)),
            *("-e", f"trace={call}", "-e", f"inject={call}:{effect}:when={number}"),
        ],
        stderr=subprocess.PIPE,
        text=True,
    ) as tracer:
        assert tracer.stderr is not None
        assert "attached" in tracer.stderr.readline()
        os.write(go, b"!")
        os.close(go)
        answer = _answer(victim)
    text = log.read_text()
    return Outcome(answer, "INJECTED" in text or "killed by SIGKILL" in text)


def doubled(path: Path, change: Change, _call: str, action: str, number: int) -> Outcome:
    disturb = _kill_oneself if action == KILL else failing_with(ERRORS[action])
    disk = WatchedDisk(at=number, disturb=disturb)
    victim, go = _victim(path, change, lambda: use_disk(disk))
    os.write(go, b"!")
    os.close(go)
    return Outcome(_answer(victim), number <= _calls_of(change))


def _kill_oneself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@cache
def _calls_of(change: Change) -> int:
    """Count the calls of a change that nothing disturbs."""
    with tempfile.TemporaryDirectory() as directory:
        path, _ = _template(Path(directory))
        disk, registry = WatchedDisk(), FileRegistry(path)
        use_disk(disk)
        try:
            perform(registry, change)
        finally:
            use_disk(os)
    return disk.n_calls


@cache
def may_trace() -> bool:
    """Say whether strace is here and may disturb a process of ours."""
    if shutil.which("strace") is None:
        return False
    ran = subprocess.run(  # fixed words
        ["strace", "-e", "inject=fsync:error=EIO:when=1", "true"],  # noqa: S607
        capture_output=True,
        check=False,
    )
    return ran.returncode == 0


if __name__ == "__main__":
    main(is_short=sys.argv[1:] == ["short"]).finish()
