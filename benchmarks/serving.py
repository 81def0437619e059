"""The service beside MLServer and a bare application, over HTTP, in one run.

    make bench-serving        all of it; the page is docs/benchmarks/serving.md
    python -m benchmarks.serving --only throughput --sizes 10000

All three serve the same mixture (8 features, 8 components, full covariances): the service as it
starts by default; MLServer with its scikit-learn runtime, from an environment of its own and
without worker processes, which is its faster way here; and ``benchmarks.floor``. The load is wrk's,
but for overload, which needs a client that does not wait for answers.
"""

import argparse
import json
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import httpx
import joblib
import numpy as np
from numpy.typing import NDArray
from sklearn.mixture import GaussianMixture

from benchmarks.open_loop import OpenLoop, answers_of
from service.api.payloads import codec_of
from service.api.payloads.values import DataAnswer

D, K = 8, 8
SIZES = (1, 100, 1000, 10_000)
JSON, NPY = "application/json", "application/x-npy"
ARROW = "application/vnd.apache.arrow.stream"
MANY_ROWS = 1_000_000
PROBE_RATE = 25.0
"""Requests a second of the client who tells how soon one is refused."""
TRIALS = 5
"""Of overload."""
SERVER_CORE, CLIENT_CORE = 0, 1
"""Under overload; everything else shares all cores."""
START_SECONDS = 120.0
ANSWER_SECONDS = 330.0
"""A fit may wait for 300."""
MLSERVER = Path(".venv-mlserver/bin/mlserver")
PREDICT_PROBA = "/models/m/predict_proba"
UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


@dataclass(frozen=True, slots=True)
class Request:
    path: str
    body: bytes
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Peer:
    name: str
    port: int
    json_request: Callable[[NDArray[np.float64]], Request]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@dataclass(frozen=True, slots=True)
class Load:
    """What wrk has seen."""

    per_second: float
    median_ms: float
    p99_ms: float


def rows(n_rows: int) -> NDArray[np.float64]:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(K, D)) * 4
    picked = np.random.default_rng(n_rows).integers(0, K, n_rows)
    return (centres[picked] + rng.normal(size=(n_rows, D))).round(6)


def of_rows(X: NDArray[np.float64], media_type: str = JSON) -> Request:
    if media_type == JSON:
        body = json.dumps({"X": X.tolist()}).encode()
    else:
        body = codec_of(media_type).encode(DataAnswer("m", 1, {"X": X}))
    return Request(PREDICT_PROBA, body, {"Content-Type": media_type, "Accept": media_type})


def of_tensor(X: NDArray[np.float64]) -> Request:
    tensor = {"name": "X", "shape": list(X.shape), "datatype": "FP64", "data": X.ravel().tolist()}
    document = {"inputs": [tensor], "outputs": [{"name": "predict_proba"}]}
    return Request("/v2/models/m/infer", json.dumps(document).encode(), {"Content-Type": JSON})


