"""What each kind of picture shows of a version, and of rows under it. A new one is a line of KINDS.

How it is drawn is the painter's business.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from gmm_engine import Mixture
from gmm_engine.diagnostics import entropy
from gmm_engine.preprocessing import MappedMixture, mapped_rows
from service.domain.analysis import Analysis
from service.domain.data import Table
from service.domain.inference import FittedModel
from service.domain.pictures import (
    BestCandidate,
    ClustersPicture,
    Component,
    ConvergencePicture,
    DensityLevel,
    DensityPicture,
    Ellipse,
    KMeansPicture,
    Picture,
    Points,
    ResponsibilitiesPicture,
    SelectionCurve,
    SelectionPicture,
    Style,
    UncertaintyPicture,
)
from service.domain.planes import WINDOW_SIGMAS, Feature, Plane, places_along, plane_of
from service.domain.ports import Painter
from service.domain.records import CandidateRecord
from service.domain.refusals import engine_refusals
from service.errors import Conflict, InvalidInput

SIGMAS = (1.0, 2.0)
GRID = 150
"""Places along each of two axes at which a density is looked at."""
SHARES = (0.25, 0.5, 0.75, 0.9, 0.99)
"""Of the probability that the contours of a density enclose."""
MAX_RESPONSIBILITIES = 200_000
PENALISED = ("bic", "aic")
SHOWN_CRITERIA = ("log_likelihood", *PENALISED)
SEED = 0
"""Of the part of many rows that is shown: the same rows make the same picture."""


@dataclass(frozen=True, slots=True)
class View:
    """What a caller wants to see of it."""

    features: Sequence[str] | None = None
    """Names or indices of the axes."""
    max_points: int = 2000
    n_init: int = 10
    random_state: int = 0
    """Both of k-means."""


@dataclass(frozen=True, slots=True)
class Scene:
    """What there is to be seen."""

    fitted: FittedModel
    sent: NDArray[np.float64] | None  # (n_samples, n_features)
    """Rows as they came."""
    X: NDArray[np.float64] | None
    """Rows as the mixture sees them."""
    view: View
    analysis: Analysis

    @property
    def mixture(self) -> Mixture:
        """In the space that it sees rows in."""
        whole = self.fitted.mixture
        return Mixture(whole.weights, whole.means, whole.family)

    @property
    def features(self) -> list[Feature]:
        return features_of(self.fitted)

    @property
    def rows(self) -> NDArray[np.float64]:
        """The rows of a kind that needs some."""
        return required(self.X)

    @property
    def plane(self) -> Plane:
        """The one that is wanted."""
        features, wanted = self.features, self.view.features
        if wanted is None and features[0].share_of_variance is not None:
            wanted = [feature.name for feature in features[:2]]
        return plane_of(self.mixture, self.X, features, wanted)

    def chosen(self, most: int) -> NDArray[np.int64]:
        """Return the indices of the rows that are shown, in order."""
        n_rows, most = len(self.rows), min(most, self.view.max_points)
        if n_rows <= most:
            return np.arange(n_rows)
        rng = np.random.default_rng(SEED)
        return np.sort(rng.choice(n_rows, most, replace=False)).astype(np.int64)

    def points(self, plane: Plane) -> Points | None:
        """Return what is shown of the rows, if there are any."""
        if self.X is None:
            return None
        return points_of(self, plane)


def clusters(scene: Scene) -> ClustersPicture:
    plane = scene.plane
    return ClustersPicture(plane, components_of(plane.shadow(scene.mixture)), scene.points(plane))


def uncertainty(scene: Scene) -> UncertaintyPicture:
    plane, rows = scene.plane, scene.rows
    points = points_of(scene, plane)
    return UncertaintyPicture(
        plane=plane,
        components=components_of(plane.shadow(scene.mixture)),
        points=points,
        entropy=entropy(scene.mixture.predict_proba(rows[points.rows])),
        max_entropy=float(np.log(scene.mixture.n_components)),
    )


def responsibilities(scene: Scene) -> ResponsibilitiesPicture:
    chosen = scene.chosen(MAX_RESPONSIBILITIES // scene.mixture.n_components)
    shown = scene.rows[chosen]
    labels, probabilities = scene.mixture.predict(shown), scene.mixture.predict_proba(shown)
    order = np.lexsort((-probabilities.max(axis=1), labels))
    return ResponsibilitiesPicture(
        len(scene.rows), chosen[order], labels[order], probabilities[order]
    )


def density(scene: Scene) -> DensityPicture:
    plane = scene.plane
    shadow, points = plane.shadow(scene.mixture), scene.points(plane)
    x, *others = window_of(shadow, points)
    grid = np.stack(np.meshgrid(x, *others), axis=-1)  # (n, n, 2) or (n, 1)
    log_density = shadow.score_samples(grid.reshape(-1, len(plane.axes))).reshape(grid.shape[:-1])
    return DensityPicture(
        plane=plane,
        components=components_of(shadow),
        points=points,
        x=x,
        y=others[0] if others else None,
        log_density=log_density,
        levels=levels_of(log_density) if others else (),
    )


def convergence(scene: Scene) -> ConvergencePicture:
    summary = scene.fitted.version.summary
    return ConvergencePicture(
        summary.log_likelihood_history, summary.converged, summary.stop_reason
    )


def selection(scene: Scene) -> SelectionPicture:
    table = scene.fitted.version.selection
    if table is None:
        raise Conflict(
            "no_selection", "This version was fitted as declared and not chosen by a selection."
        )
    criterion = table.plan.criterion
    shown = tuple(dict.fromkeys((*SHOWN_CRITERIA, criterion)))
    fitted = [candidate for candidate in table.candidates if candidate.figures is not None]
    return SelectionPicture(
        criterion=criterion,
        curves=[
            curve_of(family, [each for each in fitted if each.covariance_type == family], shown)
            for family in dict.fromkeys(each.covariance_type for each in fitted)
        ],
        best={name: best_by(name, fitted) for name in (*PENALISED, criterion)},
    )


def kmeans(scene: Scene) -> KMeansPicture:
    plane, view = scene.plane, scene.view
    labels, found = scene.analysis.k_means_beside(
        scene.fitted, required(scene.sent), n_init=view.n_init, random_state=view.random_state
    )
    points = points_of(scene, plane)
    differs = labels != found.labels
    return KMeansPicture(
        plane=plane,
        components=components_of(plane.shadow(scene.mixture)),
        points=points,
        kmeans_labels=found.labels[points.rows],
        kmeans_centers=plane.project(found.centers),
        differing=np.flatnonzero(differs[points.rows]),
        n_differing=int(np.count_nonzero(differs)),
    )


class Rows(Enum):
    """Whether a kind of picture shows rows that are sent."""

    NONE = "none"
    WELCOME = "welcome"
    NEEDED = "needed"


@dataclass(frozen=True, slots=True)
class Kind:
    title: str
    rows: Rows
    show: Callable[[Scene], Picture]


KINDS: Mapping[str, Kind] = {
    "clusters": Kind("Clusters", Rows.WELCOME, clusters),
    "convergence": Kind("Convergence", Rows.NONE, convergence),
    "uncertainty": Kind("Uncertainty", Rows.NEEDED, uncertainty),
    "selection": Kind("Selection", Rows.NONE, selection),
    "density": Kind("Density", Rows.WELCOME, density),
    "responsibilities": Kind("Responsibilities", Rows.NEEDED, responsibilities),
    "kmeans": Kind("Mixture and k-means", Rows.NEEDED, kmeans),
}


class Picturing:
    def __init__(self, analysis: Analysis, find_painter: Callable[[], Painter]) -> None:
        self._analysis = analysis
        self._find_painter = find_painter
        """Raises ``Unsupported`` where this installation has none."""

    def stored(self, kind: str, fitted: FittedModel, view: View) -> Picture:
        """Show what a version knows without rows."""
        with engine_refusals():
            return KINDS[kind].show(Scene(fitted, None, None, view, self._analysis))

    def of_rows(self, kind: str, fitted: FittedModel, table: Table, view: View) -> Picture:
        if KINDS[kind].rows is Rows.NONE:
            raise InvalidInput("rows_not_shown", "this picture shows no rows: GET it")
        X = fitted.checked_for_analysis(table)
        seen = mapped_rows(fitted.mixture, X)
        with fitted.refusals(table):
            return KINDS[kind].show(Scene(fitted, X, seen, view, self._analysis))

    def paint(self, picture: Picture, *, kind: str, fitted: FittedModel, style: Style) -> bytes:
        version = fitted.version
        title = f"{KINDS[kind].title}: {version.model_id}, version {version.number}"
        return self._find_painter().paint(picture, title=title, style=style)

    def require_painter(self) -> None:
        """Refuse before anything is worked out for a picture that can't be drawn."""
        self._find_painter()


