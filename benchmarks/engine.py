"""The engine beside scikit-learn and oneDAL, in one run on one machine.

Every figure is a median over rounds in which the peers take turns, so that a noisy neighbour hits
all alike; ratios are taken within a round. Writes ``docs/benchmarks/engine.md`` and a plot.

    python -m benchmarks.engine [--quick] [--only steps families …] [--data DIR]
"""

import argparse
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import geometric_mean, median

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from benchmarks.corpus import Data, corpus
from benchmarks.peers import OneDal, Ours, Peer, ScikitLearn, random_mixture_data
from gmm_engine import FitOptions, fit, set_thread_count, thread_count, warm_up

REPORT = Path(__file__).parent.parent / "docs" / "benchmarks" / "engine.md"
PLOT = REPORT.with_suffix(".svg")
SETTLING_SECONDS = 0.3
"""BLAS threads go on spinning for a while after their last product."""
STEP_WORK = 2e8
"""Rows are chosen so that N·K·(D² + 20), or N·K·(4·D + 20) for diagonals, is about this."""
LEAST_ROWS_A_NUMBER = 8
"""But there are so many for each component and feature: with fewer, covariances collapse."""


@dataclass(frozen=True, slots=True)
class Table:
    title: str
    note: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def to_markdown(self) -> str:
        lines = [f"## {self.title}", "", self.note, ""]
        lines += ["| " + " | ".join(self.columns) + " |", "|" + " --- |" * len(self.columns)]
        lines += ["| " + " | ".join(row) + " |" for row in self.rows]
        return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer sizes and rounds")
    parser.add_argument("--only", nargs="*", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--data", type=Path, help="a directory of further CSV files for `defaults`")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    warm_up()
    tables = [SECTIONS[name](options) for name in options.only]
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text("\n".join([machine(options), *(table.to_markdown() for table in tables)]))
    if "steps" in options.only:
        plot_steps(tables[options.only.index("steps")])
    print(REPORT.read_text())


def machine(options: argparse.Namespace) -> str:
    command = "`python -m benchmarks.engine --quick`" if options.quick else "`make bench`"
    rate = dgemm_rate(rounds=5)
    return (
        "# The engine beside its peers\n\n"
        f"Made by {command}; medians of interleaved rounds. "
        f"{os.cpu_count()} cores, {thread_count()} threads; DGEMM {rate / 1e9:.0f} GF/s; "
        f"load average {os.getloadavg()[1]:.1f}, of which the benchmark itself is about 1.5. "
        "Ratios above 1 say how much longer the peer takes.\n"
    )


def dgemm_rate(rounds: int) -> float:
    """Return the machine's matrix product rate in flops a second, all threads."""
    n = 1500
    A = np.random.default_rng(0).random((n, n))
    return 2.0 * n**3 / min(timed(lambda: A @ A) for _ in range(rounds))


def timed(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def interleaved(works: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Let each work time itself once a round, when the threads of the one before are idle.

    It runs untimed first: what is measured is a step amid others, with all that it reads at hand.
    """
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            time.sleep(SETTLING_SECONDS)
            work()
            seconds[name].append(work())
    return seconds


def ratio(seconds: Mapping[str, list[float]], peer: str) -> float:
    return median(
        theirs / ours for theirs, ours in zip(seconds[peer], seconds["ours"], strict=True)
    )


def steps(options: argparse.Namespace) -> Table:
    """Time an EM step, full covariance."""
    sizes = [
        (D, K)
        for D in (2, 4, 8, 16, 32, 64, 128)
        for K in ((16,) if options.quick else (4, 8, 16, 32, 128) if D <= 32 else (4, 16, 32))
    ]
    rows = []
    for D, K in sizes:
        N = n_rows(D, K, has_correlations=True)
        X, start = random_mixture_data(N, D, K, "full")
        peers: list[Peer] = [Ours(X, start), ScikitLearn(X, start), OneDal(X, start)]
        works = {peer.name: peer.step for peer in peers if peer.can_run}
        for work in works.values():
            work()
        seconds = interleaved(works, rounds=3 if options.quick or D > 32 else 7)
        seconds["dgemm"] = [2.0 * N * K * D * D / dgemm_rate(rounds=2)]
        ours = median(seconds["ours"])
        rows.append(
            (
                str(D),
                str(K),
                str(N),
                f"{ours / N / K * 1e9:.2f}",
                f"{ratio(seconds, 'scikit-learn'):.1f}",
                f"{ratio(seconds, 'oneDAL'):.1f}" if "oneDAL" in seconds else "–",
                f"{100 * seconds['dgemm'][0] / ours:.0f} %",
            )
        )
        print("full", *rows[-1], flush=True)
    return Table(
        "EM step, full covariance",
        "Nanoseconds per row and component; useful flops (2·N·K·D²) as a part of the DGEMM rate. "
        "They are counted as if no responsibility were negligible; those that are, with many "
        "features most, are left out of our sums. The mixture is two steps from a start of which a "
        "fifth of the labels are wrong.\n\n"
        f"![Ratios by the number of features]({PLOT.name})",
        ("D", "K", "N", "ns", "scikit-learn / ours", "oneDAL / ours", "of DGEMM"),
        rows,
    )


def n_rows(D: int, K: int, *, has_correlations: bool) -> int:
    work_a_row = K * (D * (D if has_correlations else 4) + 20)
    return int(np.clip(STEP_WORK / work_a_row, LEAST_ROWS_A_NUMBER * K * D, 200_000))


def plot_steps(table: Table) -> None:
    """Draw how much longer the peers take, by the number of features, a line for each K."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.subplots(1, 2, sharex=True)
    for panel, peer, column in zip(axes, ("scikit-learn", "oneDAL"), (4, 5), strict=True):
        for K in dict.fromkeys(row[1] for row in table.rows):
            points = [
                (int(row[0]), float(row[column]))
                for row in table.rows
                if row[1] == K and row[column] not in {"–", "nan"}
            ]
            panel.plot(*zip(*points, strict=True), marker="o", label=f"K = {K}")
        panel.set_xscale("log", base=2)
        panel.set_yscale("log")
        panel.axhline(1.0, color="black", linewidth=0.8)
        panel.set_xlabel("features")
        panel.set_title(f"time of {peer} / ours, an EM step")
        panel.grid(visible=True, which="both", alpha=0.3)
        panel.legend()
    figure.savefig(PLOT, metadata={"Date": None})


def families(options: argparse.Namespace) -> Table:
    """Time an EM step of the other families, of float32 data and with one thread."""
    rows = []
    for family in ("tied", "diag", "spherical"):
        for D, K in ((4, 16), (16, 16)) if options.quick else ((2, 8), (8, 16), (16, 32), (64, 16)):
            N = n_rows(D, K, has_correlations=family == "tied")
            X, start = random_mixture_data(N, D, K, family)
            works = {peer.name: peer.step for peer in (Ours(X, start), ScikitLearn(X, start))}
            for work in works.values():
                work()
            seconds = interleaved(works, rounds=3 if options.quick else 7)
            ns = median(seconds["ours"]) / N / K * 1e9
            rows.append(
                (family, str(D), str(K), f"{ns:.2f}", f"{ratio(seconds, 'scikit-learn'):.1f}")
            )
            print(*rows[-1], flush=True)
    return Table(
        "EM step, other families",
        "Nanoseconds per row and component.",
        ("family", "D", "K", "ns", "scikit-learn / ours"),
        rows,
    )


def variants(options: argparse.Namespace) -> Table:
    """Time our own step with one thread, many threads and float32 rows."""
    D, K, N = 8, 16, 200_000
    X, start = random_mixture_data(N, D, K, "full")
    rows = []
    before = thread_count()
    single = Ours(X.astype(np.float32), start)
    double = Ours(X, start)
    for name, peer, n_threads in (
        ("float64, all threads", double, before),
        ("float64, one thread", double, 1),
        ("float32, all threads", single, before),
    ):
        set_thread_count(n_threads)
        peer.step()
        ns = median(peer.step() for _ in range(5 if options.quick else 15)) / N / K * 1e9
        rows.append((name, f"{ns:.2f}"))
    set_thread_count(before)
    return Table("Threads and precision", f"D = {D}, K = {K}, full.", ("variant", "ns"), rows)


def defaults(options: argparse.Namespace) -> Table:
    """Time whole fits from defaults to at least the same log-likelihood."""
    seeds = range(3 if options.quick else 5)
    rows, ratios = [], []
    for data in corpus(options.data):
        pairs = [(our_fit(data, seed), their_fit(data, seed)) for seed in seeds]
        gain = min(ours.mean_log_likelihood - theirs.mean_log_likelihood for ours, theirs in pairs)
        ratios.append(median(theirs.seconds / ours.seconds for ours, theirs in pairs))
        rows.append(
            (
                data.name,
                f"{data.X.shape[0]} × {data.X.shape[1]}",
                str(data.K),
                f"{1e3 * median(ours.seconds for ours, _ in pairs):.0f}",
                f"{1e3 * median(theirs.seconds for _, theirs in pairs):.0f}",
                f"{ratios[-1]:.1f}",
                f"{gain:+.5f}",
            )
        )
        print(*rows[-1], flush=True)
    rows.append(("geometric mean", "", "", "", "", f"{geometric_mean(ratios):.1f}", ""))
    return Table(
        "Whole fits from defaults",
        "scikit-learn with n_init=10, ours with its defaults. The last column is our mean "
        "log-likelihood less scikit-learn's, the worst of the seeds.",
        ("data", "size", "K", "ours, ms", "scikit-learn, ms", "ratio", "gain"),
        rows,
    )


@dataclass(frozen=True, slots=True)
class Fitted:
    seconds: float
    mean_log_likelihood: float


def our_fit(data: Data, seed: int) -> Fitted:
    time.sleep(SETTLING_SECONDS)
    begun = time.perf_counter()
    result = fit(data.X, FitOptions(data.K, random_state=seed))
    return Fitted(time.perf_counter() - begun, result.criteria.mean_log_likelihood)


def their_fit(data: Data, seed: int) -> Fitted:
    model = ScikitLearn.from_defaults(data.K, seed)
    time.sleep(SETTLING_SECONDS)
    begun = time.perf_counter()
    model.fit(data.X)
    return Fitted(time.perf_counter() - begun, float(model.score(data.X)))


def scoring(options: argparse.Namespace) -> Table:
    """Time predict_proba of a few rows and of many."""
    D, K = 8, 8
    rows = []
    for N in (1, 100, 100_000, 1_000_000):
        X, start = random_mixture_data(max(N, K), D, K, "full")
        X = X[:N]
        works = {
            "ours": seconds_a_call(start.predict_proba, X),
            "scikit-learn": seconds_a_call(ScikitLearn(X, start).model.predict_proba, X),
        }
        seconds = interleaved(works, rounds=3 if options.quick else 7)
        ours, peer = median(seconds["ours"]), median(seconds["scikit-learn"])
        rows.append(
            (
                str(N),
                f"{1e6 * ours:.1f}",
                f"{1e6 * peer:.1f}",
                f"{ratio(seconds, 'scikit-learn'):.1f}",
            )
        )
        print("scoring", *rows[-1], flush=True)
    return Table(
        "predict_proba",
        f"D = {D}, K = {K}, full; microseconds a call.",
        ("rows", "ours", "scikit-learn", "ratio"),
        rows,
    )


def seconds_a_call(
    call: Callable[[NDArray[np.float64]], object], X: NDArray[np.float64]
) -> Callable[[], float]:
    n_calls = max(1, 2_000 // max(1, len(X) // 50))

    def work() -> float:
        begun = time.perf_counter()
        for _ in range(n_calls):
            call(X)
        return (time.perf_counter() - begun) / n_calls

    return work


PEAK_MEMORY = """
import re
from pathlib import Path
import numpy as np
import gmm_engine

def mebibytes(field):
    status = Path("/proc/self/status").read_text()
    return int(re.search(field + r":\\s+(\\d+) kB", status).group(1)) / 1024

gmm_engine.warm_up()
X = np.random.default_rng(0).standard_normal(({N}, {D}))
gmm_engine.fit(X[:5000], gmm_engine.FitOptions({K}, max_iter=3, random_state=0))
Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew from here
before = mebibytes("VmRSS")
gmm_engine.fit(X, gmm_engine.FitOptions({K}, max_iter=5, random_state=0))
print(mebibytes("VmHWM") - before)
"""

COLD_START = """
import time
begun = time.perf_counter()
import numpy as np
import gmm_engine
gmm_engine.warm_up()
print(time.perf_counter() - begun)
"""


def process(options: argparse.Namespace) -> Table:
    """Measure a process: peak memory beyond the data, and import with warm-up."""
    sizes = [(200_000 if options.quick else 1_000_000, 16, 16), (20_000, 128, 16)]
    grown = [float(run_python(PEAK_MEMORY.format(N=N, D=D, K=K))) for N, D, K in sizes]
    cold = median(float(run_python(COLD_START)) for _ in range(3))
    return Table(
        "Memory and cold start",
        "Compiled passes are in Numba's cache.",
        ("what", "measured"),
        [
            *(
                (f"peak memory of a fit of {N} × {D}, K = {K}, beyond the data", f"{more:.0f} MiB")
                for (N, D, K), more in zip(sizes, grown, strict=True)
            ),
            ("import and warm-up of a new process", f"{cold:.2f} s"),
        ],
    )


def run_python(program: str) -> str:
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    return done.stdout


SECTIONS: dict[str, Callable[[argparse.Namespace], Table]] = {
    "steps": steps,
    "families": families,
    "variants": variants,
    "defaults": defaults,
    "scoring": scoring,
    "process": process,
}

if __name__ == "__main__":
    main()
