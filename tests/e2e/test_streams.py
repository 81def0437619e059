"""Bodies larger than what the service may hold, over a real connection."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pyarrow as pa
import pytest

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


def test_an_answer_that_fails_in_its_middle_can_not_be_taken_for_whole(server: Server) -> None:
    def broken() -> Iterator[bytes]:
        yield from list(messages())[:10]
        yield b"no message"

    with server.client() as client, pytest.raises(httpx.RemoteProtocolError):
        client.post("/models/groups/predict", content=broken(), headers=HEADERS)
