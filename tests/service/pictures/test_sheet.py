"""What pictures are drawn with: colours that stay apart for the colour-blind, texts cut to size."""

import subprocess
import sys
from itertools import combinations, pairwise

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from numpy.typing import NDArray

from service.domain.pictures import Style
from service.pictures.sheet import THEMES, Sheet

# Machado, Oliveira and Fernandes, IEEE TVCG 15, 2009, at full severity; for linear RGB.
SEEN_BY = {
    "anyone": np.eye(3),
    "protanopes": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopes": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "tritanopes": np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}
TO_XYZ = np.array(
    [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
) / np.array([[0.9505], [1.0], [1.089]])
FAR_ENOUGH = 9.0
"""Of colours in CIELAB, where 2.3 are just noticed; forms differ beside them."""


def linear(color: str) -> NDArray[np.float64]:
    rgb = np.array(to_rgb(color))
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def lab(color: str, eyes: str) -> NDArray[np.float64]:
    xyz = TO_XYZ @ np.clip(SEEN_BY[eyes] @ linear(color), 0.0, 1.0)
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def contrast(one: str, other: str) -> float:
    """Return the ratio of luminances as the accessibility guidelines define it."""
    low, high = sorted(float(0.05 + linear(each) @ TO_XYZ[1]) for each in (one, other))
    return high / low


@pytest.mark.parametrize("eyes", SEEN_BY)
@pytest.mark.parametrize("palette", ["okabe-ito", "tol-muted"])
@pytest.mark.parametrize("theme", THEMES)
def test_the_first_six_colours_of_a_palette_are_told_apart_by_all_eyes(
    theme: str, palette: str, eyes: str
) -> None:
    colors = THEMES[theme].listed[palette][:6]
    for one, other in combinations(colors, 2):
        distance = np.linalg.norm(lab(one, eyes) - lab(other, eyes))
        assert distance > FAR_ENOUGH, (one, other)


@pytest.mark.parametrize("theme", THEMES)
def test_ramps_go_in_one_direction_away_from_the_paper(theme: str) -> None:
    paper, ramp = THEMES[theme].paper, THEMES[theme].ramp
    contrasts = [contrast(color, paper) for color in ramp]
    assert contrasts[0] > 1.5
    assert all(after > before for before, after in pairwise(contrasts))


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("palette", ["okabe-ito", "tol-muted", "cividis", "viridis"])
def test_colours_stand_out_from_the_paper(theme: str, palette: str) -> None:
    sheet = Sheet("", Style("svg", 800, 500, palette, theme))  # type: ignore[arg-type]  # of its own
    for color in sheet.colors(6):
        assert contrast(color, sheet.theme.paper) > 1.8, color
    for color in sheet.colors(3):
        assert contrast(color, sheet.theme.paper) > (4.0 if theme == "dark" else 2.5), color


def test_names_are_cut_to_the_room_that_there_is() -> None:
    sheet = Sheet("t" * 300, Style("svg", 480, 320, "okabe-ito", "light"))
    left, right = sheet.axes(2)
    sheet.name_axes(left, "x" * 300, "y" * 300)
    sheet.figure.draw_without_rendering()
    box = left.xaxis.label.get_window_extent()
    assert box.x1 < right.get_window_extent().x0 + 10
    assert left.yaxis.label.get_window_extent().height < 320
    assert left.get_xlabel().endswith("…")


def test_texts_grow_with_the_picture_and_never_shrink() -> None:
    heights = {}
    for width, height in ((480, 320), (800, 500), (2400, 1600)):
        sheet = Sheet("title", Style("png", width, height, "okabe-ito", "light"))
        (field,) = sheet.axes()
        sheet.name_axes(field, "across", "along")
        sheet.figure.draw_without_rendering()
        heights[width] = field.xaxis.label.get_window_extent().height
    assert heights[480] == pytest.approx(heights[800], rel=0.05)
    assert heights[2400] == pytest.approx(3 * heights[800], rel=0.1)


def test_drawing_keeps_no_state_of_pyplot() -> None:
    code = (
        "import sys; from service.pictures.painter import MatplotlibPainter; "
        "from service.domain.pictures import ConvergencePicture, Style; "
        "picture = ConvergencePicture([1.0, 2.0], True, 'converged'); "
        "style = Style('png', 480, 320, 'viridis', 'light'); "
        "MatplotlibPainter().paint(picture, title='', style=style); "
        "sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603 - our own code
