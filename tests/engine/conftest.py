"""One BLAS thread for the engine's tests: spinning threads cost a factor of ten on busy cores."""

from collections.abc import Iterator

import pytest
from threadpoolctl import threadpool_limits


@pytest.fixture(autouse=True, scope="session")
def single_blas_thread() -> Iterator[None]:
    with threadpool_limits(1, "blas"):
        yield
