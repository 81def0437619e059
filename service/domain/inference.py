"""What a fitted version answers: labels, responsibilities, densities, criteria, draws, parameters.

Numbers in, numbers out; names of answers and formats are the API's.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gmm_engine import Mixture
from gmm_engine.criteria import Criteria
from gmm_engine.preprocessing import MappedMixture
from gmm_engine.validation import as_samples
from service.domain.data import Table
from service.domain.identifiers import CHAMPION, LATEST, is_legal_id
from service.domain.limits import Limits
from service.domain.ports import ModelRegistry
from service.domain.records import VersionRecord
from service.domain.refusals import engine_refusals, no_alias
from service.errors import (
    Conflict,
    InvalidInput,
    Issue,
    ModelUnnamed,
    NotFound,
    Unavailable,
)

Asked = tuple[str, int | None, str | None]
"""A model, and the number or alias of its version if one was named."""

MAX_OPENED = 4096
"""Of what was asked for and found; forgotten all at once when there is more."""
QUICK_PRODUCTS = 2**19
"""Multiplications of an answer that is found within some fifty microseconds: sooner than another
thread would begin to."""
QUICK_NUMBERS = 10_000
"""Of the rows, or of responsibilities, that are written within half a millisecond."""


class Measured(Protocol):
    """What holds every criterion: the summary of a fit, or the engine's criteria of other rows."""

    @property
    def n_samples(self) -> float: ...
    @property
    def n_parameters(self) -> int: ...
    @property
    def log_likelihood(self) -> float: ...
    @property
    def mean_log_likelihood(self) -> float: ...
    @property
    def bic(self) -> float: ...
    @property
    def aic(self) -> float: ...
    @property
    def aicc(self) -> float: ...
    @property
    def icl(self) -> float: ...


METRICS: Mapping[str, Callable[[Measured], float]] = {
    "bic": lambda measured: measured.bic,
    "aic": lambda measured: measured.aic,
    "aicc": lambda measured: measured.aicc,
    "icl": lambda measured: measured.icl,
    "log_likelihood": lambda measured: measured.log_likelihood,
    "mean_log_likelihood": lambda measured: measured.mean_log_likelihood,
}