def required(rows: NDArray[np.float64] | None) -> NDArray[np.float64]:
    if rows is None:
        raise InvalidInput(
            "rows_required", "this picture shows rows: send them in the body of a POST"
        )
    return rows


def features_of(fitted: FittedModel) -> list[Feature]:
    """Name what the mixture sees: the model's features, standardised ones, or principal axes."""
    mixture, names = fitted.mixture, fitted.version.feature_names
    if isinstance(mixture, MappedMixture) and mixture.transform.variance_ratio is not None:
        shares = mixture.transform.variance_ratio.tolist()
        return [Feature(f"PC {number}", share) for number, share in enumerate(shares, start=1)]
    known = names or [f"feature {column}" for column in range(mixture.n_features)]
    remark = ", standardized" if fitted.version.preprocessing.standardize else ""
    return [Feature(f"{name}{remark}") for name in known]


def points_of(scene: Scene, plane: Plane) -> Points:
    chosen = scene.chosen(scene.view.max_points)
    shown = scene.rows[chosen]
    return Points(len(scene.rows), chosen, plane.project(shown), scene.mixture.predict(shown))


def components_of(shadow: Mixture) -> list[Component]:
    parts = zip(shadow.weights.tolist(), shadow.means, shadow.to_dense(), strict=True)
    return [
        Component(weight, mean, covariance, ellipses_of(covariance))
        for weight, mean, covariance in parts
    ]


