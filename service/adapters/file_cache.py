"""Decoded files, kept while the file on disk stays the same one.

For files that are replaced by a rename and never edited: the signature then tells every content
from the next. Other processes' changes are seen at once.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

from service.adapters.durable_files import Directory, Signature

Decoded = TypeVar("Decoded")

SETTLED_NS = 2_000_000_000
"""A younger file isn't kept: within a tick of the file system's clock, a successor that reuses
its inode could have the same signature."""


def is_settled(changed_ns: int) -> bool:
    return time.time_ns() - changed_ns > SETTLED_NS


class FileCache(Generic[Decoded]):
    """Least recently used first out, bounded by the bytes of the files; safe between threads."""

    def __init__(self, decode: Callable[[bytes], Decoded], *, max_bytes: int) -> None:
        self._decode = decode
        self._max_bytes = max_bytes
        self._bytes = 0
        self._kept: OrderedDict[tuple[str, ...], tuple[Signature, Decoded]] = OrderedDict()
        self._lock = threading.Lock()

    def read(
        self, directory: Directory, name: str, *, key: tuple[str, ...], max_bytes: int
    ) -> Decoded:
        """Return the decoded file; whatever reading or decoding raises is passed on."""
        kept = self._look_up(key, directory.signature(name))
        if kept is not None:
            return kept
        data, signature = directory.read(name, max_bytes=max_bytes)
        decoded = self._decode(data)
        if is_settled(signature.changed_ns):
            self._keep(key, signature, decoded)
        return decoded

    def _look_up(self, key: tuple[str, ...], signature: Signature) -> Decoded | None:
        with self._lock:
            found = self._kept.get(key)
            if found is None or found[0] != signature:
                return None
            self._kept.move_to_end(key)
            return found[1]

    def _keep(self, key: tuple[str, ...], signature: Signature, decoded: Decoded) -> None:
        with self._lock:
            self._drop(key)
            self._kept[key] = (signature, decoded)
            self._bytes += signature.size
            while self._bytes > self._max_bytes:
                self._drop(next(iter(self._kept)))

    def _drop(self, key: tuple[str, ...]) -> None:
        dropped = self._kept.pop(key, None)
        if dropped is not None:
            self._bytes -= dropped[0].size
