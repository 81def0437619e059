"""A pass over the rows that threads share: whose sums they are, and in which order."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from gmm_engine import Mixture, kernels, set_thread_count, thread_count
from gmm_engine.errors import OutOfRangeError
from gmm_engine.kernels import Moments, sharing
from gmm_engine.kernels.ranges import row_ranges
from tests.support.data import random_mixture, rows_of


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    before = thread_count()
    yield
    set_thread_count(before)


def example(covariance_type: str, D: int) -> tuple[Mixture, NDArray[np.float64]]:
    rng = np.random.default_rng(D)
    mixture = random_mixture(covariance_type, n_components=3, n_features=D, rng=rng)
    n_rows = 300_000 if D < 10 else 40_000
    X = rows_of(mixture, n_rows, rng)
    assert len(row_ranges(n_rows, 3, D, is_dense=covariance_type in {"full", "tied"})) > 1
    return mixture, X


def bits(moments: Moments) -> list[bytes]:
    sums = [moments.nk, moments.first, moments.scatter]
    sums.append(np.array([moments.log_likelihood, moments.log_max_resp]))
    return [each.tobytes() for each in sums]


every_layout = pytest.mark.parametrize(
    ("covariance_type", "D"),
    [("full", 2), ("full", 20), ("full", 70), ("tied", 20), ("diag", 5), ("diag", 40)],
)


@every_layout
@pytest.mark.parametrize("sums_at_once", [1, 10**9])
def test_sums_have_the_same_bits_by_any_number_of_threads_and_of_ranges_at_once(
    covariance_type: str, D: int, sums_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixture, X = example(covariance_type, D)
    set_thread_count(1)
    expected = bits(kernels.expectation(mixture.prepared, [(X, None)]))
    monkeypatch.setattr(sharing, "SUMS_AT_ONCE", sums_at_once)
    for n_threads in (1, 2, 3, 8):
        set_thread_count(n_threads)
        assert bits(kernels.expectation(mixture.prepared, [(X, None)])) == expected


@every_layout
def test_ranges_add_up_to_what_their_rows_add_up_to(covariance_type: str, D: int) -> None:
    mixture, X = example(covariance_type, D)
    whole = kernels.expectation(mixture.prepared, [(X, None)])
    portions = kernels.expectation(
        mixture.prepared, [(X[i : i + 96], None) for i in range(0, len(X), 96)]
    )
    scale = np.abs(portions.scatter).max()
    np.testing.assert_allclose(whole.scatter, portions.scatter, rtol=0.0, atol=1e-11 * scale)
    np.testing.assert_allclose(whole.nk, portions.nk, rtol=1e-11)
    assert whole.log_likelihood == pytest.approx(portions.log_likelihood, rel=1e-11)


def test_the_first_of_the_rows_out_of_reach_is_named_whichever_thread_meets_it() -> None:
    mixture = Mixture.from_arrays(
        {"weights": [1.0], "means": [[0.0, 0.0]], "covariances": [np.eye(2) * 1e-20]}
    )
    X = np.zeros((200_000, 2))
    X[[190_000, 123_456, 150_000]] = 1e152
    set_thread_count(2)
    with pytest.raises(OutOfRangeError, match="row 123456 "):
        kernels.expectation(mixture.prepared, [(X, None)])


class _Late:
    """Helpers that come when everything is done."""

    def __init__(self) -> None:
        self.works: list[Callable[[], None]] = []

    def beside(self, work: Callable[[], None], _: int) -> "_Late":
        self.works.append(work)
        return self

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


def test_who_comes_late_to_a_pass_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    mixture, X = example("full", 2)
    other = random_mixture("full", n_components=3, n_features=2, rng=np.random.default_rng(9))
    expected = bits(kernels.expectation(other.prepared, [(X, None)]))
    late = _Late()
    set_thread_count(2)
    with monkeypatch.context() as patch:
        patch.setattr(sharing, "HELPERS", late)
        kernels.expectation(mixture.prepared, [(X, None)])
        found = kernels.expectation(other.prepared, [(X, None)])
        for work in late.works:
            work()
    assert len(late.works) == 2
    assert bits(found) == expected
    assert bits(kernels.expectation(other.prepared, [(X, None)])) == expected
