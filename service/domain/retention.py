"""Which versions go when a model has too many: the oldest that no alias names."""

import logging
from collections.abc import Sequence

from service.domain.ports import ModelRegistry
from service.errors import Conflict, NotFound, ServiceError

logger = logging.getLogger(__name__)


class Retention:
    def __init__(self, registry: ModelRegistry, max_versions: int) -> None:
        self._registry = registry
        self._max_versions = max_versions
        """0 keeps all."""

    def collect(self, model_id: str) -> Sequence[int]:
        """Delete what is too many and return its numbers; the newest version always stays."""
        if not self._max_versions:
            return []
        versions = self._registry.list_versions(model_id)
        n_too_many = len(versions) - self._max_versions
        deleted: list[int] = []
        for version in versions[:-1]:
            if len(deleted) >= n_too_many:
                break
            try:
                self._registry.delete_version(model_id, version.number)
            except (Conflict, NotFound):  # an alias names it; or another process was faster
                continue
            deleted.append(version.number)
        return deleted

    def collect_after_commit(self, model_id: str) -> None:
        """Do the same where a failure must not become the fit's; the next commit tries again."""
        try:
            deleted = self.collect(model_id)
        except ServiceError as error:
            logger.warning("collection_failed", extra={"model": model_id, "code": error.code})
            return
        if deleted:
            logger.info("versions_collected", extra={"model": model_id, "versions": deleted})
