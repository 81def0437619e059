"""``Sheet``: one figure with its size, colours and type; where drawings get their axes from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import fill

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.patheffects import AbstractPathEffect, withStroke

from service.domain.pictures import Style

DPI = 100
WIDTH, HEIGHT = 800, 500
"""From this size on everything grows with it, texts and lines too."""
FONT_POINTS = 9.0
NOTE_POINTS = 8.1
UNKNOWN = "\N{REPLACEMENT CHARACTER}"
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LEGEND_ENTRY = 110
"""Pixels that an entry of a legend takes."""
LETTER_SHARE = 0.62
"""How wide a letter is, of its size: names are cut to the room that there is."""


@dataclass(frozen=True, slots=True)
class Theme:
    paper: str
    ink: str
    faint: str
    ramp: Sequence[str]
    """From little to much; each stands out from the paper, and from the one before by lightness."""
    listed: Mapping[str, Sequence[str]]
    """Colours that the colour-blind can tell apart too and that stand out from the paper, by
    palette; those that stand out most come first."""
    shades: tuple[float, float]
    """The part of a scale of colours that stands out from the paper."""


# okabe-ito: Okabe and Ito, Color Universal Design, 2008, without what the paper swallows.
# tol-muted: Tol, Colour Schemes, SRON/EPS/TN/09-002, 2021, likewise.
# The ramps are parts of cividis: Nuñez, Anderton and Renslow, PLOS ONE, 2018.
THEMES = {
    "light": Theme(
        paper="#ffffff",
        ink="#1a1a1a",
        faint="#c8c8c8",
        ramp=("#d2cfae", "#bcae6c", "#7c7b78", "#414d6b", "#00224e"),
        listed={
            "okabe-ito": ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00"),
            "tol-muted": (
                *("#332288", "#CC6677", "#117733", "#AA4499", "#44AA99", "#882255", "#999933"),
                *("#88CCEE", "#DDCC77"),
            ),
        },
        shades=(0.0, 0.65),
    ),
    "dark": Theme(
        paper="#16181d",
        ink="#e8e8e8",
        faint="#4a4d55",
        ramp=("#4d6285", "#6c7485", "#8a8779", "#c4b56c", "#fee838"),
        listed={
            "okabe-ito": ("#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#F0E442", "#D55E00"),
            "tol-muted": ("#88CCEE", "#CC6677", "#DDCC77", "#44AA99", "#AA4499", "#999933"),
        },
        shades=(0.5, 1.0),
    ),
}

# Of the whole process: names are texts and no formulas, and ids within a file don't vary.
mpl.rcParams["text.parse_math"] = False
mpl.rcParams["svg.hashsalt"] = "gmm-service"
mpl.rcParams["font.size"] = FONT_POINTS
mpl.rcParams["axes.formatter.use_mathtext"] = False
mpl.rcParams["axes.formatter.useoffset"] = False
mpl.rcParams["axes.unicode_minus"] = True


class Sheet:
    def __init__(self, title: str, style: Style) -> None:
        self.theme = THEMES[style.theme]
        self._palette = style.palette
        growth = max(1.0, min(style.width / WIDTH, style.height / HEIGHT))
        self._width, self._height = style.width / growth, style.height / growth
        # A little more than the pixels: what is left of a fraction of one is cut off.
        self.figure = Figure(
            figsize=((self._width + 1e-3) / DPI, (self._height + 1e-3) / DPI),
            dpi=DPI * growth,
            layout="constrained",
            facecolor=self.theme.paper,
        )
        size = FONT_POINTS * 1.3
        text = cut(legible(title), letters_in(self._width, size))
        self.figure.suptitle(text, color=self.theme.ink, fontsize=size)

    def axes(self, n_beside: int = 1, *, share: bool = False) -> list[Axes]:
        """Return so many fields beside each other."""
        grid = self.figure.subplots(1, n_beside, squeeze=False, sharex=share, sharey=share)
        return self._dressed(list(grid[0]))

    def stack(self, *heights: float) -> list[Axes]:
        """Return fields of these relative heights above each other, over the same places."""
        grid = self.figure.subplots(
            len(heights), 1, squeeze=False, sharex=True, height_ratios=heights
        )
        return self._dressed(list(grid[:, 0]))

    def room(self, field: Axes) -> int:
        """Return how many letters fit along the foot of a field."""
        return letters_in(field.get_position().width * self._width, FONT_POINTS)

    def room_beside(self, field: Axes) -> int:
        """Return how many letters fit along its side."""
        return letters_in(field.get_position().height * self._height, FONT_POINTS)

    def colors(self, count: int) -> list[str]:
        """Return a colour for each of ``count`` things; those of a short list come again."""
        listed = self.theme.listed.get(self._palette)
        if listed is not None:
            return [listed[each % len(listed)] for each in range(count)]
        shades = mpl.colormaps[self._palette](np.linspace(*self.theme.shades, count))
        return [mpl.colors.to_hex(shade) for shade in shades]

    def ramp(self, stops: slice = slice(None), *, from_paper: bool = False) -> Colormap:
        """Return a scale of colours from little to much, or from nothing."""
        ground = (self.theme.paper,) if from_paper else ()
        return LinearSegmentedColormap.from_list("ramp", [*ground, *self.theme.ramp[stops]])

    def markers(self, count: int) -> list[str]:
        """Return a form for each of ``count`` things, so that colour is not all that tells them."""
        return [MARKERS[each % len(MARKERS)] for each in range(count)]

    @property
    def halo(self) -> list[AbstractPathEffect]:
        """Return what keeps a text legible on top of points and lines."""
        return [withStroke(linewidth=2.5, foreground=self.theme.paper)]

    def name_axes(self, field: Axes, x: str, y: str) -> None:
        field.set_xlabel(cut(legible(x), self.room(field)), color=self.theme.ink)
        field.set_ylabel(cut(legible(y), self.room_beside(field)), color=self.theme.ink)

    def title(self, field: Axes, text: str) -> None:
        field.set_title(text, color=self.theme.ink, fontsize=FONT_POINTS)

    def note(self, text: str) -> None:
        """Write at the foot."""
        self.figure.supxlabel(self._wrapped(text), color=self.theme.ink, fontsize=NOTE_POINTS)

    def scale(self, of: ScalarMappable, field: Axes, name: str) -> None:
        """Explain colours by a bar beside a field."""
        bar = self.figure.colorbar(of, ax=field)
        bar.set_label(name, color=self.theme.ink)
        bar.ax.tick_params(colors=self.theme.ink)
        bar.outline.set_edgecolor(self.theme.faint)

    def legend(self, field: Axes, note: str) -> None:
        """Explain the lines of a field, and more, below all fields, where it hides nothing."""
        handles, names = field.get_legend_handles_labels()
        legend = self.figure.legend(
            handles,
            names,
            loc="outside lower center",
            ncols=max(1, min(len(names), int(self._width // LEGEND_ENTRY))),
            title=self._wrapped(note),
            title_fontsize=NOTE_POINTS,
            fontsize=NOTE_POINTS,
            frameon=False,
            labelcolor=self.theme.ink,
        )
        legend.get_title().set_color(self.theme.ink)

    def _wrapped(self, text: str) -> str:
        return fill(text, letters_in(self._width, NOTE_POINTS))

    def _dressed(self, fields: list[Axes]) -> list[Axes]:
        for field in fields:
            self._dress(field)
        return fields

    def _dress(self, field: Axes) -> None:
        field.set_facecolor(self.theme.paper)
        field.tick_params(colors=self.theme.ink)
        field.xaxis.get_offset_text().set_color(self.theme.ink)
        field.yaxis.get_offset_text().set_color(self.theme.ink)
        for spine in field.spines.values():
            spine.set_color(self.theme.faint)
        field.grid(visible=True, color=self.theme.faint, linewidth=0.4, alpha=0.6)
        field.set_axisbelow(True)


def letters_in(pixels: float, points: float) -> int:
    return max(9, int(pixels / (points * DPI / 72 * LETTER_SHARE)))


def cut(text: str, n_letters: int) -> str:
    return text if len(text) <= n_letters else f"{text[: n_letters - 1]}…"


def legible(text: str) -> str:
    """Return what can be shown of a client's text: on one line, of letters there are."""
    known = get_font(findfont(FontProperties())).get_charmap()
    return "".join(
        letter if letter.isprintable() and ord(letter) in known else UNKNOWN for letter in text
    )
