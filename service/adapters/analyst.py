"""The analyst of this installation, found when it is first asked for.

What it needs comes with the extra ``analysis``, and takes a second to import that no start of the
service waits for.
"""

from functools import cache
from importlib import import_module
from importlib.util import find_spec

from service.domain.ports import Analyst
from service.errors import Unavailable

NEEDED = "sklearn"
MODULE = "service.adapters.analyst_sklearn"


@cache
def installed_analyst() -> Analyst:
    """Return it; raise ``Unavailable`` (``analysis_not_installed``) where there is none."""
    if find_spec(NEEDED) is None:
        raise Unavailable(
            "analysis_not_installed",
            "this installation of the service has no analyses; its extra `analysis` brings them",
        )
    analyst: Analyst = import_module(MODULE).SklearnAnalyst()
    return analyst
