"""scikit-learn's own mixture tests, run with our class in place of its ``GaussianMixture``.

The modules are those of the installed scikit-learn, loaded afresh with the class exchanged. Every
test function of theirs runs here but those in ``LEFT_OUT``. For those in ``ASSERTS_WORDING`` each
refusal and warning has to come as they ask for it, but may be worded in another way. Those in
``EXPECTS_K_MEANS`` run with the start that is scikit-learn's default.
"""

import importlib.util
import types
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import sklearn.mixture

import gmm_engine

# scikit-learn's tests let warnings pass; those that ask for one get it all the same.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.oracle]

PRIVATE = "tests private functions of scikit-learn and no estimator at all"
LEFT_OUT = {
    "test_suffstat_sk_full": PRIVATE,
    "test_suffstat_sk_tied": PRIVATE,
    "test_suffstat_sk_diag": PRIVATE,
    "test_gaussian_suffstat_sk_spherical": PRIVATE,
    "test_compute_log_det_cholesky": PRIVATE,
    "test_gaussian_mixture_log_probabilities": PRIVATE,
    "test_gaussian_mixture_precisions_init": (
        "calls the private _set_parameters and _initialize; what they do is in test_given"
    ),
    "test_gaussian_mixture_all_init_does_not_estimate_gaussian_parameters": (
        "counts calls of a private function; that a whole start is taken as it is, is in test_given"
    ),
    "test_gaussian_mixture_setting_best_params": (
        "starts so that two components collapse onto one row each, with reg_covar=0: their "
        "variance is exactly 0 here, where scikit-learn's is rounding, and is refused by name; "
        "see test_estimator"
    ),
    "test_monotonic_likelihood": (
        "allows 600 EM steps until tol=1e-7; that bounds the last gain in scikit-learn and the "
        "distance still to go here, which takes longer; see test_estimator"
    ),
    "test_gaussian_mixture_array_api_compliance": (
        "asks for arrays of other libraries than NumPy, which the tags deny"
    ),
    "test_gaussian_mixture_raises_where_array_api_not_implemented": (
        "as above; NumPy's arrays are taken with every init_params, whether dispatched or not"
    ),
}
ASSERTS_WORDING = {
    "test_check_weights",
    "test_check_means",
    "test_check_precisions",
    "test_gaussian_mixture_fit_convergence_warning",
    "test_regularisation",
    "test_sample",
    "test_mixture_n_components_greater_than_n_samples_error",
}
EXPECTS_K_MEANS = {
    "test_warm_start",  # one step, twice, and two steps; a portfolio compares its starts by then
    "test_gaussian_mixture_precisions_init_diag",  # in the order that labels of k-means give
}


class GaussianMixture(gmm_engine.GaussianMixture):
    """Ours, with the one private name that tests of behaviour ask for."""

    def _n_parameters(self) -> int:
        return self.mixture_.n_parameters


class AnyWording:
    """Stands for ``pytest`` where a test may not look at messages."""

    @staticmethod
    def raises(
        error: type[Exception],
        match: str,
    ) -> AbstractContextManager[object]:
        assert match
        return pytest.raises(error)

    @staticmethod
    def warns(category: type[Warning], match: str) -> AbstractContextManager[object]:
        assert match
        return pytest.warns(category)


def suite(name: str) -> types.ModuleType:
    """Load a test module of scikit-learn's that finds our class where it looks for its own."""
    path = Path(sklearn.mixture.__file__).parent / "tests" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"{__name__}.{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with patch.object(sklearn.mixture, "GaussianMixture", GaussianMixture):
        spec.loader.exec_module(module)
    return module


def functions_of(name: str) -> dict[str, Callable[..., object]]:
    to_the_letter, in_other_words, by_k_means = (vars(suite(name)) for _ in range(3))
    in_other_words["pytest"] = AnyWording
    by_k_means["GaussianMixture"] = partial(GaussianMixture, init_params="kmeans")
    functions = {key: value for key, value in to_the_letter.items() if key.startswith("test_")}
    for kept, loaded in ((ASSERTS_WORDING, in_other_words), (EXPECTS_K_MEANS, by_k_means)):
        functions |= {key: loaded[key] for key in kept & set(functions)}
    return functions


FUNCTIONS = {**functions_of("test_gaussian_mixture"), **functions_of("test_mixture")}
globals().update({name: test for name, test in FUNCTIONS.items() if name not in LEFT_OUT})


def test_every_exception_is_still_a_test_of_theirs() -> None:
    exceptions = [*LEFT_OUT, *ASSERTS_WORDING, *EXPECTS_K_MEANS]
    assert set(exceptions) - set(FUNCTIONS) == set()
    assert len(exceptions) == len(set(exceptions))


@pytest.fixture
def global_dtype() -> type[np.float64]:
    """Doubles, as in a default run of theirs; our parameters are doubles whatever the data."""
    return np.float64


@pytest.fixture
def global_random_seed() -> int:
    """That of a default run of theirs."""
    return 42
