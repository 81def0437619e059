"""What the engine refuses: each wrong input has its error, its code, and says what to do."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gmm_engine import (
    Blocks,
    FitOptions,
    GaussianMixture,
    Grid,
    Mixture,
    errors,
    fit,
    from_sklearn,
    select,
    to_sklearn,
)
from gmm_engine.errors import (
    DimensionMismatchError,
    EmptyDataError,
    GmmEngineError,
    InvalidDataError,
    InvalidParameterError,
    NonFiniteNumberError,
    NotFittedError,
    OutOfRangeError,
    SingularCovarianceError,
    TooFewSamplesError,
)
from tests.support.data import faithful, iris

CODES = {
    InvalidParameterError: "invalid_parameter",
    InvalidDataError: "invalid_data",
    EmptyDataError: "empty_data",
    DimensionMismatchError: "dimension_mismatch",
    NonFiniteNumberError: "non_finite_number",
    OutOfRangeError: "value_out_of_range",
    TooFewSamplesError: "too_few_samples",
    SingularCovarianceError: "singular_covariance",
    NotFittedError: "not_fitted",
}

TWO = FitOptions(2, random_state=0)
ROWS = np.random.default_rng(0).standard_normal((6, 2))
# What comes from outside has no type to be relied on: that is what these tests are about.
Anything = Any


def refusal(error: type[GmmEngineError], call: Callable[[], object], says: str) -> GmmEngineError:
    """Expect exactly this error with its code and these words."""
    with pytest.raises(GmmEngineError, match=says) as caught:
        call()
    assert type(caught.value) is error
    assert caught.value.code == CODES[error]
    return caught.value


def with_value(value: float, *positions: tuple[int, int]) -> NDArray[np.float64]:
    X = ROWS.copy()
    for position in positions:
        X[position] = value
    return X


def test_every_refusal_has_a_code_of_its_own_and_is_a_value_error() -> None:
    tree = {
        thing
        for thing in vars(errors).values()
        if isinstance(thing, type) and issubclass(thing, GmmEngineError)
    } - {GmmEngineError}
    assert tree == set(CODES)
    assert {error: error.code for error in tree} == CODES
    assert len(set(CODES.values())) == len(CODES)
    assert issubclass(GmmEngineError, ValueError)
    assert issubclass(NotFittedError, AttributeError)


@pytest.mark.parametrize(
    ("X", "error", "says"),
    [
        pytest.param([1.0, 2.0], InvalidDataError, r"two dimensions.*\[\[…\]\]", id="flat"),
        pytest.param(ROWS[np.newaxis], InvalidDataError, "two dimensions.*not 3", id="stacked"),
        pytest.param(5.0, InvalidDataError, "two dimensions.*not 0", id="number"),
        pytest.param(None, InvalidDataError, "must hold real numbers", id="none"),
        pytest.param(
            [[1.0, 2.0], [3.0]], InvalidDataError, "rows of different.*Blocks", id="ragged"
        ),
        pytest.param([["a", "b"]], InvalidDataError, "must hold real numbers", id="text"),
        pytest.param([[1.0, None]], InvalidDataError, "must hold real numbers", id="missing"),
        pytest.param([[{}]], InvalidDataError, "must hold real numbers", id="objects"),
        pytest.param(ROWS + 1j, InvalidDataError, "must hold real numbers", id="complex"),
        pytest.param(
            ROWS.astype("datetime64[s]"), InvalidDataError, "real numbers, not date", id="dates"
        ),
        pytest.param(
            np.ma.masked_array(ROWS, mask=ROWS > 0), InvalidDataError, "masked values", id="masked"
        ),
        pytest.param([], EmptyDataError, "at least one row", id="nothing"),
        pytest.param(iter([ROWS]), InvalidDataError, r"iterator.*Blocks\(function", id="iterator"),
        pytest.param([[]], EmptyDataError, r"shape \(1, 0\)", id="no-columns"),
        pytest.param(np.empty((0, 2)), EmptyDataError, "at least one row", id="no-rows"),
        pytest.param(
            with_value(np.nan, (1, 0)), NonFiniteNumberError, r"\[1, 0\].*impute", id="nan"
        ),
        pytest.param(
            with_value(np.inf, (2, 1)), NonFiniteNumberError, r"\[2, 1\].*impute", id="inf"
        ),
        pytest.param(
            with_value(-np.inf, (5, 1)), NonFiniteNumberError, r"\[5, 1\]", id="minus-inf"
        ),
        pytest.param(
            np.full((4, 2), np.longdouble("1e400")), NonFiniteNumberError, "infinity", id="wider"
        ),
        pytest.param(ROWS * 1e300, OutOfRangeError, "rescale the data", id="huge"),
        pytest.param(ROWS * 1e-300, OutOfRangeError, "features 0, 1 spread over less", id="tiny"),
        pytest.param(ROWS[:1], TooFewSamplesError, "lower n_components", id="too-few"),
    ],
)
def test_wrong_data_is_refused_by_fit(X: Anything, error: type[GmmEngineError], says: str) -> None:
    refusal(error, lambda: fit(X, TWO), says)


def test_the_first_twenty_wrong_numbers_are_named() -> None:
    X = np.zeros((50, 2))
    X[::2, 1] = np.nan
    caught = refusal(NonFiniteNumberError, lambda: fit(X, TWO), "first at index")
    assert isinstance(caught, NonFiniteNumberError)
    assert caught.positions == tuple((row, 1) for row in range(0, 40, 2))


@pytest.mark.parametrize(
    ("sample_weight", "error", "says"),
    [
        pytest.param(np.ones(5), DimensionMismatchError, r"must be \(6,\)", id="too-short"),
        pytest.param(np.ones((6, 1)), DimensionMismatchError, r"must be \(6,\)", id="column"),
        pytest.param(1.0, DimensionMismatchError, r"must be \(6,\)", id="number"),
        pytest.param(["a"] * 6, InvalidDataError, "sample_weight must hold real", id="text"),
        pytest.param([1e-320] * 6, OutOfRangeError, "next to nothing; rescale", id="tiny"),
        pytest.param([1, 1, 1, 1, 1, np.nan], NonFiniteNumberError, r"\[5\]", id="nan"),
        pytest.param([1, 1, 1, 1, 1, -1], InvalidParameterError, r"negative.*\[5\]", id="negative"),
        pytest.param(np.zeros(6), InvalidParameterError, "not be zero everywhere", id="zeros"),
        pytest.param(np.full(6, 1e308), OutOfRangeError, "rescale", id="endless-sum"),
        pytest.param([1, 0, 0, 0, 0, 0], TooFewSamplesError, "lower n_components", id="one-row"),
    ],
)
def test_wrong_weights_are_refused(
    sample_weight: Anything, error: type[GmmEngineError], says: str
) -> None:
    refusal(error, lambda: fit(ROWS, TWO, sample_weight=sample_weight), says)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("n_components", 0, "integer of at least 1"),
        ("n_components", -3, "integer of at least 1"),
        ("n_components", 2.0, "integer of at least 1"),
        ("n_components", True, "integer of at least 1"),
        ("n_components", "2", "integer of at least 1"),
        ("n_components", None, "integer of at least 1"),
        ("covariance_type", "fulll", "one of diag, full, spherical, tied"),
        ("covariance_type", None, "one of diag, full, spherical, tied"),
        ("covariance_type", ["full"], "one of diag, full, spherical, tied"),
        ("tol", -1e-9, "finite number of at least 0"),
        ("tol", np.nan, "finite number of at least 0"),
        ("tol", np.inf, "finite number of at least 0"),
        ("tol", "1e-3", "finite number of at least 0"),
        ("max_iter", 0, "integer of at least 1"),
        ("max_iter", 1e3, "integer of at least 1"),
        ("n_init", 0, "integer of at least 1"),
        ("init_params", "k-means", "one of auto, "),
        ("init_params", 7, "one of auto, "),
        ("reg_covar", -1.0, "finite number of at least 0"),
        ("reg_covar", np.inf, "finite number of at least 0"),
        ("reg_covar", "none", "finite number of at least 0"),
        ("random_state", -1, "integer of at least 0, or None"),
        ("random_state", 0.5, "integer of at least 0, or None"),
        ("random_state", "a", "integer of at least 0, or None"),
    ],
)
def test_a_wrong_option_is_named_with_what_it_must_be(
    name: str, value: Anything, says: str
) -> None:
    options: dict[str, Anything] = {name: value}
    caught = refusal(
        InvalidParameterError, lambda: FitOptions(**options), f"^{name} must be .*{says}"
    )
    assert isinstance(caught, InvalidParameterError)
    assert caught.name == name


BEYOND: Anything = [[10**400, 1], [1, 2], [2, 5]]
IN_BLOCKS: Anything = Blocks(lambda: [ROWS])
NOTHING: Anything = None
EMPTY: Anything = {}
A_LETTER: Anything = "a"


def as_array(*values: Anything) -> Anything:
    return np.array(values)


@pytest.mark.parametrize(
    ("error", "call", "says"),
    [
        (OutOfRangeError, lambda: fit(BEYOND, TWO), "beyond the range of a double"),
        (OutOfRangeError, lambda: two_components().predict(BEYOND), "beyond the range of a double"),
        (OutOfRangeError, lambda: GaussianMixture(2).fit(BEYOND), "beyond the range of a double"),
        (InvalidParameterError, lambda: fit(ROWS, EMPTY), "^options must be of type FitOptions"),
        (InvalidParameterError, lambda: fit(ROWS, NOTHING), "^options .* not NoneType"),
        (InvalidParameterError, lambda: select(ROWS, options=EMPTY), "^options .* FitOptions"),
        (
            InvalidParameterError,
            lambda: select(ROWS, grid=EMPTY),
            "^grid must be of type Grid",
        ),
        (InvalidDataError, lambda: select(IN_BLOCKS), "select takes arrays"),
        (InvalidDataError, lambda: fit(Blocks(lambda: NOTHING), TWO), "must return the blocks"),
        (
            InvalidDataError,
            lambda: fit(Blocks(lambda: EMPTY.get), TWO),
            "not builtin",
        ),
        (InvalidParameterError, lambda: from_sklearn(NOTHING), "^model must be .*, not NoneType"),
        (InvalidParameterError, lambda: to_sklearn(NOTHING), "^model must be .*, not NoneType"),
        (InvalidParameterError, lambda: two_components().sample(10**30), "^n_samples must be at"),
        (InvalidParameterError, lambda: GaussianMixture(max_iter=-1).fit(ROWS), "at least 0$"),
        (
            InvalidParameterError,
            lambda: GaussianMixture(random_state=A_LETTER).fit(ROWS),
            "^random_state must be an integer .*, or None, or a numpy.random.Generator",
        ),
        (InvalidParameterError, lambda: Grid(as_array(1, 0)), "^n_components must be an integer"),
        (InvalidParameterError, lambda: Grid(as_array([1, 2])), "^n_components must be an int"),
    ],
)
def test_what_is_no_such_thing_at_all_is_named(
    error: type[GmmEngineError], call: Anything, says: str
) -> None:
    refusal(error, call, says)


def test_numbers_that_are_objects_are_numbers() -> None:
    def as_objects(array: NDArray[np.generic]) -> Anything:
        return array.astype(object)

    weight = np.array([1.0, 2.0, 1.0, 1.0, 3.0, 1.0])
    plain = fit(ROWS, TWO, sample_weight=weight, start=HALVES)
    objects = fit(as_objects(ROWS), TWO, sample_weight=as_objects(weight), start=as_objects(HALVES))
    np.testing.assert_array_equal(objects.mixture.means, plain.mixture.means)
    assert Grid(as_array(2, 1), as_array("full")) == Grid((2, 1), ("full",))


HALVES = np.array([0, 0, 0, 1, 1, 1])


def two_components(**changes: Anything) -> Mixture:
    arrays: dict[str, Anything] = {
        "weights": [0.5, 0.5],
        "means": [[0.0, 0.0], [1.0, 1.0]],
        "covariances": [np.eye(2), np.eye(2)],
    }
    return Mixture.from_arrays({**arrays, **changes})


@pytest.mark.parametrize(
    ("start", "error", "says"),
    [
        pytest.param("kmeans", InvalidDataError, "start must hold real numbers", id="text"),
        pytest.param(HALVES + 1, InvalidParameterError, "labels from 0 to 1", id="label-above"),
        pytest.param(HALVES - 1, InvalidParameterError, "labels from 0 to 1", id="label-below"),
        pytest.param(HALVES / 2, InvalidParameterError, "labels from 0 to 1", id="label-half"),
        pytest.param(HALVES * 1e300, InvalidParameterError, "labels from 0", id="label-huge"),
        pytest.param(HALVES * np.nan, NonFiniteNumberError, "start contains NaN", id="label-nan"),
        pytest.param(HALVES[:4], DimensionMismatchError, r"labels \(6,\) or resp", id="too-short"),
        pytest.param(np.ones((6, 3)) / 3, DimensionMismatchError, r"\(6, 2\)", id="three-columns"),
        pytest.param(np.ones((6, 2)), InvalidParameterError, "sum to 1 by row", id="sums"),
        pytest.param(
            np.tile([1.5, -0.5], (6, 1)), InvalidParameterError, "sum to 1 by row", id="negative"
        ),
        pytest.param(
            Mixture.from_arrays(
                {"weights": [0.5, 0.5], "means": [[0.0], [1.0]], "covariances": np.ones((2, 1, 1))}
            ),
            DimensionMismatchError,
            "start has 1 features, X has 2",
            id="other-width",
        ),
        pytest.param(
            Mixture.from_arrays(
                {"weights": [1.0], "means": [[0.0, 0.0]], "covariances": [np.eye(2)]}
            ),
            InvalidParameterError,
            "options ask for 2 of type full",
            id="other-number",
        ),
        pytest.param(
            Mixture.from_arrays(
                {"weights": [0.5, 0.5], "means": np.eye(2), "covariances": [1.0, 1.0]}, "spherical"
            ),
            InvalidParameterError,
            "options ask for 2 of type full",
            id="other-family",
        ),
    ],
)
def test_a_start_that_does_not_fit_is_refused(
    start: Anything, error: type[GmmEngineError], says: str
) -> None:
    refusal(error, lambda: fit(ROWS, TWO, start=start), says)


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
def test_a_collapsed_covariance_without_regularization_is_named(covariance_type: str) -> None:
    X = np.repeat([[0.0, 0.0], [5.0, 5.0]], 3, axis=0)
    options = FitOptions(2, covariance_type, reg_covar=0.0)
    caught = refusal(
        SingularCovarianceError, lambda: fit(X, options, start=HALVES), "raise reg_covar"
    )
    assert isinstance(caught, SingularCovarianceError)
    assert caught.component == 0


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"weights": [0.5, 0.4]}, InvalidParameterError, "must sum to 1"),
        ({"weights": [1.5, -0.5]}, InvalidParameterError, "not be negative"),
        ({"weights": [1.0]}, InvalidParameterError, r"shape \(1,\).*must have \(2,\)"),
        ({"weights": [0.5, np.nan]}, NonFiniteNumberError, r"weights contains NaN.*\[1\]"),
        ({"weights": ["a", "b"]}, InvalidDataError, "weights must hold real numbers"),
        ({"means": [0.0, 1.0]}, InvalidParameterError, r"shape \(n_components, n_features\)"),
        ({"means": [[], []]}, InvalidParameterError, r"shape \(n_components, n_features\)"),
        ({"means": [[0.0, 0.0], [1.0, np.inf]]}, NonFiniteNumberError, r"means.*\[1, 1\]"),
        ({"covariances": np.eye(2)}, InvalidParameterError, r"must have \(2, 2, 2\)"),
        ({"covariances": [np.eye(2), np.nan * np.eye(2)]}, NonFiniteNumberError, "covariances"),
        ({"covariances": [np.eye(2), [[1, 0.1], [0.2, 1]]]}, InvalidParameterError, "symmetric"),
        ({"covariances": [np.eye(2), [[1, 2], [2, 1]]]}, SingularCovarianceError, "component 1"),
        ({"covariances": [-np.eye(2), np.eye(2)]}, SingularCovarianceError, "component 0"),
        ({"covariances": [np.eye(2), np.zeros((2, 2))]}, SingularCovarianceError, "component 1"),
    ],
)
def test_wrong_parameters_make_no_mixture(
    changes: dict[str, Anything], error: type[GmmEngineError], says: str
) -> None:
    refusal(error, lambda: two_components(**changes), says)


@pytest.mark.parametrize(
    ("covariance_type", "covariances", "error"),
    [
        ("tied", [[1.0, 2.0], [2.0, 1.0]], SingularCovarianceError),
        ("tied", [[1.0, 2.0], [0.0, 1.0]], InvalidParameterError),
        ("tied", np.ones((2, 2, 2)), InvalidParameterError),
        ("diag", [[1.0, 0.0], [1.0, 1.0]], SingularCovarianceError),
        ("diag", [1.0, 1.0], InvalidParameterError),
        ("spherical", [1.0, -1.0], SingularCovarianceError),
        ("spherical", [[1.0], [1.0]], InvalidParameterError),
    ],
)
def test_every_family_refuses_what_is_no_covariance_of_its_kind(
    covariance_type: str, covariances: Anything, error: type[GmmEngineError]
) -> None:
    arrays = {"weights": [0.5, 0.5], "means": np.eye(2), "covariances": covariances}
    refusal(error, lambda: Mixture.from_arrays(arrays, covariance_type), "covariance")


def test_missing_and_unknown_parts_of_a_mixture_are_named() -> None:
    refusal(
        InvalidParameterError,
        lambda: Mixture.from_arrays({"weights": [1.0]}),
        "^covariances, means must be given$",
    )
    refusal(
        InvalidParameterError,
        lambda: Mixture.from_arrays({}, "round"),
        "one of diag, full, spherical, tied",
    )


METHODS = ["predict", "predict_proba", "score_samples", "score", "log_prob", "criteria", "bic"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("X", "error", "says"),
    [
        ([[1.0]], DimensionMismatchError, "X has 1 features.*with 2"),
        ([[1.0, 2.0, 3.0]], DimensionMismatchError, "X has 3 features.*with 2"),
        ([1.0, 2.0], InvalidDataError, "two dimensions"),
        (np.empty((0, 2)), EmptyDataError, "at least one row"),
        ([[1.0, np.nan]], NonFiniteNumberError, r"\[0, 1\]"),
        ([["a", "b"]], InvalidDataError, "must hold real numbers"),
        ([[1e160, 0.0]], OutOfRangeError, "rescale"),
    ],
    ids=["narrow", "wide", "flat", "no-rows", "nan", "text", "huge"],
)
def test_every_question_to_a_mixture_checks_its_data(
    method: str, X: Anything, error: type[GmmEngineError], says: str
) -> None:
    ask = getattr(two_components(), method)
    refusal(error, lambda: ask(X), says)


@pytest.mark.parametrize("n_samples", [0, -1, 1.5, True, "3"])
def test_a_wrong_number_of_samples_is_refused(n_samples: Anything) -> None:
    refusal(
        InvalidParameterError,
        lambda: two_components().sample(n_samples, 0),
        "n_samples must be an integer of at least 1",
    )


@pytest.mark.parametrize("rng", [-1, "a", 0.5])
def test_a_wrong_seed_for_a_sample_is_refused(rng: Anything) -> None:
    refusal(InvalidParameterError, lambda: two_components().sample(3, rng), "^rng must be")


@pytest.mark.parametrize("budget_seconds", [-1.0, np.nan, "soon"])
def test_a_wrong_time_budget_is_refused(budget_seconds: Anything) -> None:
    refusal(
        InvalidParameterError,
        lambda: fit(ROWS, TWO, budget_seconds=budget_seconds),
        "^budget_seconds must be",
    )


def test_an_array_is_no_reg_covar() -> None:
    several: Anything = np.array([1.0, 2.0])
    refusal(InvalidParameterError, lambda: FitOptions(reg_covar=several), "^reg_covar must be")


@pytest.mark.parametrize("X", [faithful(), iris()], ids=["faithful", "iris"])
def test_no_refusal_repeats_the_data(X: NDArray[np.float64]) -> None:
    wrong = X.copy()
    wrong[3, 1] = np.nan
    caught = refusal(NonFiniteNumberError, lambda: fit(wrong, TWO), "NaN")
    assert not re.search(r"\d\.\d", str(caught))
