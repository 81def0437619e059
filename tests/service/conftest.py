"""Fixtures of the service's tests: a client of a whole service, empty or with a fitted model."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.service.client import Client, serving
from tests.service.held_runner import HeldRunner
from tests.service.rows import TWO_GROUPS
from tests.support.databases import create_database, postgresql_server


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """Run a server in a directory that its own user may enter, unlike pytest's."""
    with (
        tempfile.TemporaryDirectory(prefix="gmm-postgresql-") as directory,
        postgresql_server(Path(directory)) as sockets,
    ):
        yield sockets


@pytest.fixture
def new_database(postgresql: str) -> str:
    return create_database(postgresql, uuid4().hex)


@pytest.fixture
def client() -> Iterator[Client]:
    with serving() as client:
        yield client


@pytest.fixture
def fitted(client: Client) -> Client:
    """Serve the model ``groups``, fitted once: two components in two dimensions."""
    client.post("/models", {"id": "groups", "n_components": 2, "random_state": 0})
    response = client.post("/models/groups/fit", {"X": TWO_GROUPS})
    assert response.status_code == 200, response.text
    return client


@pytest.fixture
def held() -> HeldRunner:
    return HeldRunner()


@pytest.fixture
def held_client(held: HeldRunner) -> Iterator[Client]:
    """Serve the declared model ``groups``; its fits wait for ``held.release()``."""
    with serving(runner=held) as client:
        client.post("/models", {"id": "groups", "n_components": 2, "random_state": 0})
        yield client