def of_bytes(X: NDArray[np.float64]) -> Request:
    parameters = {"binary_data_size": X.nbytes}
    tensor = {"name": "X", "shape": list(X.shape), "datatype": "FP64", "parameters": parameters}
    output = {"name": "score_samples", "parameters": {"binary_data": True}}
    head = json.dumps({"inputs": [tensor], "outputs": [output]}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    return Request("/v2/models/m/infer", head + X.tobytes(), headers)


def asked(url: str, request: Request) -> bytes:
    answer = httpx.post(
        url + request.path, content=request.body, headers=request.headers, timeout=ANSWER_SECONDS
    )
    return answer.raise_for_status().content


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def process(command: Sequence[str], cwd: Path, **environment: str) -> Iterator[None]:
    """Run a server in a session of its own, and end all of it."""
    with subprocess.Popen(  # noqa: S603  # our own command
        command,
        cwd=cwd,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", **environment},
        stdout=subprocess.DEVNULL,
        stderr=(cwd / "log").open("ab"),
        start_new_session=True,
    ) as running:
        try:
            yield
        finally:
            os.killpg(running.pid, signal.SIGTERM)


def wait_for(url: str, request: Request | None = None) -> None:
    until = time.monotonic() + START_SECONDS
    while True:
        try:
            if request is None:
                httpx.get(url).raise_for_status()
            else:
                asked(url, request)
        except httpx.HTTPError:  # not there yet, or not ready
            if time.monotonic() > until:
                raise
            time.sleep(0.2)
        else:
            return


@contextmanager
def peers(directory: Path, *, are_alone: bool) -> Iterator[list[Peer]]:
    """Start all three with one mixture, which the service has fitted; or the service alone."""
    for name in ("service", "floor", "mlserver"):
        (directory / name).mkdir()
    with ExitStack() as stack:
        ours = Peer("service", free_port(), of_rows)
        home = str(Path.cwd())
        command = serve_command(ours.port)
        stack.enter_context(process(command, directory / "service", PYTHONPATH=home))
        wait_for(f"{ours.url}/readyz")
        fit_model(ours.url)
        if are_alone:
            yield [ours]
            return
        mixture = httpx.get(f"{ours.url}/models/m/parameters").raise_for_status().json()
        floor = Peer("floor", free_port(), of_rows)
        stack.enter_context(floor_server(floor.port, mixture, directory / "floor"))
        started = [ours, floor]
        if MLSERVER.exists():
            peer = Peer("MLServer", free_port(), of_tensor)
            stack.enter_context(mlserver(peer.port, mixture, directory / "mlserver"))
            started.append(peer)
        for peer in started:
            wait_for(peer.url, peer.json_request(rows(1)))
        yield started


def serve_command(port: int) -> list[str]:
    return [sys.executable, "-m", "service", "serve", "--port", str(port)]


def fit_model(url: str) -> None:
    declared = json.dumps({"id": "m", "n_components": K, "random_state": 0}).encode()
    asked(url, Request("/models", declared, {"Content-Type": JSON}))
    fit = of_rows(rows(4000))
    asked(url, Request("/models/m/fit?wait=300", fit.body, {"Content-Type": JSON}))


def floor_server(
    port: int, mixture: Mapping[str, object], home: Path
) -> AbstractContextManager[None]:
    factors = np.linalg.cholesky(np.array(mixture["precisions"]))
    model = home / "model.npz"
    weights, means = (np.array(mixture[name]) for name in ("weights", "means"))
    np.savez(model, weights=weights, means=means, precisions_cholesky=factors)
    quiet = ["--log-level", "error", "--no-access-log"]
    command = [sys.executable, "-m", "uvicorn", "benchmarks.floor:app", "--port", str(port)]
    environment = {"PYTHONPATH": str(Path.cwd()), "FLOOR_MODEL": str(model)}
    return process([*command, *quiet], home, **environment)


def mlserver(port: int, mixture: Mapping[str, object], home: Path) -> AbstractContextManager[None]:
    model = GaussianMixture(K)
    model.weights_, model.means_ = (np.array(mixture[name]) for name in ("weights", "means"))
    model.covariances_ = np.array(mixture["covariances"])
    model.precisions_cholesky_ = np.linalg.cholesky(np.array(mixture["precisions"]))
    model.converged_, model.n_iter_, model.n_features_in_ = True, 1, D
    joblib.dump(model, home / "model.joblib")
    grpc, metrics = free_port(), free_port()
    server = {"debug": False, "parallel_workers": 0, "host": "127.0.0.1", "http_port": port}
    ports = {"grpc_port": grpc, "metrics_port": metrics}
    runtime = {"name": "m", "implementation": "mlserver_sklearn.SKLearnModel"}
    (home / "settings.json").write_text(json.dumps(server | ports))
    (home / "model-settings.json").write_text(
        json.dumps({**runtime, "parameters": {"uri": str(home / "model.joblib")}})
    )
    return process([str(MLSERVER.absolute()), "start", str(home)], home)


def wrk(url: str, request: Request, *, connections: int, seconds: int, home: Path) -> Load:
    (home / "body").write_bytes(request.body)
    headers = "".join(f"wrk.headers[{k!r}]={v!r}\n" for k, v in request.headers.items())
    script = home / "load.lua"
    script.write_text(
        f'wrk.method="POST"\nwrk.body=io.open({str(home / "body")!r},"rb"):read("*a")\n{headers}'
    )
    common = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}", "--timeout", "30s"]
    command = [*common, "--latency", "-s", str(script), url + request.path]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603  # our own command
    if "Non-2xx" in told or "Socket errors" in told:
        raise SystemExit(f"not every request was answered:\n{told}")
    found = re.search(r"Requests/sec:\s+([\d.]+)", told)
    if found is None:
        raise SystemExit(told)
    return Load(float(found[1]), _percentile(told, 50), _percentile(told, 99))


