"""Clients that ask whether to send their body (RFC 9110, 10.1.1)."""

import json
import socket
from collections.abc import Iterator

import pytest

from tests.e2e.server import Server, running
from tests.service.rows import TWO_GROUPS

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
BODY = b'{"X": [[1, 2]]}'
BODY_OF_V2 = b'{"inputs":[{"name":"X","shape":[1,2],"datatype":"FP64","data":[1,2]}]}'
QUESTIONS = ["predict", "predict_proba", "score_samples", "score", "score/bic"]
ANSWER_SECONDS = 30.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Serve ``groups`` without its first version, a model that was deleted, and an unfitted one."""
    with running(tmp_path_factory.mktemp("expect") / "registry") as server:
        with server.client() as client:
            for model_id in ("groups", "gone", "new"):
                client.post("/models", json={"id": model_id, "n_components": 2, "random_state": 0})
            for model_id in ("groups", "groups", "gone"):
                client.post(f"/models/{model_id}/fit?wait=60", json={"X": TWO_GROUPS})
            client.delete("/models/groups/versions/1")
            client.delete("/models/gone")
        yield server


def head(path: str, body: bytes = BODY) -> bytes:
    lines = [
        f"POST {path} HTTP/1.1", "Host: a", "Expect: 100-continue",
        "Content-Type: application/json", f"Content-Length: {len(body)}",
    ]  # fmt: skip
    return "\r\n".join([*lines, "", ""]).encode()


def first_words(server: Server, path: str) -> tuple[bytes, bytes]:
    """Return the status line, and what follows the head, that are answered to a head alone."""
    with socket.create_connection(server.address, timeout=ANSWER_SECONDS) as client:
        client.sendall(head(path))
        received = client.recv(65536)
        while b"\r\n\r\n" not in received:
            received += client.recv(65536)
        told, _, content = received.partition(b"\r\n\r\n")
        for line in told.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                while len(content) < int(line.partition(b":")[2]):
                    content += client.recv(65536)
        return told.partition(b"\r\n")[0], content


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize(
    ("where", "code"),
    [
        ("/models/nope/{}", "model_not_found"),
        ("/models/gone/{}", "model_not_found"),
        ("/models/groups/versions/1/{}", "version_not_found"),
        ("/models/groups/{}?version=1", "version_not_found"),
        ("/models/groups/{}?alias=nope", "alias_not_found"),
        ("/{}?model=gone", "model_not_found"),
    ],
)
def test_a_question_to_nobody_is_refused_before_its_rows_are_asked_for(
    server: Server, question: str, where: str, code: str
) -> None:
    status, content = first_words(server, where.format(question))

    assert status == b"HTTP/1.1 404 Not Found"
    assert json.loads(content)["code"] == code


@pytest.mark.parametrize("path", ["nope", "gone", "groups/versions/1"])
def test_inference_by_nobody_is_refused_before_its_tensors_are_asked_for(
    server: Server, path: str
) -> None:
    status, content = first_words(server, f"/v2/models/{path}/infer")

    assert status == b"HTTP/1.1 404 Not Found"
    assert set(json.loads(content)) == {"error"}


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/models/new/predict", b"HTTP/1.1 409 Conflict"),
        ("/predict?model=new", b"HTTP/1.1 409 Conflict"),
        ("/v2/models/new/infer", b"HTTP/1.1 503 Service Unavailable"),
    ],
)
def test_a_model_without_a_version_asks_for_no_rows(
    server: Server, path: str, status: bytes
) -> None:
    assert first_words(server, path)[0] == status


@pytest.mark.parametrize(
    ("path", "body"),
    [
        *((f"/models/groups/{question}", BODY) for question in QUESTIONS),
        ("/predict", b'{"model": "groups", "X": [[1, 2]]}'),
        ("/predict?model=groups", BODY),
        ("/v2/models/groups/infer", BODY_OF_V2),
    ],
)
def test_what_can_be_answered_is_asked_for(server: Server, path: str, body: bytes) -> None:
    with socket.create_connection(server.address, timeout=ANSWER_SECONDS) as client:
        client.sendall(head(path, body))
        assert client.recv(len(CONTINUE), socket.MSG_WAITALL) == CONTINUE
        client.sendall(body)

        assert client.recv(65536).startswith(b"HTTP/1.1 200 OK\r\n")
