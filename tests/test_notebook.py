"""The notebook of the examples runs from top to bottom: its own assertions hold its numbers."""

import os
import time
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from sklearn.datasets import make_blobs, make_classification

from tests.e2e.server import Server, running

NOTEBOOK = Path(__file__).parent.parent / "examples" / "notebook.ipynb"
CELL_SECONDS = 300
"""Of one cell; on a new machine the first fit compiles."""
WHOLE_SECONDS = 10
"""Of the whole, Jupyter's own start and end included, where nothing else runs and the service is
up: its workers ready and its libraries loaded, as some seconds after its start."""


def crowding() -> float:
    """Return how many processes share a core, as far as they are more than one."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def wait_until_warm(server: Server) -> None:
    """Ask for one of each: a fit waits for a worker, a picture and a comparison for libraries."""
    rows = {"X": [[0.0, 1.0], [1.0, 0.0], [8.0, 9.0], [9.0, 8.0]]}
    with server.client() as client:
        client.post("/models", json={"id": "warm", "n_components": 2})
        for path in ("fit?wait=60", "plots/clusters", "compare/kmeans"):
            assert client.post(f"/models/warm/{path}", json=rows).status_code == 200
        client.delete("/models/warm")


@pytest.fixture
def notebook() -> nbformat.NotebookNode:
    read: nbformat.NotebookNode = nbformat.read(NOTEBOOK, as_version=4)
    return read


@pytest.mark.slow
def test_every_cell_of_the_notebook_runs_and_every_picture_is_shown(
    notebook: nbformat.NotebookNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(tmp_path / "registry", {"GMM_PRELOAD_EXTRAS": "true"}) as server:
        wait_until_warm(server)
        monkeypatch.setenv("SERVICE_URL", server.url)
        begun = time.monotonic()
        NotebookClient(
            notebook,
            timeout=CELL_SECONDS,
            kernel_name="python3",
            resources={"metadata": {"path": str(NOTEBOOK.parent)}},
        ).execute()
        whole_seconds = time.monotonic() - begun
    print(f"the notebook took {whole_seconds:.1f} s")  # noqa: T201 - the figure
    shown = [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "image/svg+xml" in output.get("data", {})
    ]
    lines = [line for cell in notebook.cells for line in cell.source.splitlines()]
    asked = [line for line in lines if line.startswith(("picture(", "display(SVG("))]

    assert len(shown) == len(asked) == 9
    assert whole_seconds < WHOLE_SECONDS * crowding()


def test_the_notebook_is_kept_without_its_outputs(notebook: nbformat.NotebookNode) -> None:
    assert [cell.id for cell in notebook.cells if cell.get("outputs")] == []


def test_its_made_up_rows_are_those_of_scikit_learn_s_generators() -> None:
    blobs, _ = make_blobs(
        n_samples=300, n_features=2, centers=3, cluster_std=[1.0, 1.5, 0.8], random_state=42
    )
    rows, _ = make_classification(
        n_samples=400,
        n_features=2,
        n_informative=2,
        n_redundant=0,
        n_clusters_per_class=1,
        n_classes=3,
        class_sep=2.0,
        random_state=42,
    )
    for name, expected in (("blobs", blobs), ("stretched", rows @ [[0.8, -0.6], [0.6, 0.8]])):
        kept = np.loadtxt(NOTEBOOK.parent / "data" / f"{name}.csv", delimiter=",", skiprows=1)
        np.testing.assert_allclose(kept, expected, rtol=1e-12, atol=1e-12)
