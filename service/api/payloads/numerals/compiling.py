"""How the passes over text are compiled: they hold no lock, and are kept on disk.

What the engine's passes do likewise is beyond what this package may see.
"""

import hashlib
from pathlib import Path

from numba import njit


def _can_cache() -> bool:
    """Tell whether Numba finds a place on disk to keep compiled code in."""
    try:
        njit(cache=True)(_can_cache)
    except RuntimeError:
        return False
    return True


def stamp_of(package: Path) -> int:
    """Return a number that follows from the source of a package.

    Every pass in it encloses that, so that Numba's cache on disk, which watches only the file of
    the pass itself, is not mistaken for current when another file there has changed.
    """
    sources = b"".join(path.read_bytes() for path in sorted(package.glob("*.py")))
    return int(hashlib.sha256(sources).hexdigest()[:15], 16)


STAMP = stamp_of(Path(__file__).parent)

OPTIONS = {"cache": _can_cache(), "nogil": True, "error_model": "numpy"}
"""Of a pass."""
COMPILED = {"nogil": True, "error_model": "numpy"}
"""Of a part of one, which is called."""
INLINED = {**COMPILED, "forceinline": True}
"""Of what passes consist of."""
