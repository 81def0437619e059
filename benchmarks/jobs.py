"""What fits take from request to answer, and what they take from predictions beside them.

``python -m benchmarks.jobs`` starts a service of its own and prints tables in Markdown: how long a
warm service takes to fit iris, and how long predictions take on an idle service and while two long
fits run, window by window in turns. Predictions come at an even rate over one connection, whatever
became of those before. Other work on the machine is in the figures.
"""

import argparse
import http.client
import json
import os
import platform
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.e2e.server import Server, running
from tests.support.data import iris

JSON = {"Content-Type": "application/json"}
N_FITS, N_FITS_BEFORE = 30, 5
RATE = 100.0
"""Predictions a second."""
WINDOW_SECONDS, N_WINDOWS = 6.0, 4
LONG_FITS = ("first", "second")


@dataclass(slots=True)
class Latencies:
    """Milliseconds of requests."""

    milliseconds: list[float] = field(default_factory=list)

    def quantile(self, share: float) -> float:
        return float(np.quantile(self.milliseconds, share))

    def row(self, name: str) -> str:
        figures = [self.quantile(share) for share in (0.5, 0.9, 0.99)]
        cells = [f"{figure:.2f}" for figure in (*figures, max(self.milliseconds))]
        return f"| {name} | {len(self.milliseconds)} | {' | '.join(cells)} |"


class Client:
    """One connection, kept open."""

    def __init__(self, server: Server) -> None:
        self._connection = http.client.HTTPConnection(*server.address, timeout=60)

    def post(self, path: str, body: object) -> dict[str, object]:
        self._connection.request("POST", path, json.dumps(body), JSON)
        response = self._connection.getresponse()
        content = response.read()
        if response.status >= http.client.BAD_REQUEST:
            raise RuntimeError(f"{path} answered {response.status}: {content[:200]!r}")
        answer: dict[str, object] = json.loads(content)
        return answer

    def timed(self, path: str, body: object, due: float | None = None) -> float:
        """Return how many milliseconds a request took since it was due."""
        begun = time.perf_counter() if due is None else due
        self.post(path, body)
        return 1e3 * (time.perf_counter() - begun)


def small_fits(client: Client, X: list[list[float]]) -> Latencies:
    client.post("/models", {"id": "iris", "n_components": 3, "random_state": 0})
    for _ in range(N_FITS_BEFORE):
        client.post("/models/iris/fit", {"X": X})
    return Latencies([client.timed("/models/iris/fit", {"X": X}) for _ in range(N_FITS)])


def predictions(client: Client, X: list[list[float]], seconds: float) -> list[float]:
    """Ask at an even rate; what waits because the one before took long counts its waiting too."""
    begun = time.perf_counter()
    found: list[float] = []
    while (due := begun + len(found) / RATE) < begun + seconds:
        time.sleep(max(0.0, due - time.perf_counter()))
        found.append(client.timed("/models/iris/predict", {"X": X}, due))
    return found


@contextmanager
def long_fits(client: Client, X: NDArray[np.float64]) -> Iterator[None]:
    """Keep two fits running."""
    jobs = [client.post(f"/models/{name}/fit?wait=0", {"X": X.tolist()}) for name in LONG_FITS]
    try:
        time.sleep(1.0)
        yield
    finally:
        for job in jobs:
            client.post(f"/jobs/{job['id']}/cancel", {})
        time.sleep(1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1, help="of each prediction")
    n_rows = parser.parse_args().rows
    rows = iris().tolist()
    X = np.random.default_rng(0).normal(size=(20_000, 8))
    idle, busy = Latencies(), Latencies()
    with (
        tempfile.TemporaryDirectory() as directory,
        running(Path(directory) / "registry") as server,
    ):
        client = Client(server)
        fits = small_fits(client, rows)
        for name in LONG_FITS:
            client.post("/models", {"id": name, "n_components": 16, "tol": 0, "max_iter": 100_000})
        for _ in range(N_WINDOWS):
            idle.milliseconds += predictions(client, rows[:n_rows], WINDOW_SECONDS)
            with long_fits(client, X):
                busy.milliseconds += predictions(client, rows[:n_rows], WINDOW_SECONDS)
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n")
    print("| Requests | Count | Median, ms | 90 % | 99 % | Longest |")
    print("|---|---|---|---|---|---|")
    print(fits.row("a fit of iris, request to 200"))
    print(idle.row(f"predictions of {n_rows} rows, idle"))
    print(busy.row(f"predictions of {n_rows} rows, two fits running"))
    print(f"\n99 % during fits by 99 % idle: {busy.quantile(0.99) / idle.quantile(0.99):.2f}")


if __name__ == "__main__":
    main()
