"""Which versions failed their integrity check: remembered until their parameter file is another.

A version is answered for without looking at its file; what was once found in it is not forgotten.
"""

import threading
from collections import OrderedDict

from service.adapters.durable_files import Directory, Signature
from service.adapters.registry_layout import PARAMETERS_FILE
from service.domain.records import VersionRecord

MAX_REMEMBERED = 10_000
"""Versions; those found first are forgotten."""


class KnownDamage:
    """Safe between threads."""

    def __init__(self) -> None:
        self._found: OrderedDict[tuple[str, int], Signature | None] = OrderedDict()
        """The file as it was, None where there was none, by model and number."""
        self._lock = threading.Lock()

    def note(self, version: VersionRecord, signature: Signature | None) -> None:
        with self._lock:
            self._found[_key(version)] = signature
            self._found.move_to_end(_key(version))
            if len(self._found) > MAX_REMEMBERED:
                self._found.popitem(last=False)

    def has(self, version: VersionRecord) -> bool:
        """Tell whether the version, or one of its number before it, was found damaged."""
        with self._lock:
            return _key(version) in self._found

    def is_still(self, version: VersionRecord, directory: Directory) -> bool:
        """Tell whether the file that was found damaged is the one in the version's directory."""
        signature = signature_of(directory)
        with self._lock:
            if self._found.get(_key(version), ...) == signature:
                return True
            self._found.pop(_key(version), None)
            return False


def signature_of(directory: Directory) -> Signature | None:
    """Return what tells a version's parameter file from others; None where there is none."""
    try:
        return directory.signature(PARAMETERS_FILE)
    except FileNotFoundError:
        return None


def _key(version: VersionRecord) -> tuple[str, int]:
    return version.model_id, version.number
