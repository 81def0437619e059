"""What is drawn where there is much: candidates far off, many components, many differing rows."""

from collections.abc import Sequence

import numpy as np
import pytest
from matplotlib.axes import Axes

from service.domain.pictures import (
    BestCandidate,
    ClustersPicture,
    Component,
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
from service.domain.planes import Axis, Plane
from service.pictures.drawings import FADED, STRENGTH, draw
from service.pictures.sheet import Sheet

PLANE = Plane(
    [Axis("a", np.array([1.0, 0.0]), None), Axis("b", np.array([0.0, 1.0]), None)], np.zeros(2)
)


def sheet_of(width: int = 800, height: int = 500) -> Sheet:
    return Sheet("a model", Style("svg", width, height, "okabe-ito", "light"))


def circles(count: int) -> list[Component]:
    ellipses = [Ellipse(1.0, 2.0, 2.0, 0.0), Ellipse(2.0, 4.0, 4.0, 0.0)]
    return [
        Component(1 / count, np.array([k % 6, k // 6], dtype=float), np.eye(2), ellipses)
        for k in range(count)
    ]


def points_of(count: int, n_components: int) -> Points:
    rows = np.arange(count)
    X = np.random.default_rng(0).standard_normal((count, 2))
    return Points(count, rows, X, rows % n_components)


def selection_of(values: Sequence[float], criterion: str) -> SelectionPicture:
    sign = -1.0 if criterion.endswith("log_likelihood") else 1.0
    signed = [sign * value for value in values]
    sizes = range(1, len(values) + 1)
    best = int(np.argmin(values))
    return SelectionPicture(
        criterion=criterion,
        curves=[SelectionCurve("full", sizes, {criterion: signed})],
        best={criterion: BestCandidate("full", best + 1, signed[best])},
    )


def texts_of(field: Axes) -> list[str]:
    return [text.get_text() for text in field.texts]


@pytest.mark.parametrize("criterion", ["bic", "held_out_log_likelihood"])
@pytest.mark.parametrize(("width", "height"), [(480, 320), (800, 500)])
def test_the_axis_of_a_selection_is_that_of_the_better_candidates(
    criterion: str, width: int, height: int
) -> None:
    values = [9000.0, 500.0, 104.0, 100.0, 106.0, 112.0, 300.0, 800.0]
    sheet = sheet_of(width, height)
    draw(selection_of(values, criterion), sheet)
    sheet.figure.draw_without_rendering()
    (field,) = sheet.figure.axes
    low, high = sorted(np.abs(field.get_ylim()))
    places = field.transData.transform(field.lines[0].get_xydata())[:, 1]
    arrows = field.collections[-1]

    assert low < 100
    assert 106 < high < 112
    assert abs(places[2] - places[3]) > 0.1 * field.get_window_extent().height
    assert np.asarray(arrows.get_offsets())[:, 0].tolist() == [1, 2, 6, 7, 8]
    assert "arrows those beyond the axis" in sheet.figure.legends[0].get_title().get_text()


def test_where_all_candidates_are_near_the_best_the_axis_shows_all() -> None:
    sheet = sheet_of()
    draw(selection_of([110.0, 100.0, 108.0, 115.0], "bic"), sheet)
    (field,) = sheet.figure.axes

    assert field.get_ylim()[1] > 115
    assert "arrows" not in sheet.figure.legends[0].get_title().get_text()


@pytest.mark.parametrize("count", [3, 24, 100])
def test_components_are_numbered_at_their_means(count: int) -> None:
    points = points_of(300, count)
    pictures: list[Picture] = [
        ClustersPicture(PLANE, circles(count), points),
        UncertaintyPicture(PLANE, circles(count), points, np.zeros(300), 1.0),
        KMeansPicture(
            PLANE, circles(count), points, points.labels, np.zeros((count, 2)), np.arange(3), 3
        ),
    ]
    for picture in pictures:
        sheet = sheet_of()
        draw(picture, sheet)
        assert texts_of(sheet.figure.axes[0]) == [str(number) for number in range(count)]


def test_too_many_components_to_be_numbered_are_said_to_be_so() -> None:
    sheet = sheet_of()
    draw(ClustersPicture(PLANE, circles(101), None), sheet)

    assert texts_of(sheet.figure.axes[0]) == []
    assert "101 components are too many to be numbered" in sheet.figure.get_supxlabel()


@pytest.mark.parametrize("n_differing", [5, 400])
def test_of_many_differing_rows_the_others_fade_and_few_are_ringed(n_differing: int) -> None:
    points = points_of(1000, 2)
    differing = np.arange(n_differing)
    sheet = sheet_of()
    draw(
        KMeansPicture(
            PLANE, circles(2), points, points.labels, np.ones((2, 2)), differing, n_differing
        ),
        sheet,
    )
    theirs = sheet.figure.axes[1]
    labelled = theirs.collections[:2]
    strengths = np.concatenate([np.asarray(each.get_alpha(), dtype=float) for each in labelled])
    ringed = [
        len(np.asarray(each.get_offsets()))
        for each in theirs.collections
        if np.size(each.get_facecolor()) == 0
    ]
    are_many = n_differing == 400

    assert np.count_nonzero(strengths == STRENGTH) == (400 if are_many else 1000)
    assert np.count_nonzero(strengths == FADED) == (600 if are_many else 0)
    assert ringed == ([] if are_many else [5])
    assert str(n_differing) in sheet.figure.get_supxlabel()


def test_the_axes_of_responsibilities_are_named_whole_in_a_small_picture() -> None:
    sheet = sheet_of(480, 320)
    shares = np.full((50, 4), 0.25)
    draw(ResponsibilitiesPicture(50, np.arange(50), np.zeros(50, dtype=np.int64), shares), sheet)
    sheet.figure.draw_without_rendering()
    label = sheet.figure.axes[0].xaxis.label

    assert label.get_text() == "rows by label, the surest first"
    assert label.get_window_extent().x0 >= 0
    assert label.get_window_extent().x1 <= 480
