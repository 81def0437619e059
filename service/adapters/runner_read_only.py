"""No fits: for a registry that can't be written, where none could end in a version."""

from collections.abc import Callable

from service.adapters import refusals
from service.domain.fit_task import FitTask
from service.domain.ports import FitListener
from service.domain.records import FitOrder


class ReadOnlyRunner:
    """Implements ``JobRunner``."""

    def start(self) -> None:
        pass

    def require_place(self) -> None:
        raise refusals.registry_read_only()

    def submit(
        self,
        task: FitTask,  # noqa: ARG002  # whichever
        listener: FitListener,  # noqa: ARG002  # whichever
        *,
        is_held: bool = False,  # noqa: ARG002  # whichever
    ) -> None:
        self.require_place()

    def resume(
        self,
        job_id: str,  # noqa: ARG002  # whichever
        order: FitOrder,  # noqa: ARG002  # whichever
        listener: FitListener,  # noqa: ARG002  # whichever
        *,
        is_held: bool = False,  # noqa: ARG002  # whichever
    ) -> bool:
        return False

    def admit(self, job_id: str) -> None:
        pass

    def clear(self, is_open: Callable[[str], bool]) -> None:
        pass

    def cancel(self, job_id: str, *, keep_best: bool = False) -> None:
        pass

    def check_usable(self) -> None:
        raise refusals.registry_read_only()

    def close(self, timeout_seconds: float) -> None:
        pass
