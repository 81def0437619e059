"""Compressed bodies: the same rows in fewer bytes, within bounds whatever they unfold to."""

import gzip
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress

import httpx
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from service.api.payloads.encodings import ENCODINGS
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


def test_an_unknown_encoding_is_told_which_ones_there_are(fitted: Client) -> None:
    response = post(fitted, "br", BODY)

    assert response.status_code == 415
    assert response.headers["accept-encoding"] == "gzip, deflate, zstd"


def test_a_body_may_say_that_it_is_not_compressed(fitted: Client) -> None:
    assert post(fitted, "identity", BODY).status_code == 200
