"""``GaussianMixture`` as a user of scikit-learn meets it."""

import copy
import inspect
import pickle
import subprocess
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sklearn.mixture
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning as TheirConvergenceWarning
from sklearn.exceptions import NotFittedError as TheirNotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import get_tags
from sklearn.utils.validation import check_is_fitted

from gmm_engine import (
    COVARIANCE_FAMILIES,
    Blocks,
    FitOptions,
    GaussianMixture,
    Given,
    errors,
    fit,
)
from tests.support.data import faithful, iris, iris_species

every_family = pytest.mark.parametrize("covariance_type", COVARIANCE_FAMILIES)
SHARED_METHODS = (
    *("fit", "fit_predict", "predict", "predict_proba", "score", "score_samples"),
    *("aic", "bic", "sample", "get_params", "set_params"),
)
# What comes from outside has no type to be relied on: that is what some of these tests are about.
Anything = Any


class Frame:
    """As little of a data frame as it takes to have named columns."""

    def __init__(self, values: NDArray[np.float64], columns: Sequence[object]) -> None:
        self.values, self.columns = values, columns

    def __array__(self, dtype: object = None, copy: bool | None = None) -> NDArray[np.float64]:
        return self.values


class Batches:
    """As little of an Arrow dataset as it takes to be told from an array."""

    def to_batches(self) -> list[NDArray[np.float64]]:
        return [faithful()]


class ArrowTable:
    """As little of an Arrow table; its ``columns`` are the data."""

    def __init__(self, values: NDArray[np.float64], names: Sequence[str]) -> None:
        self.columns, self.column_names = list(values.T), names

    def __array__(self, dtype: object = None, copy: bool | None = None) -> NDArray[np.float64]:
        return np.column_stack(self.columns)


def fitted(**params: Anything) -> GaussianMixture:
    return GaussianMixture(**{"n_components": 2, "random_state": 0, **params}).fit(faithful())


# The face


def test_it_has_every_parameter_and_every_method_of_theirs() -> None:
    theirs = inspect.signature(sklearn.mixture.GaussianMixture.__init__).parameters
    ours = inspect.signature(GaussianMixture.__init__).parameters
    assert list(ours) == list(theirs)
    assert {name: p.kind for name, p in ours.items()} == {n: p.kind for n, p in theirs.items()}
    for name in SHARED_METHODS:
        of_theirs, of_ours = (
            list(inspect.signature(getattr(kind, name)).parameters)
            for kind in (sklearn.mixture.GaussianMixture, GaussianMixture)
        )
        assert of_ours[: len(of_theirs)] == of_theirs


def test_the_defaults_that_differ_are_those_that_the_page_names() -> None:
    theirs = sklearn.mixture.GaussianMixture().get_params()
    ours = GaussianMixture().get_params()
    assert {name for name in ours if ours[name] != theirs[name]} == {
        "tol",
        "reg_covar",
        "max_iter",
        "init_params",
    }


@every_family
def test_it_has_every_fitted_attribute_of_theirs_in_the_same_shape(covariance_type: str) -> None:
    ours = fitted(covariance_type=covariance_type)
    theirs = sklearn.mixture.GaussianMixture(2, covariance_type=covariance_type).fit(faithful())
    for name, value in vars(theirs).items():
        if name.endswith("_") and not name.startswith("_"):
            assert np.shape(getattr(ours, name)) == np.shape(value) or name == "lower_bounds_"


@every_family
def test_it_is_the_engine_with_another_face(covariance_type: str) -> None:
    options = FitOptions(2, covariance_type, random_state=0)
    result, model = fit(faithful(), options), fitted(covariance_type=covariance_type)
    X = faithful()
    np.testing.assert_array_equal(model.weights_, result.mixture.weights)
    np.testing.assert_array_equal(model.means_, result.mixture.means)
    np.testing.assert_array_equal(model.covariances_, result.mixture.covariances)
    np.testing.assert_array_equal(model.precisions_, result.mixture.precisions)
    np.testing.assert_array_equal(model.precisions_cholesky_, result.mixture.precisions_cholesky)
    np.testing.assert_array_equal(model.predict(X), result.mixture.predict(X))
    np.testing.assert_array_equal(model.predict_proba(X), result.mixture.predict_proba(X))
    np.testing.assert_array_equal(model.score_samples(X), result.mixture.score_samples(X))
    assert model.score(X) == result.mixture.score(X)
    assert model.bic(X) == result.mixture.bic(X)
    assert model.aic(X) == result.mixture.aic(X)
    assert (model.converged_, model.n_iter_) == (result.converged, result.n_iter)


