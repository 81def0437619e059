"""The crash experiments, each as a process of its own, in their short form or by ``make crash``."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.crash

IS_LONG = os.environ.get("CRASH_TESTS") == "long"


def ran(experiment: str, short: list[str], long: list[str]) -> dict[str, object]:
    """Run an experiment and return the figures that it prints."""
    ended = subprocess.run(  # noqa: S603 - this interpreter, our own module
        [sys.executable, "-m", f"tests.crash.{experiment}", *(long if IS_LONG else short)],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert ended.stdout, f"{experiment} broke off"
    print(ended.stdout)  # noqa: T201 - the figures
    report: dict[str, object] = json.loads(ended.stdout)
    if "skipped" in report:
        pytest.skip(str(report["skipped"]))
    return report


def test_a_store_that_is_killed_again_and_again_keeps_what_it_acknowledged() -> None:
    assert ran("store_kills", ["40"], ["2000"])["violations"] == 0


def test_a_change_that_fails_or_dies_at_any_call_leaves_the_old_state_or_the_new() -> None:
    assert ran("syscalls", ["short"], [])["violations"] == 0


def test_a_power_cut_takes_nothing_acknowledged() -> None:
    assert ran("power_cuts", ["5"], ["500"])["violations"] == 0


def test_power_cuts_are_seen_to_lose_when_nothing_is_synced() -> None:
    assert ran("power_cuts", ["5", "--without-fsync"], ["50", "--without-fsync"])["violations"] != 0


def test_a_service_that_is_killed_under_load_keeps_what_it_acknowledged() -> None:
    assert ran("service_kills", ["2"], ["200"])["violations"] == 0


def test_a_fit_that_is_cancelled_as_it_ends_ends_once() -> None:
    assert ran("cancel_races", ["10"], ["1000"])["violations"] == 0
