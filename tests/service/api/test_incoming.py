"""Bytes in the order of their coming, cut anew: in pieces as they came, or in a place for them."""

import numpy as np
import pytest

from service.api.payloads.incoming import Incoming

BYTES = np.random.default_rng(0).bytes(10_000)


def taken(incoming: Incoming, n_bytes: int) -> bytes:
    return bytes(incoming.take(n_bytes))


@pytest.mark.parametrize("step", [1, 7, 64, 3000, len(BYTES)])
def test_what_was_reserved_for_is_in_one_piece_and_the_rest_behind_it(step: int) -> None:
    incoming = Incoming()
    incoming.add(BYTES[:10])
    assert taken(incoming, 3) == BYTES[:3]
    incoming.reserve(5000)
    incoming.reserve(5000)  # once more says nothing new
    for begin in range(10, len(BYTES), step):
        incoming.add(BYTES[begin : begin + step])

    assert len(incoming) == len(BYTES) - 3
    assert incoming.room is None
    assert incoming.peek(20) == BYTES[3:23]
    assert taken(incoming, 5000) == BYTES[3:5003]
    assert taken(incoming, len(BYTES) - 5003) == BYTES[5003:]


def test_what_was_written_into_the_room_is_not_copied() -> None:
    incoming = Incoming()
    incoming.add(BYTES[:10])
    incoming.reserve(5000)
    for _ in range(2):
        room = incoming.room
        assert room is not None
        assert len(room) == 5000 - len(incoming)
        part = room[:2495]
        part[:] = BYTES[len(incoming) : len(incoming) + len(part)]
        incoming.add(part)

    assert incoming.room is None
    whole = incoming.take(5000)
    assert whole == BYTES[:5000]
    assert np.shares_memory(np.frombuffer(whole, np.uint8), np.frombuffer(part, np.uint8))


def test_without_a_reservation_there_is_no_room() -> None:
    incoming = Incoming()
    incoming.add(BYTES)

    assert incoming.room is None
    assert taken(incoming, len(BYTES)) == BYTES
