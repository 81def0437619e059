"""Answers that leave while their rows are still arriving.

The end of such an answer is the end of its chunked encoding, which is only sent when all went
well. After a failure the connection is broken off instead, and a client of HTTP sees that the
answer is not whole.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from http import HTTPStatus

from fastapi import Response
from starlette.types import Receive, Scope, Send

from service.api.payloads.spool import Outbox
from service.api.problems import request_id_of
from service.api.services import Services
from service.errors import ServiceError

logger = logging.getLogger(__name__)


class AnswerCutOff(Exception):
    """Breaks a connection off; the reason has been logged."""

    def __init__(self, error: ServiceError) -> None:
        super().__init__(error.detail)
        self.error = error


class ArrivingResponse(Response):
    """Sends parts as they are made.

    Unlike Starlette's streaming response it leaves the request alone, whose body is being read.
    """

    def __init__(
        self,
        parts: AsyncIterator[bytes],
        services: Services,
        *,
        media_type: str,
        headers: Mapping[str, str],
    ) -> None:
        self._parts = parts
        self._services = services
        super().__init__(media_type=media_type, headers=dict(headers))
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  # ASGI's
        await send(
            {
                "type": "http.response.start",
                "status": HTTPStatus.OK.value,
                "headers": self.raw_headers,
            }
        )
        try:
            await self._send_parts(send)
        except ServiceError as error:
            logger.warning(
                "answer_cut_off", extra={"code": error.code, "request_id": request_id_of(scope)}
            )
            raise AnswerCutOff(error) from error
        await send({"type": "http.response.body", "body": b""})

    async def _send_parts(self, send: Send) -> None:
        outbox = Outbox(self._services.options.spool)
        changed, using_disk = asyncio.Event(), asyncio.Lock()
        making = asyncio.create_task(self._make(outbox, changed, using_disk))
        making.add_done_callback(lambda _: changed.set())
        try:
            while True:
                changed.clear()
                is_over = making.done()
                while part := await self._taken(outbox, using_disk):
                    await send({"type": "http.response.body", "body": part, "more_body": True})
                if is_over:
                    break
                await changed.wait()
            making.result()
        finally:
            making.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await making
            outbox.close()

    async def _taken(self, outbox: Outbox, using_disk: asyncio.Lock) -> bytes:
        if not outbox.is_on_disk:
            return outbox.take()
        async with using_disk:
            return await self._services.threads.look_up(outbox.take)

    async def _make(self, outbox: Outbox, changed: asyncio.Event, using_disk: asyncio.Lock) -> None:
        async for part in self._parts:
            if outbox.has_room(len(part)):
                outbox.put(part)
            else:
                async with using_disk:
                    await self._services.threads.look_up(outbox.put, part)
            changed.set()
