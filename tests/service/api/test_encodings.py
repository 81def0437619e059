"""Compressed bodies: the same rows in fewer bytes, within bounds whatever they unfold to."""

import gzip
import json
import struct
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import cast

import httpx
import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from service.api.payloads.encodings import ENCODINGS, ZlibDecoder
from service.api.payloads.values import Body
from service.errors import MalformedRequest
from service.settings import Settings
from tests.service.client import JSON_HEADERS, Client, serving
from tests.service.rows import ONE_OF_EACH, TWO_GROUPS

MEBIBYTE = 1024**2
COMPRESS: Mapping[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "zstd": zstandard.ZstdCompressor().compress,
}
BODY = b'{"X":[[1.0,2.0],[5.0,6.0]]}'

names = pytest.mark.parametrize("name", COMPRESS)


def unfolded(name: str, parts: list[bytes]) -> bytes:
    decoder = ENCODINGS[name]()
    plain = b"".join(portion for part in parts for portion in decoder.decode(part))
    decoder.end()
    return plain


def post(client: Client, name: str, body: bytes, path: str = "/predict") -> httpx.Response:
    headers = {**JSON_HEADERS, "content-encoding": name}
    return client.send("POST", path, body=body, headers=headers)


@names
@settings(deadline=None)
@given(plain=st.binary(max_size=5000), begin=st.integers(0, 5000), end=st.integers(0, 5000))
def test_what_was_compressed_comes_out_in_whatever_pieces_it_arrives(
    name: str, plain: bytes, begin: int, end: int
) -> None:
    body = COMPRESS[name](plain[:1000]) + COMPRESS[name](plain[1000:])

    assert unfolded(name, [body[:begin], body[begin:end], body[max(begin, end) :]]) == plain


@names
@settings(deadline=None)
@given(place=st.integers(0, 200), byte=st.integers(0, 255), kept=st.integers(0, 200))
def test_damaged_bytes_are_refused_or_unfold_to_something(
    name: str, place: int, byte: int, kept: int
) -> None:
    body = bytearray(COMPRESS[name](BODY * 3))
    body[place % len(body)] = byte

    with suppress(MalformedRequest):
        unfolded(name, [bytes(body[: kept or None])])


@names
def test_a_compressed_body_is_answered_like_a_plain_one(fitted: Client, name: str) -> None:
    plain = fitted.post("/predict", {"X": ONE_OF_EACH})

    assert post(fitted, name, COMPRESS[name](BODY)).content == plain.content


@names
def test_a_control_body_may_be_compressed_too(client: Client, name: str) -> None:
    assert post(client, name, COMPRESS[name](b'{"id":"m"}'), "/models").status_code == 201


@names
def test_half_a_compressed_body_is_refused(fitted: Client, name: str) -> None:
    response = post(fitted, name, COMPRESS[name](BODY)[:-5])

    assert (response.status_code, response.json()["code"]) == (400, "malformed_encoding")


@pytest.fixture(scope="module")
def small() -> Iterator[Client]:
    with serving(Settings(max_body_bytes=4 * MEBIBYTE)) as client:
        client.post("/models", {"id": "groups"})
        client.post("/models/groups/fit", {"X": TWO_GROUPS})
        yield client


@names
def test_a_body_is_bounded_by_what_it_unfolds_to(small: Client, name: str) -> None:
    rows = b'{"X":[' + b",".join(b"[%d.25,%d.5]" % (n, n * 7 % 1000) for n in range(400_000))
    body = COMPRESS[name](rows + b"]}")
    assert len(body) < 4 * MEBIBYTE

    response = post(small, name, body)

    assert (response.status_code, response.json()["code"]) == (413, "body_too_large")
    assert "4194304 bytes" in response.json()["detail"]


@names
def test_a_bomb_is_stopped_before_it_unfolds(small: Client, name: str) -> None:
    bomb = COMPRESS[name](b" " * (64 * MEBIBYTE))

    tracemalloc.start()
    response = post(small, name, bomb)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert response.status_code == 413
    assert peak < 40 * MEBIBYTE


@names
def test_a_body_is_bounded_by_how_much_it_shrank(fitted: Client, name: str) -> None:
    response = post(fitted, name, COMPRESS[name](b" " * (20 * MEBIBYTE)))

    assert (response.status_code, response.json()["code"]) == (413, "body_too_large")
    assert "times its size" in response.json()["detail"]


SKIPPED = struct.pack("<II", 0x184D2A50, 0)
"""A skippable frame of zstd with nothing in it (RFC 8878, 3.1.2)."""
EMPTY: Mapping[str, bytes] = {
    "gzip": gzip.compress(b""),
    "deflate": zlib.compress(b""),
    "zstd": SKIPPED,
}


