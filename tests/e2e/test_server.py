"""The service as a process of its own, over real HTTP: the whole road, restarts, raw bytes."""

import json
import signal
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from gmm_engine import FitOptions, fit
from service.cli import app
from tests.e2e.server import Server, running
from tests.service.rows import ONE_OF_EACH, TWO_GROUPS
from tests.support.data import faithful

ANSWER_SECONDS = 20.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("e2e") / "registry") as server:
        with server.client() as client:
            client.post("/models", json={"id": "groups", "n_components": 2, "random_state": 0})
            client.post("/models/groups/fit", json={"X": TWO_GROUPS})
        yield server


def test_old_faithful_goes_the_whole_road(server: Server) -> None:
    """Declared, fitted, asked; the maximum is the one that mclust finds (−1130.264068)."""
    X = faithful().tolist()
    with server.client() as client:
        client.post(
            "/models", json={"id": "faithful", "n_components": 2, "n_init": 5, "random_state": 0}
        )
        fitted = client.post("/models/faithful/fit", json={"X": X})
        labels = client.post("/models/faithful/predict", json={"X": X}).json()["labels"]
        responsibilities = client.post("/models/faithful/predict_proba", json={"X": X}).json()
        bic = client.post("/models/faithful/score/bic", json={"X": X}).json()["value"]

    assert fitted.status_code == 200
    assert fitted.json()["log_likelihood"] == pytest.approx(-1130.264068, abs=1e-3)
    assert bic == pytest.approx(fitted.json()["bic"])
    probabilities = np.array(responsibilities["probabilities"])
    assert probabilities.argmax(axis=1).tolist() == labels
    assert probabilities.sum(axis=1) == pytest.approx(1.0)


def test_what_was_fitted_before_a_restart_answers_the_same_after_it(tmp_path: Path) -> None:
    asked = [
        ("POST", "/models/groups/predict_proba", {"X": ONE_OF_EACH}),
        ("POST", "/models/groups/score_samples", {"X": ONE_OF_EACH}),
        ("POST", "/models/groups/score", {"X": TWO_GROUPS}),
        ("POST", "/models/groups/sample", {"n_samples": 5, "random_state": 1}),
        ("GET", "/models/groups/parameters", None),
        ("GET", "/models/groups/score", None),
        ("GET", "/models/groups", None),
        ("GET", "/models/groups/versions/1", None),
        ("GET", "/models/groups/versions/1/artifact", None),
    ]

    def answers(server: Server) -> list[bytes]:
        with server.client() as client:
            return [client.request(method, path, json=body).content for method, path, body in asked]

    with running(tmp_path / "registry") as first:
        with first.client() as client:
            client.post("/models", json={"id": "groups", "n_components": 2})
            client.post("/models/groups/fit", json={"columns": ["a", "b"], "data": TWO_GROUPS})
        before = answers(first)
        assert first.stop() == 0
    with running(tmp_path / "registry") as second:
        after = answers(second)
        with second.client() as client:
            again = client.post("/models/groups/fit", json={"X": TWO_GROUPS}).json()

    assert after == before
    assert again["version"] == 2


def test_a_killed_server_has_kept_what_it_acknowledged(tmp_path: Path) -> None:
    with running(tmp_path / "registry") as first, first.client() as client:
        client.post("/models", json={"id": "groups", "n_components": 2})
        assert client.post("/models/groups/fit", json={"X": TWO_GROUPS}).status_code == 200
        first.process.kill()
        first.process.wait()
    with running(tmp_path / "registry") as second, second.client() as client:
        assert client.get("/models/groups").json()["latest_version"] == 1


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_fit_that_is_cut_off_goes_on_and_ends_in_the_same_parameters(
    tmp_path: Path, number: signal.Signals
) -> None:
    options = FitOptions(n_components=8, tol=1e-14, max_iter=600, random_state=0)
    X = np.random.default_rng(0).normal(size=(40_000, 2))
    settings = {"GMM_DRAIN_SECONDS": "0.1", "GMM_FIT_CHECKPOINT_SECONDS": "0.05"}
    registry = tmp_path / "registry"
    with running(registry, settings) as first, first.client() as client:
        client.post("/models", json={"id": "long", **asdict(options)})
        job = client.post("/models/long/fit?wait=0", json={"X": X.tolist()}).json()["id"]
        while not list(registry.glob("fits/*.checkpoint")):
            time.sleep(0.01)
        first.process.send_signal(number)
        first.process.wait()
    with running(registry, settings) as second, second.client() as client:
        ended = client.get(f"/jobs/{job}?wait=60").json()
        parameters = client.get("/models/long/versions/1/parameters").json()
        given_up = time.monotonic() + 10.0
        while list((registry / "fits").iterdir()) and time.monotonic() < given_up:
            time.sleep(0.05)  # what is kept of a fit goes after its end is told

    assert "job_recovered" in second.log.read_text()
    assert ended["status"] == "succeeded"
    assert ended["progress"]["iteration"] == ended["result"]["n_iter"]
    whole = fit(X, options)
    assert ended["result"]["log_likelihood_history"] == whole.log_likelihoods.tolist()
    assert parameters["means"] == whole.mixture.means.tolist()
    assert parameters["covariances"] == whole.mixture.covariances.tolist()
    assert list((registry / "fits").iterdir()) == []


