"""Data that whole fits are compared on: small real sets, made ones, and CSV files if given."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn import datasets
from sklearn.preprocessing import StandardScaler

EXAMPLES = Path(__file__).parent.parent / "examples" / "data"

MORE = {"htru2": 8, "magic": 8, "shuttle": 6, "skin": 8, "satellite": 6, "cover": 8}
"""CSV files with a header and a last column `label`, if a directory is given; and K."""


@dataclass(frozen=True, slots=True)
class Data:
    name: str
    X: NDArray[np.float64]
    K: int


def corpus(directory: Path | None) -> Iterator[Data]:
    yield Data("faithful", np.loadtxt(EXAMPLES / "faithful.csv", delimiter=",", skiprows=1), 2)
    yield Data("iris", datasets.load_iris().data, 3)
    yield Data("wine", _standardized(datasets.load_wine().data), 3)
    yield Data("breast cancer", _standardized(datasets.load_breast_cancer().data)[:, :10], 2)
    yield from _made()
    if directory is not None:
        for name, K in MORE.items():
            table = np.genfromtxt(directory / f"{name}.csv", delimiter=",", skip_header=1)
            yield Data(name, _standardized(table[:, :-1]), K)


def _made() -> Iterator[Data]:
    rng = np.random.default_rng(0)
    yield Data("blobs", datasets.make_blobs(3000, 2, centers=5, random_state=1)[0], 5)
    yield Data("many blobs", datasets.make_blobs(10_000, 4, centers=20, random_state=2)[0], 20)
    yield Data("blobs in 16-D", datasets.make_blobs(5000, 16, centers=8, random_state=3)[0], 8)
    elongated = rng.standard_normal((900, 2)) * [30.0, 0.3]
    elongated[:, 1] += np.repeat([0.0, 3.0, 6.0], 300)
    yield Data("elongated", elongated, 3)
    blobs = datasets.make_blobs(2000, 3, centers=4, random_state=4)[0]
    yield Data("sheared blobs", blobs @ rng.standard_normal((3, 3)), 4)
    moons = datasets.make_moons(2000, noise=0.08, random_state=5)[0]
    yield Data("moons", moons, 6)
    sizes = np.concatenate(
        [rng.standard_normal((n, 2)) + c for n, c in ((2000, 0), (200, 5), (50, -6))]
    )
    yield Data("unequal sizes", sizes, 3)
    close = np.concatenate([rng.standard_normal((1500, 2)) + c for c in (0.0, 2.5, 5.0)])
    yield Data("overlapping", close, 3)
    spreads = np.concatenate([rng.standard_normal((500, 4)) * s for s in (0.5, 2.0, 8.0)])
    yield Data("nested", spreads, 3)
    yield Data("large", datasets.make_blobs(200_000, 6, centers=8, random_state=6)[0], 8)


def _standardized(X: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(StandardScaler().fit_transform(X))
