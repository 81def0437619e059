"""Every stored byte of a registry held against its digests: what ``registry fsck`` runs.

Reads only. What a running service changes meanwhile is no fault: what is gone when it is looked at
was deleted.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from service.adapters.registry_files import FileRegistry
from service.errors import NotFound, ServiceError


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at, and what is wrong with it, if anything."""

    model_id: str
    what: str
    """``model``, ``aliases``, ``alias champion``, ``versions`` or ``version 3``."""
    fault: str | None = None
    """The code of the refusal that it would be answered with."""


def findings(registry: FileRegistry) -> Iterator[Finding]:
    for model_id in registry.stored_models():
        looks = {
            "model": partial(_model, registry, model_id),
            "aliases": partial(_aliases, registry, model_id),
            "versions": partial(_versions, registry, model_id),
        }
        for what, look in looks.items():
            try:
                yield from look()
            except NotFound:  # deleted meanwhile
                break
            except ServiceError as error:
                yield Finding(model_id, what, error.code)


def _model(registry: FileRegistry, model_id: str) -> Iterator[Finding]:
    registry.get_model(model_id)
    yield Finding(model_id, "model")


def _aliases(registry: FileRegistry, model_id: str) -> Iterator[Finding]:
    book = registry.get_aliases(model_id)
    yield Finding(model_id, "aliases")
    for alias, number in book.targets.items():
        is_there = number in registry.stored_versions(model_id)
        if not is_there and registry.get_aliases(model_id).targets.get(alias) == number:
            yield Finding(model_id, f"alias {alias}", "version_not_found")


def _versions(registry: FileRegistry, model_id: str) -> Iterator[Finding]:
    for number in registry.stored_versions(model_id):
        what = f"version {number}"
        try:
            registry.load_mixture(registry.get_version(model_id, number))
        except NotFound:  # deleted meanwhile; if the whole model was, the next look says so
            continue
        except ServiceError as error:
            yield Finding(model_id, what, error.code)
        else:
            yield Finding(model_id, what)
