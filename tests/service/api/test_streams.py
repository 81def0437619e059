"""Many rows: answered while they arrive, spooled for a fit, and never cut off unnoticed."""

import asyncio
import errno
import gc
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from starlette.types import Message

from service.api.arrivals import FEW_ROWS, PORTION_BYTES
from service.api.departures import AnswerCutOff
from service.api.payloads import parquet_format, spool
from service.api.payloads.spool import MAX_BYTES_IN_MEMORY, ArraySpool, Outbox, SpoolPlace
from service.domain.data import Table
from service.errors import StorageFull
from service.settings import Settings
from tests.service.api.wire import (
    ARROW,
    CSV,
    JSON,
    NDJSON,
    NPY,
    PARQUET,
    TO_BYTES,
    columns_in,
    to_arrow,
    to_csv,
    to_npy,
    to_parquet,
)
from tests.service.client import JSON_HEADERS, Client, serving
from tests.service.rows import TWO_GROUPS

ROWS = np.random.default_rng(0).normal(3.0, 2.0, size=(80_000, 2))
MANY_ROWS = np.tile(ROWS, (4, 1))
ENOUGH_FOR_A_PORTION = 4_700_000
"""Bytes; scoring all of the rows at once would take more."""
ENOUGH_FOR_A_DENSE_PORTION = 10_000_000
"""The same of many rows as NPY, of which a portion holds more."""
PIECE_BYTES = 256 * 1024
STREAMED = [CSV, NDJSON, ARROW]


def small_arrow(X: NDArray[np.float64]) -> bytes:
    return to_arrow(X, batch_rows=5000)


WRITERS: dict[str, Callable[[NDArray[np.float64]], bytes]] = {
    **TO_BYTES,
    ARROW: small_arrow,
}


@pytest.fixture(scope="module")
def groups() -> Iterator[Client]:
    with serving() as client:
        client.post("/models", {"id": "groups", "n_components": 2, "random_state": 0})
        client.post("/models/groups/fit", {"X": TWO_GROUPS})
        yield client


def expected(client: Client) -> dict[str, list[object]]:
    fitted = client.services.inference.open("groups")
    proba = fitted.mixture.predict_proba(ROWS)
    return {f"probabilities_{place}": column.tolist() for place, column in enumerate(proba.T)}


@pytest.mark.parametrize(
    ("sent", "wanted"),
    [(CSV, CSV), (NDJSON, NDJSON), (ARROW, ARROW), (NPY, PARQUET), (PARQUET, CSV)],
)
def test_many_rows_are_answered_in_portions_and_all_of_them(
    groups: Client, sent: str, wanted: str
) -> None:
    response = groups.send(
        "POST",
        "/predict_proba",
        body=WRITERS[sent](ROWS),
        headers={"content-type": sent, "accept": wanted},
    )

    assert "content-length" not in response.headers
    assert response.headers["gmm-model-version"] == "1"
    assert response.headers["content-location"] == "/models/groups/versions/1/predict_proba"
    assert columns_in(wanted, response.content) == expected(groups)


def test_batches_of_single_rows_are_answered_together(groups: Client) -> None:
    body = to_arrow(ROWS[:6000], batch_rows=1)
    headers = {"content-type": ARROW, "accept": ARROW}

    response = groups.send("POST", "/predict_proba", body=body, headers=headers)

    answered = list(pa.ipc.open_stream(response.content))
    table = pa.Table.from_batches(answered)
    assert len(answered) <= len(body) / PORTION_BYTES + 6000 / FEW_ROWS + 2
    for name, column in expected(groups).items():
        assert table[name].to_pylist() == column[:6000]


def test_many_rows_are_answered_in_json_too(groups: Client) -> None:
    """Labels of rows that are no JSON: their answer begins before they are all there."""
    response = groups.send(
        "POST", "/models/groups/predict", body=to_csv(ROWS), headers={"content-type": CSV}
    )

    labels = groups.services.inference.open("groups").mixture.predict(ROWS)
    assert "content-length" not in response.headers
    assert response.json() == {"model": "groups", "version": 1, "labels": labels.tolist()}


