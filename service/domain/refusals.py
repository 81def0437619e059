"""The engine's refusals in the service's words, and one that never echoes what is no name."""

from collections.abc import Iterator
from contextlib import contextmanager

from gmm_engine.errors import GmmEngineError, InvalidParameterError, NonFiniteNumberError
from service.domain.identifiers import is_legal_alias
from service.errors import InvalidInput, Issue, NotFound


@contextmanager
def engine_refusals(**fields: str) -> Iterator[None]:
    """Turn what the engine refuses inside the block into ``InvalidInput``.

    ``fields`` renames the engine's parameters to the request's: ``rng="random_state"``.
    """
    try:
        yield
    except GmmEngineError as error:
        raise InvalidInput(error.code, str(error), issues=_issues_of(error, fields)) from error


def _issues_of(error: GmmEngineError, fields: dict[str, str]) -> list[Issue]:
    match error:
        case NonFiniteNumberError():
            return [
                Issue(
                    "#/X" + "".join(f"/{index}" for index in position),
                    error.code,
                    "not a finite number",
                )
                for position in error.positions
            ]
        case InvalidParameterError():
            return [Issue(f"#/{fields.get(error.name, error.name)}", error.code, str(error))]
    return []


def no_alias(model_id: str, alias: str) -> NotFound:
    if not is_legal_alias(alias):
        return NotFound("alias_not_found", f"Model '{model_id}' has no such alias.")
    return NotFound.alias(model_id, alias)