def _percentile(told: str, number: int) -> float:
    found = re.search(rf"{number}%\s+([\d.]+)(us|ms|s)", told)
    return float(found[1]) * UNITS[found[2]] if found else float("nan")


def print_throughput(
    started: Sequence[Peer], home: Path, seconds: int, sizes: Sequence[int]
) -> None:
    print("| rows | format | server | requests/s | p50, ms | p99, ms |\n|---|---|---|---|---|---|")
    for n_rows in sizes:
        for peer in started:
            request = peer.json_request(rows(n_rows))
            load = wrk(peer.url, request, connections=8, seconds=seconds, home=home)
            print_load(n_rows, "JSON", peer.name, load)
    for media_type, name in ((NPY, "NPY"), (ARROW, "Arrow")) if SIZES[-1] in sizes else ():
        request = of_rows(rows(SIZES[-1]), media_type)
        load = wrk(started[0].url, request, connections=8, seconds=seconds, home=home)
        print_load(SIZES[-1], name, started[0].name, load)


def print_load(n_rows: int, kind: str, name: str, load: Load) -> None:
    figures = f"{load.per_second:.0f} | {load.median_ms:.2f} | {load.p99_ms:.2f}"
    print(f"| {n_rows:,} | {kind} | {name} | {figures} |", flush=True)


def print_bulk(ours: Peer, times: int = 5) -> None:
    X = rows(MANY_ROWS)
    arrow = of_rows(X, ARROW)
    arrow = Request("/models/m/score_samples", arrow.body, arrow.headers)
    print(f"\n{MANY_ROWS:,} rows, to log-densities in the same format\n")
    print("| body | MB | best, ms | MB/s of body |\n|---|---|---|---|")
    for name, request in (("Arrow", arrow), ("OIP binary", of_bytes(X))):
        seconds = [sent_in(ours.port, request) for _ in range(times)]
        size, best = len(request.body) / 1e6, min(seconds)
        print(f"| {name} | {size:.0f} | {1e3 * best:.0f} | {size / best:.0f} |", flush=True)


def sent_in(port: int, request: Request) -> float:
    """Ask with bare sockets: httpx copies what is left of a body with each part that it sends."""
    with closing(HTTPConnection("127.0.0.1", port, timeout=ANSWER_SECONDS)) as connection:
        begun = time.perf_counter()
        connection.request("POST", request.path, request.body, dict(request.headers))
        answer = connection.getresponse()
        answer.read()
        seconds = time.perf_counter() - begun
    if answer.status != HTTPStatus.OK:
        raise SystemExit(f"{answer.status} {answer.reason}")
    return seconds


