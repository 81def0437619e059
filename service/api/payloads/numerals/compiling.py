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


STAMP = int(
    hashlib.sha256(
        b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
    ).hexdigest()[:15],
    16,
)
"""Enclosed by every pass, so that Numba's cache on disk, which watches only the file of the pass
itself, is not mistaken for current when another file here has changed."""

OPTIONS = {"cache": _can_cache(), "nogil": True, "error_model": "numpy"}
"""Of a pass."""
INLINED = {"nogil": True, "error_model": "numpy", "forceinline": True}
"""Of what passes consist of."""
