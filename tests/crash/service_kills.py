"""Kill the whole service under load, again and again; its clients know what it acknowledged.

``python -m tests.crash.service_kills [CYCLES] [--seed SEED]``
"""

import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from random import Random

import httpx

from tests.crash.ledger import ALIAS, Change, Expected, State, after, drawn
from tests.crash.report import Report, Told, command_line
from tests.e2e.server import Server, running

CLIENTS = ("one", "two", "three")
LONGEST_LIFE_SECONDS = 4.0
"""Workers that fit are ready after the first one or two."""
OFFSETS = (-0.5, -0.25, 0.25, 0.5)
"""Rows around a seed: their mean is the seed, exactly."""


class Client(threading.Thread):
    """Changes a model of its own until the service is gone."""

    def __init__(self, server: Server, name: str, state: State, rng: Random) -> None:
        super().__init__(name=name)
        self._server = server
        self._rng = rng
        self._known = state
        self._n_acknowledged = 0
        self._pending: Change | None = None
        self.faults: list[str] = []

    @property
    def told(self) -> Told:
        return Told(self._known, self._n_acknowledged, self._pending)

    def run(self) -> None:
        with self._server.client() as http:
            while True:
                self._pending = drawn(self._known, self._rng, [self.name])
                try:
                    response = asked(http, self._pending)
                except httpx.TransportError:
                    return
                if not response.is_success:
                    self.faults.append(f"{self._pending.verb} answered {response.status_code}")
                    return
                if response.status_code == httpx.codes.ACCEPTED:  # a job that is not done yet
                    return
                self._known = after(self._known, self._pending)
                self._n_acknowledged += 1
                self._pending = None


def asked(http: httpx.Client, change: Change) -> httpx.Response:
    path = f"/models/{change.model}"
    match change.verb:
        case "create":
            return http.post("/models", json={"id": change.model, "covariance_type": "spherical"})
        case "describe":
            return http.patch(path, json={"description": str(change.value)})
        case "commit":
            X = [[change.value + offset, 0.5 * offset] for offset in OFFSETS]
            return http.post(f"{path}/fit", json={"X": X})
        case "name":
            return http.put(f"{path}/aliases/{ALIAS}", json={"version": change.value})
        case "delete_version":
            return http.delete(f"{path}/versions/{change.value}")
        case "delete_model":
            return http.delete(path)


def found(http: httpx.Client, name: str) -> State:
    answer = http.get(f"/models/{name}")
    if answer.status_code == httpx.codes.NOT_FOUND:
        return {}
    model = answer.json()
    listed = http.get(f"/models/{name}/versions?page_size=1000").json()["versions"]
    return {
        name: Expected(
            description=model["description"],
            versions={entry["version"]: seed_of(http, name, entry["version"]) for entry in listed},
            champion=model["aliases"].get(ALIAS),
        )
    }


def seed_of(http: httpx.Client, name: str, number: int) -> int:
    answer = http.get(f"/models/{name}/versions/{number}/parameters")
    if answer.status_code != httpx.codes.OK:
        raise AssertionError(f"version {number} of '{name}' is listed and not served")
    return round(float(answer.json()["means"][0][0]))


def main(cycles: int, *, seed: int = 0) -> Report:
    rng, report = Random(seed), Report("kill -9 of the whole service under load")
    states: dict[str, State] = {name: {} for name in CLIENTS}
    told: Mapping[str, Told] = {}
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "registry"
        for _ in range(cycles):
            with running(path) as server:
                look(server, told, states, report)
                told = killed_under_load(server, states, rng, report)
            report.cycles += 1
        with running(path) as server:
            look(server, told, states, report)
    return report


def look(
    server: Server, told: Mapping[str, Told], states: dict[str, State], report: Report
) -> None:
    with server.client() as http:
        wait_for_jobs(http)
        for name, end in told.items():
            states[name] = report.judged(end, lambda: found(http, name))  # noqa: B023 - called at once


def wait_for_jobs(http: httpx.Client) -> None:
    """Wait for the fits that were cut off and go on: they were asked, and may yet happen."""
    for status in ("queued", "running"):
        while jobs := http.get("/jobs", params={"status": status}).json()["jobs"]:
            http.get(f"/jobs/{jobs[0]['id']}", params={"wait": 30})


def killed_under_load(
    server: Server, states: Mapping[str, State], rng: Random, report: Report
) -> Mapping[str, Told]:
    clients = [Client(server, name, states[name], Random(rng.random())) for name in CLIENTS]
    for client in clients:
        client.start()
    time.sleep(rng.uniform(0.05, LONGEST_LIFE_SECONDS))
    server.process.kill()
    for client in clients:
        client.join()
        for fault in client.faults:
            report.hold(False, fault)
    return {client.name: client.told for client in clients}


if __name__ == "__main__":
    words = command_line(__doc__, cycles=20).parse_args()
    main(words.cycles, seed=words.seed).finish()
