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
    SelectionPicture,
    UncertaintyPicture,
)
from service.domain.planes import Axis, Plane
from service.pictures.sheet import Sheet

POINT_AREA = 14.0
MANY_COMPONENTS = 12
"""From here on a legend or numbers at the means would hide what they explain."""
ENTROPY_COLORS = "viridis"
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
    (field,) = sheet.axes()
    name_plane(sheet, field, picture.plane)
    if picture.points is not None:
        draw_points(sheet, field, picture.points, len(picture.components))
    draw_components(sheet, field, picture.components)
    note_ellipses(sheet, picture.points)


@draw.register
def draw_uncertainty(picture: UncertaintyPicture, sheet: Sheet) -> None:
    hard, soft = sheet.axes(2, share=True)
    for field in (hard, soft):
        name_plane(sheet, field, picture.plane)
    draw_points(sheet, hard, picture.points, len(picture.components))
    draw_components(sheet, hard, picture.components)
    sheet.title(hard, "labels")
    shades = soft.scatter(
        picture.points.X[:, 0],
        picture.points.X[:, 1],
        c=picture.entropy,
        s=POINT_AREA,
        cmap=ENTROPY_COLORS,
        vmin=0.0,
        vmax=picture.max_entropy or 1.0,
        linewidths=0,
    )
    bar = sheet.figure.colorbar(shades, ax=soft)
    bar.set_label("entropy of the responsibilities, nats", color=sheet.theme.ink)
    bar.ax.tick_params(colors=sheet.theme.ink)
    sheet.title(soft, "uncertainty")
    note_ellipses(sheet, picture.points)


@draw.register
def draw_density(picture: DensityPicture, sheet: Sheet) -> None:
    (field,) = sheet.axes()
    name_plane(sheet, field, picture.plane)
    if picture.y is None:
        draw_curve(sheet, field, picture)
        return
    if picture.points is not None:
        field.scatter(
            picture.points.X[:, 0],
            picture.points.X[:, 1],
            s=POINT_AREA / 2,
            color=sheet.theme.faint,
            linewidths=0,
        )
    # Two shares may have one density, and levels must rise.
    levels = sorted({level.log_density for level in picture.levels})
    shares = {level.log_density: f"{level.share:.0%}" for level in picture.levels}
    lines = field.contour(
        picture.x, picture.y, picture.log_density, levels=levels, cmap="viridis", linewidths=1.4
    )
    field.clabel(lines, fmt=shares, fontsize=8)
    draw_means(sheet, field, picture.components)
    shown = shown_rows(picture.points)
    sheet.note(f"Each line encloses that share of the probability{shown}")


def draw_curve(sheet: Sheet, field: Axes, picture: DensityPicture) -> None:
    """Draw the density along a single axis, with the part of every component."""
    x, components = picture.x, picture.components
    field.plot(x, np.exp(picture.log_density), color=sheet.theme.ink, label="mixture")
    field.set_ylabel("density", color=sheet.theme.ink)
    if len(components) <= MANY_COMPONENTS:
        for number, (part, color) in enumerate(
            zip(components, sheet.colors(len(components)), strict=True)
        ):
            variance = part.covariance.item()
            away = np.square(x - part.mean.item()) / variance
            heights = part.weight * np.exp(-0.5 * away) / np.sqrt(2 * np.pi * variance)
            field.plot(x, heights, color=color, linestyle="--", label=f"component {number}")
        sheet.legend(field)
    if picture.points is not None:
        ground = np.zeros(len(picture.points.X))
        field.scatter(
            picture.points.X[:, 0], ground, marker="|", s=60, color=sheet.theme.ink, linewidths=0.6
        )
        sheet.note(f"Rows at the foot{shown_rows(picture.points)}")


