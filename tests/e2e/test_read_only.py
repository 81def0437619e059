"""The server on a registry that is mounted read-only, also after the writer was killed."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.server import running
from tests.service.rows import TWO_GROUPS


@pytest.fixture(params=["stopped", "killed"])
def mounted(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """Give a registry with a fitted model, read-only; needs the right to mount."""
    registry, mounted = tmp_path / "registry", tmp_path / "mounted"
    with running(registry) as server, server.client() as client:
        client.post("/models", json={"id": "groups", "n_components": 2})
        assert client.post("/models/groups/fit", json={"X": TWO_GROUPS}).status_code == 200
        server.process.kill() if request.param == "killed" else server.stop()
        server.process.wait()
    mounted.mkdir()
    mount = ["mount", "--bind", str(registry), str(mounted)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:  # noqa: S603, PLW1510 - fixed words; the answer is the return code
        pytest.skip("mounting is not permitted here")
    try:
        remount = ["mount", "-o", "remount,bind,ro", str(mounted)]
        subprocess.run(remount, check=True)  # noqa: S603 - as above
        yield mounted
    finally:
        subprocess.run(["umount", str(mounted)], check=True)  # noqa: S603, S607 - as above


def test_what_is_stored_is_served_and_changes_are_refused(mounted: Path) -> None:
    with running(mounted, is_ready=False) as server, server.client() as client:
        answer = client.post("/models/groups/predict", json={"X": TWO_GROUPS})
        jobs = client.get("/jobs")
        changes = [
            client.post("/models/groups/fit", json={"X": TWO_GROUPS}),
            client.post("/models", json={"id": "new"}),
            client.delete("/models/groups"),
        ]

        assert answer.status_code == 200
        assert [job["status"] for job in jobs.json()["jobs"]] == ["succeeded"]
        assert {(change.status_code, change.json()["code"]) for change in changes} == {
            (503, "registry_read_only")
        }
        assert server.stop() == 0
