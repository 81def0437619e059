"""What extras of the installation bring to the service, found when it is first asked for.

Their libraries take a second to import, which no start of the service waits for.
"""

from contextlib import suppress
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from service.domain.ports import Analyst, Painter
from service.errors import Unsupported


@cache
def installed_analyst() -> Analyst:
    """Return the analyst; raise ``Unsupported`` (``extra_not_installed``) where there is none."""
    adapter = _adapter("analysis", "sklearn", "service.adapters.analyst_sklearn")
    analyst: Analyst = adapter.SklearnAnalyst()
    return analyst


@cache
def installed_painter() -> Painter:
    """Return the painter; raise ``Unsupported`` (``extra_not_installed``) where there is none."""
    adapter = _adapter("plots", "matplotlib", "service.pictures.painter")
    painter: Painter = adapter.MatplotlibPainter()
    return painter


def load_installed() -> None:
    """Import what there is, so that no request has to wait for it."""
    for installed in (installed_painter, installed_analyst):
        with suppress(Unsupported):
            installed()


def _adapter(extra: str, library: str, module: str) -> ModuleType:
    if find_spec(library) is None:
        raise Unsupported.without(extra)
    return import_module(module)