class Exchange:
    """One request whose body is handed over step by step, and what was answered by then."""

    def __init__(self, client: Client, sent: str, wanted: str) -> None:
        self._client = client
        self._scope = {
            "type": "http",
            "http_version": "1.1",
            "method": "POST",
            "path": "/models/groups/predict",
            "raw_path": b"/models/groups/predict",
            "query_string": b"",
            "headers": [
                (b"host", b"service"),
                (b"content-type", sent.encode()),
                (b"accept", wanted.encode()),
            ],
        }
        self.answered: list[Message] = []

    def content(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.answered)

    async def run(self, parts: list[bytes], *, wait_after: int) -> None:
        """Hand the parts over; those behind ``wait_after`` only after the first answered byte."""
        begun = asyncio.Event()
        left = iter(enumerate(parts))

        async def receive() -> Message:
            number, part = next(left)
            if number == wait_after:
                await asyncio.wait_for(begun.wait(), timeout=10)
            return {"type": "http.request", "body": part, "more_body": number + 1 < len(parts)}

        async def send(message: Message) -> None:
            self.answered.append(message)
            if message.get("body"):
                begun.set()

        await self._client.app(dict(self._scope), receive, send)


@pytest.mark.parametrize(
    ("sent", "wanted"), [(CSV, CSV), (NDJSON, NDJSON), (ARROW, ARROW), (NPY, JSON)]
)
def test_the_answer_begins_before_the_upload_ends(groups: Client, sent: str, wanted: str) -> None:
    body = WRITERS[sent](ROWS)
    cut = PORTION_BYTES + 10_000
    exchange = Exchange(groups, sent, wanted)

    groups.portal.call(lambda: exchange.run([body[:cut], body[cut:]], wait_after=1))

    assert exchange.answered[0]["status"] == 200
    assert exchange.answered[-1] == {"type": "http.response.body", "body": b""}
    content = exchange.content()
    if wanted == JSON:
        assert content.endswith(b"]}")
    else:
        assert len(columns_in(wanted, content)["labels"]) == len(ROWS)


@pytest.mark.parametrize(
    ("sent", "wrong", "wanted"),
    [
        (CSV, b"1.0,x\n", CSV),
        (CSV, b"1.0\n", JSON),
        (NDJSON, b"[1.0]\n", NDJSON),
        (NDJSON, b"[1.0,null]\n", CSV),
        (ARROW, b"\0" * 8, ARROW),
        (NPY, b"\0" * 8, ARROW),
    ],
)
def test_what_fails_after_the_first_byte_is_cut_off(
    groups: Client, sent: str, wrong: bytes, wanted: str
) -> None:
    body = WRITERS[sent](ROWS)
    cut = PORTION_BYTES + 10_000
    exchange = Exchange(groups, sent, wanted)

    with pytest.raises(AnswerCutOff):
        groups.portal.call(lambda: exchange.run([body[:cut], body[cut:] + wrong], wait_after=1))

    assert exchange.answered[0]["status"] == 200
    assert all(message.get("more_body", True) for message in exchange.answered)


@pytest.mark.parametrize(("sent", "code"), [(CSV, "invalid_data"), (NDJSON, "malformed_json")])
def test_what_is_wrong_in_the_first_portion_is_told(groups: Client, sent: str, code: str) -> None:
    body = WRITERS[sent](ROWS)

    response = groups.send(
        "POST",
        "/predict",
        body=b"[1,x]\n" + body if sent == NDJSON else b"1,2\n1,x\n" + body,
        headers={"content-type": sent, "accept": sent},
    )

    assert response.json()["code"] == code


@pytest.fixture(scope="module")
def fitted_in_memory() -> dict[str, object]:
    with serving() as client:
        client.post("/models", MODEL)
        return dict(client.post("/models/groups/fit", {"X": ROWS}).json())


