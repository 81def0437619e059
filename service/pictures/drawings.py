"""How each kind of picture is drawn: ``draw``, one function for each."""

from collections.abc import Iterable, Sequence
from functools import singledispatch

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Ellipse as EllipsePatch
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from service.domain.pictures import (
    BestCandidate,
    ClustersPicture,
    Component,
    ConvergencePicture,
    DensityPicture,
    KMeansPicture,
    Picture,
    Points,
    ResponsibilitiesPicture,
    SelectionCurve,
    SelectionPicture,
    UncertaintyPicture,
)
from service.domain.planes import Axis, Plane, places_along
from service.pictures.sheet import Sheet

POINT_AREA = 14.0
MANY_COMPONENTS = 12
"""From here on a legend or large numbers at the means would hide what they explain."""
MOST_NUMBERED = 100
"""Beyond these components even small numbers would hide all else."""
MANY_POINTS = 100
"""From here on rings would hide what they mark: the other rows fade instead."""
STRENGTH, FADED = 0.75, 0.12
"""How opaque points are."""
FEWEST_NEAR = 2
"""At least so many candidates of a selection are shown beside the best, as is the best third."""
FAR = 2.0
"""An axis ends near the best candidate where the worst is so many times as far from it."""
NUMBER_POINTS, SMALL_NUMBER_POINTS = 9.0, 7.0
"""Of components, at their means."""
MOST_BARS = 40
"""Of a histogram."""
LINES = slice(2, None)
"""The part of a ramp that thin lines can be seen in."""
CRITERION_NAMES = {
    "log_likelihood": "log-likelihood",
    "held_out_log_likelihood": "held-out log-likelihood a row",
    "bic": "BIC",
    "aic": "AIC",
    "aicc": "AICc",
    "icl": "ICL",
}


@singledispatch
def draw(picture: Picture, sheet: Sheet) -> None:
    """Draw a picture on an empty sheet."""
    raise TypeError(f"nobody has said how {type(picture).__name__} is drawn on a {type(sheet)}")


@draw.register
def draw_clusters(picture: ClustersPicture, sheet: Sheet) -> None:
    if len(picture.plane.axes) == 1:
        draw_clusters_along(picture, sheet)
        return
    (field,) = sheet.axes()
    name_plane(sheet, field, picture.plane)
    if picture.points is not None:
        draw_points(sheet, field, picture.points, len(picture.components))
    draw_components(sheet, field, picture.components)
    note_ellipses(sheet, picture.components, picture.points)


def draw_clusters_along(picture: ClustersPicture, sheet: Sheet) -> None:
    """Draw where the rows lie along a single axis, and below how far each component reaches."""
    field, foot = sheet.stack(3, 1 + len(picture.components) / 6)
    draw_hills(sheet, field, picture.components, picture.points)
    draw_reaches(sheet, foot, picture.components)
    sheet.name_axes(foot, axis_name(picture.plane.axes[0], sheet.room(foot)), "component")
    sheet.note(f"Bars reach to 1σ (thick) and 2σ (thin){shown_rows(picture.points)}")


@draw.register
def draw_uncertainty(picture: UncertaintyPicture, sheet: Sheet) -> None:
    if len(picture.plane.axes) == 1:
        draw_uncertainty_along(picture, sheet)
        return
    hard, soft = sheet.axes(2, share=True)
    name_twins(sheet, (hard, soft), picture.plane)
    draw_points(sheet, hard, picture.points, len(picture.components))
    draw_components(sheet, hard, picture.components)
    sheet.title(hard, "labels")
    surest_first = np.argsort(picture.entropy, kind="stable")
    shades = soft.scatter(
        picture.points.X[surest_first, 0],
        picture.points.X[surest_first, 1],
        c=picture.entropy[surest_first],
        s=POINT_AREA * (0.7 + 1.5 * picture.entropy[surest_first] / (picture.max_entropy or 1.0)),
        cmap=sheet.ramp(),
        vmin=0.0,
        vmax=picture.max_entropy or 1.0,
        linewidths=0,
    )
    sheet.scale(shades, soft, "entropy, nats")
    sheet.title(soft, "uncertainty")
    note_ellipses(sheet, picture.components, picture.points)


