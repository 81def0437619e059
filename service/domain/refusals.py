"""The engine's refusals in the service's words, and one that never echoes what is no name."""

from collections.abc import Sequence
from types import TracebackType

from gmm_engine.errors import (
    GmmEngineError,
    InvalidDataError,
    InvalidParameterError,
    NonFiniteNumberError,
    TooFewSamplesError,
)
from service.domain.data import Table
from service.domain.identifiers import is_legal_alias
from service.errors import InvalidInput, Issue, NotFound


class engine_refusals:  # noqa: N801  # used like a function; as a generator it took 1 µs more
    """Turn what the engine refuses inside the block into ``InvalidInput``.

    What it refuses of a ``table`` that is ``ordered_as(feature_names)`` is told where it was sent.
    ``place`` points at other data that the block is about. ``fields`` renames the engine's
    parameters to the request's: ``rng="random_state"``.
    """

    __slots__ = ("_feature_names", "_fields", "_place", "_table")

    def __init__(
        self,
        table: Table | None = None,
        feature_names: Sequence[str] | None = None,
        /,
        *,
        place: str | None = None,
        **fields: str,
    ) -> None:
        self._table, self._feature_names = table, feature_names
        self._place, self._fields = place, fields

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if isinstance(error, GmmEngineError):
            raise self._refusal(error) from error

    def _refusal(self, error: GmmEngineError) -> InvalidInput:
        table = self._table
        if table is None or not isinstance(error, InvalidDataError) or not error.positions:
            issues = _issues_of(error, self._place, self._fields)
            return InvalidInput(error.code, str(error), issues=issues)
        places = [table.sent_at(position, self._feature_names) for position in error.positions]
        detail = str(error.at(places))
        reason = "not a finite number" if isinstance(error, NonFiniteNumberError) else detail
        issues = [
            Issue("/".join(["#", table.origin.member, *map(str, place)]), error.code, reason)
            for place in places
        ]
        return InvalidInput(error.code, detail, issues=issues)


def _issues_of(error: GmmEngineError, place: str | None, fields: dict[str, str]) -> list[Issue]:
    match error:
        case InvalidParameterError(positions=[_, *_]):
            field = fields.get(error.name, error.name)
            return [
                Issue("/".join(["#", field, *map(str, position)]), error.code, error.problem)
                for position in error.positions
            ]
        case InvalidParameterError():
            return [Issue(f"#/{fields.get(error.name, error.name)}", error.code, str(error))]
        case TooFewSamplesError() if "n_components" in fields:
            return [Issue(f"#/{fields['n_components']}", error.code, str(error))]
        case InvalidDataError() if place is not None:
            return [Issue(place, error.code, str(error))]
    return []


def no_alias(model_id: str, alias: str) -> NotFound:
    if not is_legal_alias(alias):
        return NotFound("alias_not_found", f"Model '{model_id}' has no such alias.")
    return NotFound.alias(model_id, alias)
