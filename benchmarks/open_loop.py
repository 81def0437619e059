"""A client that sends at a constant rate, whatever is answered, each request on its own connection.

Bare sockets and one selector: it shares the machine with the server that it measures. Time runs
from the first byte sent, which is later than wished when the client itself does not keep up; so
what was really sent is told as well. Who is refused stops sending. How soon one is refused is asked
by another such client, in a process of its own and at a low rate: the one that makes the load reads
its answers late.
"""

import selectors
import socket
import time
from dataclasses import dataclass, field
from http import HTTPStatus

RECEIVED_BYTES = 256 * 1024
PATIENCE_SECONDS = 30.0
MOST_OPEN = 400
"""Connections at once; the service takes 512."""


@dataclass(slots=True)
class Exchange:
    connection: socket.socket
    unsent: memoryview
    begun: float = 0.0
    status: int = 0


@dataclass(slots=True)
class OpenLoop:
    port: int
    request: bytes
    rate: float
    seconds: float
    sent: int = 0
    lost: int = 0
    took: float = 0.0
    answers: list[tuple[int, float]] = field(default_factory=list)
    """Status and seconds to the first byte of a refusal, or the last of an answer."""
    _selector: selectors.BaseSelector = field(init=False)
    _n_open: int = 0

    def seconds_of(self, status: HTTPStatus) -> list[float]:
        return [seconds for told, seconds in self.answers if told == status]

    def run(self) -> "OpenLoop":
        """Send, wait for what is outstanding, and return this."""
        self._selector = selectors.DefaultSelector()
        begun = time.perf_counter()
        until = begun + self.seconds
        while (now := time.perf_counter()) < until or self._n_open:
            due = min(int((now - begun) * self.rate), int(self.rate * self.seconds))
            if self.sent < due and self._n_open < MOST_OPEN and now < until:
                self._open()
            if now > until + PATIENCE_SECONDS:
                break
            for key, events in self._selector.select(0 if self.sent < due else 0.001):
                self._go_on(key.data, events)
        self.took = time.perf_counter() - begun
        self._selector.close()
        return self

    def _open(self) -> None:
        connection = socket.socket()
        connection.setblocking(False)
        connection.connect_ex(("127.0.0.1", self.port))
        exchange = Exchange(connection, memoryview(self.request))
        self._selector.register(connection, selectors.EVENT_READ | selectors.EVENT_WRITE, exchange)
        self.sent += 1
        self._n_open += 1

    def _go_on(self, exchange: Exchange, events: int) -> None:
        try:
            if events & selectors.EVENT_READ:
                self._read(exchange)
            elif events & selectors.EVENT_WRITE:
                self._write(exchange)
        except BlockingIOError:
            pass
        except OSError:
            self.lost += 1
            self._close(exchange)

    def _write(self, exchange: Exchange) -> None:
        exchange.begun = exchange.begun or time.perf_counter()
        n_bytes = exchange.connection.send(exchange.unsent)
        exchange.unsent = exchange.unsent[n_bytes:]
        if not exchange.unsent:
            self._selector.modify(exchange.connection, selectors.EVENT_READ, exchange)

    def _read(self, exchange: Exchange) -> None:
        data = exchange.connection.recv(RECEIVED_BYTES)
        if not exchange.status and data:
            exchange.status = int(data.split(b" ", 2)[1])
        if data and exchange.status == HTTPStatus.OK:
            return
        if exchange.status:
            self.answers.append((exchange.status, time.perf_counter() - exchange.begun))
        else:
            self.lost += 1
        self._close(exchange)

    def _close(self, exchange: Exchange) -> None:
        self._selector.unregister(exchange.connection)
        exchange.connection.close()
        self._n_open -= 1


def answers_of(port: int, request: bytes, rate: float, seconds: float) -> list[tuple[int, float]]:
    """Send at a rate and return what was answered: what a process of its own is to run."""
    return OpenLoop(port, request, rate, seconds).run().answers
