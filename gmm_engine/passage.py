"""How what a caller's functions raise comes out as it was raised.

Between a caller's function and the caller there are generators, and out of these a
``StopIteration`` comes as a ``RuntimeError`` (PEP 479). It is carried past them.
"""

from collections.abc import Callable
from types import TracebackType
from typing import ParamSpec, Self, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class _CarriedError(Exception):
    def __init__(self, door: "Passage", error: StopIteration) -> None:
        super().__init__(error)
        self.door, self.error = door, error


class Passage:
    """A context in which a caller's functions are called, each ``through`` it."""

    def __enter__(self) -> Self:
        return self

    def through(self, function: Callable[P, T] | None) -> Callable[P, T] | None:
        """Return the same function, of which whatever it raises leaves the context."""
        if function is None:
            return None

        def called(*args: P.args, **kwargs: P.kwargs) -> T:
            try:
                return function(*args, **kwargs)
            except StopIteration as error:
                raise _CarriedError(self, error) from error

        return called

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if isinstance(error, _CarriedError) and error.door is self:
            raise error.error from None
