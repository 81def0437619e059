"""Five times what can be computed: some of it is answered, the rest refused, and nothing else."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from http import HTTPStatus

import httpx
import numpy as np
import pytest

from benchmarks.open_loop import OpenLoop
from tests.e2e.server import Server, running
from tests.service.api.wire import NPY, to_npy
from tests.service.rows import ONE_OF_EACH, TWO_GROUPS

ROWS = np.random.default_rng(0).normal(size=(20_000, 2))
HEADERS = {"Content-Type": NPY, "Accept": NPY}
PREDICT = "/models/groups/predict_proba"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One that keeps a short queue, so that it is soon full."""
    settings = {"GMM_COMPUTE_QUEUE_SIZE": "4"}
    with running(tmp_path_factory.mktemp("overload") / "registry", settings) as server:
        with server.client() as client:
            client.post("/models", json={"id": "groups", "n_components": 2})
            client.post("/models/groups/fit", json={"X": TWO_GROUPS})
        yield server


def test_under_overload_small_questions_and_health_are_answered(server: Server) -> None:
    body = to_npy(ROWS)
    head = f"POST {PREDICT} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: {NPY}\r\n"
    raw = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    load = OpenLoop(server.address[1], raw, rate=2000, seconds=3)
    loading = threading.Thread(target=load.run)
    beside: Counter[int] = Counter()

    loading.start()
    with server.client() as client:
        while loading.is_alive():
            beside[client.get("/livez").status_code] += 1
            small = client.post("/models/groups/predict", json={"X": ONE_OF_EACH})
            beside[small.status_code] += 1
        loading.join()
        begun = time.monotonic()
        after = client.post(PREDICT, content=body, headers=HEADERS)
        back_after = time.monotonic() - begun

    assert set(beside) == {HTTPStatus.OK}
    assert {status for status, _ in load.answers} <= {HTTPStatus.OK, HTTPStatus.SERVICE_UNAVAILABLE}
    assert load.seconds_of(HTTPStatus.OK)
    assert load.seconds_of(HTTPStatus.SERVICE_UNAVAILABLE)
    assert load.lost == 0
    assert after.status_code == HTTPStatus.OK
    assert back_after < 10


def test_who_is_refused_while_sending_reads_why(server: Server) -> None:
    """An ordinary client, which reads nothing before it has sent all."""
    body = to_npy(np.tile(ROWS, (10, 1)))
    told: Counter[int] = Counter()

    def ask() -> None:
        with httpx.Client(base_url=server.url, timeout=60) as client:
            for _ in range(5):
                answer = client.post(PREDICT, content=body, headers=HEADERS)
                told[answer.status_code] += 1
                if answer.status_code == HTTPStatus.SERVICE_UNAVAILABLE:
                    assert answer.headers["retry-after"] == "1"

    asking = [threading.Thread(target=ask) for _ in range(12)]
    for each in asking:
        each.start()
    for each in asking:
        each.join()

    assert sum(told.values()) == 60
    assert set(told) <= {HTTPStatus.OK, HTTPStatus.SERVICE_UNAVAILABLE}
