"""How near the estimates of ``validate_only`` come: predicted by measured, over a grid.

``python -m benchmarks.estimates`` prints tables in Markdown. One thread and processor time, so that
other work on the machine matters little. Bytes are those of the arrays, and where these are many
also the growth of what the process holds.
"""

import ctypes
import os
import platform
import sys
import time
import tracemalloc
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import gmm_engine
from gmm_engine import COVARIANCE_FAMILIES, FitOptions, fit
from gmm_engine.costs import Costs
from gmm_engine.memory import memory_bytes
from gmm_engine.pilot import forecast

ROWS, FEATURES, COMPONENTS = (1000, 30_000), (2, 24), (2, 10)
STARTS = (("kmeans", 1), ("auto", 1))
STEPS = 60
SMALLEST = (100, 2, 2)
LEAST_RESIDENT_BYTES = 8 * 2**20
"""Below, pages that the process holds anyway hide what a fit takes."""
Cell = tuple[int, int, int, FitOptions]
Pair = tuple[float, float]


def grid(*, tol: float, max_iter: int) -> Iterator[Cell]:
    sizes = product(ROWS, FEATURES, COMPONENTS, COVARIANCE_FAMILIES, STARTS)
    for n_rows, n_features, n_components, family, (init_params, n_init) in sizes:
        options = FitOptions(
            n_components=n_components,
            covariance_type=family,
            init_params=init_params,
            n_init=n_init,
            tol=tol,
            max_iter=max_iter,
            random_state=0,
        )
        yield n_rows, n_features, n_components, options


def made_rows(n_rows: int, n_features: int, n_components: int) -> NDArray[np.float64]:
    """Draw round groups that overlap somewhat."""
    rng = np.random.default_rng(0)
    centres = 2.0 * rng.normal(size=(n_components, n_features))
    return np.asarray(
        centres[rng.integers(n_components, size=n_rows)] + rng.normal(size=(n_rows, n_features))
    )


def seconds_of(X: NDArray[np.float64], options: FitOptions) -> float:
    begun = time.process_time()
    fit(X, options)
    return time.process_time() - begun


def bytes_of(X: NDArray[np.float64], options: FitOptions) -> int:
    tracemalloc.start()
    fit(X, options)
    n_bytes = X.nbytes + tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return n_bytes


def resident_bytes_of(X: NDArray[np.float64], options: FitOptions) -> int:
    """Return by how much the process grows at the most."""
    ctypes.CDLL(None).malloc_trim(0)  # else what lies free hides what is taken
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forgets the peak
    before = _status_bytes("VmRSS")
    fit(X, options)
    return X.nbytes + _status_bytes("VmHWM") - before


def _status_bytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    (kibibytes,) = (line.split()[1] for line in lines if line.startswith(f"{name}:"))
    return 1024 * int(kibibytes)


def measured(name: str, X: NDArray[np.float64], options: FitOptions, costs: Costs) -> Pair | None:
    """Return what was predicted and what it came to; None where that says nothing."""
    foretold = forecast(X, options, costs=costs, clock=time.process_time)
    if name.startswith("seconds"):
        return foretold.seconds, seconds_of(X, options)
    n_rows, n_features = X.shape
    predicted = float(memory_bytes(options, n_rows, n_features, foretold.work))
    if name.startswith("bytes"):
        return predicted, float(bytes_of(X, options))
    if predicted < LEAST_RESIDENT_BYTES:
        return None
    return predicted, float(resident_bytes_of(X, options))


def line(cell: Cell, predicted: float, measured: float) -> str:
    n, D, K, options = cell
    size = f"| {n} | {D} | {K} | {options.covariance_type} "
    search = f"| {options.init_params} × {options.n_init} "
    return f"{size}{search}| {predicted:.3g} | {measured:.3g} | {predicted / measured:.2f} |"


def summary(name: str, ratios: list[float]) -> str:
    within = np.mean([0.5 <= ratio <= 2.0 for ratio in ratios])
    low, middle, high = np.quantile(ratios, [0.05, 0.5, 0.95])
    return (
        f"| {name} | {len(ratios)} | {100 * within:.0f} % | {middle:.2f} | {low:.2f} to {high:.2f} "
        f"| {min(ratios):.2f} to {max(ratios):.2f} |"
    )


def main() -> None:
    gmm_engine.warm_up()
    gmm_engine.set_thread_count(1)
    costs = Costs.measured(time.process_time)
    tables = {
        "seconds, steps fixed": grid(tol=0.0, max_iter=STEPS),
        "seconds, to convergence": grid(tol=1e-6, max_iter=500),
        "bytes, steps fixed": grid(tol=0.0, max_iter=STEPS),
        "bytes": grid(tol=1e-6, max_iter=STEPS),
        "resident bytes": grid(tol=1e-6, max_iter=STEPS),
    }
    fit(made_rows(*SMALLEST), FitOptions())  # what a first fit takes alone
    summaries, lines = [], []
    for name, cells in tables.items():
        ratios = []
        for cell in cells:
            n, D, K, options = cell
            pair = measured(name, made_rows(n, D, K), options, costs)
            if pair is None:
                continue
            ratios.append(pair[0] / pair[1])
            lines.append(f"| {name} {line(cell, *pair)}")
            print(lines[-1], file=sys.stderr, flush=True)
        summaries.append(summary(name, ratios))
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    print("| Of | Cells | Within a factor of two | Median | 5 % to 95 % | Range |")
    print("|---|---|---|---|---|---|")
    print("\n".join(summaries))
    print("\n| Of | Rows | D | K | Family | Starts | Predicted | Measured | Ratio |")
    print("|---|---|---|---|---|---|---|---|---|")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
