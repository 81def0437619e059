"""Schemathesis asks a service for what its contract says, and holds its answers to that."""

import os
import subprocess
import sysconfig
from pathlib import Path

import pytest

from tests.e2e.server import running
from tests.service.rows import TWO_GROUPS

SHORT_WAITS = {"GMM_FIT_WAIT_SECONDS": "1", "GMM_MAX_WAIT_SECONDS": "1"}
CONFIGURATION = Path(__file__).with_name("contract.toml")
"""Which refusals of a request that fits its schema are part of the contract."""
EXAMPLES = os.environ.get("CONTRACT_EXAMPLES", "2")
"""Requests made up for each operation."""


@pytest.mark.slow
def test_every_answer_is_one_that_the_contract_names(tmp_path: Path) -> None:
    command = [str(Path(sysconfig.get_path("scripts")) / "schemathesis")]
    command += ["--config-file", str(CONFIGURATION), "run", "--checks", "all"]
    command += ["--max-examples", EXAMPLES, "--seed", "1"]
    with running(tmp_path / "registry", SHORT_WAITS) as server:
        with server.client() as client:
            client.post("/models", json={"id": "iris", "n_components": 2, "random_state": 0})
            client.post("/models/iris/fit?wait=60", json={"X": TWO_GROUPS})
        document = f"{server.url}/openapi.json"
        asked = subprocess.run(  # noqa: S603  # the tool of this environment
            [*command, document],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            check=False,
        )
        assert "unexpected_error" not in server.log.read_text()
    assert asked.returncode == 0, asked.stdout[-6000:]
