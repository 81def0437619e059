"""What is done at the door, as one compiled pass that holds no lock."""

from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numba import njit, types
from numpy.typing import NDArray

from service.api.door.heads import LARGE, OTHER, judge
from service.api.door.system import (
    STATE_BITS,
    accepted,
    close,
    drop,
    end_of,
    end_sending,
    is_not_yet,
    pause,
    peek,
    seconds,
    send,
    wait,
    write,
)
from service.api.payloads.numerals.compiling import COMPILED, INLINED, OPTIONS, stamp_of

STAMP = stamp_of(Path(__file__).parent)

IS_OVER, N_SEEN, N_HANDED, N_REFUSED, SEED, N_COUNTS = range(6)
"""Places of what the pass shares with the loop; the first two are the loop's to write."""

MOST_UNKNOWN = 512
"""Connections whose head is not here yet; one more is handed over as it is."""
UNKNOWN_SECONDS = 0.5
"""After which it is handed over in any case."""
MOST_LEAVING = 256
"""Connections that are refused and may end what they send; the others are closed at once."""
REST_SECONDS = 0.05
"""In which nothing is read of them: who looks for an answer while sending is gone by then."""
LINGER_SECONDS = 2.0
"""In which who was refused may end what it is sending, and read why."""
DROPPED_BYTES_PER_SECOND = 512 * 1024**2
"""Read of what they still send, all together."""
TICK_SECONDS = 0.01
_TICK, _LONG_TICK = 10, 100
"""Milliseconds."""
_GATHERING = 3
"""Milliseconds after a refusal, in which others come: each time that this thread wakes up, and each
time that it wakes up a client, costs as much as a refusal."""
SHORT_SECONDS = 0.1
"""After a refusal, in which the queue is kept short: who comes while many wait is refused."""
LAST_SECONDS = 0.25
"""For which who was refused may end what it sends when the door is closed."""
MANY = 8
"""Who come at once are more than the loop should accept one by one."""
CALM_SECONDS = 2.0
"""Without a refusal, or many at once, after which the door is left to the loop."""

ID_MARK, LENGTH_MARK = 0, 1
"""Bytes that stand in a refusal where the request's id belongs, and its content's length."""

_HEAD_BYTES = 4096
_ANSWER_BYTES = 4096
_DROPPED_AT_ONCE = 1024**2
_MOST_ROOM = DROPPED_BYTES_PER_SECOND // 10
_READABLE = 1
_FIRST_UNKNOWN = 2
"""Among the files that are waited for, behind the listener and what wakes the guard."""
_EMPTY_LINE = np.frombuffer(b"\r\n", dtype=np.uint8)
_DIGITS = np.frombuffer(b"0123456789abcdef", dtype=np.uint8)
_ID_DIGITS = 32
_WORD_DIGITS = 16


UNKNOWN, DONE, REFUSED = range(3)


class Few(NamedTuple):
    """Connections, and since when they are what they are."""

    files: NDArray[np.int32]
    since: NDArray[np.float64]
    count: NDArray[np.int64]
    """One number."""


class Desk(NamedTuple):
    """What a connection is met with."""

    handing: int
    """The pipe to the loop."""
    places: NDArray[np.int64]
    spared: NDArray[np.int64]
    """One number: of the places that are free, how many nobody gets now."""
    counts: NDArray[np.int64]
    plain: NDArray[np.uint8]
    """The refusal, with its marks, and where its content begins; and that under /v2."""
    plain_content: int
    v2: NDArray[np.uint8]
    v2_content: int
    head: NDArray[np.uint8]
    answer: NDArray[np.uint8]
    own_id: NDArray[np.uint8]
    message: NDArray[np.int32]
    unknown: Few
    leaving: Few


@njit(**INLINED)
def _random(counts):
    """Return 64 random bits: the generator that is known as SplitMix64."""
    state = np.uint64(counts[SEED]) + np.uint64(0x9E3779B97F4A7C15)
    counts[SEED] = np.int64(state)
    bits = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


@njit(**INLINED)
def _new_id(counts, own_id):
    for place in range(_ID_DIGITS):
        if place % _WORD_DIGITS == 0:
            bits = _random(counts)
        own_id[place] = _DIGITS[bits & np.uint64(15)]
        bits >>= np.uint64(4)


@njit(**INLINED)
def _put_number(answer, at, number):
    """Write a number of up to four digits."""
    is_begun = False
    for unit in (1000, 100, 10, 1):
        digit = number // unit % 10
        is_begun |= digit > 0 or unit == 1
        if is_begun:
            answer[at] = _DIGITS[digit]
            at += 1
    return at


