"""Jobs followed by server-sent events, in this process: what is told, and what is not again."""

import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass

import anyio
import pytest
from starlette.requests import ClientDisconnect
from starlette.types import Message

from service.adapters.job_store_memory import MemoryJobStore
from service.api import events
from service.api.events import JobEvents
from service.domain.records import JobProgress, JobRecord
from service.settings import Settings
from tests.service.client import Client, serving
from tests.service.held_runner import HeldRunner
from tests.service.rows import TWO_GROUPS

FIT = "/models/groups/fit?wait=0"


@dataclass(frozen=True)
class Told:
    event: str
    data: Mapping[str, object]
    id: int


def told_in(text: str) -> list[Told]:
    """Read a stream as the specification of server-sent events says, comments left out."""
    found = []
    for block in text.split("\n\n"):
        lines = [line for line in block.splitlines() if line and not line.startswith(":")]
        fields = dict(line.split(": ", 1) for line in lines)
        if fields:
            found.append(Told(fields["event"], json.loads(fields["data"]), int(fields["id"])))
    return found


def a_progress(iteration: int) -> JobProgress:
    return JobProgress(0, 1, iteration, 100, -1.5, 0.25, 2.0)


def test_a_stream_tells_how_far_the_fit_is_and_how_it_ended(
    held_client: Client, held: HeldRunner
) -> None:
    job = held_client.post(FIT, {"X": TWO_GROUPS}).json()["id"]
    threading.Timer(0.2, held.release).start()

    answer = held_client.get(f"/jobs/{job}/events", {"accept": "text/event-stream"})

    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-store"
    *progress, done = told_in(answer.text)
    assert {told.event for told in progress} <= {"progress"}
    assert done.event == "done"
    assert done.data == held_client.get(f"/jobs/{job}").json()


def test_progress_is_told_with_its_fields_and_rising_ids() -> None:
    jobs = MemoryJobStore()
    jobs.add(JobRecord(id="job", model_id="m"))
    jobs.update("job", JobRecord.started)
    text = b""

    async def follow() -> None:
        nonlocal text
        frames = events.frames_of(client.services, "job", 0)
        jobs.note_progress("job", a_progress(1))
        text += await anext(frames)
        jobs.note_progress("job", a_progress(2))
        text += await anext(frames)
        jobs.update("job", JobRecord.cancelled)
        async for frame in frames:
            text += frame

    with serving(jobs=jobs) as client:
        client.portal.call(follow)

    told = told_in(text.decode())
    assert [one.event for one in told] == ["progress", "progress", "done"]
    assert told[0].data == {
        "restart": 0,
        "run": 0,
        "n_init": 1,
        "iteration": 1,
        "max_iter": 100,
        "log_likelihood": -1.5,
        "delta": 0.25,
        "eta_seconds": 2.0,
        "leaderboard": None,
    }
    assert told[0].id < told[1].id < told[2].id


def test_a_flood_of_steps_is_told_ten_times_a_second_at_the_most() -> None:
    jobs = MemoryJobStore()
    jobs.add(JobRecord(id="job", model_id="m"))
    jobs.update("job", JobRecord.started)

    def flood() -> None:
        over = threading.Event()
        for iteration in range(400):
            jobs.note_progress("job", a_progress(iteration))
            over.wait(0.002)
        jobs.update("job", JobRecord.cancelled)

    with serving(jobs=jobs) as client:
        flooding = threading.Thread(target=flood)
        flooding.start()
        told = told_in(client.get("/jobs/job/events").text)
        flooding.join()

    moments = [one.id / 1_000_000 for one in told if one.event == "progress"]
    assert told[-1].event == "done"
    assert len(moments) >= 2
    assert len(moments) <= 1 + (moments[-1] - moments[0]) / events.SHORTEST_PAUSE_SECONDS


def test_a_client_that_comes_back_is_told_what_it_has_not_seen() -> None:
    jobs = MemoryJobStore()
    jobs.add(JobRecord(id="job", model_id="m"))
    jobs.update("job", JobRecord.started)
    jobs.note_progress("job", a_progress(1))
    first = events.event_after(jobs.get("job"), 0)
    assert first is not None
    seen = str(first.id)
    jobs.update("job", JobRecord.cancelled)

    with serving(jobs=jobs) as client:
        (done,) = told_in(client.get("/jobs/job/events", {"last-event-id": seen}).text)
        again = client.get("/jobs/job/events", {"last-event-id": str(done.id)})

    assert done.event == "done"
    assert (again.status_code, again.content) == (204, b"")


