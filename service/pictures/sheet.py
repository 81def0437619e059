"""``Sheet``: one figure with its size, colours and type; where drawings get their axes from."""

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font

from service.domain.pictures import Style

DPI = 100
FONT_POINTS = 9.0
MAX_NAME_LENGTH = 40
UNKNOWN = "\N{REPLACEMENT CHARACTER}"
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LISTED_COLORS: dict[str, Sequence[str]] = {
    # Okabe and Ito, Color Universal Design, 2008, without the yellow that white swallows.
    "okabe-ito": ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00"),
    # Tol, Colour Schemes, SRON/EPS/TN/09-002, 2021.
    "tol-muted": (
        "#CC6677",
        "#332288",
        "#DDCC77",
        "#117733",
        "#88CCEE",
        "#882255",
        "#44AA99",
        "#999933",
        "#AA4499",
    ),
}

# Of the whole process: names are texts and no formulas, and ids within a file don't vary.
mpl.rcParams["text.parse_math"] = False
mpl.rcParams["svg.hashsalt"] = "gmm-service"
mpl.rcParams["font.size"] = FONT_POINTS
mpl.rcParams["axes.formatter.use_mathtext"] = False
mpl.rcParams["axes.unicode_minus"] = True


@dataclass(frozen=True, slots=True)
class Theme:
    paper: str
    ink: str
    faint: str


THEMES = {
    "light": Theme(paper="#ffffff", ink="#1a1a1a", faint="#c8c8c8"),
    "dark": Theme(paper="#16181d", ink="#e8e8e8", faint="#4a4d55"),
}


class Sheet:
    def __init__(self, title: str, style: Style) -> None:
        self.theme = THEMES[style.theme]
        self._palette = style.palette
        self.figure = Figure(
            figsize=(style.width / DPI, style.height / DPI),
            dpi=DPI,
            layout="constrained",
            facecolor=self.theme.paper,
        )
        self.figure.suptitle(legible(title), color=self.theme.ink, fontsize=FONT_POINTS * 1.3)

    def axes(self, n_beside: int = 1, *, share: bool = False) -> list[Axes]:
        """Return so many fields beside each other."""
        grid = self.figure.subplots(1, n_beside, squeeze=False, sharex=share, sharey=share)
        fields: list[Axes] = list(grid[0])
        for field in fields:
            self._dress(field)
        return fields

    def colors(self, count: int) -> list[str]:
        """Return a colour for each of ``count`` things; those of a short list come again."""
        listed = LISTED_COLORS.get(self._palette)
        if listed is not None:
            return [listed[each % len(listed)] for each in range(count)]
        shades = mpl.colormaps[self._palette](np.linspace(0.05, 0.95, count))
        return [mpl.colors.to_hex(shade) for shade in shades]

    def markers(self, count: int) -> list[str]:
        """Return a form for each of ``count`` things, so that colour is not all that tells them."""
        return [MARKERS[each % len(MARKERS)] for each in range(count)]

    def name_axes(self, field: Axes, x: str, y: str) -> None:
        field.set_xlabel(legible(x), color=self.theme.ink)
        field.set_ylabel(legible(y), color=self.theme.ink)

    def title(self, field: Axes, text: str) -> None:
        field.set_title(text, color=self.theme.ink, fontsize=FONT_POINTS)

    def note(self, text: str) -> None:
        """Write a line at the foot."""
        self.figure.supxlabel(text, color=self.theme.ink, fontsize=FONT_POINTS * 0.9)

    def legend(self, field: Axes, *, title: str | None = None) -> None:
        field.legend(
            title=title,
            fontsize=FONT_POINTS * 0.9,
            facecolor=self.theme.paper,
            edgecolor=self.theme.faint,
            labelcolor=self.theme.ink,
            framealpha=0.8,
        )

    def _dress(self, field: Axes) -> None:
        field.set_facecolor(self.theme.paper)
        field.tick_params(colors=self.theme.ink)
        field.xaxis.get_offset_text().set_color(self.theme.ink)
        field.yaxis.get_offset_text().set_color(self.theme.ink)
        for spine in field.spines.values():
            spine.set_color(self.theme.faint)
        field.grid(visible=True, color=self.theme.faint, linewidth=0.4, alpha=0.6)
        field.set_axisbelow(True)


def legible(text: str) -> str:
    """Return what can be shown of a client's text: short, on one line, of letters there are."""
    known = get_font(findfont(FontProperties())).get_charmap()
    shown = "".join(
        letter if letter.isprintable() and ord(letter) in known else UNKNOWN for letter in text
    )
    return shown if len(shown) <= 2 * MAX_NAME_LENGTH else f"{shown[: 2 * MAX_NAME_LENGTH]}…"
