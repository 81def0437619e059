"""``GaussianMixture``: the engine with the face of scikit-learn's estimator of that name.

A thin face: fitting is ``fitting.fit``, answers are ``Mixture``'s. scikit-learn is not imported;
where the caller has imported it, its own error and warning classes are kept to. What differs from
scikit-learn, and why, is in ``docs/engine-for-scikit-learn-users.md``.
"""

import inspect
import sys
import warnings
from typing import Literal, Self, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gmm_engine.convergence import StopReason
from gmm_engine.em import EMStep
from gmm_engine.errors import (
    ConvergenceWarning,
    FitQualityWarning,
    InvalidParameterError,
    NotFittedError,
)
from gmm_engine.fitting import FitOptions, FitResult, Start, StepCallback, fit
from gmm_engine.given import Given
from gmm_engine.mixture import Mixture
from gmm_engine.tables import (
    FeatureNames,
    as_table,
    feature_names,
    require_features,
    require_same_names,
)
from gmm_engine.validation import require_integer_at_least, require_seed

Signal = TypeVar("Signal", bound=Exception)
Parameters = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]
"""``weights_``, ``means_`` and ``precisions_cholesky_``: what scores are computed from."""
RandomState = int | np.random.RandomState | np.random.Generator | None

UNCHANGED = "$UNCHANGED$"
"""scikit-learn's own word for a request that stays what it is."""

SAMPLING_STREAM = 1
"""Sets the rows that ``sample`` draws apart from what a fit draws with the same seed."""

DERIVED = ("_prepared", "_result")
"""What need not be kept with the fitted attributes."""


