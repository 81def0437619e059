"""The notebook of the examples runs from top to bottom: its own assertions hold its numbers."""

import time
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.e2e.server import running

NOTEBOOK = Path(__file__).parent.parent / "examples" / "notebook.ipynb"
CELL_SECONDS = 300
"""Of one cell; on a new machine the first fit compiles."""
WHOLE_SECONDS = 30
"""It takes less than ten where nothing else runs; here other tests do."""


@pytest.fixture
def notebook() -> nbformat.NotebookNode:
    read: nbformat.NotebookNode = nbformat.read(NOTEBOOK, as_version=4)
    return read


@pytest.mark.slow
def test_every_cell_of_the_notebook_runs_and_every_picture_is_shown(
    notebook: nbformat.NotebookNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(tmp_path / "registry") as server:
        monkeypatch.setenv("SERVICE_URL", server.url)
        begun = time.monotonic()
        NotebookClient(notebook, timeout=CELL_SECONDS, kernel_name="python3").execute()
        seconds = time.monotonic() - begun
    shown = [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "image/svg+xml" in output.get("data", {})
    ]
    lines = [line for cell in notebook.cells for line in cell.source.splitlines()]
    asked = [line for line in lines if line.startswith("picture(")]

    assert len(shown) == len(asked) == 8
    assert seconds < WHOLE_SECONDS


def test_the_notebook_is_kept_without_its_outputs(notebook: nbformat.NotebookNode) -> None:
    assert [cell.id for cell in notebook.cells if cell.get("outputs")] == []
