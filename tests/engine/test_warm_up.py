"""What is made ready ahead of its first use, here and by other processes."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import gmm_engine

E_STEP = """
import numpy as np
from gmm_engine import kernels
from gmm_engine.kernels.prepared import Prepared

rng = np.random.default_rng(0)
X, means = rng.normal(size=(1003, 2)), rng.normal(size=(16, 2))
mixture = Prepared.of(np.full(16, 1 / 16), means, np.tile(np.eye(2), (16, 1, 1)), np.zeros(16))
moments = kernels.expectation(mixture, [(X, None)])
for sums in (moments.nk, moments.first, moments.scatter, np.array(moments.log_likelihood)):
    print(sums.tobytes().hex())
"""


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


def test_a_pass_has_the_same_bits_compiled_and_loaded_again(tmp_path: Path) -> None:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", E_STEP]
    told = [
        subprocess.run(  # noqa: S603 - our own code
            command, env=environment, capture_output=True, text=True, check=True
        ).stdout
        for _ in range(2)
    ]
    assert told[0] == told[1] != ""