class GaussianMixture:
    """Gaussian mixture fitted by expectation–maximisation, as a scikit-learn estimator.

    Parameters
    ----------
    n_components : int
        Number of components K.
    covariance_type : {"full", "tied", "diag", "spherical"}
        Shape of the covariances: any matrix each, one matrix for all, diagonal, one variance.
    tol : float
        How far from its limit the mean log-likelihood (nats a row) may be estimated to be for
        the fit to count as converged. scikit-learn compares the last gain instead.
    reg_covar : float or "auto"
        A number is added to every variance in every M-step. ``"auto"`` is a floor relative to
        the data's own scale, which leaves healthy components alone.
    max_iter : int
        EM steps of each restart at the most; 0 returns the start itself.
    n_init : int
        Restarts; the best is kept.
    init_params : {"auto", "k-means++", "kmeans", "random", "random_from_data"}
        How to start; ``"auto"`` tries several ways and carries on the best.
    weights_init, means_init, precisions_init : array_like, optional
        Parameters to start from, shapes as those of ``weights_``, ``means_``, ``precisions_``.
        What is not given comes from ``init_params``. With all three given, ``tol=0`` and
        ``max_iter=n`` make exactly n plain EM steps.
    random_state : int, numpy.random.RandomState, numpy.random.Generator or None
        Seed, or where to draw one at every fit. None draws a new one from the system.
    warm_start : bool
        Go on from the last fit instead of starting anew.
    verbose : int
        1 prints restarts and every ``verbose_interval``-th step, 2 log-likelihoods as well.
    verbose_interval : int

    Attributes
    ----------
    weights_ : ndarray of shape (K,)
    means_ : ndarray of shape (K, D)
    covariances_ : ndarray
        full (K, D, D), tied (D, D), diag (K, D), spherical (K,).
    precisions_, precisions_cholesky_ : ndarray
        Σ⁻¹ in the same shape, and U with Σ⁻¹ = U Uᵀ.
    converged_ : bool
    n_iter_ : int
        EM steps of the best restart.
    lower_bound_ : float
        Mean log-likelihood of the training data under these very parameters.
    lower_bounds_ : list of float
        The same after each EM step.
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (D,)
        Only where ``X`` had names for its columns.
    mixture_ : Mixture
        The fitted mixture, with everything else it can answer.
    """

    weights_: NDArray[np.float64]
    means_: NDArray[np.float64]
    covariances_: NDArray[np.float64]
    precisions_: NDArray[np.float64]
    precisions_cholesky_: NDArray[np.float64]
    converged_: bool
    n_iter_: int
    lower_bound_: float
    lower_bounds_: list[float]
    n_features_in_: int
    feature_names_in_: FeatureNames
    _prepared: tuple[Parameters, Mixture]
    """The mixture and the fitted attributes that it was made of."""

    def __init__(
        self,
        n_components: int = 1,
        *,
        covariance_type: str = "full",
        tol: float = 1e-6,
        reg_covar: float | Literal["auto"] = "auto",
        max_iter: int = 500,
        n_init: int = 1,
        init_params: str = "auto",
        weights_init: ArrayLike | None = None,
        means_init: ArrayLike | None = None,
        precisions_init: ArrayLike | None = None,
        random_state: RandomState = None,
        warm_start: bool = False,
        verbose: int = 0,
        verbose_interval: int = 10,
    ) -> None:
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.tol = tol
        self.reg_covar = reg_covar
        self.max_iter = max_iter
        self.n_init = n_init
        self.init_params = init_params
        self.weights_init = weights_init
        self.means_init = means_init
        self.precisions_init = precisions_init
        self.random_state = random_state
        self.warm_start = warm_start
        self.verbose = verbose
        self.verbose_interval = verbose_interval

    def fit(self, X: ArrayLike, y: object = None, sample_weight: ArrayLike | None = None) -> Self:  # noqa: ARG002 - y is a convention
        """Fit the mixture to ``X``.

        Parameters
        ----------
        X : array_like or data frame of shape (n_samples, n_features)
        y : ignored
        sample_weight : array_like of shape (n_samples,), optional
            A row of weight w counts like w equal rows.

        Raises
        ------
        GmmEngineError
            As ``gmm_engine.fit`` does; all are ``ValueError``.

        Warns
        -----
        ConvergenceWarning
            The best restart did not converge.
        FitQualityWarning
            A component collapsed, a feature is constant, features are collinear.
        """
        names = feature_names(X)
        table = as_table(X)
        seed = _seed_from(self.random_state)
        result = self._fitted(table, self._options(seed), sample_weight)
        self._take_over(result, n_features=table.shape[1], names=names)
        self._draws = _sampling_stream(seed)
        self._warn_of(result)
        return self

    def fit_predict(
        self, X: ArrayLike, y: object = None, sample_weight: ArrayLike | None = None
    ) -> NDArray[np.int64]:
        """Fit and return the most probable component of every row."""
        return self.fit(X, y, sample_weight).predict(X)

    def predict(self, X: ArrayLike) -> NDArray[np.int64]:
        """Return the most probable component of every row, shape (n_samples,)."""
        return self.mixture_.predict(self._table(X))

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the probability of every component given the row, (n_samples, K)."""
        return self.mixture_.predict_proba(self._table(X))

    def score_samples(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return log p(x) of every row in nats, shape (n_samples,)."""
        return self.mixture_.score_samples(self._table(X))

    def score(
        self,
        X: ArrayLike,
        y: object = None,  # noqa: ARG002 - a convention
        sample_weight: ArrayLike | None = None,
    ) -> float:
        """Return the (weighted) mean of log p(x) in nats; higher is better."""
        return self.mixture_.score(self._table(X), sample_weight)

    def bic(self, X: ArrayLike) -> float:
        """Return the Bayesian information criterion; lower is better."""
        return self.mixture_.bic(self._table(X))

    def aic(self, X: ArrayLike) -> float:
        """Return the Akaike information criterion; lower is better."""
        return self.mixture_.aic(self._table(X))

    def sample(
        self, n_samples: int = 1, random_state: RandomState = None
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Draw rows from the mixture.

        Parameters
        ----------
        n_samples : int
        random_state : int, numpy.random.RandomState or numpy.random.Generator, optional
            Where to draw from. By default every call goes on in one stream, which a fit with an
            integer seed begins anew: reproducible, but no two calls give the same rows.

        Returns
        -------
        X : ndarray of shape (n_samples, n_features)
        y : ndarray of shape (n_samples,)
            The component of each row.
        """
        mixture = self.mixture_
        if random_state is not None:
            return mixture.sample(n_samples, _sampling_stream(_seed_from(random_state)))
        if not hasattr(self, "_draws"):  # the parameters were set by hand
            self._draws = _sampling_stream(_seed_from(self.random_state))
        return mixture.sample(n_samples, self._draws)

    @property
    def mixture_(self) -> Mixture:
        """The fitted mixture; made anew where the fitted attributes were set by hand."""
        parameters = self._parameters()
        if hasattr(self, "_prepared"):
            known, mixture = self._prepared
            if all(map(lambda left, right: left is right, known, parameters)):
                return mixture
        weights, means, precisions_cholesky = parameters
        mixture = Mixture.from_arrays(
            {"weights": weights, "means": means, "precisions_cholesky": precisions_cholesky},
            self.covariance_type,
        )
        self._prepared = parameters, mixture
        return mixture

    def get_params(self, deep: bool = True) -> dict[str, object]:  # noqa: ARG002 - scikit-learn's signature
        """Return the constructor's parameters by name."""
        return {name: getattr(self, name) for name in self._parameter_names()}

    def set_params(self, **params: object) -> Self:
        """Set parameters of the constructor by name."""
        known = self._parameter_names()
        for name in params:
            if name not in known:
                raise InvalidParameterError(
                    name, f"is no parameter of {type(self).__name__}; there are {', '.join(known)}"
                )
        for name, value in params.items():
            setattr(self, name, value)
        return self

    def set_fit_request(self, *, sample_weight: bool | str | None = UNCHANGED) -> Self:
        """Say whether meta-estimators of scikit-learn hand their ``sample_weight`` on to ``fit``.

        Parameters
        ----------
        sample_weight : bool, str or None
            True: they do; False: they do not; None: they refuse weights; a text: they hand on
            what they are given by that name.

        Raises
        ------
        RuntimeError
            scikit-learn was not told to route, by ``enable_metadata_routing``.
        """
        return self._requesting("fit", sample_weight)

    def set_score_request(self, *, sample_weight: bool | str | None = UNCHANGED) -> Self:
        """Say the same of ``score``."""
        return self._requesting("score", sample_weight)

    def get_metadata_routing(self) -> object:
        """Return what is asked of meta-estimators: a copy of scikit-learn's ``MetadataRequest``."""
        from gmm_engine import scikit_learn  # noqa: PLC0415 - only scikit-learn itself asks

        return scikit_learn.metadata_request(self)

    def __repr__(self) -> str:
        defaults = inspect.signature(type(self).__init__).parameters
        changed = (
            f"{name}={value!r}"
            for name, value in self.get_params().items()
            if repr(value) != repr(defaults[name].default)
        )
        return f"{type(self).__name__}({', '.join(changed)})"

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in vars(self).items() if name not in DERIVED}

    def __sklearn_is_fitted__(self) -> bool:
        return all(hasattr(self, name) for name in ("weights_", "means_", "precisions_cholesky_"))

    def __sklearn_tags__(self) -> object:
        from gmm_engine import scikit_learn  # noqa: PLC0415 - only scikit-learn itself asks

        return scikit_learn.density_estimator_tags()

    def _requesting(self, method: str, sample_weight: bool | str | None) -> Self:
        from gmm_engine import scikit_learn  # noqa: PLC0415 - only its users ask

        scikit_learn.request_weights(self, method, sample_weight)
        return self

    @classmethod
    def _parameter_names(cls) -> list[str]:
        return sorted(name for name in inspect.signature(cls.__init__).parameters if name != "self")

    def _options(self, seed: int | None) -> FitOptions:
        if not isinstance(self.warm_start, bool | np.bool):
            raise InvalidParameterError("warm_start", "must be True or False")
        if not isinstance(self.verbose, bool):
            require_integer_at_least("verbose", self.verbose, 0)
        require_integer_at_least("verbose_interval", self.verbose_interval, 1)
        require_integer_at_least("max_iter", self.max_iter, 0)
        return FitOptions(
            n_components=self.n_components,
            covariance_type=self.covariance_type,
            tol=self.tol,
            max_iter=1 if self._wants_only_the_start else self.max_iter,
            n_init=self.n_init,
            init_params=self.init_params,
            reg_covar=self.reg_covar,
            random_state=seed,
        )

    @property
    def _wants_only_the_start(self) -> bool:
        return not isinstance(self.max_iter, bool) and self.max_iter == 0

    def _start(self) -> Start | None:
        if self.warm_start and self.__sklearn_is_fitted__():
            mixture = self.mixture_
            result: FitResult | None = getattr(self, "_result", None)
            return result if result is not None and result.mixture is mixture else mixture
        given = Given(self.weights_init, self.means_init, self.precisions_init)
        return None if given.is_empty else given

    def _fitted(
        self,
        table: NDArray[np.generic],
        options: FitOptions,
        sample_weight: ArrayLike | None,
    ) -> FitResult:
        start = self._start()
        if self._wants_only_the_start:
            return _only_the_start(table, options, sample_weight, start)
        on_step = self._progress()
        return fit(table, options, sample_weight=sample_weight, start=start, on_step=on_step)

    def _take_over(self, result: FitResult, *, n_features: int, names: FeatureNames | None) -> None:
        mixture = result.mixture
        self.weights_, self.means_ = mixture.weights, mixture.means
        self.covariances_, self.precisions_ = mixture.covariances, mixture.precisions
        self.precisions_cholesky_ = mixture.precisions_cholesky
        self.converged_, self.n_iter_ = result.converged, result.n_iter
        self.lower_bound_ = result.criteria.mean_log_likelihood
        self.lower_bounds_ = (result.log_likelihoods / result.criteria.n_samples).tolist()
        self.n_features_in_ = n_features
        if names is not None:
            self.feature_names_in_ = names
        elif hasattr(self, "feature_names_in_"):
            del self.feature_names_in_
        self._result = result
        self._prepared = self._parameters(), mixture

    def _parameters(self) -> Parameters:
        if not self.__sklearn_is_fitted__():
            raise _known_to_sklearn(NotFittedError)(
                f"This {type(self).__name__} instance is not fitted yet. Call 'fit' with "
                "appropriate arguments before using this estimator."
            )
        return self.weights_, self.means_, self.precisions_cholesky_

    def _table(self, X: ArrayLike) -> NDArray[np.generic]:
        name = type(self).__name__
        require_same_names(X, getattr(self, "feature_names_in_", None), estimator=name)
        table = as_table(X)
        require_features(table, int(np.shape(self.means_)[1]), estimator=name)
        return table

    def _warn_of(self, result: FitResult) -> None:
        for warning in result.warnings:
            category, message = FitQualityWarning, warning.detail
            if warning.code == "not_converged":
                category = _known_to_sklearn(ConvergenceWarning)
                message = f"the best run did not converge: {message}"
            warnings.warn(message, category, stacklevel=3)

    def _progress(self) -> StepCallback | None:
        if not self.verbose:
            return None

        def report(step: EMStep) -> None:
            if step.iteration % self.verbose_interval == 0:
                where = f"  Iteration {step.iteration}"
                line = where if step.iteration else f"Initialization {step.restart}"
                likelihood = f"\t log-likelihood {step.log_likelihood:.8g}"
                print(line + likelihood * (self.verbose > 1))  # noqa: T201 - asked for by `verbose`

        return report


