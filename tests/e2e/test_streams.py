"""Bodies larger than what the service may hold, over a real connection."""

import importlib.util
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from tests.e2e.server import Server, running
from tests.service.rows import TWO_GROUPS

ARROW = "application/vnd.apache.arrow.stream"
HEADERS = {"content-type": ARROW, "accept": ARROW}
N_BATCHES, BATCH_ROWS = 64, 50_000
MEBIBYTE = 1024**2


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("streams") / "registry") as server:
        with server.client() as client:
            client.post("/models", json={"id": "groups", "n_components": 2, "random_state": 0})
            fit = client.post("/models/groups/fit?wait=60", json={"X": TWO_GROUPS})
            assert fit.status_code == 200, fit.text
        yield server


def memory_bytes(server: Server) -> int:
    status = Path(f"/proc/{server.process.pid}/status").read_text(encoding="ascii")
    (line,) = [line for line in status.splitlines() if line.startswith("RssAnon")]
    return 1024 * int(line.split()[1])


def messages() -> Iterator[bytes]:
    """Yield an Arrow stream of 51 MB, a message at a time."""
    rng = np.random.default_rng(0)
    batch = pa.record_batch(list(rng.normal(3, 2, size=(2, BATCH_ROWS))), names=["a", "b"])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)
    whole = sink.getvalue().to_pybytes()
    n_schema = len(batch.schema.serialize().to_pybytes())
    yield whole[:n_schema]
    for _ in range(N_BATCHES):
        yield whole[n_schema:-8]
    yield whole[-8:]


def test_a_large_body_takes_little_memory_and_a_client_that_only_sends_is_not_waited_for(
    server: Server,
) -> None:
    before = memory_bytes(server)
    held: list[int] = []

    def watched() -> Iterator[bytes]:
        for message in messages():
            held.append(memory_bytes(server) - before)
            yield message

    with server.client() as client:
        response = client.post(
            "/models/groups/predict_proba", content=watched(), headers=HEADERS, timeout=120
        )

    assert pa.ipc.open_stream(response.content).read_all().num_rows == N_BATCHES * BATCH_ROWS
    assert max(held) < 40 * MEBIBYTE


def bodies() -> dict[str, bytes]:
    """The same rows in every format that Arrow reads or writes."""
    rows = pa.table({"a": [1.0, 5.2, 4.9], "b": [1, 5, 4]})
    stream, file = pa.BufferOutputStream(), pa.BufferOutputStream()
    with pa.ipc.new_stream(stream, rows.schema) as writer:
        writer.write_table(rows)
    parquet.write_table(rows, file)
    return {
        ARROW: stream.getvalue().to_pybytes(),
        "application/vnd.apache.parquet": file.getvalue().to_pybytes(),
        "text/csv": b"a,b\n1.0,1\n5.2,5\n4.9,4\n",
    }


def test_pandas_is_not_loaded_where_it_is_installed(server: Server) -> None:
    with server.client() as client:
        for media_type, body in bodies().items():
            headers = {"content-type": media_type, "accept": media_type}
            for verb in ("predict_proba", "predict", "score_samples"):
                told = client.post(f"/models/groups/{verb}", content=body, headers=headers)
                assert told.status_code == 200, told.text
            fit = client.post(
                "/models/groups/fit?wait=60", json={"X": TWO_GROUPS}, headers={"accept": media_type}
            )
            assert fit.status_code == 200, fit.text

    loaded = Path(f"/proc/{server.process.pid}/maps").read_text(encoding="utf-8")
    assert importlib.util.find_spec("pandas") is not None
    assert "/pyarrow/" in loaded
    assert "/pandas/" not in loaded


def test_an_answer_that_fails_in_its_middle_can_not_be_taken_for_whole(server: Server) -> None:
    def broken() -> Iterator[bytes]:
        yield from list(messages())[:10]
        yield b"no message"

    with server.client() as client, pytest.raises(httpx.RemoteProtocolError):
        client.post("/models/groups/predict", content=broken(), headers=HEADERS)

    assert [each["level"] for each in logged(server, "answer_cut_off")] == ["warning"]


def logged(server: Server, event: str) -> list[dict[str, object]]:
    """Return the events of this name, once the log is seen to have nothing but events."""
    events = [json.loads(line) for line in server.log.read_text().splitlines()]
    assert not any("Traceback" in str(each) for each in events)
    return [each for each in events if each["event"] == event]


def test_a_body_that_stalls_until_the_drain_is_over_is_refused(tmp_path: Path) -> None:
    head = f"POST /models/m/predict HTTP/1.1\r\nHost: a\r\nContent-Type: {ARROW}\r\n"
    chunked = f"{head}Transfer-Encoding: chunked\r\n\r\n5\r\nbegun\r\n".encode()
    with (
        running(tmp_path / "registry", {"GMM_DRAIN_SECONDS": "1"}) as server,
        socket.create_connection(server.address, timeout=30) as client,
    ):
        client.sendall(chunked)
        time.sleep(0.5)
        code = server.stop()
        answer = client.makefile("rb").read()

    assert code == 0
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b'"code":"draining"' in answer
    assert [each["level"] for each in logged(server, "request_cut_off")] == ["warning"]
