"""Loaded mixtures, the most recently used ones, by the digest of their parameter file.

A version is immutable and named by its content, so nothing here ever goes stale.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable

from gmm_engine import Mixture
from service.domain.records import VersionRecord


class MixtureCache:
    def __init__(self, load: Callable[[VersionRecord], Mixture], *, max_bytes: int) -> None:
        self._load = load
        self._max_bytes = max_bytes
        self._kept: OrderedDict[str, tuple[Mixture, int]] = OrderedDict()
        self._kept_bytes = 0
        self._lock = threading.Lock()

    def load_mixture(self, version: VersionRecord) -> Mixture:
        """Return the version's mixture, from memory if it is there; errors as the registry's."""
        mixture = self.kept_mixture(version)
        if mixture is None:
            mixture = self._load(version)
            with self._lock:
                self._keep(version, mixture)
        return mixture

    def kept_mixture(self, version: VersionRecord) -> Mixture | None:
        """Return the version's mixture if it is in memory."""
        with self._lock:
            kept = self._kept.get(version.artifact_digest)
            if kept is None:
                return None
            self._kept.move_to_end(version.artifact_digest)
            return kept[0]

    def _keep(self, version: VersionRecord, mixture: Mixture) -> None:
        if version.artifact_digest in self._kept:
            return
        self._kept[version.artifact_digest] = mixture, version.artifact_bytes
        self._kept_bytes += version.artifact_bytes
        while self._kept_bytes > self._max_bytes:
            _, (_, n_bytes) = self._kept.popitem(last=False)
            self._kept_bytes -= n_bytes