@njit(**INLINED)
def _written(refusal, content_begin, request_id, answer):
    """Write the refusal of a request with this id; return how long it is."""
    n_bytes = refusal.size - content_begin
    for place in range(content_begin, refusal.size):
        if refusal[place] == ID_MARK:
            n_bytes += request_id.size - 1
    at = 0
    for place in range(refusal.size):
        byte = refusal[place]
        if byte == ID_MARK:
            for part in request_id:
                answer[at] = part
                at += 1
        elif byte == LENGTH_MARK:
            at = _put_number(answer, at, n_bytes)
        else:
            answer[at] = byte
            at += 1
    return at


@njit(**INLINED)
def _hand(desk, file, kind):
    """Hand a connection over to the loop, and what kind of request has come on it."""
    desk.message[0], desk.message[1] = file, kind
    desk.counts[N_HANDED] += kind == LARGE
    if write(desk.handing, desk.message) != desk.message.nbytes:
        desk.counts[N_HANDED] -= kind == LARGE
        close(file)


@njit(**INLINED)
def _refuse(desk, file, is_v2, request_id):
    refusal, content_begin = (
        (desk.v2, desk.v2_content) if is_v2 else (desk.plain, desk.plain_content)
    )
    send(file, desk.answer, _written(refusal, content_begin, request_id, desk.answer))
    desk.counts[N_REFUSED] += 1


@njit(**COMPILED)
def _met(desk, file):
    """Return whether a connection is done with, has sent nothing yet, or is refused now."""
    n_bytes = peek(file, desk.head)
    if n_bytes < 0 and is_not_yet():
        return UNKNOWN
    if n_bytes <= 0:
        close(file)
        return DONE
    kind, is_v2, id_begin, id_end = judge(desk.head, n_bytes)
    n_free = desk.places[0] - desk.spared[0]
    if kind == LARGE and n_free <= desk.counts[N_HANDED] - desk.counts[N_SEEN]:
        if id_begin == id_end:
            _new_id(desk.counts, desk.own_id)
            _refuse(desk, file, is_v2, desk.own_id)
        else:
            _refuse(desk, file, is_v2, desk.head[id_begin:id_end])
        return REFUSED
    _hand(desk, file, kind)
    return DONE


@njit(**INLINED)
def _add(few, file, now):
    count = few.count[0]
    few.files[count], few.since[count] = file, now
    few.count[0] = count + 1


@njit(**INLINED)
def _see_out(leaving, file, now):
    """Let who was refused end what is on its way, and read why."""
    if leaving.count[0] == MOST_LEAVING:
        close(file)
    else:
        _add(leaving, file, now)


@njit(**COMPILED)
def _meet_known(desk, polled, now):
    """Meet those who have said something, or are silent for too long; tell if one is refused."""
    unknown = desk.unknown
    n_before, has_refused = unknown.count[0], False
    unknown.count[0] = 0
    for place in range(n_before):
        file, since = unknown.files[place], unknown.since[place]
        is_silent = not _is_ready(polled, _FIRST_UNKNOWN + place)
        state = UNKNOWN if is_silent else _met(desk, file)
        if state == REFUSED:
            has_refused = True
            _see_out(desk.leaving, file, now)
        elif state == UNKNOWN and now - since > UNKNOWN_SECONDS:
            _hand(desk, file, OTHER)
        elif state == UNKNOWN:
            _add(unknown, file, since)
    return has_refused


@njit(**COMPILED)
def _meet_new(desk, listener, now):
    """Accept all who wait; tell if one is refused, or many have come."""
    has_refused, n_new = False, 0
    while True:
        file = accepted(listener)
        if file < 0:
            if not is_not_yet():  # no more files: not at once again
                pause(_TICK)
            return has_refused, n_new >= MANY
        n_new += 1
        state = _met(desk, file)
        if state == REFUSED:
            has_refused = True
            _see_out(desk.leaving, file, now)
        elif state == UNKNOWN and desk.unknown.count[0] == MOST_UNKNOWN:
            _hand(desk, file, OTHER)
        elif state == UNKNOWN:
            _add(desk.unknown, file, now)


@njit(**INLINED)
def _read_on(file, room):
    """Drop what has come, as far as the room goes; return what is left of it, and if that is all.

    It is all, too, when the other end is gone.
    """
    while room > 0:
        n_bytes = drop(file, min(room, _DROPPED_AT_ONCE))
        if n_bytes <= 0:
            return room, n_bytes == 0 or not is_not_yet()
        room -= n_bytes
    return room, False


@njit(**INLINED)
def has_left(file, room):
    """Tell whether who was refused has closed the connection before all was sent.

    What was not sent by then still comes, and the end only after that: to wait for the end is to
    read all. But the other system answers with a reset to whatever is sent to it now, so an empty
    line is, which says nothing behind an answer whose length is known.
    """
    send(file, _EMPTY_LINE, _EMPTY_LINE.size)
    return end_of(file, room)[1]