@dataclass(frozen=True, slots=True)
class FittedModel:
    """One version, loaded and ready to answer."""

    version: VersionRecord
    mixture: Mixture
    limits: Limits

    def predict(self, table: Table) -> NDArray[np.int64]:  # (n_samples,)
        X = self._checked(table)
        with self.refusals(table):
            return self.mixture.predict(X)

    def predict_proba(self, table: Table) -> NDArray[np.float64]:  # (n_samples, n_components)
        X = self._checked(table)
        with self.refusals(table):
            return self.mixture.predict_proba(X)

    def score_samples(self, table: Table) -> NDArray[np.float64]:  # (n_samples,)
        X = self._checked(table)
        with self.refusals(table):
            return self.mixture.score_samples(X)

    def score(self, table: Table) -> Criteria:
        X = self._checked(table)
        with self.refusals(table):
            return self.mixture.criteria(X)

    def sample(
        self, n_samples: int, random_state: int | None
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        self.limits.require_draw(n_samples, self.mixture.n_features)
        with engine_refusals(rng="random_state"):
            return self.mixture.sample(n_samples, random_state)

    @property
    def transform_arrays(self) -> Mapping[str, NDArray[np.float64]]:
        """The map that the rows go through, if there is one."""
        mixture = self.mixture
        return mixture.transform.to_arrays() if isinstance(mixture, MappedMixture) else {}

    def checked_for_analysis(self, table: Table) -> NDArray[np.float64]:
        """Return the rows as the mixture takes them; refuse more than an analysis looks at."""
        self.limits.require_analysed(len(table.X))
        with self.refusals(table):
            return np.asarray(as_samples(self._checked(table)), dtype=np.float64)

    def refusals(self, table: Table) -> engine_refusals:
        """Turn what the engine refuses of the rows of a table into ``InvalidInput``."""
        return engine_refusals(table, self.version.feature_names)

    def is_quick_for(self, table: Table) -> bool:
        """Tell whether any question about these rows is answered sooner than handed on."""
        n_rows, n_columns = table.X.shape
        n_components = self.mixture.n_components
        n_numbers: int = n_rows * max(n_columns, n_components)
        n_products: int = n_rows * n_components * n_columns**2
        return n_numbers <= QUICK_NUMBERS and n_products <= QUICK_PRODUCTS

    def require(self, head: Table, n_rows: int) -> None:
        """Refuse so many rows like these, which may be none, before they are read."""
        self._ordered(head, n_rows)

    def _checked(self, table: Table) -> NDArray[np.float64]:
        return self._ordered(table, len(table.X))

    def _ordered(self, table: Table, n_rows: int) -> NDArray[np.float64]:
        X = table.ordered_as(self.version.feature_names)
        n_columns = X.shape[1]
        if n_columns != self.mixture.n_features:
            detail = (
                f"the rows have {n_columns} values, but the model was fitted with "
                f"{self.mixture.n_features} features"
            )
            issue = Issue(f"#/{table.origin.member}", "dimension_mismatch", detail)
            raise InvalidInput("dimension_mismatch", detail, issues=[issue])
        self.limits.require_work(n_rows, n_columns, self.mixture.n_components)
        return X


class Mixtures(Protocol):
    """Where mixtures come from."""

    def load_mixture(self, version: VersionRecord) -> Mixture:
        """Return the version's mixture; errors as the registry's."""

    def kept_mixture(self, version: VersionRecord) -> Mixture | None:
        """Return it if it is in memory; at once."""


class Inference:
    def __init__(
        self,
        registry: ModelRegistry,
        mixtures: Mixtures,
        *,
        limits: Limits,
        default_model: str | None = None,
    ) -> None:
        self._registry = registry
        self._mixtures = mixtures
        self._limits = limits
        self._default_model = default_model
        self._opened: dict[Asked, tuple[VersionRecord, object]] = {}

    def version(
        self, model_id: str, number: int | None = None, alias: str | None = None
    ) -> VersionRecord:
        """Return the version of that number or alias; with neither the champion or the latest."""
        if not is_legal_id(model_id):
            raise NotFound("model_not_found", "There is no model of that name.")
        if number is not None:
            return self._registry.get_version(model_id, number)
        if alias == LATEST:
            return self._latest(model_id)
        if alias is None:
            return self._aliased(model_id, CHAMPION) or self._latest(model_id)
        aliased = self._aliased(model_id, alias)
        if aliased is None:
            raise no_alias(model_id, alias)
        return aliased

    def require_sound(self, version: VersionRecord) -> None:
        """Raise ``Unavailable`` of a version that is known to be damaged, and not in memory."""
        try:
            self._registry.require_sound(version)
        except Unavailable:
            if self._mixtures.kept_mixture(version) is None:
                raise

    def open(
        self, model_id: str, number: int | None = None, alias: str | None = None
    ) -> FittedModel:
        """Load the version that is meant; looked up again when it is deleted in between."""
        version = self.version(model_id, number, alias)
        # Told before the version is looked up once more, so that no change goes unseen.
        state = self._registry.state_of(model_id)
        while True:
            version, seen = self.version(model_id, number, alias), version
            try:
                fitted = FittedModel(version, self._mixtures.load_mixture(version), self._limits)
            except NotFound:
                if version == seen:
                    raise
            else:
                if state is not None and version == seen:
                    self._remember((model_id, number, alias), version, state)
                return fitted

    def at_hand(
        self, model_id: str, number: int | None = None, alias: str | None = None
    ) -> FittedModel | None:
        """Return what ``open`` would if it is known to be unchanged and in memory; at once."""
        version, state = self._opened.get((model_id, number, alias), (None, None))
        if version is None or self._registry.state_of(model_id) != state:
            return None
        mixture = self._mixtures.kept_mixture(version)
        return None if mixture is None else FittedModel(version, mixture, self._limits)

    def _remember(self, asked: Asked, version: VersionRecord, state: object) -> None:
        if len(self._opened) >= MAX_OPENED:
            self._opened.clear()
        self._opened[asked] = version, state

    def _aliased(self, model_id: str, alias: str) -> VersionRecord | None:
        """Return what an alias names; looked up again when it moves and its version is deleted."""
        number = self._registry.get_aliases(model_id).targets.get(alias)
        while number is not None:
            try:
                return self._registry.get_version(model_id, number)
            except NotFound:
                missed, number = number, self._registry.get_aliases(model_id).targets.get(alias)
                if number == missed:
                    raise
        return None

    def _latest(self, model_id: str) -> VersionRecord:
        latest = self._registry.latest_version(model_id)
        if latest is None:
            raise Conflict.model_not_fitted(model_id)
        return latest

    def find_model(self, named: set[str]) -> str:
        """Return the model meant by a request that may name it in several places or nowhere."""
        if len(named) > 1:
            raise ModelUnnamed("model_ambiguous", "the request names two different models")
        if named:
            return named.pop()
        if self._default_model is not None:
            return self._default_model
        return self._only_fitted_model()

    def _only_fitted_model(self) -> str:
        fitted: list[str] = []
        for record in self._registry.list_models():
            try:
                is_fitted = self._registry.latest_version(record.id) is not None
            except NotFound:  # deleted since the list was read
                continue
            if is_fitted:
                fitted.append(record.id)
            if len(fitted) > 1:
                break
        if len(fitted) != 1:
            raise ModelUnnamed(
                "model_required",
                'name the model: as ?model=, as "model" in the body, or in the header GMM-Model',
            )
        return fitted[0]