MODEL = {"id": "groups", "n_components": 2, "random_state": 0, "max_iter": 3}


@pytest.mark.parametrize("body", [to_npy(ROWS)[:-8], to_npy(ROWS) + bytes(8)])
def test_what_a_long_npy_says_of_itself_is_held_against_its_length_before_its_rows(
    groups: Client, body: bytes
) -> None:
    headers = {"content-type": NPY, "accept": CSV}
    response = groups.send("POST", "/predict", body=body, headers=headers)

    assert response.status_code == 422
    assert response.json()["code"] == "invalid_file"


@pytest.mark.parametrize("sent", [CSV, ARROW, NPY, PARQUET, NDJSON])
def test_rows_that_are_spooled_fit_what_rows_in_memory_do(
    sent: str, fitted_in_memory: dict[str, object]
) -> None:
    """More than may be in memory, from the disk."""
    with serving(Settings(max_memory_bytes=2**20)) as client:
        client.post("/models", MODEL)
        spooled = client.send(
            "POST", "/models/groups/fit", body=WRITERS[sent](ROWS), headers={"content-type": sent}
        )

    for name in ("log_likelihood", "n_iter", "n_samples", "weights"):
        assert spooled.json()[name] == fitted_in_memory[name]


class FullDisk:
    """Stands for a temporary file whose disk takes so many bytes."""

    def __init__(self, room: int) -> None:
        self._room = room
        self.closed = False

    def write(self, data: memoryview | bytes) -> int:
        self._room -= memoryview(data).nbytes
        if self._room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return memoryview(data).nbytes

    def seek(self, place: int) -> int:
        return place

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("sent", [CSV, ARROW, NPY, NDJSON])
@pytest.mark.parametrize("room", [0, 200_000])
def test_a_fit_that_the_disk_has_no_room_for_is_told_so(
    groups: Client, monkeypatch: pytest.MonkeyPatch, sent: str, room: int
) -> None:
    disk = FullDisk(room)
    monkeypatch.setattr(spool, "TemporaryFile", lambda **_: disk)

    response = groups.send(
        "POST", "/models/groups/fit", body=WRITERS[sent](ROWS), headers={"content-type": sent}
    )

    assert (response.status_code, response.json()["code"]) == (507, "storage_full")
    assert disk.closed


def test_a_parquet_file_that_the_disk_has_no_room_for_is_told_so(
    groups: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_format, "SpooledTemporaryFile", lambda *_, **__: FullDisk(1000))

    response = groups.send(
        "POST", "/models/groups/fit", body=to_parquet(ROWS), headers={"content-type": PARQUET}
    )

    assert (response.status_code, response.json()["code"]) == (507, "storage_full")


@pytest.mark.parametrize("verb", ["fit", "select", "fit?validate_only=true"])
@pytest.mark.parametrize("headers", [{}, {"idempotency-key": "new"}])
def test_a_fit_of_an_unknown_model_is_refused_before_its_rows_are_read(
    groups: Client, verb: str, headers: dict[str, str]
) -> None:
    n_sent = 0

    async def rows() -> AsyncIterator[bytes]:
        nonlocal n_sent
        for _ in range(20):
            n_sent += 1
            yield b"1.5,2.5\n" * (PORTION_BYTES // 8)

    async def ask() -> httpx.Response:
        return await groups.http.post(
            f"/models/nope/{verb}", content=rows(), headers={"content-type": CSV, **headers}
        )

    response = groups.portal.call(ask)

    assert (response.status_code, response.json()["code"]) == (404, "model_not_found")
    assert n_sent == 0


def n_unnamed_files() -> int:
    files = Path("/proc/self/fd")
    return sum("(deleted)" in str(file.readlink()) for file in files.iterdir() if file.is_symlink())


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="asks Linux for open files")
@pytest.mark.parametrize("sent", [CSV, ARROW, NPY, PARQUET, NDJSON])
@pytest.mark.parametrize("query", ["", "?validate_only=true"])
def test_what_a_refused_fit_laid_onto_the_disk_goes_with_it(
    groups: Client, monkeypatch: pytest.MonkeyPatch, sent: str, query: str
) -> None:
    monkeypatch.setattr(parquet_format, "MAX_BYTES_IN_MEMORY", 1)
    X = ROWS.copy()
    X[-1] = np.nan
    gc.collect()
    gc.disable()
    before = n_unnamed_files()
    try:
        response = groups.send(
            "POST",
            f"/models/groups/fit{query}",
            body=WRITERS[sent](X),
            headers={"content-type": sent},
        )
        patience = time.monotonic() + 2  # a thread may still be on its way out of the call
        while n_unnamed_files() > before and time.monotonic() < patience:
            time.sleep(0.01)
        after = n_unnamed_files()
    finally:
        gc.enable()

    assert response.status_code in (400, 422)
    assert after <= before


