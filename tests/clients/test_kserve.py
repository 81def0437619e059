"""KServe's unchanged REST client against a real server.

The client has an environment of its own, ``.venv-kserve``, which ``make tests`` makes.
"""

import json
import subprocess
from pathlib import Path

import pytest

from tests.e2e.server import running
from tests.service.rows import ONE_OF_EACH, TWO_GROUPS

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("with_kserve.py")
PYTHON = ROOT / ".venv-kserve" / "bin" / "python"


@pytest.mark.skipif(not PYTHON.exists(), reason="there is no .venv-kserve; make tests makes it")
def test_kserve_s_client_asks_and_is_answered(tmp_path: Path) -> None:
    with running(tmp_path / "registry") as server, server.client() as native:
        native.post("/models", json={"id": "groups", "n_components": 2, "random_state": 0})
        native.post("/models/groups/fit?wait=60", json={"X": TWO_GROUPS})
        answer = native.post("/models/groups/predict_proba", json={"X": ONE_OF_EACH}).json()
        ran = subprocess.run(  # noqa: S603  # our own script
            [PYTHON, SCRIPT, server.url, "groups", json.dumps(ONE_OF_EACH)],
            capture_output=True,
            check=False,
            timeout=300,  # importing that client takes seconds of a free processor
        )

    assert ran.returncode == 0, ran.stderr.decode()
    told = json.loads(ran.stdout)
    assert told.pop("refusal").startswith("There is no model 'none'")
    assert told == {
        "live": True,
        "ready": True,
        "model_ready": True,
        "unknown_ready": False,
        "json": answer["probabilities"],
        "binary": answer["probabilities"],
    }