def ellipses_of(covariance: NDArray[np.float64]) -> Sequence[Ellipse]:
    if len(covariance) == 1:
        return [
            Ellipse(each, 2 * each * float(covariance.item() ** 0.5), 0.0, 0.0) for each in SIGMAS
        ]
    variances, directions = np.linalg.eigh(covariance)
    minor, major = np.sqrt(np.maximum(variances, 0.0)).tolist()
    across, along = directions[:, -1]
    angle = float(np.degrees(np.arctan2(along, across)))
    return [Ellipse(each, 2 * each * major, 2 * each * minor, angle) for each in SIGMAS]


def window_of(shadow: Mixture, points: Points | None) -> list[NDArray[np.float64]]:
    """Return the places along each axis: around all components and points."""
    deviations = np.sqrt(np.diagonal(shadow.to_dense(), axis1=1, axis2=2))
    seen = np.empty((0, shadow.n_features)) if points is None else points.X
    if shadow.n_features == 1:
        return [places_along(shadow.means[:, 0], deviations[:, 0], seen[:, 0])]
    reach = WINDOW_SIGMAS * deviations
    everything = np.concatenate([shadow.means - reach, shadow.means + reach, seen])
    bounds = zip(everything.min(axis=0), everything.max(axis=0), strict=True)
    return [np.linspace(low, high, GRID) for low, high in bounds]


def levels_of(log_density: NDArray[np.float64]) -> list[DensityLevel]:
    """Return the densities whose contours enclose shares of the probability within the window."""
    falling = np.sort(log_density, axis=None)[::-1]
    enclosed = np.cumsum(np.exp(falling - falling[0]))
    places = np.searchsorted(enclosed, np.array(SHARES) * enclosed[-1])
    return [
        DensityLevel(share, float(falling[place]))
        for share, place in zip(SHARES, places.tolist(), strict=True)
    ]


def curve_of(
    family: str, candidates: Sequence[CandidateRecord], criteria: Sequence[str]
) -> SelectionCurve:
    return SelectionCurve(
        covariance_type=family,
        n_components=[each.n_components for each in candidates],
        values={name: [value_by(name, each) for each in candidates] for name in criteria},
    )


def best_by(criterion: str, candidates: Sequence[CandidateRecord]) -> BestCandidate | None:
    """Return the best candidate, None if none has a value; less is better but for likelihoods."""
    sign = -1.0 if criterion.endswith("log_likelihood") else 1.0
    known = [
        BestCandidate(each.covariance_type, each.n_components, value)
        for each in candidates
        if (value := value_by(criterion, each)) is not None
    ]
    return min(known, key=lambda best: sign * best.value, default=None)


def value_by(criterion: str, candidate: CandidateRecord) -> float | None:
    value: float | None = getattr(candidate.figures, criterion)
    return value if value is not None and np.isfinite(value) else None