def draw_uncertainty_along(picture: UncertaintyPicture, sheet: Sheet) -> None:
    hard, soft = sheet.stack(1, 1)
    draw_hills(sheet, hard, picture.components, picture.points)
    draw_means(sheet, hard, picture.components)
    sheet.title(hard, "labels")
    places = np.column_stack([picture.points.X[:, 0], picture.entropy])
    draw_labelled(sheet, soft, places, picture.points.labels, len(picture.components))
    soft.set_ylim(-0.05 * picture.max_entropy, 1.05 * picture.max_entropy or 1.0)
    sheet.title(soft, "uncertainty")
    sheet.name_axes(soft, axis_name(picture.plane.axes[0], sheet.room(soft)), "entropy, nats")
    sheet.note(f"At most ln K = {picture.max_entropy:.2f} nats{shown_rows(picture.points)}")


@draw.register
def draw_density(picture: DensityPicture, sheet: Sheet) -> None:
    if picture.y is None:
        draw_density_along(picture, sheet)
        return
    (field,) = sheet.axes()
    name_plane(sheet, field, picture.plane)
    if picture.points is not None:
        field.scatter(
            picture.points.X[:, 0],
            picture.points.X[:, 1],
            s=POINT_AREA / 2,
            color=sheet.theme.ink,
            alpha=0.3,
            linewidths=0,
        )
    # Two shares may have one density, and levels must rise.
    levels = sorted({level.log_density for level in picture.levels})
    shares = {level.log_density: f"{level.share:.0%}" for level in picture.levels}
    lines = field.contour(
        picture.x,
        picture.y,
        picture.log_density,
        levels=levels,
        cmap=sheet.ramp(LINES),
        linewidths=1.4,
    )
    for text in field.clabel(lines, fmt=shares, fontsize=8, colors=sheet.theme.ink):
        text.set_path_effects(sheet.halo)
    draw_means(sheet, field, picture.components)
    shown = shown_rows(picture.points)
    sheet.note(f"Each line encloses that share of the probability{shown}")


def draw_density_along(picture: DensityPicture, sheet: Sheet) -> None:
    """Draw the density along a single axis, with the part of every component."""
    (field,) = sheet.axes()
    name_plane(sheet, field, picture.plane)
    draw_curves(sheet, field, picture.components, picture.x)
    if picture.points is not None:
        draw_ticks(sheet, field, picture.points.X[:, 0])
    rows = "" if picture.points is None else f"Rows at the foot{shown_rows(picture.points)}"
    sheet.legend(field, rows)


@draw.register
def draw_responsibilities(picture: ResponsibilitiesPicture, sheet: Sheet) -> None:
    (field,) = sheet.axes()
    field.grid(visible=False)
    n_points, n_components = picture.probabilities.shape
    image = field.imshow(
        picture.probabilities.T,
        aspect="auto",
        interpolation="nearest",
        cmap=sheet.ramp(from_paper=True),
        vmin=0.0,
        vmax=1.0,
        extent=(0, n_points, n_components - 0.5, -0.5),
    )
    sheet.scale(image, field, "responsibility")
    if n_components <= MANY_COMPONENTS:
        field.set_yticks(range(n_components))
    sheet.name_axes(field, "rows by label, the surest first", "component")
    if n_points < picture.n_samples:
        sheet.note(f"{n_points} of {picture.n_samples} rows")


@draw.register
def draw_convergence(picture: ConvergencePicture, sheet: Sheet) -> None:
    (field,) = sheet.axes()
    steps = np.arange(1, len(picture.log_likelihood) + 1)
    (color,) = sheet.colors(1)
    is_short = len(steps) <= 50
    field.plot(steps, picture.log_likelihood, color=color, marker="o" if is_short else "", ms=3)
    field.xaxis.set_major_locator(MaxNLocator(integer=True))
    sheet.name_axes(field, "EM step", "log-likelihood")
    verdict = "converged" if picture.converged else f"not converged ({picture.stop_reason})"
    sheet.title(field, f"{verdict} after {len(steps)} steps")


