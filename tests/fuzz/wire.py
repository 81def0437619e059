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
        self._is_closing = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:  # asyncio's signature
        return ("127.0.0.1", 1) if name in ("peername", "sockname") else default

    def write(self, data: "bytes | bytearray | memoryview[int]") -> None:
        self.written += data

    def write_eof(self) -> None:
        """The other end reads on until the connection is closed."""

    def close(self) -> None:
        if not self._is_closing:
            self._is_closing = True
            asyncio.get_running_loop().call_soon(self._lose)

    def is_closing(self) -> bool:
        return self._is_closing

    def pause_reading(self) -> None:
        """Nothing comes by itself."""

    def resume_reading(self) -> None:
        """As above."""

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
        protocol.data_received(part)
    is_whole = protocol.cycle is None or not protocol.cycle.more_body
    if is_whole and state.tasks:
        await asyncio.wait(state.tasks, timeout=ANSWER_SECONDS)
    transport.close()
    if state.tasks:
        _, left = await asyncio.wait(state.tasks, timeout=ANSWER_SECONDS)
        assert not left, "the service hangs"
    await asyncio.sleep(0)
    return bytes(transport.written)
