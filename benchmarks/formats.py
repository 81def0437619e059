"""What a body costs in each format, and what the service takes to answer one larger than memory.

    python -m benchmarks.formats             decoders and encoders, in this process
    python -m benchmarks.formats --numbers   numbers in JSON, beside orjson
    python -m benchmarks.formats --streams   ten million rows through a service of its own

The second writes files of some gigabytes to a temporary directory, sends each with curl, and looks
at the memory of the service while it answers.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import IO

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.csv as pa_csv
from numpy.typing import NDArray

from service.api.payloads import CODECS, codec_of, numerals
from service.api.payloads.values import Codec, DataAnswer, Expected

MEBIBYTE = 1024**2
N_FEATURES = 8
BATCH_ROWS = 65_536
NDJSON = "application/x-ndjson"
CSV = "text/csv"
ARROW = "application/vnd.apache.arrow.stream"


def table(n_rows: int, n_columns: int) -> NDArray[np.float64]:
    return np.random.default_rng(0).normal(size=(n_rows, n_columns)) * 10


def best_of(call: Callable[[], object], *, seconds: float = 1.0) -> float:
    """Return the least time of a call, in seconds."""
    best, until = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < until:
        begun = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - begun)
    return best


def _encoded(codec: Codec, answer: DataAnswer) -> list[bytes]:
    return list(codec.encode_in_parts(answer))


def body_of(media_type: str, X: NDArray[np.float64]) -> bytes:
    body = codec_of(media_type).encode(DataAnswer("m", 1, {"X": X}))
    if media_type == NDJSON:
        return body.replace(b'{"X":', b"").replace(b"}", b"")
    if media_type == "application/json":
        return b'{"X":' + body.partition(b'"X":')[2]
    return body


def print_codecs() -> None:
    print("| Format | rows × columns | body, MB | decode, ms | MB/s | encode, ms |")
    print("|---|---|---|---|---|---|")
    for n_rows, n_columns in ((100, 8), (10_000, 10), (1_000_000, 8)):
        X = table(n_rows, n_columns)
        answer = DataAnswer("m", 1, {"probabilities": X})
        for media_type in CODECS:
            codec, body = codec_of(media_type), body_of(media_type, X)
            decode = best_of(partial(codec.decode, body, Expected()))
            encode = best_of(partial(_encoded, codec, answer))
            megabytes = len(body) / 1e6
            print(
                f"| `{media_type}` | {n_rows:,} × {n_columns} | {megabytes:.3f} "
                f"| {1000 * decode:.2f} | {megabytes / decode:.0f} | {1000 * encode:.2f} |"
            )


def kinds_of_numbers(n_rows: int) -> dict[str, NDArray[np.float64]]:
    rng = np.random.default_rng(0)
    X = table(n_rows, N_FEATURES)
    joint = rng.normal(size=X.shape) * 40
    resp = np.exp(joint - joint.max(axis=1, keepdims=True))
    any_bits = rng.integers(0, 2**64, X.shape, dtype=np.uint64).view(np.float64)
    return {
        "six decimals": X.round(6),
        "all digits": X,
        "probabilities": resp / resp.sum(axis=1, keepdims=True),
        "whole numbers": rng.integers(-1000, 1000, X.shape).astype(np.float64),
        "any finite bits": np.where(np.isfinite(any_bits), any_bits, 1.0),
    }


def print_numbers(n_rows: int = 10_000, times: int = 21) -> None:
    """Compare two ways in turn; orjson reads to an object a number, which is no array yet."""
    numerals.warm_up()
    print("| numbers | bytes a number | read, ns | by orjson | written, ns | by orjson |")
    print("|---|---|---|---|---|---|")
    for name, X in kinds_of_numbers(n_rows).items():
        text = bytes(numerals.write_numbers(X))
        closed = text + b"}"
        ways = {
            "read": partial(numerals.read_numbers, closed, 0),
            "read by orjson": partial(orjson.loads, text),
            "written": partial(numerals.write_numbers, X),
            "written by orjson": partial(orjson.dumps, X, option=orjson.OPT_SERIALIZE_NUMPY),
        }
        took: dict[str, list[float]] = {way: [] for way in ways}
        for way, call in list(ways.items()) * times:
            begun = time.perf_counter()
            call()
            took[way].append((time.perf_counter() - begun) / X.size)
        figures = " | ".join(f"{1e9 * median(each):.1f}" for each in took.values())
        print(f"| {name} | {len(text) / X.size:.1f} | {figures} |", flush=True)


def batches(n_rows: int) -> Iterator[pa.RecordBatch]:
    rng = np.random.default_rng(0)
    for begin in range(0, n_rows, BATCH_ROWS):
        X = rng.normal(size=(min(BATCH_ROWS, n_rows - begin), N_FEATURES)).astype(np.float64) * 3
        yield pa.record_batch(list(X.T.copy()), names=[f"x{place}" for place in range(N_FEATURES)])


def write_rows(path: Path, media_type: str, n_rows: int) -> None:
    with path.open("wb") as file:
        if media_type == NDJSON:
            for batch in batches(n_rows):
                X = np.column_stack([column.to_numpy() for column in batch.columns])
                file.write(body_of(NDJSON, X))
            return
        writer: pa.RecordBatchStreamWriter | pa_csv.CSVWriter | None = None
        for batch in batches(n_rows):
            if writer is None:
                make = pa.ipc.new_stream if media_type == ARROW else pa_csv.CSVWriter
                writer = make(file, batch.schema)
            writer.write_batch(batch)
        if writer is not None:
            writer.close()


@dataclass(frozen=True, slots=True)
class Service:
    url: str
    pid: int

    def memory_bytes(self) -> int:
        """Return what the process itself holds; pages of files that it maps are not its own."""
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii")
        (line,) = [line for line in status.splitlines() if line.startswith("RssAnon")]
        return 1024 * int(line.split()[1])

    def busy_seconds(self) -> float:
        """Return the processor time that it has taken."""
        fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii").rpartition(")")[2]
        user, system = map(int, fields.split()[11:13])
        return (user + system) / os.sysconf("SC_CLK_TCK")


@contextmanager
def service(directory: Path) -> Iterator[Service]:
    command = [sys.executable, "-m", "service", "serve", "--port", "0"]
    environment = {**os.environ, "GMM_LOG_LEVEL": "warning"}
    with subprocess.Popen(  # noqa: S603  # our own command
        [*command, "--registry-dir", str(directory)], stdout=subprocess.PIPE, env=environment
    ) as process:
        try:
            line = process.stdout.readline() if process.stdout else b""
            yield Service(json.loads(line)["url"], process.pid)
        finally:
            process.terminate()


def curl(*arguments: str) -> bytes:
    command = ["curl", "-sS", "--fail", *arguments]
    return subprocess.run(command, check=True, capture_output=True).stdout  # noqa: S603  # our own command


def fit_model(at: Service) -> None:
    X = table(2000, N_FEATURES)
    declared = json.dumps({"id": "m", "n_components": 8, "random_state": 0, "max_iter": 20})
    json_type = ("-H", "Content-Type: application/json", "-X", "POST")
    curl(*json_type, "-d", declared, f"{at.url}/models")
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        file.write(json.dumps({"X": X.tolist()}).encode())
        file.flush()
        curl(*json_type, "--data-binary", f"@{file.name}", f"{at.url}/models/m/fit?wait=120")


@dataclass(slots=True)
class Watch:
    """What was seen while a body was answered."""

    peak_bytes: int = 0
    first_byte_seconds: float = 0.0
    sent_by_then: int = 0


def offset_of(stream: IO[bytes]) -> int:
    """Return how far a child has read the file that it has as its standard input."""
    return os.lseek(stream.fileno(), 0, os.SEEK_CUR)


def answered(at: Service, path: Path, media_type: str, answer: Path) -> tuple[float, Watch]:
    """Predict from a file into a file; return the seconds that it took and what was seen."""
    url = f"{at.url}/models/m/predict_proba"
    headers = ["-H", f"Content-Type: {media_type}", "-H", f"Accept: {media_type}", "-H", "Expect:"]
    watch = Watch()
    begun = time.perf_counter()
    with path.open("rb") as body, answer.open("wb") as out:
        command = ["curl", "-sSN", "--fail", "-X", "POST", "-T", "-", *headers, url]
        process = subprocess.Popen(command, stdin=body, stdout=out)  # noqa: S603  # our own command
        while process.poll() is None:
            watch.peak_bytes = max(watch.peak_bytes, at.memory_bytes())
            if not watch.sent_by_then and answer.stat().st_size:
                watch.sent_by_then = offset_of(body)
                watch.first_byte_seconds = time.perf_counter() - begun
            time.sleep(0.005)
    if process.returncode:
        raise SystemExit(f"curl failed: {process.returncode}")
    return time.perf_counter() - begun, watch


def print_streams(n_rows: int) -> None:
    directory = Path(tempfile.mkdtemp(prefix="gmm-formats-"))
    try:
        with service(directory / "registry") as at:
            fit_model(at)
            print(
                "| Format | body, MB | answer, MB | s | of a processor, s | memory grew, MiB "
                "| first byte after, s | sent by then |"
            )
            print("|---|---|---|---|---|---|---|---|")
            for media_type in (ARROW, CSV, NDJSON):
                body, answer = directory / "body", directory / "answer"
                write_rows(body, media_type, n_rows)
                before, busy = at.memory_bytes(), at.busy_seconds()
                seconds, watch = answered(at, body, media_type, answer)
                size = body.stat().st_size
                print(
                    f"| `{media_type}` | {size / 1e6:.0f} | {answer.stat().st_size / 1e6:.0f} "
                    f"| {seconds:.1f} | {at.busy_seconds() - busy:.1f} "
                    f"| {(watch.peak_bytes - before) / MEBIBYTE:.0f} "
                    f"| {watch.first_byte_seconds:.2f} | {100 * watch.sent_by_then / size:.1f} % |",
                    flush=True,
                )
    finally:
        shutil.rmtree(directory)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--numbers", action="store_true")
    parser.add_argument("--streams", action="store_true")
    parser.add_argument("--rows", type=int, default=10_000_000)
    arguments = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    if arguments.streams:
        print_streams(arguments.rows)
    elif arguments.numbers:
        print_numbers()
    else:
        print_codecs()


if __name__ == "__main__":
    main()
