"""A client that sends at a constant rate, whatever is answered, each request on its own connection.

Bare sockets and epoll, sleeping whenever there is nothing to do: it shares the machine with the
server that it measures. Time runs from the connection's beginning, which is later than wished when
the client itself does not keep up; so what was really sent is told as well. Who is refused stops
sending. How soon one is refused is asked by another such client, in a process of its own and at a
low rate: the one that makes the load reads its answers late.
"""

import select
import socket
import time
from dataclasses import dataclass, field
from http import HTTPStatus

RECEIVED_BYTES = 256 * 1024
STATUS_BYTES = len("HTTP/1.1 200 ")
LONGEST_SLEEP = 0.001
PATIENCE_SECONDS = 30.0
MOST_OPEN = 400
"""Connections at once; the service takes 512."""


@dataclass(slots=True)
class Exchange:
    connection: socket.socket
    unsent: memoryview
    begun: float
    status: int = 0


@dataclass(slots=True)
class OpenLoop:
    port: int
    request: bytes
    rate: float
    seconds: float
    most_open: int = MOST_OPEN
    """Connections at once: with few of them and no limit to the rate this is a closed loop."""
    sent: int = 0
    lost: int = 0
    took: float = 0.0
    answers: list[tuple[int, float]] = field(default_factory=list)
    """Status and seconds to the first byte of a refusal, or the last of an answer."""
    _epoll: select.epoll = field(init=False)
    _open: dict[int, Exchange] = field(default_factory=dict)
    """By the number of the connection's file."""
    _room: bytearray = field(default_factory=lambda: bytearray(RECEIVED_BYTES))

    def seconds_of(self, status: HTTPStatus) -> list[float]:
        return [seconds for told, seconds in self.answers if told == status]

    def run(self) -> "OpenLoop":
        """Send, wait for what is outstanding, and return this."""
        self._epoll = select.epoll()
        begun = time.perf_counter()
        until = begun + self.seconds
        while (now := time.perf_counter()) < until or self._open:
            if now > until + PATIENCE_SECONDS:
                break
            due = (now - begun) * self.rate if now < until else 0
            while self.sent < due and len(self._open) < self.most_open:
                self._begin()
            for file, events in self._epoll.poll(LONGEST_SLEEP, MOST_OPEN):
                self._go_on(self._open[file], events)
        self.took = time.perf_counter() - begun
        self._epoll.close()
        return self

    def _begin(self) -> None:
        connection = socket.socket()
        connection.setblocking(False)
        connection.connect_ex(("127.0.0.1", self.port))  # done at once: it is the same machine
        exchange = Exchange(connection, memoryview(self.request), time.perf_counter())
        self._open[connection.fileno()] = exchange
        self._epoll.register(connection, select.EPOLLIN | select.EPOLLOUT)
        self.sent += 1
        self._go_on(exchange, select.EPOLLOUT)

    def _go_on(self, exchange: Exchange, events: int) -> None:
        try:
            if events & ~select.EPOLLOUT:
                self._read(exchange)
            else:
                self._write(exchange)
        except BlockingIOError:
            pass
        except OSError:
            self.lost += 1
            self._close(exchange)

    def _write(self, exchange: Exchange) -> None:
        try:
            n_bytes = exchange.connection.send(exchange.unsent)
        except (BrokenPipeError, ConnectionResetError):  # nobody reads on; there may be an answer
            self._read(exchange)
            return
        exchange.unsent = exchange.unsent[n_bytes:]
        if not exchange.unsent:
            self._epoll.modify(exchange.connection, select.EPOLLIN)

    def _read(self, exchange: Exchange) -> None:
        n_bytes = exchange.connection.recv_into(self._room)
        if not exchange.status and n_bytes:
            exchange.status = int(self._room[:STATUS_BYTES].split(b" ", 2)[1])
        if n_bytes and exchange.status == HTTPStatus.OK:
            return
        if exchange.status:
            self.answers.append((exchange.status, time.perf_counter() - exchange.begun))
        else:
            self.lost += 1
        self._close(exchange)

    def _close(self, exchange: Exchange) -> None:
        # A process that was forked meanwhile has it open too, and epoll would tell of it on.
        self._epoll.unregister(exchange.connection)
        del self._open[exchange.connection.fileno()]
        exchange.connection.close()


def answers_of(port: int, request: bytes, rate: float, seconds: float) -> list[tuple[int, float]]:
    """Send at a rate and return what was answered: what a process of its own is to run."""
    return OpenLoop(port, request, rate, seconds).run().answers