@pytest.mark.parametrize("name", EMPTY)
@pytest.mark.parametrize(
    ("path", "media_type"),
    [
        ("/predict", "application/json"),
        ("/predict", "application/x-ndjson"),
        ("/models", "application/json"),
        ("/models/groups/fit", "application/json"),
        ("/v2/models/groups/infer", "application/json"),
    ],
)
def test_a_body_of_many_tiny_members_is_refused(
    fitted: Client, name: str, path: str, media_type: str
) -> None:
    headers = {"content-type": media_type, "content-encoding": name}
    response = fitted.send("POST", path, body=EMPTY[name] * 10_000, headers=headers)

    assert response.status_code == 400
    assert "must have 64 bytes on average" in response.text


@pytest.mark.parametrize("name", EMPTY)
def test_some_members_may_be_empty(fitted: Client, name: str) -> None:
    body = EMPTY[name] * 900 + (zlib.compress(BODY) if name == "deflate" else COMPRESS[name](BODY))

    assert post(fitted, name, body).status_code == 200


def test_a_line_may_be_a_member() -> None:
    rows = np.random.default_rng(0).normal(size=(5000, 4)).tolist()
    lines = [json.dumps(row).encode() + b"\n" for row in rows]

    assert unfolded("gzip", [b"".join(map(gzip.compress, lines))]) == b"".join(lines)


@names
def test_members_take_time_in_proportion_to_their_number(name: str) -> None:
    member = COMPRESS[name](bytes(np.random.default_rng(0).bytes(80)))

    def seconds(n_members: int) -> float:
        begun = time.thread_time()
        unfolded(name, [member * n_members])
        return time.thread_time() - begun

    few = min(seconds(3000) for _ in range(3))
    assert seconds(30_000) < 30 * few


def test_a_late_answer_is_told_while_its_body_unfolds(
    fitted: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_portions = 0

    class SlowDecoder(ZlibDecoder):
        def decode(self, data: Body) -> Iterator[bytes]:
            nonlocal n_portions
            for portion in super().decode(data):
                time.sleep(0.05)
                n_portions += 1
                yield portion

    monkeypatch.setitem(
        cast("dict[str, object]", ENCODINGS), "gzip", lambda: SlowDecoder("gzip", 31)
    )
    rows = np.random.default_rng(0).integers(0, 2, 12 * MEBIBYTE).astype("S1").tobytes()
    headers = {**JSON_HEADERS, "content-encoding": "gzip", "request-timeout": "0.1"}
    response = fitted.send("POST", "/predict", body=gzip.compress(rows, 1), headers=headers)

    assert (response.status_code, response.json()["code"]) == (503, "deadline_exceeded")
    assert 1 <= n_portions <= 6


def test_a_zstd_window_beyond_what_is_taken_is_told_so(fitted: Client) -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=24)
    body = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    response = post(fitted, "zstd", body.compress(BODY) + body.flush())

    assert (response.status_code, response.json()["code"]) == (400, "malformed_encoding")
    assert "window of 8388608 bytes at most" in response.json()["detail"]


def test_an_unknown_encoding_is_told_which_ones_there_are(fitted: Client) -> None:
    response = post(fitted, "br", BODY)

    assert response.status_code == 415
    assert response.headers["accept-encoding"] == "gzip, deflate, zstd"


def test_a_body_may_say_that_it_is_not_compressed(fitted: Client) -> None:
    assert post(fitted, "identity", BODY).status_code == 200


@pytest.mark.parametrize(
    "said", ["x-gzip", "X-GZip", ", gzip", "gzip ,, ", "identity, gzip", "gzip,identity"]
)
def test_gzip_is_known_by_its_old_name_and_among_what_changes_nothing(
    fitted: Client, said: str
) -> None:
    headers = {"content-type": "application/json", "content-encoding": said}
    body = gzip.compress(BODY)

    response = fitted.send("POST", "/predict", body=body, headers=headers)

    assert response.status_code == 200
    assert response.content == fitted.post("/predict", {"X": ONE_OF_EACH}).content


@pytest.mark.parametrize("said", ["gzip, gzip", "x-gzip, deflate", "identity, br", "x-deflate"])
def test_one_coding_over_another_is_refused(fitted: Client, said: str) -> None:
    headers = {"content-type": "application/json", "content-encoding": said}
    response = fitted.send("POST", "/predict", body=gzip.compress(BODY), headers=headers)
    assert (response.status_code, response.json()["code"]) == (415, "unsupported_encoding")


@pytest.mark.parametrize("said", ["identity", "", ",", "identity,, Identity"])
def test_codings_that_change_nothing_are_none(fitted: Client, said: str) -> None:
    headers = {"content-type": "application/json", "content-encoding": said}
    assert fitted.send("POST", "/predict", body=BODY, headers=headers).status_code == 200