def sent_in_pieces(
    client: Client, path: str, media_type: str, X: NDArray[np.float64]
) -> httpx.Response:
    """Send rows as a server hands them over."""
    body = WRITERS[media_type](X)

    async def pieces() -> AsyncIterator[bytes]:
        for begin in range(0, len(body), PIECE_BYTES):
            yield body[begin : begin + PIECE_BYTES]

    headers = {"content-type": media_type}
    return client.portal.call(lambda: client.http.post(path, content=pieces(), headers=headers))


@pytest.mark.parametrize("sent", [CSV, ARROW, PARQUET, NDJSON, NPY])
def test_rows_that_are_too_many_for_memory_are_scored_as_they_arrive(sent: str) -> None:
    X = MANY_ROWS if sent == NPY else ROWS
    enough = ENOUGH_FOR_A_DENSE_PORTION if sent == NPY else ENOUGH_FOR_A_PORTION
    with serving(Settings(max_memory_bytes=enough)) as client:
        client.post("/models", {"id": "groups", "n_components": 2, "random_state": 0})
        client.post("/models/groups/fit", {"X": TWO_GROUPS})
        scored = sent_in_pieces(client, "/models/groups/score", sent, X)
        bic = sent_in_pieces(client, "/score/bic", sent, X)
        at_once = sent_in_pieces(client, "/models/groups/diagnostics", sent, X)
        whole = client.services.inference.open("groups").mixture.criteria(X)

    assert at_once.json()["code"] == "work_budget_exceeded"
    assert scored.json()["n_samples"] == len(X)
    for name in ("log_likelihood", "mean_log_likelihood", "bic", "aic", "aicc", "icl"):
        assert scored.json()[name] == pytest.approx(getattr(whole, name), rel=1e-12)
    assert bic.json()["value"] == scored.json()["bic"]


def test_what_is_not_spooled_must_fit_into_memory() -> None:
    with serving(Settings(max_memory_bytes=2**20)) as client:
        client.post("/models", MODEL)
        response = client.post("/models/groups/fit", {"X": ROWS})

    assert response.json()["code"] == "work_budget_exceeded"


