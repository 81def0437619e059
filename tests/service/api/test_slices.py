"""What a thread asks of the system's scheduler."""

import os
import platform
from threading import Thread

import pytest

from service.api.door.slices import ask_for_slices, slice_of_thread

SLICE = 300_000


def asked_in_a_thread() -> list[object]:
    told: list[object] = []

    def ask() -> None:
        told.extend([ask_for_slices(SLICE), slice_of_thread(), os.nice(0)])

    thread = Thread(target=ask)
    thread.start()
    thread.join()
    return told


@pytest.mark.skipif(platform.system() != "Linux", reason="a setting of Linux")
def test_a_thread_gets_the_slice_that_it_asks_for_and_no_other_does() -> None:
    before, is_nice = slice_of_thread(), os.nice(0)
    has_it, told, is_nice_there = asked_in_a_thread()
    assert has_it == (told == SLICE)  # older systems take the call and keep their own slice
    assert slice_of_thread() == before != SLICE
    assert is_nice_there == is_nice


def test_who_cannot_ask_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    assert asked_in_a_thread()[:2] == [False, None]
