"""A connection without a socket: the server's own protocol class, fed with bytes."""

import asyncio
from functools import lru_cache
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.server import ServerState

from service.api.connection import BoundedProtocol

ANSWER_SECONDS = 60.0


class RecordingTransport(asyncio.Transport):
    """Keeps what is written; closing it loses the connection, as a socket's does."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.protocol: BoundedProtocol | None = None
        """That of the connection."""
        self._receiver: asyncio.BaseProtocol | None = None
        """What gets the bytes, if the connection has named another."""
        self._is_closing = False
        self.has_ended = False
        """Nothing more is written."""
        self._is_reading = asyncio.Event()
        self._is_reading.set()
        self.has_written = asyncio.Event()

    def get_extra_info(self, name: str, default: Any = None) -> Any:  # asyncio's signature
        return ("127.0.0.1", 1) if name in ("peername", "sockname") else default

    def write(self, data: "bytes | bytearray | memoryview[int]") -> None:
        self.written += data
        self.has_written.set()

    def write_eof(self) -> None:
        """The other end may send on until the connection is closed."""
        self.has_ended = True

    def close(self) -> None:
        if not self._is_closing:
            self._is_closing = True
            self._is_reading.set()
            asyncio.get_running_loop().call_soon(self._lose)

    def is_closing(self) -> bool:
        return self._is_closing

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._receiver = protocol

    def pause_reading(self) -> None:
        if not self._is_closing:
            self._is_reading.clear()

    def resume_reading(self) -> None:
        self._is_reading.set()

    async def deliver(self, data: bytes) -> None:
        """Hand the bytes over as a socket does, as far as they are read."""
        while True:
            if not self._is_reading.is_set():
                await asyncio.wait_for(self._is_reading.wait(), ANSWER_SECONDS)
            data = self._handed_over(data)
            if not data:
                return

    def _handed_over(self, data: bytes) -> bytes:
        """Return what is left."""
        receiver = self._receiver or self.protocol
        if not isinstance(receiver, asyncio.BufferedProtocol):
            assert isinstance(receiver, asyncio.Protocol)
            receiver.data_received(data)
            return b""
        if not data:
            return b""
        room = memoryview(receiver.get_buffer(-1))
        taken = data[: len(room)]
        room[: len(taken)] = taken
        receiver.buffer_updated(len(taken))
        return data[len(taken) :]

    def _lose(self) -> None:
        assert self.protocol is not None
        self.protocol.connection_lost(None)


@lru_cache(1)
def configured(app: ASGIApp) -> uvicorn.Config:
    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off")
    config.load()
    return config


async def answered(
    app: ASGIApp, *sent: bytes, protocol_class: type[BoundedProtocol] = BoundedProtocol
) -> bytes:
    """Return what the service answers to these bytes and the connection's end."""
    config = configured(app)
    state = ServerState()
    transport = RecordingTransport()
    protocol = protocol_class(config, state, {}, _loop=asyncio.get_running_loop())
    transport.protocol = protocol
    protocol.connection_made(transport)
    for part in sent:
        await transport.deliver(part)
    is_whole = protocol.cycle is None or not protocol.cycle.more_body
    left: set[asyncio.Task[None]] = set()
    while is_whole and state.tasks and not left:  # one may begin another
        _, left = await asyncio.wait(state.tasks, timeout=ANSWER_SECONDS)
    transport.close()
    if state.tasks:
        _, left = await asyncio.wait(state.tasks, timeout=ANSWER_SECONDS)
        assert not left, "the service hangs"
    await asyncio.sleep(0)
    return bytes(transport.written)
