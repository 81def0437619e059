"""How functions here are compiled, and kept on disk as long as nothing here has changed."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from types import FunctionType

from numba import njit
from numba.core.dispatcher import Dispatcher
from numba.core.typing.templates import Signature

FAST = frozenset({"contract", "reassoc", "nsz", "arcp"})
"""Sums may be regrouped and products fused; NaN and infinity keep their meaning."""
AS_WRITTEN = frozenset[str]()
"""No sum is regrouped and no product fused, so that a step has the same bits by itself and within
the loop of several; and weights that sum up to one are such exactly."""

_SOURCES = Path(__file__).parent
STAMP = hashlib.sha256(
    b"".join(path.read_bytes() for path in sorted(_SOURCES.glob("*.py")))
).hexdigest()[:16]
"""Of all that is compiled: Numba's cache on disk watches a function's own file alone, and that by
its time and size."""


def _can_cache() -> bool:
    """Tell whether Numba finds a place on disk to keep compiled code in."""
    try:
        njit(cache=True)(_can_cache)
    except RuntimeError:
        return False
    return True


IS_KEPT = _can_cache()


def compiled(
    *signatures: Signature, fastmath: frozenset[str] = AS_WRITTEN, name: str = ""
) -> Callable[[FunctionType], Dispatcher]:
    """Compile a function for these types, or load it from the cache.

    It goes by a name that carries the stamp of the sources, so that the cache is never out of
    date; and by ``name`` where one function makes several. Numba names symbols and files by that,
    and by a number that starts anew in every process: of functions of one name, compiled by
    different processes, a third that loads them may call one for the other.
    """

    def decorated(function: FunctionType) -> Dispatcher:
        function.__qualname__ = "_".join(filter(None, (function.__name__, name, STAMP)))
        return njit(
            list(signatures),
            cache=IS_KEPT,
            nogil=True,
            fastmath=set(fastmath) or False,
            error_model="numpy",
        )(function)

    return decorated