@draw.register
def draw_responsibilities(picture: ResponsibilitiesPicture, sheet: Sheet) -> None:
    (field,) = sheet.axes()
    field.grid(visible=False)
    n_points, n_components = picture.probabilities.shape
    image = field.imshow(
        picture.probabilities.T,
        aspect="auto",
        interpolation="nearest",
        cmap=ENTROPY_COLORS,
        vmin=0.0,
        vmax=1.0,
        extent=(0, n_points, n_components - 0.5, -0.5),
    )
    bar = sheet.figure.colorbar(image, ax=field)
    bar.set_label("responsibility", color=sheet.theme.ink)
    bar.ax.tick_params(colors=sheet.theme.ink)
    if n_components <= MANY_COMPONENTS:
        field.set_yticks(range(n_components))
    sheet.name_axes(field, "rows, by label and then the surest first", "component")
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
        mark_best(sheet, field, picture.best.get(criterion))
        field.xaxis.set_major_locator(MaxNLocator(integer=True))
        sheet.title(field, CRITERION_NAMES[criterion])
        sheet.name_axes(field, "components", "")
    sheet.legend(field)
    sheet.note(f"Rings mark the best. Chosen by {CRITERION_NAMES[picture.criterion]}")


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
    ours, theirs = sheet.axes(2, share=True)
    points, count = picture.points, len(picture.components)
    for field in (ours, theirs):
        name_plane(sheet, field, picture.plane)
    draw_points(sheet, ours, points, count)
    draw_components(sheet, ours, picture.components)
    sheet.title(ours, "mixture")
    draw_labelled(sheet, theirs, points.X, picture.kmeans_labels, count)
    theirs.scatter(
        points.X[picture.differing, 0],
        points.X[picture.differing, 1],
        s=POINT_AREA * 4,
        facecolors="none",
        edgecolors=sheet.theme.ink,
        linewidths=0.7,
    )
    draw_crosses(sheet, theirs, picture.kmeans_centers)
    sheet.title(theirs, "k-means")
    shown = shown_rows(points)
    sheet.note(f"Rings mark the rows that the two label differently: {picture.n_differing}{shown}")


# --- parts of drawings --------------------------------------------------------------------------


def name_plane(sheet: Sheet, field: Axes, plane: Plane) -> None:
    names = [axis_name(axis) for axis in plane.axes]
    sheet.name_axes(field, names[0], names[1] if len(names) > 1 else "")


def axis_name(axis: Axis) -> str:
    if axis.share_of_variance is None:
        return axis.name
    return f"{axis.name} ({axis.share_of_variance:.1%} of the variance)"


def draw_points(sheet: Sheet, field: Axes, points: Points, n_components: int) -> None:
    draw_labelled(sheet, field, points.X, points.labels, n_components)


def draw_labelled(
    sheet: Sheet,
    field: Axes,
    X: NDArray[np.float64],
    labels: NDArray[np.int64],
    n_components: int,
) -> None:
    colors, markers = sheet.colors(n_components), sheet.markers(n_components)
    for label in np.unique(labels).tolist():
        field.scatter(
            X[labels == label, 0],
            X[labels == label, 1],
            s=POINT_AREA,
            color=colors[label],
            marker=markers[label],
            linewidths=0,
            alpha=0.75,
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


def draw_means(sheet: Sheet, field: Axes, components: Sequence[Component]) -> None:
    draw_crosses(sheet, field, np.array([component.mean for component in components]))


def draw_crosses(sheet: Sheet, field: Axes, places: NDArray[np.float64]) -> None:
    """Mark centres, with the numbers of their clusters."""
    field.scatter(
        places[:, 0],
        places[:, 1],
        marker="X",
        s=60,
        color=sheet.theme.ink,
        edgecolors=sheet.theme.paper,
        linewidths=0.8,
        zorder=4,
    )
    if len(places) <= MANY_COMPONENTS:
        for number, place in enumerate(places):
            write_number(sheet, field, number, place)
    field.autoscale_view()


def write_number(sheet: Sheet, field: Axes, number: int, place: Iterable[float]) -> None:
    x, y = place
    field.annotate(
        str(number),
        (x, y),
        xytext=(6, 5),
        textcoords="offset points",
        color=sheet.theme.ink,
        fontweight="bold",
        zorder=5,
    )


def note_ellipses(sheet: Sheet, points: Points | None) -> None:
    sheet.note(f"Ellipses at 1σ (solid) and 2σ (dashed){shown_rows(points)}")


def shown_rows(points: Points | None) -> str:
    if points is None or len(points.rows) == points.n_samples:
        return ""
    return f"; {len(points.rows)} of {points.n_samples} rows are shown"