@draw.register
def draw_selection(picture: SelectionPicture, sheet: Sheet) -> None:
    criteria = list(picture.curves[0].values)
    colors, markers = sheet.colors(len(picture.curves)), sheet.markers(len(picture.curves))
    is_cut = False
    for field, criterion in zip(sheet.axes(len(criteria)), criteria, strict=True):
        for curve, color, marker in zip(picture.curves, colors, markers, strict=True):
            field.plot(
                curve.n_components,
                [np.nan if value is None else value for value in curve.values[criterion]],
                color=color,
                marker=marker,
                markersize=4,
                linewidth=1.2,
                label=curve.covariance_type,
            )
        best = picture.best.get(criterion)
        mark_best(sheet, field, best)
        field.margins(x=0.1)
        is_cut |= limit_to_best(sheet, field, picture.curves, criterion)
        field.xaxis.set_major_locator(MaxNLocator(integer=True))
        found = "" if best is None else f"\nbest {best.n_components}, {best.covariance_type}"
        sheet.title(field, CRITERION_NAMES[criterion] + found)
        sheet.name_axes(field, "components", "")
    beyond = ", arrows those beyond the axis" if is_cut else ""
    chosen = CRITERION_NAMES[picture.criterion]
    sheet.legend(field, f"Rings mark the best{beyond}. Chosen by {chosen}")


def limit_to_best(
    sheet: Sheet, field: Axes, curves: Sequence[SelectionCurve], criterion: str
) -> bool:
    """End the axis where the better candidates do; return whether arrows mark others beyond it."""
    sign = -1.0 if criterion.endswith("log_likelihood") else 1.0
    values = [value for curve in curves for value in curve.values[criterion] if value is not None]
    reach = reach_near_best(sign * np.array(values))
    if reach is None:
        return False
    best, row = sign * min(sign * value for value in values), 0.045
    end = best + sign * reach * (1.05 + row * len(curves))
    start = best - sign * 0.12 * reach
    field.set_ylim(min(start, end), max(start, end))
    colors = sheet.colors(len(curves))
    for number, (curve, color) in enumerate(zip(curves, colors, strict=True), start=1):
        known = zip(curve.n_components, curve.values[criterion], strict=True)
        beyond = [x for x, y in known if y is not None and sign * (y - end) > 0]
        field.scatter(
            beyond,
            np.full(len(beyond), 1 - row * (number - 0.4) if sign > 0 else row * (number - 0.4)),
            marker="^" if sign > 0 else "v",
            s=POINT_AREA,
            color=color,
            linewidths=0,
            transform=field.get_xaxis_transform(),
            zorder=4,
        )
    return True


