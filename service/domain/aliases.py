"""Names of versions: set, moved, taken back, deleted; every change is kept in their history.

``latest`` is not stored: it follows the versions. Which version answers a request is decided in
``inference``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from service.domain.identifiers import LATEST, is_legal_alias
from service.domain.ports import ModelRegistry
from service.domain.records import MAX_ALIAS_CHANGES, AliasBook, AliasChange, AliasRecord
from service.domain.refusals import no_alias
from service.errors import (
    Conflict,
    InvalidInput,
    Issue,
    NotFound,
    PreconditionFailed,
    Unavailable,
)

MAX_ALIASES = 1000
"""Of one model, deleted ones included: each keeps its history."""


@dataclass(frozen=True, slots=True)
class AliasView:
    """An alias and the version that it names now."""

    model_id: str
    name: str
    version: int
    updated_at: datetime


IsCurrent = Callable[[AliasView | None], bool]
"""Tells whether an alias as it stands, None if it is not set, is the one that a client has seen."""


def any_state(_view: AliasView | None) -> bool:
    return True


class Aliases:
    def __init__(self, registry: ModelRegistry) -> None:
        self._registry = registry

    def list_aliases(self, model_id: str) -> Sequence[AliasView]:
        book = self._registry.get_aliases(model_id)
        views = (_view(model_id, book.alias(name)) for name in book.targets)
        return [view for view in views if view is not None]

    def get_alias(self, model_id: str, name: str) -> AliasView:
        if name == LATEST:
            return self._latest(model_id)
        book = self._registry.get_aliases(model_id)
        return _required(model_id, name, _view(model_id, book.alias(name)))

    def get_history(self, model_id: str, name: str) -> AliasRecord:
        """Return what an alias named, and when; ``latest`` named each version as it was made."""
        if name == LATEST:
            return self._latest_history(model_id)
        alias = self._registry.get_aliases(model_id).alias(name)
        if not alias.history:
            raise no_alias(model_id, name)
        return alias

    def put_alias(
        self, model_id: str, name: str, version: int, *, is_current: IsCurrent = any_state
    ) -> AliasView:
        _require_settable(name)

        def to_version(alias: AliasRecord) -> AliasRecord:
            self._registry.get_version(model_id, version)  # it is there, and whole
            return alias if alias.version == version else alias.moved("set", version)

        return self._changed(model_id, name, to_version, is_current)

    def roll_back(
        self, model_id: str, name: str, *, is_current: IsCurrent = any_state
    ) -> AliasView:
        """Lead the alias back to the version that it named before, past those deleted since."""
        _require_settable(name)

        def to_earlier(alias: AliasRecord) -> AliasRecord:
            if not alias.history:
                raise no_alias(model_id, name)
            for version in alias.earlier_versions():
                if self._is_whole(model_id, version):
                    return alias.moved("rollback", version)
            raise Conflict(
                "nothing_to_roll_back_to",
                f"Alias '{name}' of model '{model_id}' named no other version before that is "
                "still there.",
            )

        return self._changed(model_id, name, to_earlier, is_current)

    def delete_alias(self, model_id: str, name: str, *, is_current: IsCurrent = any_state) -> None:
        _require_settable(name)

        def removed(alias: AliasRecord) -> AliasRecord:
            if alias.version is None:
                raise no_alias(model_id, name)
            return alias.moved("delete", None)

        self._change(model_id, name, removed, is_current)

    def _changed(
        self,
        model_id: str,
        name: str,
        change: Callable[[AliasRecord], AliasRecord],
        is_current: IsCurrent,
    ) -> AliasView:
        book = self._change(model_id, name, change, is_current)
        return _required(model_id, name, _view(model_id, book.alias(name)))

    def _change(
        self,
        model_id: str,
        name: str,
        change: Callable[[AliasRecord], AliasRecord],
        is_current: IsCurrent,
    ) -> AliasBook:
        def changed(book: AliasBook) -> AliasBook:
            alias = book.alias(name)
            if not is_current(_view(model_id, alias)):
                raise PreconditionFailed(
                    "precondition_failed",
                    "the alias is not the one that the request's condition names; get it again",
                )
            if name not in book.aliases and len(book.aliases) >= MAX_ALIASES:
                raise Conflict("too_many_aliases", f"A model has at most {MAX_ALIASES} aliases.")
            return book.with_alias(change(alias))

        return self._registry.update_aliases(model_id, changed)

    def _is_whole(self, model_id: str, version: int) -> bool:
        try:
            self._registry.get_version(model_id, version)
        except (NotFound, Unavailable):  # deleted, or damaged
            return False
        return True

    def _latest(self, model_id: str) -> AliasView:
        latest = self._registry.latest_version(model_id)
        if latest is None:
            raise no_alias(model_id, LATEST)
        return AliasView(model_id, LATEST, latest.number, latest.created_at)

    def _latest_history(self, model_id: str) -> AliasRecord:
        versions = self._registry.list_versions(model_id)[-MAX_ALIAS_CHANGES:]
        if not versions:
            raise no_alias(model_id, LATEST)
        changes = [AliasChange("set", version.number, version.created_at) for version in versions]
        return AliasRecord(LATEST, changes)


def _view(model_id: str, alias: AliasRecord) -> AliasView | None:
    if alias.version is None:
        return None
    return AliasView(model_id, alias.name, alias.version, alias.history[-1].changed_at)


def _required(model_id: str, name: str, view: AliasView | None) -> AliasView:
    if view is None:
        raise no_alias(model_id, name)
    return view


def _require_settable(name: str) -> None:
    if name == LATEST:
        raise Conflict(
            "alias_reserved", f"'{LATEST}' is the newest version by itself; choose another name."
        )
    if not is_legal_alias(name):
        detail = (
            "an alias has 1 to 63 lower-case letters, digits, dots, underscores and hyphens, and "
            "begins with a letter or digit"
        )
        raise InvalidInput(
            "invalid_parameter", detail, issues=[Issue("#/path/alias", "invalid_value", detail)]
        )
