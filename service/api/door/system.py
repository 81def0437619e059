"""Calls of the system from compiled code, which holds no lock meanwhile.

Memory is named by its address, as the system has it.
"""

import errno
import select
import socket
import time

import numpy as np
from numba import carray, njit, types

from service.api.payloads.numerals.compiling import INLINED

_INT, _SIZE, _ADDRESS = types.int32, types.intp, types.uintp

_accept = types.ExternalFunction("accept4", _INT(_INT, _ADDRESS, _ADDRESS, _INT))
_poll = types.ExternalFunction("poll", _INT(_ADDRESS, types.uint64, _INT))
_recv = types.ExternalFunction("recv", _SIZE(_INT, _ADDRESS, types.uintp, _INT))
_send = types.ExternalFunction("send", _SIZE(_INT, _ADDRESS, types.uintp, _INT))
_shutdown = types.ExternalFunction("shutdown", _INT(_INT, _INT))
_write = types.ExternalFunction("write", _SIZE(_INT, _ADDRESS, types.uintp))
_close = types.ExternalFunction("close", _INT(_INT))
_clock = types.ExternalFunction("clock_gettime", _INT(_INT, _ADDRESS))
_error_place = types.ExternalFunction("__errno_location", types.CPointer(types.int32)())

_NOT_YET = np.int32(errno.EAGAIN)
_NEW_SOCKET = np.int32(getattr(socket, "SOCK_NONBLOCK", 0) | getattr(socket, "SOCK_CLOEXEC", 0))
_PEEK, _DROP, _NO_SIGNAL = (
    np.int32(getattr(socket, name, 0)) for name in ("MSG_PEEK", "MSG_TRUNC", "MSG_NOSIGNAL")
)
_SENDING = np.int32(socket.SHUT_WR)
_HAS_ENDED, _HAS_FAILED = (np.int32(getattr(select, name, 0)) for name in ("POLLRDHUP", "POLLERR"))
_MONOTONIC = np.int32(getattr(time, "CLOCK_MONOTONIC", 0))
_NOWHERE = np.uintp(0)
STATE_BITS = 16
"""Where the state begins in the second number of a file that is waited for."""


@njit(**INLINED)
def is_not_yet():
    """Say whether the last call failed for want of something that may still come."""
    return carray(_error_place(), 1)[0] == _NOT_YET


@njit(**INLINED)
def accepted(listener):
    """Return the next connection; negative if there is none."""
    return _accept(np.int32(listener), _NOWHERE, _NOWHERE, _NEW_SOCKET)


@njit(**INLINED)
def wait(polled, count, milliseconds):
    """Wait until one of the files has something to read; each is a pair, its file and its state."""
    return _poll(polled.ctypes.data, np.uint64(count), np.int32(milliseconds))


@njit(**INLINED)
def pause(milliseconds):
    return _poll(_NOWHERE, np.uint64(0), np.int32(milliseconds))


@njit(**INLINED)
def peek(file, room):
    """Return how many bytes there are at the most as the room takes, and leave them unread."""
    return _recv(np.int32(file), room.ctypes.data, np.uintp(room.size), _PEEK)


@njit(**INLINED)
def drop(file, n_bytes):
    """Throw away what has come, up to so many bytes, without copying it; return how many."""
    return _recv(np.int32(file), _NOWHERE, np.uintp(n_bytes), _DROP)


@njit(**INLINED)
def send(file, content, n_bytes):
    return _send(np.int32(file), content.ctypes.data, np.uintp(n_bytes), _NO_SIGNAL)


@njit(**INLINED)
def end_of(file, room):
    """Return whether the other end has sent all, and whether it has reset the connection.

    The room takes two numbers of 32 bits.
    """
    room[0], room[1] = file, _HAS_ENDED
    wait(room, 1, 0)
    state = room[1] >> STATE_BITS
    return state & _HAS_ENDED != 0, state & _HAS_FAILED != 0


@njit(**INLINED)
def end_sending(file):
    return _shutdown(np.int32(file), _SENDING)


@njit(**INLINED)
def write(file, content):
    return _write(np.int32(file), content.ctypes.data, np.uintp(content.nbytes))


@njit(**INLINED)
def close(file):
    return _close(np.int32(file))


@njit(**INLINED)
def seconds(room):
    """Return the monotonic time; the room takes two numbers."""
    _clock(_MONOTONIC, room.ctypes.data)
    return room[0] + 1e-9 * room[1]
