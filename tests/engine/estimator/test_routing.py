"""Weights that scikit-learn's meta-estimators hand on, where they are told to route."""

import inspect
import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn import config_context
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import UnsetMetadataPassedError
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator
from sklearn.utils.metadata_routing import UNCHANGED, get_routing_for_object

from gmm_engine import GaussianMixture
from tests.support.data import faithful

SPLITS = KFold(3, shuffle=True, random_state=0)
WEIGHT = np.random.default_rng(0).exponential(size=len(faithful()))
REQUEST = "{'fit': {'sample_weight': True}, 'score': {'sample_weight': 'of_test'}}"


class Theirs(BaseEstimator):  # type: ignore[misc]  # untyped base
    """What scikit-learn finds out by itself of a class with the same methods."""

    def fit(self, X: object, y: object = None, sample_weight: object = None) -> None: ...
    def score(self, X: object, y: object = None, sample_weight: object = None) -> None: ...


@pytest.fixture
def routing() -> Iterator[None]:
    with config_context(enable_metadata_routing=True):
        yield


def model(n_components: int = 2) -> GaussianMixture:
    return GaussianMixture(n_components, random_state=0)


def weighed_by_hand(n_components: int, *, is_scored: bool) -> NDArray[np.float64]:
    """Return the score of each fold under a fit, with weights, to the others."""
    X, scores = faithful(), []
    for train, test in SPLITS.split(X):
        fitted = model(n_components).fit(X[train], sample_weight=WEIGHT[train])
        scores.append(fitted.score(X[test], sample_weight=WEIGHT[test] if is_scored else None))
    return np.array(scores)


@pytest.mark.usefixtures("routing")
@pytest.mark.parametrize("is_scored", [True, False])
def test_a_grid_search_hands_on_the_weights_that_are_asked_for(is_scored: bool) -> None:
    asking = model().set_fit_request(sample_weight=True).set_score_request(sample_weight=is_scored)
    search = GridSearchCV(asking, {"n_components": [1, 2, 3]}, cv=SPLITS)
    search.fit(faithful(), sample_weight=WEIGHT)
    scores = np.array([search.cv_results_[f"split{fold}_test_score"] for fold in range(3)]).T
    expected = [weighed_by_hand(K, is_scored=is_scored) for K in (1, 2, 3)]
    np.testing.assert_array_equal(scores, expected)
    best = model(search.best_params_["n_components"]).fit(faithful(), sample_weight=WEIGHT)
    np.testing.assert_array_equal(search.best_estimator_.means_, best.means_)
    without = GridSearchCV(asking, {"n_components": [1, 2, 3]}, cv=SPLITS).fit(faithful())
    assert np.abs(without.cv_results_["mean_test_score"] - scores.mean(axis=1)).min() > 1e-4


@pytest.mark.usefixtures("routing")
def test_a_pipeline_hands_on_the_weights_by_the_name_that_is_asked_for() -> None:
    asking = model().set_fit_request(sample_weight="of_rows")
    asking.set_score_request(sample_weight=True)
    pipeline = make_pipeline(StandardScaler().set_fit_request(sample_weight=False), asking)
    pipeline.fit(faithful(), of_rows=WEIGHT)
    rows = StandardScaler().fit_transform(faithful())
    alone = model().fit(rows, sample_weight=WEIGHT)
    np.testing.assert_array_equal(pipeline[-1].means_, alone.means_)
    assert pipeline.score(faithful(), sample_weight=WEIGHT) == alone.score(rows, None, WEIGHT)
    assert alone.score(rows, None, WEIGHT) != alone.score(rows)


@pytest.mark.usefixtures("routing")
def test_weights_that_nobody_asked_for_are_refused() -> None:
    search = GridSearchCV(model(), {"n_components": [2]}, cv=SPLITS)
    with pytest.raises(UnsetMetadataPassedError, match=r"GaussianMixture\.fit"):
        search.fit(faithful(), sample_weight=WEIGHT)


@pytest.mark.usefixtures("routing")
def test_it_asks_for_what_an_estimator_of_theirs_would() -> None:
    ours, theirs = GaussianMixture(), Theirs()
    assert repr(ours.get_metadata_routing()) == repr(theirs.get_metadata_routing())
    for name in ("set_fit_request", "set_score_request"):
        of_ours, of_theirs = (
            inspect.signature(getattr(kind, name)).parameters.values()
            for kind in (GaussianMixture, Theirs)
        )
        assert [(p.name, p.kind, p.default) for p in of_ours] == [
            (p.name, p.kind, p.default) for p in of_theirs
        ]


@pytest.mark.usefixtures("routing")
def test_a_request_is_kept_by_copies_and_by_what_is_not_changed() -> None:
    asking = model().set_fit_request(sample_weight=True).set_score_request(sample_weight="of_test")
    asking.fit(faithful())
    for same in (
        asking,
        clone(asking),
        pickle.loads(pickle.dumps(asking)),  # noqa: S301 - our own bytes
        clone(asking).set_fit_request().set_score_request(sample_weight=UNCHANGED),
    ):
        assert repr(same.get_metadata_routing()) == REQUEST
    clone(asking).set_fit_request(sample_weight=False)
    request: Any = asking.get_metadata_routing()
    request.fit.add_request(param="sample_weight", alias=False)
    assert repr(get_routing_for_object(asking)) == REQUEST
    with pytest.raises(ValueError, match="valid identifier"):
        asking.set_fit_request(sample_weight="no name")
    assert repr(asking.get_metadata_routing()) == REQUEST


def test_a_request_is_refused_where_nothing_is_routed() -> None:
    for request in (model().set_fit_request, model().set_score_request):
        with pytest.raises(RuntimeError, match="enable_metadata_routing=True"):
            request(sample_weight=True)


@pytest.mark.usefixtures("routing")
@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore:.*does not inherit from `sklearn.base.BaseEstimator`")
@pytest.mark.filterwarnings("ignore::gmm_engine.errors.FitQualityWarning")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
def test_every_check_of_theirs_passes_where_metadata_is_routed() -> None:
    results = check_estimator(GaussianMixture().set_fit_request(sample_weight=True))
    assert {result["status"] for result in results} <= {"passed", "skipped"}