def test_a_shutdown_lets_go_of_whoever_waits(tmp_path: Path) -> None:
    answers: list[int] = []
    long = {"id": "long", "n_components": 8, "tol": 0, "max_iter": 100_000, "n_init": 100}
    X = np.random.default_rng(0).normal(size=(3000, 2)).tolist()
    settings = {"GMM_DRAIN_SECONDS": "1"}
    with running(tmp_path / "registry", settings) as server, server.client() as client:
        client.post("/models", json=long)
        waiting = threading.Thread(
            target=lambda: answers.append(
                client.post("/models/long/fit?wait=60", json={"X": X}).status_code
            )
        )
        waiting.start()
        while not client.get("/jobs").json()["jobs"]:
            time.sleep(0.05)
        begun = time.monotonic()
        code = server.stop()
        waiting.join()

    assert code == 0
    assert answers == [202]
    assert time.monotonic() - begun < 20


def test_predictions_go_on_while_a_fit_runs(server: Server) -> None:
    long = {"id": "busy", "n_components": 8, "tol": 0, "max_iter": 100_000}
    X = np.random.default_rng(0).normal(size=(3000, 2)).tolist()
    with server.client() as client:
        client.post("/models", json=long)
        job = client.post("/models/busy/fit?wait=0", json={"X": X}).json()
        durations = []
        for _ in range(50):
            begun = time.perf_counter()
            assert client.post("/models/groups/predict", json={"X": ONE_OF_EACH}).status_code == 200
            durations.append(time.perf_counter() - begun)
        client.post(f"/jobs/{job['id']}/cancel")
        ended = client.get(f"/jobs/{job['id']}?wait=30").json()

    assert ended["status"] == "cancelled"
    assert float(np.median(durations)) < 1.0


def test_head_is_get_without_the_body(server: Server) -> None:
    with server.client() as client:
        head, get = client.head("/models/groups"), client.get("/models/groups")

    assert head.status_code == 200
    assert head.content == b""
    for name in ("content-length", "etag", "content-type"):
        assert head.headers[name] == get.headers[name]


def raw(server: Server, request: bytes) -> bytes:
    """Send the request, asking for the connection's end, and return what comes back until then."""
    return exchanged(
        server, request.replace(b"HTTP/1.1\r\n", b"HTTP/1.1\r\nConnection: close\r\n", 1)
    )


def exchanged(server: Server, requests: bytes) -> bytes:
    with socket.create_connection(server.address, timeout=ANSWER_SECONDS) as connection:
        connection.sendall(requests)
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
    return received


RAW = {
    "no host": (b"GET /livez HTTP/1.1\r\n\r\n", b"400"),
    "two hosts": (b"GET /livez HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", b"400"),
    "http 1.0 without a host": (b"GET /livez HTTP/1.0\r\n\r\n", b"200"),
    "no http at all": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"400"),
    "a null byte in the path": (b"GET /models/%00 HTTP/1.1\r\nHost: a\r\n\r\n", b"404"),
    "bytes beyond ascii in the path": (
        b"GET /models/%ff%fe HTTP/1.1\r\nHost: a\r\n\r\n",
        b"404",
    ),
    "a body that is announced too large": (
        b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        b"Content-Length: 99999999999\r\n\r\n",
        b"413",
    ),
    "a length that is no number": (
        b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
        b"400",
    ),
    "a get with a body": (
        b"GET /livez HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
        b"200",
    ),
    "a head that is just small enough": (
        b"GET /livez HTTP/1.1\r\nHost: a\r\nX-Long: " + b"x" * 32_000 + b"\r\n\r\n",
        b"200",
    ),
    "a header that is too large": (
        b"GET /livez HTTP/1.1\r\nHost: a\r\nX-Long: " + b"x" * 33_000 + b"\r\n\r\n",
        b"431",
    ),
    "too many headers": (
        b"GET /livez HTTP/1.1\r\nHost: a\r\n" + b"X-Many: 0123456789\r\n" * 3000 + b"\r\n",
        b"431",
    ),
    "a path that is too long": (
        b"GET /" + b"x" * 33_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"431",
    ),
    "a chunked body": (
        b"POST /models/groups/predict HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n5\r\n"
        + b'{"X":'
        + b"\r\n8\r\n"
        + b"[[1,2]]}"
        + b"\r\n0\r\n\r\n",
        b"200",
    ),
}