def _only_the_start(
    table: NDArray[np.generic],
    options: FitOptions,
    sample_weight: ArrayLike | None,
    start: Start | None,
) -> FitResult:
    """Return the best start as if it were the result of a fit that took no step."""
    starts: list[EMStep] = []

    def keep(step: EMStep) -> None:
        if step.iteration == 0:
            starts.append(step)

    fit(table, options, sample_weight=sample_weight, start=start, on_step=keep)
    best = max(starts, key=lambda step: (not step.degenerate, step.log_likelihood))
    return FitResult(
        mixture=best.mixture,
        criteria=best.mixture.criteria(table, sample_weight),
        log_likelihoods=np.empty(0),
        n_iter=0,
        stop_reason=StopReason.MAX_ITER,
    )


def _seed_from(random_state: RandomState) -> int | None:
    """Return the engine's seed; a generator is drawn from, so that it gives another every time."""
    if isinstance(random_state, np.random.Generator):
        return int(random_state.integers(2**63))
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(2**31))
    try:
        require_seed("random_state", random_state)
    except InvalidParameterError as error:
        message = f"{error.problem}, or a numpy.random.Generator or RandomState"
        raise InvalidParameterError("random_state", message) from error
    return random_state


def _sampling_stream(seed: int | None) -> np.random.Generator:
    if seed is not None:
        require_integer_at_least("random_state", seed, 0)
    return np.random.default_rng(None if seed is None else [seed, SAMPLING_STREAM])


def _known_to_sklearn(own: type[Signal]) -> type[Signal]:
    """Return the class of that name that scikit-learn's own handlers catch as well.

    That is the engine's own class where the caller has not imported scikit-learn.
    """
    if sys.modules.get("sklearn") is None:
        return own
    from gmm_engine import scikit_learn  # noqa: PLC0415 - it imports scikit-learn

    known: type[Signal] = getattr(scikit_learn, own.__name__)
    return known
