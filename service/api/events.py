"""The events of a job: how far it is while it goes on, and its end (server-sent events).

A stream reads the job when it has changed, ten times a second at the most, and tells how it stands
then: a client that is slow, or was away, misses steps and never the end. Nothing is kept for it.
"""

from asyncio import Event, get_running_loop
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Annotated

import anyio
from fastapi import APIRouter, Header, Request, Response
from fastapi.sse import KEEPALIVE_COMMENT, EventSourceResponse, format_sse_event
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

from service.api.dependencies import IN_EVERY_ROUTE, Door, JobId
from service.api.documentation import operation
from service.api.examples import EVENTS
from service.api.negotiation import accepted_type
from service.api.schemas import Job, Progress
from service.api.services import Services, set_from_thread
from service.domain.records import JobRecord
from service.errors import NotFound, ServiceError, TooManyRequests

router = APIRouter(dependencies=IN_EVERY_ROUTE)

EVENT_STREAM = "text/event-stream"
SHORTEST_PAUSE_SECONDS = 0.1
"""Between two events of a stream."""
KEEP_ALIVE_SECONDS = 15.0
SLOWEST_CLIENT_SECONDS = 30.0
"""A client that takes nothing for so long is let go."""
FULL_RETRY_SECONDS = 5
LARGEST_ID = 2**63 - 1

Frames = AsyncGenerator[bytes, None]

LastEventId = Annotated[
    int | None,
    Header(
        ge=0,
        le=LARGEST_ID,
        description="The `id` of the last event seen; only later ones are sent.",
    ),
]


@dataclass(frozen=True, slots=True)
class JobEvent:
    name: str
    id: int
    """Microseconds since 1970; later events have larger ones, also those of another process."""
    data: str

    def to_bytes(self) -> bytes:
        return format_sse_event(event=self.name, id=str(self.id), data_str=self.data)


class JobEvents(EventSourceResponse):
    """A stream that is closed with its connection, and does not wait for a client for ever."""

    def __init__(self, frames: Frames, when_over: Callable[[], None]) -> None:
        super().__init__(frames, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self._frames = frames
        self._when_over = when_over

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_in_time(message: Message) -> None:
            try:
                with anyio.fail_after(SLOWEST_CLIENT_SECONDS):
                    await send(message)
            except TimeoutError:
                raise ClientDisconnect from None

        try:
            async with aclosing(self._frames):
                await super().__call__(scope, receive, send_in_time)
        finally:
            self._when_over()


@router.get(
    "/jobs/{id}/events",
    response_class=Response,
    **operation(
        "stream_job_events",
        tag="jobs",
        summary="Follow a job",
        description=(
            "Server-sent events: `progress` with how far the fit is, at most ten a second, then "
            "`done` with the job, which ends the stream. The stream also ends when the service "
            "stops; `Last-Event-ID` goes on where it ended, and is answered with 204 when `done` "
            "was seen."
        ),
        answers={
            HTTPStatus.OK: (None, {EVENT_STREAM: {"example": EVENTS}}),
            HTTPStatus.NO_CONTENT: (None, {}),
        },
        refusals=(NotFound, TooManyRequests),
    ),
)
async def stream_job_events(
    request: Request, door: Door, job_id: JobId, last_event_id: LastEventId = None
) -> Response:
    accepted_type(request, [EVENT_STREAM])
    job = await door.threads.look_up(door.fitting.get_job, job_id)
    if job.is_done and event_after(job, last_event_id or 0) is None:
        return Response(status_code=HTTPStatus.NO_CONTENT)
    leave = _entered(door)
    request.scope["state"]["ends_with_client"] = True  # who reads on for long keeps both directions
    return JobEvents(frames_of(door, job_id, last_event_id or 0), leave)


async def frames_of(door: Services, job_id: str, last_id: int) -> Frames:
    """Yield the events after ``last_id`` until the job or the service ends."""
    loop, changed = get_running_loop(), Event()
    with suppress(ServiceError):  # the next request of the client is told what is wrong
        forget = await door.threads.look_up(
            door.fitting.when_changed, job_id, lambda: set_from_thread(loop, changed)
        )
        try:
            while True:
                changed.clear()
                job = await door.threads.look_up(door.fitting.get_job, job_id)
                event = event_after(job, last_id)
                if event is not None:
                    last_id = event.id
                    yield event.to_bytes()
                if job.is_done:
                    return
                await anyio.sleep(SHORTEST_PAUSE_SECONDS)
                while not await door.woken(changed, KEEP_ALIVE_SECONDS):
                    yield KEEPALIVE_COMMENT
                if door.lifecycle.is_draining:
                    return
        finally:
            forget()


def event_after(job: JobRecord, last_id: int) -> JobEvent | None:
    """Return how the job stands as an event, unless that was seen."""
    if job.finished_at is not None:
        # The clock of a process that went on with the job may be behind.
        earliest = 0 if job.progress is None else _id_at(job.progress.at) + 1
        event = JobEvent(
            "done", max(earliest, _id_at(job.finished_at)), Job.of(job).model_dump_json()
        )
    elif job.progress is not None:
        progress = Progress.of(job.progress).model_dump_json()
        event = JobEvent("progress", _id_at(job.progress.at), progress)
    else:
        return None
    return event if event.id > last_id else None


def _id_at(moment: datetime) -> int:
    return round(moment.timestamp() * 1_000_000)


def _entered(door: Services) -> Callable[[], None]:
    """Take one of the places for streams; return what gives it back."""
    borrower = object()
    try:
        door.streams.acquire_on_behalf_of_nowait(borrower)
    except anyio.WouldBlock:
        raise TooManyRequests(
            "too_many_streams",
            "as many streams of events are open as this service allows; ask for the job itself",
            retry_after_seconds=FULL_RETRY_SECONDS,
        ) from None
    return lambda: door.streams.release_on_behalf_of(borrower)