@pytest.mark.parametrize("case", RAW)
def test_raw_bytes_are_answered(server: Server, case: str) -> None:
    request, status = RAW[case]

    answer = raw(server, request)

    assert answer.split(b" ", 2)[1] == status
    assert b"Traceback" not in answer
    if status >= b"400":
        head, _, content = answer.partition(b"\r\n\r\n")
        problem = json.loads(content)
        assert b"application/problem+json" in head
        assert f"x-request-id: {problem['request_id']}" in head.decode().lower()
        assert problem["status"] == int(status)


def test_a_header_that_never_ends_is_cut_off(server: Server) -> None:
    with socket.create_connection(server.address, timeout=ANSWER_SECONDS) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: a\r\nX-Long: ")
        sent = 0
        try:
            while sent < 10 * 2**20:
                sent += connection.send(b"x" * 4096)
        except ConnectionError:
            pass

    assert sent < 10 * 2**20


def test_a_request_after_a_body_has_a_head_of_its_own(server: Server) -> None:
    body = b'{"X":[[1,2]]' + b" " * 60_000 + b"}"
    one = (
        b"POST /models/groups/predict HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        + f"Content-Length: {len(body)}\r\n\r\n".encode()
        + body
    )
    last = one.replace(b"Host: a", b"Host: a\r\nConnection: close")
    answer = exchanged(server, one * 2 + last)

    assert answer.count(b"HTTP/1.1 200") == 3


def test_a_body_that_grows_too_large_is_cut_off(tmp_path: Path) -> None:
    with running(tmp_path / "registry", {"GMM_MAX_BODY_BYTES": "2000"}) as server:
        chunks = (b"3e8\r\n" + b" " * 1000 + b"\r\n") * 5 + b"0\r\n\r\n"
        answer = raw(
            server,
            b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n" + chunks,
        )

    assert answer.startswith(b"HTTP/1.1 413")
    assert b"body_too_large" in answer


def test_a_client_that_goes_away_in_its_body_leaves_no_error(server: Server) -> None:
    with socket.create_connection(server.address, timeout=ANSWER_SECONDS) as connection:
        connection.sendall(
            b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
            b"Content-Length: 1000\r\n\r\n{"
        )
    with server.client() as client:
        assert client.get("/livez").status_code == 200

    assert "unexpected_error" not in server.log.read_text()


def test_each_request_is_one_line_of_json_without_the_data(server: Server) -> None:
    with server.client() as client:
        answer = client.post("/models/groups/predict", json={"X": [[123.456, 2.0]]})

    request_id = answer.headers["x-request-id"]
    while request_id not in server.log.read_text():  # it is written when the answer is gone
        time.sleep(0.01)
    lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    (request,) = (line for line in lines if line.get("request_id") == request_id)
    assert request["route"] == "/models/{id}/predict"
    assert request["status"] == 200
    assert "123.456" not in server.log.read_text()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"GMM_HOST": "192.0.2.1"}, "GMM_ALLOW_UNAUTHENTICATED"),
        ({"GMM_PORT": "70000"}, "GMM_PORT"),
        ({"GMM_FIT_THREADS": "none"}, "GMM_FIT_THREADS"),
        ({"GMM_MAX_BODY_BYTE": "1024"}, "did you mean GMM_MAX_BODY_BYTES?"),
        ({"gmm_colour": "red"}, "gmm_colour: there is no such setting"),
    ],
)
def test_settings_that_can_not_be_meant_stop_the_start(
    tmp_path: Path, settings: dict[str, str], message: str
) -> None:
    ended = CliRunner().invoke(app, ["serve", "--registry-dir", str(tmp_path)], env=settings)

    assert ended.exit_code == 2
    assert message in ended.stderr


def test_variables_that_a_cluster_sets_beside_a_service_of_that_name_are_no_settings(
    tmp_path: Path,
) -> None:
    (tmp_path / "format").write_text("gmm-registry 99\n")
    settings = {"GMM_SERVICE_HOST": "10.0.0.1", "GMM_PORT_8000_TCP_ADDR": "10.0.0.1"}

    ended = CliRunner().invoke(
        app, ["serve", "--port", "0", "--registry-dir", str(tmp_path)], env=settings
    )

    assert "no such setting" not in ended.stderr
    assert "can't use the registry" in ended.stderr


def test_a_registry_of_another_make_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "format").write_text("gmm-registry 99\n")

    ended = CliRunner().invoke(app, ["serve", "--port", "0", "--registry-dir", str(tmp_path)])

    assert ended.exit_code == 2
    assert "can't use the registry" in ended.stderr


def test_a_port_that_is_taken_is_said_plainly(server: Server, tmp_path: Path) -> None:
    port = str(server.address[1])

    ended = CliRunner().invoke(app, ["serve", "--port", port, "--registry-dir", str(tmp_path)])

    assert ended.exit_code == 2
    assert f"can't listen on 127.0.0.1:{port}" in ended.stderr