def print_tail(started: Sequence[Peer], home: Path, seconds: int) -> None:
    print("\nOne row, 64 connections\n\n| server | requests/s | p50, ms | p99, ms | p99 / p50 |")
    print("|---|---|---|---|---|")
    for peer in started[:2]:
        request = peer.json_request(rows(1))
        load = wrk(peer.url, request, connections=64, seconds=seconds, home=home)
        ratio = load.p99_ms / load.median_ms
        figures = f"{load.per_second:.0f} | {load.median_ms:.2f} | {load.p99_ms:.2f}"
        print(f"| {peer.name} | {figures} | {ratio:.1f} |", flush=True)


def print_slow_clients(ours: Peer, home: Path, seconds: int, count: int = 500) -> None:
    request = ours.json_request(rows(1))
    alone = wrk(ours.url, request, connections=8, seconds=seconds, home=home).per_second
    head = f"POST {PREDICT_PROBA} HTTP/1.1\r\nHost: service\r\nContent-Length: 100000\r\n"
    with ExitStack() as stack:
        for _ in range(count):
            slow = stack.enter_context(socket.create_connection(("127.0.0.1", ours.port)))
            slow.sendall(f"{head}Content-Type: {JSON}\r\n\r\n[".encode())
        beside = wrk(ours.url, request, connections=8, seconds=seconds, home=home).per_second
    share = 100 * beside / alone
    print(f"\n{count} clients that have begun a body and send no more, held open: others get")
    print(f"{beside:.0f} requests/s, {share:.0f} % of the {alone:.0f} without.", flush=True)


