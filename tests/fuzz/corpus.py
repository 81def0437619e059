"""Requests as bytes, and a seeded mutator of them."""

import gzip
import json
import random
import re
from collections.abc import Sequence

import numpy as np

from service.api.payloads import CODECS, codec_of
from service.api.payloads.values import DataAnswer
from tests.service.rows import ONE_OF_EACH, TWO_GROUPS


def request(method: str, path: str, body: bytes = b"", *headers: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: service", *headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


JSON = "Content-Type: application/json"
ROWS = json.dumps({"X": ONE_OF_EACH}).encode()
SPLIT = json.dumps({"columns": ["a", "b"], "data": ONE_OF_EACH}).encode()
TENSOR = {"name": "X", "shape": [2, 2], "datatype": "FP64"}
INFER = json.dumps({"id": "7", "inputs": [{**TENSOR, "data": ONE_OF_EACH}]}).encode()
HEAD = json.dumps({"inputs": [{**TENSOR, "parameters": {"binary_data_size": 32}}]}).encode()
BINARY = HEAD + np.array(ONE_OF_EACH).tobytes()
CHUNKS = (
    b"5\r\n" + ROWS[:5] + b"\r\n" + f"{len(ROWS) - 5:x}\r\n".encode() + ROWS[5:] + b"\r\n0\r\n\r\n"
)


def written(media_type: str) -> bytes:
    """Return rows in this format."""
    X = np.array(TWO_GROUPS)
    return codec_of(media_type).encode(DataAnswer("groups", 1, {"X": X}, ("a", "b")))


def in_every_format() -> list[bytes]:
    """Return questions and fits, each as its format has it, and asking for that format."""
    return [
        request("POST", path, written(media_type), f"Content-Type: {media_type}", *accept)
        for media_type in CODECS
        for path, accept in (
            ("/models/groups/predict_proba", [f"Accept: {media_type}"]),
            ("/models/groups/versions/1/score_samples", ["Accept: text/csv, */*;q=0.1"]),
            ("/models/groups/score/bic", []),
            ("/models/others/fit?wait=5", []),
        )
        if media_type != "application/json"
    ]


CORPUS: Sequence[bytes] = (
    *in_every_format(),
    request("POST", "/models/groups/predict", gzip.compress(ROWS), JSON, "Content-Encoding: gzip"),
    request("POST", "/models/others/fit", ROWS, JSON, "Idempotency-Key: one"),
    request("POST", "/models/groups/diagnostics", ROWS, JSON),
    request("PATCH", "/models/others", b'{"labels":{"a":"b"}}', JSON, "If-Match: *"),
    request("GET", "/livez"),
    request("GET", "/models?page_size=5&order_by=id"),
    request("GET", "/models/groups", b"", 'If-None-Match: "x"'),
    request("GET", "/models/groups/versions/1"),
    request("GET", "/jobs?page_size=2"),
    request("POST", "/models", b'{"n_components":2,"labels":{"a":"b"},"tol":1e-6}', JSON),
    request("POST", "/models/groups/predict", ROWS, JSON),
    request("POST", "/models/groups/predict_proba?version=1", SPLIT, JSON),
    request("POST", "/models/groups/score", ROWS, JSON, "Accept: application/json;q=0.5, */*"),
    request("POST", "/predict", b'{"model":"groups",' + ROWS[1:], JSON, "Request-Timeout: 5"),
    request(
        "POST", "/models/groups/predict", b"[1,2]\n[5,6]\n", "Content-Type: application/x-ndjson"
    ),
    request("POST", "/models/groups/predict", CHUNKS, JSON).replace(
        f"Content-Length: {len(CHUNKS)}".encode(), b"Transfer-Encoding: chunked"
    ),
    request("POST", "/models/groups/sample", b'{"n_samples":3,"random_state":1}', JSON),
    request("PUT", "/models/groups/aliases/champion", b'{"version":1}', JSON),
    request("GET", "/v2/models/groups"),
    request("POST", "/v2/models/groups/infer", INFER),
    request(
        "POST", "/v2/models/groups/infer", BINARY, f"Inference-Header-Content-Length: {len(HEAD)}"
    ),
    request("POST", "/v2/repository/index", b"{}"),
)
NASTY: Sequence[bytes] = (
    *(
        b"NaN",
        b"Infinity",
        b"-0",
        b"1e400",
        b"1e-400",
        b"9" * 40,
        b"null",
        b"true",
        b'"',
        b"[" * 40,
    ),
    *(b"{}", b"\x00", b"\xff\xfe", b"\\ud800", b"\r\n", b"\r\n\r\n", b"%00", b"%", b"../", b": "),
    *(
        b"Content-Length: 0\r\n",
        b"Host: b\r\n",
        b"Content-Encoding: gzip\r\n",
        b"gzip",
        b"-1",
        b"0",
    ),
    *(
        b"Transfer-Encoding: chunked\r\n",
        b"Expect: 100-continue\r\n",
        b"text/csv",
        b"application/x-npy",
    ),
)
MAX_MUTATIONS = 4
NUMERALS = (*(b"%d" % digit for digit in range(10)), b"1e3", b"2E-400", b"-", b".5", b"1e999")
DIGIT = re.compile(rb"[0-9]")
LENGTH = re.compile(rb"Content-Length: [0-9]+")


def mutated(rng: random.Random) -> bytes:
    """Return a request that is wrong anywhere, or in its body alone, whose length is right then."""
    sent = rng.choice(CORPUS)
    head, end, body = sent.partition(b"\r\n\r\n")
    if rng.randrange(2) or not LENGTH.search(head):
        return _mutated(sent, rng)
    wrong = _mutated(body, rng)
    return LENGTH.sub(b"Content-Length: %d" % len(wrong), head) + end + wrong


def _mutated(sent: bytes, rng: random.Random) -> bytes:
    data = bytearray(sent)
    for _ in range(rng.randint(1, MAX_MUTATIONS)):
        begin = rng.randrange(len(data) + 1)
        end = min(len(data), begin + rng.randint(0, 8))
        match rng.randrange(8):
            case 0:
                data[begin:end] = rng.randbytes(end - begin)
            case 1:
                data[begin:end] = rng.choice(NASTY)
            case 2:
                del data[begin : begin + rng.randint(1, 40)]
            case 3:
                data[begin:begin] = data[begin : begin + rng.randint(1, 40)]
            case 4:
                data[begin:begin] = rng.choice(NASTY)
            case 5:
                if begin < len(data):
                    data[begin] ^= 1 << rng.randrange(8)
            case 6:
                digit = DIGIT.search(data, begin)
                data[slice(*digit.span()) if digit else slice(0)] = rng.choice(NUMERALS)
            case _:
                other = rng.choice(CORPUS)
                data[begin:] = other[rng.randrange(len(other)) :]
    return bytes(data)
