"""What is made ready ahead of its first use, here and by other processes."""

import os
from functools import partial
from pathlib import Path

import gmm_engine


def note_process(directory: Path) -> None:
    (directory / str(os.getpid())).touch()


def test_what_others_bring_is_made_ready_here(tmp_path: Path) -> None:
    gmm_engine.warm_up(others=[partial(note_process, tmp_path)])
    assert [noted.name for noted in tmp_path.iterdir()] == [str(os.getpid())]


def test_it_is_made_ready_by_another_process_first(tmp_path: Path) -> None:
    gmm_engine.warm_up(2, others=[partial(note_process, tmp_path)])
    noted = sorted(tmp_path.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    assert len(noted) == 2
    assert noted[1].name == str(os.getpid())
