"""What a fit takes beyond its data, measured by the system in a process of its own."""

import subprocess
import sys

import pytest

PROGRAM = """
import re
from pathlib import Path

import numpy as np

import gmm_engine
from gmm_engine import FitOptions, fit

def mebibytes(field):
    status = Path("/proc/self/status").read_text()
    return int(re.search(field + r":\\s+(\\d+) kB", status).group(1)) / 1024

gmm_engine.warm_up()
rng = np.random.default_rng(0)
X = rng.standard_normal(({n}, {D}))
X += 0.7 * rng.standard_normal(({K}, {D}))[rng.integers(0, {K}, {n})]
fit(X[:3000, :3], FitOptions(3, max_iter=3, random_state=0))
Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew from here
before = mebibytes("VmRSS")
fit(X, FitOptions({K}, "{family}", max_iter=8, random_state=0))
print(mebibytes("VmHWM") - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peaks are reset by Linux alone")
@pytest.mark.parametrize(
    ("n", "D", "K", "family"),
    [
        (12_000, 128, 16, "full"),
        (12_000, 128, 16, "tied"),
        (60_000, 16, 16, "full"),
    ],
)
def test_a_fit_takes_the_data_and_64_mebibytes(n: int, D: int, K: int, family: str) -> None:
    program = PROGRAM.format(n=n, D=D, K=K, family=family)
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert float(done.stdout) < 64.0
