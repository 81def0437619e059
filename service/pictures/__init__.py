"""Drawing pictures: figures from numbers, without HTTP. The extra ``plots`` brings what it needs.

Matplotlib takes a second to import, which no start of the service waits for.
"""

from functools import cache
from importlib import import_module
from importlib.util import find_spec

from service.domain.ports import Painter
from service.errors import Unsupported

NEEDED = "matplotlib"


@cache
def installed_painter() -> Painter:
    """Return it; raise ``Unsupported`` (``plots_not_installed``) where there is none."""
    if find_spec(NEEDED) is None:
        raise Unsupported(
            "plots_not_installed",
            "this installation of the service draws no pictures; its extra `plots` does, and the "
            "numbers of each picture are here as application/json",
        )
    painter: Painter = import_module(f"{__name__}.painter").MatplotlibPainter()
    return painter