def test_the_lower_bound_is_that_of_the_parameters_returned() -> None:
    model = fitted(max_iter=3, tol=0.0)
    assert model.lower_bound_ == pytest.approx(model.score(faithful()), rel=1e-13)
    assert model.lower_bounds_[-1] == pytest.approx(model.lower_bound_, rel=1e-15)
    assert len(model.lower_bounds_) == model.n_iter_ == 3


def test_it_is_written_as_it_would_be_made() -> None:
    assert repr(GaussianMixture()) == "GaussianMixture()"
    model = GaussianMixture(3, covariance_type="diag", means_init=[[0.0], [1.0], [2.0]])
    assert repr(model) == (
        "GaussianMixture(covariance_type='diag', means_init=[[0.0], [1.0], [2.0]], n_components=3)"
    )


def test_an_unknown_parameter_is_refused_and_nothing_is_set() -> None:
    model = GaussianMixture()
    with pytest.raises(errors.InvalidParameterError, match=r"n_clusters is no parameter.*n_init"):
        model.set_params(tol=1.0, n_clusters=3)
    assert model.tol == 1e-6


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_components", 0),
        ("covariance_type", "round"),
        ("tol", -1.0),
        ("reg_covar", "none"),
        ("max_iter", -1),
        ("max_iter", False),
        ("n_init", 0),
        ("init_params", "best"),
        ("random_state", "now"),
        ("random_state", -1),
        ("warm_start", "yes"),
        ("verbose", -1),
        ("verbose", "a lot"),
        ("verbose_interval", 0),
    ],
)
def test_a_wrong_parameter_is_refused_by_fit_under_its_name(name: str, value: Anything) -> None:
    with pytest.raises(errors.InvalidParameterError, match=f"^{name} "):
        GaussianMixture(**{name: value}).fit(faithful())


# Beside scikit-learn


def test_it_works_at_the_end_of_a_pipeline() -> None:
    pipeline = make_pipeline(StandardScaler(), GaussianMixture(2, random_state=0))
    labels = pipeline.fit_predict(faithful())
    np.testing.assert_array_equal(labels, pipeline.predict(faithful()))
    assert pipeline.score(faithful()) > -2.0
    assert pipeline.score_samples(faithful()).shape == (272,)
    check_is_fitted(pipeline)