def print_overload(home: Path, seconds: int) -> None:
    """Load a service on one core from the other: in life its clients have machines of their own."""
    X = rows(SIZES[-1])
    (home / "pinned").mkdir()
    pinned = Peer("service", free_port(), of_rows)
    command = ["taskset", "-c", str(SERVER_CORE), *serve_command(pinned.port)]
    with process(command, home / "pinned", PYTHONPATH=str(Path.cwd())), on_core(CLIENT_CORE):
        wait_for(f"{pinned.url}/readyz")
        fit_model(pinned.url)
        for name, request in (("JSON", of_rows(X)), ("NPY", of_rows(X, NPY))):
            trials = [overload(pinned, request, seconds) for _ in range(TRIALS)]
            print(f"\nOverload, {SIZES[-1]:,} rows as {name}, medians of {TRIALS} trials\n")
            print_trials(trials)


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """Keep this process and those that it starts to one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@dataclass(frozen=True, slots=True)
class Trial:
    best: float
    """Answers a second to eight connections: the mean of before and after, for machines drift."""
    wished: float
    sent: float
    good: float
    """Requests and answers a second under overload."""
    probes: int
    refused: Sequence[float]
    """Seconds to the refusals of another client."""
    health: Sequence[float]
    """Seconds to answers of /livez."""
    lost: int
    back: float
    """Seconds after the load, until a question is answered as soon as before it."""


def overload(server: Peer, request: Request, seconds: int) -> Trial:
    text = raw(request)
    best = best_rate(server, text, seconds)
    alone = median(asked_in(server.url, request) for _ in range(20))
    load = OpenLoop(server.port, text, rate=5 * best, seconds=seconds)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as beside:
        for each in [beside.submit(time.sleep, 0.5) for _ in range(2)]:
            each.result()  # both are started
        asking = beside.submit(answers_of, server.port, text, PROBE_RATE, seconds)
        looking = beside.submit(health_of, server.url, seconds)
        load.run()
        probed, health = asking.result(), looking.result()
    back = seconds_until_normal(server, request, alone)
    return Trial(
        best=(best + best_rate(server, text, seconds)) / 2,
        wished=load.rate,
        sent=load.sent / seconds,
        good=len(load.seconds_of(HTTPStatus.OK)) / load.took,
        probes=len(probed),
        refused=[took for status, took in probed if status == HTTPStatus.SERVICE_UNAVAILABLE],
        health=health,
        lost=load.lost,
        back=back,
    )


def best_rate(server: Peer, text: bytes, seconds: int) -> float:
    """Answers a second to eight who ask again as soon as they have an answer."""
    loop = OpenLoop(server.port, text, float("inf"), seconds, most_open=8).run()
    return len(loop.seconds_of(HTTPStatus.OK)) / loop.took


def health_of(url: str, seconds: float) -> list[float]:
    """Ask again and again over one connection, and return how long each answer took."""
    until, took = time.monotonic() + seconds, []
    with httpx.Client(base_url=url) as client:
        while time.monotonic() < until:
            begun = time.perf_counter()
            client.get("/livez").raise_for_status()
            took.append(time.perf_counter() - begun)
            time.sleep(1 / PROBE_RATE)
    return took


def seconds_until_normal(server: Peer, request: Request, alone: float) -> float:
    """Return when the median of twenty questions was last above twice what it is without a load."""
    begun = time.perf_counter()
    while True:
        at = time.perf_counter() - begun
        if median(asked_in(server.url, request) for _ in range(20)) < 2 * alone:
            return at


def print_trials(trials: Sequence[Trial]) -> None:
    shares = sorted(100 * each.good / each.best for each in trials)
    refused = [took for each in trials for took in each.refused]
    health = [took for each in trials for took in each.health]
    best, wished, sent, good = (
        median(getattr(each, name) for each in trials)
        for name in ("best", "wished", "sent", "good")
    )
    print(f"- best with 8 connections: {best:.0f} requests/s")
    print(f"- wished {wished:.0f}/s, sent {sent:.0f}/s")
    print(f"- answered {good:.0f}/s, {median(shares):.0f} % of the best ", end="")
    print(f"({shares[0]:.0f} to {shares[-1]:.0f})")
    print(f"- refused of another client's requests: {len(refused)} of ", end="")
    print(sum(each.probes for each in trials))
    if refused:
        late = np.quantile(refused, (0.5, 0.9, 0.99))
        print("- after p50 {:.1f}, p90 {:.1f}, p99 {:.1f} ms".format(*(1e3 * late)))
    print(f"- /livez: median {1e3 * median(health):.1f}, longest {1e3 * max(health):.1f} ms")
    print(f"- lost without an answer: {sum(each.lost for each in trials)}")
    print(f"- normal after {max(each.back for each in trials):.1f} s at the most", flush=True)


def raw(request: Request) -> bytes:
    lines = [f"POST {request.path} HTTP/1.1", "Host: service", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in request.headers.items()]
    lines.append(f"Content-Length: {len(request.body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + request.body


def asked_in(url: str, request: Request) -> float:
    begun = time.perf_counter()
    asked(url, request)
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parts = ("throughput", "bulk", "tail", "slow", "overload")
    parser.add_argument("--only", nargs="+", choices=parts, default=parts)
    parser.add_argument("--sizes", nargs="+", type=int, choices=SIZES, default=SIZES)
    parser.add_argument("--seconds", type=int, default=5, help="of each measurement")
    arguments = parser.parse_args()
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is missing; Debian has it as a package")
    home = Path(tempfile.mkdtemp(prefix="gmm-serving-"))
    try:
        with peers(home, are_alone={"throughput", "tail"}.isdisjoint(arguments.only)) as started:
            run(arguments, started, home)
    finally:
        shutil.rmtree(home)


def run(arguments: argparse.Namespace, started: Sequence[Peer], home: Path) -> None:
    parts, seconds = arguments.only, arguments.seconds
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    if "throughput" in parts:
        print_throughput(started, home, seconds, arguments.sizes)
    if "bulk" in parts:
        print_bulk(started[0])
    if "tail" in parts:
        print_tail(started, home, seconds)
    if "slow" in parts:
        print_slow_clients(started[0], home, seconds)
    if "overload" in parts:
        print_overload(home, seconds)


if __name__ == "__main__":
    main()