def reach_near_best(values: NDArray[np.float64]) -> float | None:
    """Return how far from the least value the better ones lie, None where all are near it."""
    if len(values) <= FEWEST_NEAR:
        return None
    away = np.sort(values - values.min())
    near, far = float(away[max(FEWEST_NEAR, len(away) // 3)]), float(away[-1])
    return near if near > 0 and far > FAR * near else None


def mark_best(sheet: Sheet, field: Axes, best: BestCandidate | None) -> None:
    if best is not None:
        field.scatter(
            [best.n_components],
            [best.value],
            s=110,
            facecolors="none",
            edgecolors=sheet.theme.ink,
            linewidths=1.6,
            zorder=5,
        )


@draw.register
def draw_kmeans(picture: KMeansPicture, sheet: Sheet) -> None:
    if len(picture.plane.axes) == 1:
        draw_kmeans_along(picture, sheet)
        return
    ours, theirs = sheet.axes(2, share=True)
    name_twins(sheet, (ours, theirs), picture.plane)
    points, count = picture.points, len(picture.components)
    draw_points(sheet, ours, points, count)
    draw_components(sheet, ours, picture.components)
    sheet.title(ours, "mixture")
    are_many = len(picture.differing) >= MANY_POINTS
    strength = np.full(len(points.X), FADED if are_many else STRENGTH)
    strength[picture.differing] = STRENGTH
    draw_labelled(sheet, theirs, points.X, picture.kmeans_labels, count, strength=strength)
    if not are_many:
        draw_rings(sheet, theirs, points.X[picture.differing])
    draw_crosses(sheet, theirs, picture.kmeans_centers)
    sheet.title(theirs, "k-means")
    explained = (
        f"Rows that the two label alike are faded; {picture.n_differing} differ"
        if are_many
        else f"Rings mark the rows that the two label differently: {picture.n_differing}"
    )
    sheet.note(f"{explained}{shown_rows(points)}{unnumbered(picture.components)}")


def draw_rings(sheet: Sheet, field: Axes, places: NDArray[np.float64]) -> None:
    field.scatter(
        places[:, 0],
        places[:, 1],
        s=POINT_AREA * 2.5,
        facecolors="none",
        edgecolors=sheet.theme.ink,
        linewidths=0.7,
    )


def draw_kmeans_along(picture: KMeansPicture, sheet: Sheet) -> None:
    ours, theirs = sheet.stack(1, 1)
    points, count = picture.points, len(picture.components)
    x = points.X[:, 0]
    draw_hills(sheet, ours, picture.components, points)
    draw_means(sheet, ours, picture.components)
    sheet.title(ours, "mixture")
    draw_bars(sheet, theirs, x, picture.kmeans_labels, count)
    draw_crosses(sheet, theirs, picture.kmeans_centers)
    draw_ticks(sheet, theirs, x[picture.differing])
    sheet.title(theirs, "k-means")
    sheet.name_axes(theirs, axis_name(picture.plane.axes[0], sheet.room(theirs)), "density")
    shown = shown_rows(points)
    sheet.note(
        f"Strokes mark the rows that the two label differently: {picture.n_differing}{shown}"
    )


# --- parts of drawings --------------------------------------------------------------------------


def name_plane(sheet: Sheet, field: Axes, plane: Plane) -> None:
    names = [axis_name(axis, sheet.room(field)) for axis in plane.axes]
    sheet.name_axes(field, names[0], names[1] if len(names) > 1 else "density")


def name_twins(sheet: Sheet, fields: tuple[Axes, Axes], plane: Plane) -> None:
    """Name the axes of two fields that share them; between the two there is no room."""
    for field in fields:
        name_plane(sheet, field, plane)
    fields[1].set_ylabel("")


def axis_name(axis: Axis, room: int) -> str:
    if axis.share_of_variance is None:
        return axis.name
    whole = f"{axis.name} ({axis.share_of_variance:.1%} of the variance)"
    return whole if len(whole) <= room else f"{axis.name} ({axis.share_of_variance:.1%})"


def draw_points(sheet: Sheet, field: Axes, points: Points, n_components: int) -> None:
    draw_labelled(sheet, field, points.X, points.labels, n_components)


def draw_labelled(
    sheet: Sheet,
    field: Axes,
    X: NDArray[np.float64],
    labels: NDArray[np.int64],
    n_components: int,
    *,
    strength: NDArray[np.float64] | None = None,
) -> None:
    """Draw points in the colours and forms of their labels, each as opaque as is said."""
    opacity = np.full(len(X), STRENGTH) if strength is None else strength
    colors, markers = sheet.colors(n_components), sheet.markers(n_components)
    for label in np.unique(labels).tolist():
        field.scatter(
            X[labels == label, 0],
            X[labels == label, 1],
            s=POINT_AREA,
            color=colors[label],
            marker=markers[label],
            linewidths=0,
            alpha=opacity[labels == label],
        )


def draw_components(sheet: Sheet, field: Axes, components: Sequence[Component]) -> None:
    for component, color in zip(components, sheet.colors(len(components)), strict=True):
        for ellipse, line in zip(component.ellipses, ("-", "--"), strict=True):
            patch = EllipsePatch(
                (component.mean[0], component.mean[1]),
                ellipse.width,
                ellipse.height,
                angle=ellipse.angle_degrees,
                fill=False,
                edgecolor=color,
                linestyle=line,
                linewidth=1.4,
            )
            field.add_patch(patch)
    draw_means(sheet, field, components)


def draw_hills(
    sheet: Sheet, field: Axes, components: Sequence[Component], points: Points | None
) -> None:
    """Draw along a single axis where the rows lie, by label, and the density above them."""
    means = np.array([component.mean.item() for component in components])
    deviations = np.sqrt([component.covariance.item() for component in components])
    if points is not None:
        draw_bars(sheet, field, points.X[:, 0], points.labels, len(components))
    draw_curves(sheet, field, components, places_along(means, deviations))
    sheet.name_axes(field, "", "density")


def draw_bars(
    sheet: Sheet,
    field: Axes,
    x: NDArray[np.float64],
    labels: NDArray[np.int64],
    n_components: int,
) -> None:
    present = np.unique(labels).tolist()
    colors = sheet.colors(n_components)
    field.hist(
        [x[labels == label] for label in present],
        bins=edges_of(x),
        density=True,
        stacked=True,
        color=[colors[label] for label in present],
        alpha=0.45,
    )


def edges_of(x: NDArray[np.float64]) -> list[float]:
    """Return where the bars of a histogram begin and end."""
    low, high = float(x.min()), float(x.max())
    n_bars = min(MOST_BARS, max(1, round(2 * len(x) ** 0.5)))
    edges: list[float] = np.unique(np.linspace(low, high, n_bars + 1)).tolist()
    room = 0.05 * abs(low) or 0.5
    return edges if len(edges) > 1 else [low - room, low + room]


def draw_curves(
    sheet: Sheet, field: Axes, components: Sequence[Component], x: NDArray[np.float64]
) -> None:
    """Draw the density along a single axis and, unless they are many, every component's part."""
    total = np.zeros(len(x))
    for number, (part, color) in enumerate(
        zip(components, sheet.colors(len(components)), strict=True)
    ):
        variance = part.covariance.item()
        away = np.square(x - part.mean.item()) / variance
        heights = part.weight * np.exp(-0.5 * away) / np.sqrt(2 * np.pi * variance)
        total += heights
        if len(components) <= MANY_COMPONENTS:
            field.plot(x, heights, color=color, linestyle="--", label=f"component {number}")
    field.plot(x, total, color=sheet.theme.ink, linewidth=1.2, label="mixture", zorder=1.9)


def draw_reaches(sheet: Sheet, field: Axes, components: Sequence[Component]) -> None:
    """Draw where each component lies along a single axis, a line for each."""
    means = np.array([component.mean.item() for component in components])
    levels = np.arange(len(components))
    colors = sheet.colors(len(components))
    for sigmas, width in ((0, 4.0), (1, 1.4)):
        half = np.array([component.ellipses[sigmas].width / 2 for component in components])
        field.hlines(levels, means - half, means + half, colors=colors, linewidths=width)
    draw_crosses(sheet, field, np.column_stack([means, levels]))
    field.set_ylim(len(components) - 0.4, -0.6)
    field.yaxis.set_major_locator(MaxNLocator(integer=True))


def draw_ticks(sheet: Sheet, field: Axes, x: NDArray[np.float64]) -> None:
    """Mark rows along a single axis, at its foot."""
    field.scatter(
        x,
        np.zeros(len(x)),
        marker="|",
        s=60,
        color=sheet.theme.ink,
        linewidths=0.6,
    )


def draw_means(sheet: Sheet, field: Axes, components: Sequence[Component]) -> None:
    draw_crosses(sheet, field, np.array([component.mean for component in components]))


def draw_crosses(sheet: Sheet, field: Axes, places: NDArray[np.float64]) -> None:
    """Mark centres, with the numbers of their clusters; on a single axis at the foot."""
    if places.shape[1] == 1:
        places = np.column_stack([places, np.zeros(len(places))])
    field.scatter(
        places[:, 0],
        places[:, 1],
        marker="X",
        s=60 if len(places) <= MANY_COMPONENTS else 25,
        color=sheet.theme.ink,
        edgecolors=sheet.theme.paper,
        linewidths=0.8,
        clip_on=False,
        zorder=4,
    )
    if len(places) <= MOST_NUMBERED:
        points = NUMBER_POINTS if len(places) <= MANY_COMPONENTS else SMALL_NUMBER_POINTS
        for number, place in enumerate(places):
            write_number(sheet, field, number, place, points)
    field.autoscale_view()


def write_number(
    sheet: Sheet, field: Axes, number: int, place: Iterable[float], points: float
) -> None:
    x, y = place
    field.annotate(
        str(number),
        (x, y),
        xytext=(points * 0.6, points * 0.5),
        textcoords="offset points",
        color=sheet.theme.ink,
        fontsize=points,
        fontweight="bold",
        path_effects=sheet.halo,
        zorder=5,
    )


def note_ellipses(sheet: Sheet, components: Sequence[Component], points: Points | None) -> None:
    shown = f"{shown_rows(points)}{unnumbered(components)}"
    sheet.note(f"Ellipses at 1σ (solid) and 2σ (dashed){shown}")


def unnumbered(components: Sequence[Component]) -> str:
    if len(components) <= MOST_NUMBERED:
        return ""
    return f"; {len(components)} components are too many to be numbered"


def shown_rows(points: Points | None) -> str:
    if points is None or len(points.rows) == points.n_samples:
        return ""
    return f"; {len(points.rows)} of {points.n_samples} rows are shown"