def test_a_streamed_body_has_bounds_of_its_own() -> None:
    bounds = Settings(max_rows=70_000, max_stream_bytes=PORTION_BYTES * 9 // 8)
    with serving(bounds) as client:
        client.post("/models", {"id": "groups"})
        client.post("/models/groups/fit", {"X": TWO_GROUPS})
        headers = {"content-type": NPY, "accept": CSV}
        too_many = client.send("POST", "/predict", body=to_npy(ROWS[:70_001]), headers=headers)
        too_long = client.send("POST", "/predict", body=to_npy(ROWS), headers=headers)
        fine = client.send("POST", "/predict", body=to_npy(ROWS[:70_000]), headers=headers)

    assert too_many.json()["code"] == "work_budget_exceeded"
    assert too_long.status_code == 413
    assert fine.status_code == 200


def test_what_the_client_does_not_read_yet_waits_on_the_disk() -> None:
    outbox = Outbox(SpoolPlace())
    parts = [bytes([number]) * 700_000 for number in range(30)]
    assert sum(map(len, parts)) > MAX_BYTES_IN_MEMORY

    taken = b""
    for number, part in enumerate(parts):
        outbox.put(part)
        if number % 3 == 0:
            taken += outbox.take()
    while more := outbox.take():
        taken += more
    outbox.put(b"again")

    assert taken == b"".join(parts)
    assert outbox.take() == b"again"
    assert outbox.take() == b""
    outbox.close()


def crowded(directory: Path) -> SpoolPlace:
    """A place on a disk that has a little less than is to be left to others."""
    return SpoolPlace(str(directory), shutil.disk_usage(directory).free + 2**30)


def test_an_answer_that_waits_leaves_the_disk_to_others(tmp_path: Path) -> None:
    outbox = Outbox(crowded(tmp_path))
    outbox.put(bytes(MAX_BYTES_IN_MEMORY))
    with pytest.raises(StorageFull):
        outbox.put(b"more")

    assert len(outbox.take()) == MAX_BYTES_IN_MEMORY
    assert outbox.take() == b""
    outbox.put(b"again")
    assert outbox.take() == b"again"


def test_rows_that_wait_leave_the_disk_to_others(tmp_path: Path) -> None:
    table = Table(np.zeros((4, 2)))
    place = crowded(tmp_path)
    with ArraySpool(place) as rows, pytest.raises(StorageFull) as refusal:
        rows.append(table)
    assert f"{table.X.nbytes} bytes more are needed" in refusal.value.detail
    assert f"{place.min_free_bytes} are kept free" in refusal.value.detail
    with ArraySpool(SpoolPlace(str(tmp_path))) as rows:
        rows.append(table)
        assert rows.table().X.shape == (4, 2)


@pytest.mark.parametrize("media_type", [CSV, PARQUET])
def test_bodies_on_the_disk_leave_what_is_kept_free(
    media_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = shutil.disk_usage(tempfile.gettempdir()).free
    monkeypatch.setattr(parquet_format, "MAX_BYTES_IN_MEMORY", 1024)
    with serving(Settings(min_free_bytes=min(free + 2**30, 2**40))) as client:
        client.post("/models", MODEL)
        headers = {"content-type": media_type}
        body = TO_BYTES[media_type](ROWS)
        response = client.send("POST", "/models/groups/fit", body=body, headers=headers)

    assert (response.status_code, response.json()["code"]) == (507, "storage_full")


def test_a_large_json_body_is_still_read_whole(groups: Client) -> None:
    response = groups.send(
        "POST", "/predict", body=TO_BYTES[JSON](ROWS[:40_000]), headers=JSON_HEADERS
    )

    assert len(response.json()["labels"]) == 40_000


@pytest.mark.parametrize("path", ["/predict_proba", "/score"])
def test_an_answer_in_portions_tells_what_took_its_time(groups: Client, path: str) -> None:
    response = groups.send(
        "POST",
        path,
        body=to_csv(ROWS),
        headers={"content-type": CSV, "accept": JSON if path == "/score" else CSV},
    )

    steps = dict(step.split(";dur=") for step in response.headers["server-timing"].split(", "))
    assert response.status_code == 200
    assert list(steps) == ["parse", "queue", "compute", "encode"]
    assert float(steps["parse"]) > 0
    assert float(steps["compute"]) > 0


@pytest.mark.parametrize("path", ["/predict_proba", "/score"])
def test_an_answer_in_portions_is_not_begun_when_its_time_is_over(
    groups: Client, path: str
) -> None:
    headers = {"content-type": CSV, "accept": JSON if path == "/score" else CSV}
    late, timely = (
        groups.send(
            "POST", path, body=to_csv(ROWS), headers={**headers, "request-timeout": seconds}
        )
        for seconds in ("0.000001", "60")
    )

    assert late.status_code == 503
    assert late.json()["code"] == "deadline_exceeded"
    assert timely.status_code == 200