@pytest.mark.parametrize("n_jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_grid_search_picks_by_the_mean_log_likelihood_of_unseen_rows(n_jobs: int) -> None:
    grid = {"n_components": [1, 2, 6], "covariance_type": ["full", "spherical"]}
    model = GaussianMixture(tol=1e-3, random_state=0)
    search = GridSearchCV(model, grid, cv=3, n_jobs=n_jobs).fit(faithful())
    assert search.best_params_ == {"n_components": 2, "covariance_type": "full"}
    scores = cross_val_score(clone(model).set_params(**search.best_params_), faithful(), cv=3)
    assert search.best_score_ == pytest.approx(scores.mean())
    assert search.best_estimator_.predict(faithful()).shape == (272,)


def test_a_clone_has_the_parameters_and_nothing_of_the_fit() -> None:
    model = fitted(means_init=[[2.0, 55.0], [4.3, 80.0]])
    copied = clone(model)
    assert repr(copied) == repr(model)
    assert copied.means_init is not model.means_init
    assert not hasattr(copied, "weights_")
    with pytest.raises(TheirNotFittedError):
        check_is_fitted(copied)


def test_its_tags_are_those_of_a_density_estimator() -> None:
    ours, theirs = get_tags(GaussianMixture()), get_tags(sklearn.mixture.GaussianMixture())
    theirs.array_api_support = False
    assert ours == theirs


def test_not_fitted_is_an_error_of_both_libraries() -> None:
    for method in ("predict", "predict_proba", "score_samples", "score", "bic", "aic"):
        with pytest.raises(errors.NotFittedError) as caught:
            getattr(GaussianMixture(), method)(faithful())
        assert isinstance(caught.value, TheirNotFittedError)
        assert isinstance(pickle.loads(pickle.dumps(caught.value)), TheirNotFittedError)  # noqa: S301 - our own bytes
    with pytest.raises(TheirNotFittedError):
        GaussianMixture().sample()
    assert not hasattr(GaussianMixture(), "mixture_")


def test_not_converging_is_a_warning_of_both_libraries() -> None:
    for category in (TheirConvergenceWarning, errors.ConvergenceWarning):
        with pytest.warns(category, match=r"did not converge.*raise max_iter or tol"):
            fitted(max_iter=2)


def test_a_fit_worth_a_second_look_says_so() -> None:
    X = np.column_stack([faithful(), np.full(272, 3.0)])
    with pytest.warns(errors.FitQualityWarning, match="features 2 do not vary"):
        GaussianMixture(2, random_state=0).fit(X)


def test_importing_the_engine_and_fitting_imports_no_scikit_learn() -> None:
    script = (
        "import sys, gmm_engine; gmm_engine.GaussianMixture(max_iter=1, tol=0.0)"
        ".fit([[0.0], [1.0], [3.0]]).predict([[1.0]]); sys.exit('sklearn' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)  # noqa: S603 - our own interpreter and script


# Data and its names


def test_names_of_columns_are_kept_and_compared() -> None:
    model = fitted().fit(Frame(faithful(), ["eruptions", "waiting"]))
    assert model.feature_names_in_.dtype == object
    assert model.feature_names_in_.tolist() == ["eruptions", "waiting"]
    labels = model.predict(Frame(faithful(), ["eruptions", "waiting"]))
    np.testing.assert_array_equal(
        labels, model.predict(ArrowTable(faithful(), ["eruptions", "waiting"]))
    )
    with pytest.raises(errors.DimensionMismatchError, match="must be in the same order"):
        model.predict(Frame(faithful(), ["waiting", "eruptions"]))
    with pytest.raises(
        ValueError, match=r"(?s)unseen at fit time:\n- length.*now missing:\n- wait"
    ):
        model.score(Frame(faithful(), ["eruptions", "length"]))


def test_names_on_one_side_only_are_a_warning() -> None:
    named, unnamed = fitted().fit(Frame(faithful(), ["a", "b"])), fitted()
    with pytest.warns(UserWarning, match="X does not have valid feature names, but GaussianMix"):
        named.predict(faithful())
    with pytest.warns(UserWarning, match="X has feature names, but GaussianMixture was fitted wi"):
        unnamed.predict(Frame(faithful(), ["a", "b"]))


def test_names_of_an_earlier_fit_are_forgotten() -> None:
    model = fitted().fit(Frame(faithful(), ["a", "b"]))
    assert not hasattr(model.fit(faithful()), "feature_names_in_")
    assert not hasattr(model.fit(Frame(faithful(), [0, 1])), "feature_names_in_")


def test_many_wrong_names_are_cut_short() -> None:
    model = GaussianMixture(1).fit(Frame(np.random.default_rng(0).random((9, 7)), [*"abcdefg"]))
    with pytest.raises(ValueError, match=r"- E\n- [.]{3}\n"):
        model.predict(Frame(np.zeros((1, 7)), [*"ABCDEFG"]))


def test_names_that_are_partly_strings_are_refused() -> None:
    with pytest.raises(TypeError, match="feature names are only supported"):
        GaussianMixture().fit(Frame(faithful(), ["a", 1]))


@pytest.mark.parametrize(
    "X",
    [
        pytest.param(faithful().tolist(), id="lists"),
        pytest.param(faithful().astype(object), id="objects"),
        pytest.param(np.asfortranarray(faithful()), id="by-columns"),
        pytest.param(Frame(faithful(), [0, 1]), id="frame"),
    ],
)
def test_whatever_holds_the_same_numbers_is_the_same_fit(X: Anything) -> None:
    model, same = fitted(), fitted().fit(X)
    np.testing.assert_array_equal(same.means_, model.means_)
    np.testing.assert_array_equal(same.predict_proba(X), model.predict_proba(faithful()))


NULLABLE = ("Float64", "Float32", "float64[pyarrow]")


@pytest.mark.parametrize("dtype", ["float64", *NULLABLE])
def test_columns_of_pandas_are_numbers_whichever_way_they_are_kept(dtype: str) -> None:
    frame = pd.DataFrame(np.round(faithful() * 4), columns=["eruptions", "waiting"])
    model = GaussianMixture(2, random_state=0).fit(frame.astype(dtype))
    same = GaussianMixture(2, random_state=0).fit(frame.to_numpy())

    np.testing.assert_array_equal(model.means_, same.means_)
    assert model.feature_names_in_.tolist() == ["eruptions", "waiting"]
    assert fit(frame.astype(dtype), FitOptions(2, random_state=0)).n_iter == model.n_iter_


@pytest.mark.parametrize("dtype", NULLABLE)
def test_a_missing_value_of_pandas_is_refused_by_its_place(dtype: str) -> None:
    frame = pd.DataFrame(faithful()).astype(dtype)
    frame.iloc[7, 1] = pd.NA
    for call in (GaussianMixture().fit, lambda rows: fit(rows, FitOptions())):
        with pytest.raises(errors.NonFiniteNumberError, match=r"\[7, 1\]"):
            call(frame)


def test_columns_of_text_are_refused() -> None:
    frame = pd.DataFrame({"a": [1.0, 2.0], "b": ["x", "y"]})
    with pytest.raises(errors.InvalidDataError, match="real numbers"):
        fit(frame, FitOptions())


@pytest.mark.parametrize(
    ("X", "error", "says"),
    [
        pytest.param([1.0, 2.0], errors.InvalidDataError, "Reshape your data", id="flat"),
        pytest.param([[1.0], [1.0, 2.0]], errors.InvalidDataError, "lengths", id="ragged"),
        pytest.param(np.empty((0, 2)), errors.EmptyDataError, r"0 sample\(s\)", id="no-rows"),
        pytest.param(np.empty((3, 0)), errors.EmptyDataError, r"0 feature\(s\)", id="no-columns"),
        pytest.param([["a", "b"]], errors.InvalidDataError, "real numbers", id="text"),
        pytest.param(
            np.array([["a", 1.0]], dtype=object), errors.InvalidDataError, "'a'", id="object"
        ),
        pytest.param(np.array([[None, {}]]), TypeError, "must be a string or a real", id="nothing"),
        pytest.param([[1j, 2.0]], errors.InvalidDataError, "Complex data not supp", id="complex"),
        pytest.param([[np.nan, 2.0]], errors.NonFiniteNumberError, "NaN", id="nan"),
        pytest.param(np.zeros((2, 3)), errors.DimensionMismatchError, "3 features, but", id="wide"),
        pytest.param(Blocks(list), errors.InvalidDataError, r"gmm_engine\.fit", id="blocks"),
        pytest.param(Batches(), errors.InvalidDataError, r"gmm_engine\.fit", id="dataset"),
    ],
)
def test_wrong_data_is_refused_by_every_method(
    X: Anything, error: type[Exception], says: str
) -> None:
    model = fitted()
    for method in ("predict", "predict_proba", "score_samples", "score", "bic", "aic"):
        with pytest.raises(error, match=says):
            getattr(model, method)(X)


def test_a_fit_that_is_refused_leaves_the_last_one_as_it_was() -> None:
    model = fitted()
    before = model.weights_
    with pytest.raises(errors.TooFewSamplesError):
        model.set_params(n_components=5).fit(faithful()[:3])
    assert model.weights_ is before
    assert model.predict(faithful()).max() == 1


def test_parameters_are_doubles_whatever_the_data() -> None:
    model = fitted().fit(faithful().astype(np.float32))
    assert model.means_.dtype == model.covariances_.dtype == np.float64


@every_family
def test_weights_are_repetitions(covariance_type: str) -> None:
    counts = np.random.default_rng(0).integers(0, 4, size=272)
    weighted = GaussianMixture(
        2, covariance_type=covariance_type, init_params="kmeans", random_state=0
    )
    repeated = clone(weighted).fit(np.repeat(faithful(), counts, axis=0))
    weighted.fit(faithful(), sample_weight=counts)
    np.testing.assert_allclose(weighted.means_, repeated.means_, rtol=1e-6)
    assert weighted.score(faithful(), sample_weight=counts) == pytest.approx(
        repeated.score(np.repeat(faithful(), counts, axis=0)), rel=1e-9
    )


# Seeds


@pytest.mark.parametrize("seed", [0, 7, np.int64(7)])
def test_an_integer_seed_is_the_same_fit_again(seed: int) -> None:
    model = GaussianMixture(3, random_state=seed).fit(iris())
    np.testing.assert_array_equal(model.means_, clone(model).fit(iris()).means_)


@pytest.mark.parametrize("kind", [np.random.RandomState, np.random.default_rng])
def test_a_generator_is_drawn_from_at_every_fit(kind: Anything) -> None:
    def starts(random_state: Anything) -> list[float]:
        model = GaussianMixture(3, init_params="random", max_iter=0, random_state=random_state)
        return [model.fit(iris()).lower_bound_ for _ in range(3)]

    assert starts(kind(1)) == starts(kind(1))
    assert len(set(starts(kind(1)))) == 3


def test_samples_go_on_in_one_stream_that_a_fit_begins_anew() -> None:
    model = fitted()
    first, second = model.sample(5), model.sample(5)
    assert (first[0] != second[0]).any()
    model.fit(faithful())
    np.testing.assert_array_equal(model.sample(5)[0], first[0])
    np.testing.assert_array_equal(model.sample(5)[0], second[0])


def test_a_sample_with_a_seed_of_its_own_is_the_same_again() -> None:
    model = fitted()
    rows, labels = model.sample(4, random_state=3)
    again, _ = model.sample(4, random_state=3)
    np.testing.assert_array_equal(rows, again)
    assert rows.shape == (4, 2)
    assert set(labels) <= {0, 1}
    drawn, _ = model.sample(4, random_state=np.random.RandomState(0))
    assert (drawn != rows).any()


@pytest.mark.parametrize("seed", [-1, 0.5, "a", True])
def test_a_sample_with_a_wrong_seed_is_refused(seed: Anything) -> None:
    with pytest.raises(errors.InvalidParameterError, match="random_state must be an integer"):
        fitted().sample(2, random_state=seed)


# Starts


@every_family
@pytest.mark.parametrize("n_steps", [1, 2, 9])
def test_a_given_start_is_followed_step_by_step(covariance_type: str, n_steps: int) -> None:
    """With tol=0, max_iter=n makes exactly n EM steps, in both libraries."""
    begin = fit(iris(), FitOptions(3, covariance_type, max_iter=1, tol=0), start=iris_species())
    start = begin.mixture
    params: dict[str, Anything] = {
        "covariance_type": covariance_type,
        "weights_init": start.weights,
        "means_init": start.means,
        "precisions_init": start.precisions,
        "tol": 0.0,
        "max_iter": n_steps,
        "reg_covar": 1e-6,
    }
    ours = GaussianMixture(3, **params).fit(iris())
    with pytest.warns(TheirConvergenceWarning):
        theirs = sklearn.mixture.GaussianMixture(3, **params).fit(iris())
    assert ours.n_iter_ == n_steps
    for name in ("weights_", "means_", "covariances_", "precisions_"):
        value = getattr(theirs, name)
        np.testing.assert_allclose(
            getattr(ours, name), value, rtol=1e-9, atol=1e-9 * np.abs(value).max()
        )


def test_parts_of_a_start_are_the_engines_own() -> None:
    means = [[2.0, 55.0], [4.3, 80.0]]
    model = fitted(means_init=means)
    result = fit(faithful(), FitOptions(2, random_state=0), start=Given(means=means))
    np.testing.assert_array_equal(model.means_, result.mixture.means)
    assert model.means_[0, 0] < model.means_[1, 0]
    assert model.means_init is means


def test_no_steps_at_all_return_the_start() -> None:
    means = [[2.0, 55.0], [4.3, 80.0]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = fitted(means_init=means, max_iter=0)
    np.testing.assert_array_equal(model.means_, means)
    assert (model.n_iter_, model.lower_bounds_, model.converged_) == (0, [], False)
    assert model.lower_bound_ == pytest.approx(model.score(faithful()))
    assert model.predict(faithful()).shape == (272,)


def test_a_start_collapsed_onto_single_rows_is_refused_by_name_or_held_up() -> None:
    """scikit-learn goes on with the rounding that its variances of 0 come out as."""
    X = np.random.default_rng(0).random((30, 3))
    params: dict[str, Anything] = {
        "covariance_type": "spherical",
        "weights_init": [0.1, 0.9],
        "means_init": [X[0], [0.5, 0.5, 0.5]],
        "precisions_init": [1e6, 3.0],
        "max_iter": 1,
        "tol": 0.0,
    }
    with pytest.raises(errors.SingularCovarianceError, match=r"component 0.*raise reg_covar"):
        GaussianMixture(2, reg_covar=0.0, **params).fit(X)
    with pytest.warns(errors.FitQualityWarning, match="component 0 has next to no spread"):
        held = GaussianMixture(2, **params).fit(X)
    assert np.isfinite(held.covariances_).all()


# Warm starts


def test_a_warm_start_goes_on_where_the_last_fit_ended() -> None:
    whole = fitted(max_iter=8, tol=0.0, init_params="kmeans")
    parts = fitted(max_iter=4, tol=0.0, init_params="kmeans", warm_start=True)
    parts.fit(faithful())
    np.testing.assert_allclose(parts.means_, whole.means_, rtol=1e-12)


@every_family
def test_single_warm_steps_never_lower_the_likelihood_and_converge(covariance_type: str) -> None:
    model = GaussianMixture(
        2,
        covariance_type=covariance_type,
        reg_covar=0.0,
        warm_start=True,
        max_iter=1,
        init_params="kmeans",
        tol=1e-5,
        random_state=0,
    )
    scores = [-np.inf]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", errors.ConvergenceWarning)
        while not model.fit(faithful()).converged_:
            scores.append(model.score(faithful()))
            assert scores[-1] >= scores[-2] - 1e-14
            assert len(scores) < 600


def test_a_warm_start_outlives_pickling() -> None:
    whole = fitted(max_iter=6, tol=0.0, init_params="kmeans", warm_start=True)
    again = pickle.loads(pickle.dumps(whole))  # noqa: S301 - our own bytes
    np.testing.assert_allclose(again.fit(faithful()).means_, whole.fit(faithful()).means_)


def test_a_warm_start_with_another_shape_is_refused() -> None:
    model = fitted(warm_start=True).set_params(n_components=3)
    with pytest.raises(errors.InvalidParameterError, match="start has 2 components"):
        model.fit(faithful())


# Copies, and parameters set by hand


@pytest.fixture(params=["pickle", "deepcopy"])
def copies(request: pytest.FixtureRequest) -> Anything:
    def pickled(model: GaussianMixture) -> GaussianMixture:
        copied: GaussianMixture = pickle.loads(pickle.dumps(model))  # noqa: S301 - our own bytes
        return copied

    return pickled if request.param == "pickle" else copy.deepcopy


@every_family
def test_a_copy_answers_with_the_same_bits(covariance_type: str, copies: Anything) -> None:
    model = fitted(covariance_type=covariance_type)
    copied = copies(model)
    np.testing.assert_array_equal(copied.predict_proba(faithful()), model.predict_proba(faithful()))
    np.testing.assert_array_equal(copied.score_samples(faithful()), model.score_samples(faithful()))
    np.testing.assert_array_equal(copied.sample(5)[0], model.sample(5)[0])
    assert copied.mixture_ is copied.mixture_


def test_parameters_set_by_hand_are_what_is_answered_from() -> None:
    model, other = fitted(), fitted(n_components=3)
    model.n_components = 3
    model.weights_, model.means_ = other.weights_, other.means_
    model.precisions_cholesky_ = other.precisions_cholesky_
    np.testing.assert_array_equal(model.predict(faithful()), other.predict(faithful()))


def test_an_estimator_can_be_made_of_known_parameters_alone() -> None:
    model = GaussianMixture(2, covariance_type="diag", random_state=0)
    model.weights_ = np.array([0.5, 0.5])
    model.means_ = np.array([[0.0, 0.0], [9.0, 9.0]])
    model.precisions_cholesky_ = np.ones((2, 2))
    np.testing.assert_array_equal(model.predict([[0.1, 0.2], [8.0, 9.0]]), [0, 1])
    rows, labels = model.sample(6)
    np.testing.assert_array_equal(model.predict(rows), labels)


def test_fitted_parameters_can_not_be_changed_unnoticed() -> None:
    model = fitted()
    for name in ("weights_", "means_", "covariances_"):
        with pytest.raises(ValueError, match="read-only"):
            getattr(model, name)[0] = 0.0


# What it prints


def test_verbose_tells_of_restarts_and_steps(capsys: pytest.CaptureFixture[str]) -> None:
    fitted(max_iter=4, tol=0.0, n_init=2, init_params="kmeans", verbose=1, verbose_interval=2)
    assert capsys.readouterr().out.splitlines() == [
        "Initialization 0",
        "  Iteration 2",
        "  Iteration 4",
        "Initialization 1",
        "  Iteration 2",
        "  Iteration 4",
    ]


def test_more_verbose_tells_of_log_likelihoods(capsys: pytest.CaptureFixture[str]) -> None:
    fitted(max_iter=2, tol=0.0, init_params="kmeans", verbose=2, verbose_interval=1)
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition("\t")[0] for line in lines] == [
        "Initialization 0",
        "  Iteration 1",
        "  Iteration 2",
    ]
    assert all("log-likelihood -1" in line for line in lines)


def test_a_quiet_fit_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    fitted()
    assert capsys.readouterr() == ("", "")