@njit(**COMPILED)
def _let_go(desk, before, now, room):
    """Read on from those who are leaving, the first ones first; return what of the room is left."""
    leaving = desk.leaving
    n_before = leaving.count[0]
    leaving.count[0] = 0
    for place in range(n_before):
        file, since = leaving.files[place], leaving.since[place]
        is_gone = now - since > LINGER_SECONDS
        if not is_gone and now - since > REST_SECONDS:
            has_ended, is_gone = end_of(file, desk.message)
            if not (has_ended or is_gone) and before - since <= REST_SECONDS:
                is_gone = has_left(file, desk.message)
            if not is_gone:
                end_sending(file)
                room, is_gone = _read_on(file, room)
        if is_gone:
            close(file)
        else:
            _add(leaving, file, since)
    return room


@njit(**INLINED)
def _wait(desk, polled, listener, wake):
    """Wait for someone new, for those who are unknown, or for the next look at those who leave."""
    _watch(polled, 0, listener)
    _watch(polled, 1, wake)
    count = desk.unknown.count[0]
    for place in range(count):
        _watch(polled, _FIRST_UNKNOWN + place, desk.unknown.files[place])
    has_others = count + desk.leaving.count[0] > 0
    wait(polled, _FIRST_UNKNOWN + count, _TICK if has_others else _LONG_TICK)


@njit(**INLINED)
def _watch(polled, place, file):
    polled[2 * place], polled[2 * place + 1] = file, _READABLE


@njit(**INLINED)
def _is_ready(polled, place):
    return polled[2 * place + 1] >> STATE_BITS != 0


@njit(**COMPILED)
def _leave(desk, before, now, time_room):
    """Hand over who is unknown, and see out who was refused."""
    for place in range(desk.unknown.count[0]):
        _hand(desk, desk.unknown.files[place], OTHER)
    until, room = now + LAST_SECONDS, _MOST_ROOM
    while desk.leaving.count[0] and now < until:
        room = _let_go(desk, before, now, room)
        pause(_TICK)
        before, now = now, seconds(time_room)
    for place in range(desk.leaving.count[0]):
        close(desk.leaving.files[place])


@njit(**INLINED)
def _few(most):
    return Few(np.empty(most, np.int32), np.empty(most), np.zeros(1, np.int64))


@cache
def guarding_pass():
    """Return what accepts and refuses until it is over, or calm.

    A connection is handed over to the loop, as its file and the kind of its request, unless it
    has a large body for which there is none. For a moment after a refusal the last ``n_spared``
    places count for none: a long queue answers no more, and what waits in it leaves the cache.
    """
    stamp = STAMP
    file, place, counts = types.intp, types.intp, types.int64[::1]
    text = types.Array(types.uint8, 1, "C", readonly=True)
    refusal = (text, place)
    signature = types.void(file, file, file, counts, place, counts, *refusal, *refusal)

    @njit(signature, **OPTIONS)
    def guard(
        listener, wake, handing, places, n_spared, counts, plain, plain_content, v2, v2_content
    ):
        head, answer = np.empty(_HEAD_BYTES, np.uint8), np.empty(_ANSWER_BYTES, np.uint8)
        own_id, message = np.empty(_ID_DIGITS, np.uint8), np.empty(2, np.int32)
        unknown, leaving = _few(MOST_UNKNOWN), _few(MOST_LEAVING)
        desk = Desk(
            handing, places, np.zeros(1, np.int64), counts, plain, plain_content, v2, v2_content,
            head, answer, own_id, message, unknown, leaving,
        )  # fmt: skip
        polled = np.empty(2 * (_FIRST_UNKNOWN + MOST_UNKNOWN), np.int32)
        time_room = np.empty(2, np.int64)
        room = 0 * stamp
        now = last_tick = seconds(time_room)
        last_refusal, last_rush = now - SHORT_SECONDS, now
        is_calm = False
        while not (is_calm or counts[IS_OVER]):
            _wait(desk, polled, listener, wake)
            now = seconds(time_room)
            desk.spared[0] = n_spared if now - last_refusal < SHORT_SECONDS else 0
            has_refused = _meet_known(desk, polled, now)
            if _is_ready(polled, 0):
                has_refused_new, has_many = _meet_new(desk, listener, now)
                has_refused |= has_refused_new
                last_rush = now if has_many else last_rush
            if has_refused:
                last_refusal = now
                pause(_GATHERING)
            if now - last_tick > TICK_SECONDS:
                brought = DROPPED_BYTES_PER_SECOND * (now - last_tick)
                room = _let_go(desk, last_tick, now, min(room + int(brought), _MOST_ROOM))
                last_tick = now
            is_quiet = now - max(last_refusal, last_rush) > CALM_SECONDS
            is_calm = is_quiet and unknown.count[0] + leaving.count[0] == 0
        _leave(desk, last_tick, now, time_room)

    return guard
