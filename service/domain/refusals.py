"""The engine's refusals in the service's words, and one that never echoes what is no name."""

from types import TracebackType

from gmm_engine.errors import (
    GmmEngineError,
    InvalidDataError,
    InvalidParameterError,
    NonFiniteNumberError,
    TooFewSamplesError,
)
from service.domain.identifiers import is_legal_alias
from service.errors import InvalidInput, Issue, NotFound


class engine_refusals:  # noqa: N801  # used like a function; as a generator it took 1 µs more
    """Turn what the engine refuses inside the block into ``InvalidInput``.

    ``fields`` renames the engine's parameters to the request's: ``rng="random_state"``.
    """

    __slots__ = ("_fields",)

    def __init__(self, **fields: str) -> None:
        self._fields = fields

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if isinstance(error, GmmEngineError):
            raise InvalidInput(
                error.code, str(error), issues=_issues_of(error, self._fields)
            ) from error


def _issues_of(error: GmmEngineError, fields: dict[str, str]) -> list[Issue]:
    match error:
        case InvalidDataError(positions=(_, *_)):
            is_named = isinstance(error, NonFiniteNumberError)
            detail = "not a finite number" if is_named else str(error)
            return [
                Issue("#/X" + "".join(f"/{index}" for index in position), error.code, detail)
                for position in error.positions
            ]
        case InvalidParameterError():
            return [Issue(f"#/{fields.get(error.name, error.name)}", error.code, str(error))]
        case TooFewSamplesError() if "n_components" in fields:
            return [Issue(f"#/{fields['n_components']}", error.code, str(error))]
    return []


def no_alias(model_id: str, alias: str) -> NotFound:
    if not is_legal_alias(alias):
        return NotFound("alias_not_found", f"Model '{model_id}' has no such alias.")
    return NotFound.alias(model_id, alias)