def test_a_quiet_stream_is_kept_alive_by_comments(
    monkeypatch: pytest.MonkeyPatch, held_client: Client, held: HeldRunner
) -> None:
    monkeypatch.setattr(events, "KEEP_ALIVE_SECONDS", 0.05)
    job = held_client.post(FIT, {"X": TWO_GROUPS}).json()["id"]
    threading.Timer(3.0, held.release).start()

    text = held_client.get(f"/jobs/{job}/events").text

    assert text.startswith(": ")
    assert told_in(text)[-1].event == "done"


def test_a_drain_ends_the_stream_before_the_job_has_ended(held_client: Client) -> None:
    job = held_client.post(FIT, {"X": TWO_GROUPS}).json()["id"]
    threading.Timer(2.0, held_client.services.lifecycle.begin_draining).start()

    assert told_in(held_client.get(f"/jobs/{job}/events").text) == []


@pytest.mark.parametrize(
    ("path", "headers", "status", "code"),
    [
        ("/jobs/nowhere/events", {}, 404, "job_not_found"),
        ("/jobs/JOB/events", {}, 404, "job_not_found"),
        ("/jobs/job/events", {"accept": "application/json"}, 406, "not_acceptable"),
        ("/jobs/job/events", {"last-event-id": "xqz7"}, 422, "invalid_parameter"),
        ("/jobs/job/events", {"last-event-id": "-1"}, 422, "invalid_parameter"),
        ("/jobs/job/events?wait=1", {}, 422, "invalid_parameter"),
    ],
)
def test_what_can_not_be_followed_is_refused(
    path: str, headers: Mapping[str, str], status: int, code: str
) -> None:
    jobs = MemoryJobStore()
    jobs.add(JobRecord(id="job", model_id="m"))
    with serving(jobs=jobs) as client:
        answer = client.get(path, headers)

    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert "xqz7" not in answer.text


def test_streams_beyond_the_bound_are_refused_and_their_places_come_back() -> None:
    held = HeldRunner()
    with serving(Settings(max_event_streams=1), runner=held) as client:
        client.post("/models", {"id": "groups", "n_components": 2})
        job = client.post(FIT, {"X": TWO_GROUPS}).json()["id"]
        following = threading.Thread(target=lambda: client.get(f"/jobs/{job}/events"))
        following.start()
        while not client.services.streams.borrowed_tokens:
            time.sleep(0.01)
        refused = client.get(f"/jobs/{job}/events")
        held.release()
        following.join()
        after = client.get(f"/jobs/{job}/events")

    assert (refused.status_code, refused.json()["code"]) == (429, "too_many_streams")
    assert int(refused.headers["retry-after"]) >= 1
    assert after.status_code == 200


def test_a_client_that_takes_nothing_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "SLOWEST_CLIENT_SECONDS", 0.05)
    ended: list[str] = []

    async def frames() -> events.Frames:
        try:
            while True:
                yield b": \n\n"
        finally:
            ended.append("stream")

    async def taking_nothing(message: Message) -> None:
        if message["type"] == "http.response.body":
            await anyio.sleep_forever()

    async def asking_nothing() -> Message:
        await anyio.sleep_forever()
        return {}

    async def follow() -> None:
        response = JobEvents(frames(), lambda: ended.append("place"))
        await response({"type": "http"}, asking_nothing, taking_nothing)

    with pytest.raises(ClientDisconnect):
        anyio.run(follow)
    assert ended == ["stream", "place"]


def test_head_of_a_stream_does_not_wait_for_its_end(held_client: Client, held: HeldRunner) -> None:
    job = held_client.post(FIT, {"X": TWO_GROUPS}).json()["id"]

    answer = held_client.send("HEAD", f"/jobs/{job}/events", headers={"accept": "*/*"})

    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-type"].startswith("text/event-stream")
    held.release()
