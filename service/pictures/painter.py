"""``MatplotlibPainter``: figures by Matplotlib's objects, without pyplot and its global figures."""

import re
from io import BytesIO
from threading import Lock

from service.domain.pictures import Picture, Style
from service.pictures.drawings import draw
from service.pictures.sheet import Sheet

SVG_SIZE = re.compile(rb'width="[\d.]+pt" height="[\d.]+pt"')


class MatplotlibPainter:
    """Implements ``Painter``."""

    def __init__(self) -> None:
        self._lock = Lock()
        """Matplotlib promises nothing to several threads."""

    def paint(self, picture: Picture, *, title: str, style: Style) -> bytes:
        with self._lock:
            sheet = Sheet(title, style)
            draw(picture, sheet)
            file = BytesIO()
            # Neither a date nor the library's version: the same numbers are the same bytes.
            unmarked = {"Date": None} if style.format == "svg" else {"Software": None}
            sheet.figure.savefig(file, format=style.format, dpi=sheet.figure.dpi, metadata=unmarked)
            return in_pixels(file.getvalue(), style) if style.format == "svg" else file.getvalue()


def in_pixels(svg: bytes, style: Style) -> bytes:
    """Say how large a drawing is to be shown; Matplotlib says it in points of its own choice."""
    size = f'width="{style.width}" height="{style.height}"'
    return SVG_SIZE.sub(size.encode(), svg, count=1)
