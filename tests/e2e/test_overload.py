"""Five times what can be computed: some of it is answered, the rest refused, and nothing else."""

import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http import HTTPStatus
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.open_loop import OpenLoop
from service.api.door import TELLING_SECONDS
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


def test_the_load_goes_on_although_its_process_was_forked(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is forked keeps every connection that is open then."""
    kept: list[socket.socket] = []

    class Forked(socket.socket):
        def connect_ex(self, address: Any) -> int:
            kept.append(self.dup())
            return super().connect_ex(address)

    monkeypatch.setattr(socket, "socket", Forked)
    raw = b"GET /livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    load = OpenLoop(server.address[1], raw, rate=100, seconds=0.5).run()
    for each in kept:
        each.close()

    assert load.sent == len(load.seconds_of(HTTPStatus.OK)) == len(kept)


Told = tuple[int, str | None]
"""A status, and after how long one may try again."""


def by_httpx(server: Server, body: bytes) -> Told:
    with server.client() as client:
        answer = client.post(PREDICT, content=body, headers=HEADERS)
    return answer.status_code, answer.headers.get("retry-after")


def by_standard_library(server: Server, body: bytes) -> Told:
    with closing(HTTPConnection(*server.address, timeout=60)) as connection:
        connection.request("POST", PREDICT, body, HEADERS)
        answer = connection.getresponse()
        answer.read()
    return answer.status, answer.getheader("retry-after")


@pytest.mark.parametrize("ask", [by_httpx, by_standard_library])
def test_who_is_refused_while_sending_reads_why(
    server: Server, ask: Callable[[Server, bytes], Told]
) -> None:
    """Ordinary clients, which read nothing before they have sent all."""
    body = to_npy(np.tile(ROWS, (10, 1)))
    told: Counter[Told] = Counter()

    def ask_again_and_again() -> None:
        for _ in range(5):
            told[ask(server, body)] += 1

    asking = [threading.Thread(target=ask_again_and_again) for _ in range(12)]
    for each in asking:
        each.start()
    for each in asking:
        each.join()

    assert sum(told.values()) == 60
    assert set(told) <= {(HTTPStatus.OK, None), (HTTPStatus.SERVICE_UNAVAILABLE, "1")}
    assert told[HTTPStatus.SERVICE_UNAVAILABLE, "1"]


def test_a_shutdown_under_overload_answers_everyone_who_got_through(tmp_path: Path) -> None:
    body = to_npy(ROWS)
    head = f"POST {PREDICT} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: {NPY}\r\n"
    raw = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    told: Counter[bytes] = Counter()

    def ask_until_it_is_closed(address: tuple[str, int]) -> None:
        while True:
            try:
                connection = socket.create_connection(address, timeout=60)
            except ConnectionRefusedError:
                return
            with connection:
                connection.sendall(raw)
                told[connection.recv(100)[9:12]] += 1

    with running(tmp_path / "registry", {"GMM_COMPUTE_QUEUE_SIZE": "4"}) as server:
        with server.client() as client:
            client.post("/models", json={"id": "groups", "n_components": 2})
            client.post("/models/groups/fit", json={"X": TWO_GROUPS})
        with ThreadPoolExecutor(32) as pool:
            asking = [pool.submit(ask_until_it_is_closed, server.address) for _ in range(32)]
            time.sleep(1.5)
            code = server.stop()
            for each in asking:
                each.result()  # raises if one was reset

    assert code == 0
    assert set(told) == {b"200", b"503"}


def test_what_is_refused_is_counted_in_the_log(server: Server) -> None:
    body = to_npy(ROWS)
    head = f"POST {PREDICT} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: {NPY}\r\n"
    raw = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    before = settled_refusals(server)

    load = OpenLoop(server.address[1], raw, rate=2000, seconds=1).run()
    n_refused = len(load.seconds_of(HTTPStatus.SERVICE_UNAVAILABLE))

    assert n_refused
    assert settled_refusals(server) - before == n_refused


def settled_refusals(server: Server) -> int:
    """Return how many were refused when no more are told of."""
    told, last = logged_refusals(server), -1
    while told != last:
        time.sleep(TELLING_SECONDS + 0.5)
        told, last = logged_refusals(server), told
    return told


def logged_refusals(server: Server) -> int:
    """Return how many were refused by the log: one by one, or counted."""
    events = map(json.loads, server.log.read_text().splitlines())
    names = {"request_refused", "requests_refused"}
    return sum(each.get("count", 1) for each in events if each["event"] in names)
