"""One fit from start to its one report, as every runner in this process does it."""

import logging
import time
from collections.abc import Callable

from gmm_engine.errors import GmmEngineError
from service.domain.fit_task import FitCancelled, FitTask, run_fit_task
from service.domain.ports import FitListener

logger = logging.getLogger(__name__)


def run_and_report(
    task: FitTask,
    listener: FitListener,
    *,
    is_cancelled: Callable[[], bool],
    should_end: Callable[[], bool] = lambda: False,
) -> None:
    """Run the fit and tell the listener how it ended; raises nothing of the fit's own."""
    listener.started()
    begun = time.monotonic()
    try:
        outcome = run_fit_task(
            task,
            on_progress=listener.progressed,
            is_cancelled=is_cancelled,
            should_end=should_end,
        )
    except FitCancelled:
        listener.cancelled()
    except GmmEngineError as error:
        listener.failed(error.code, str(error))
    except MemoryError:
        listener.failed("out_of_memory", "the fit needed more memory than there is")
    except Exception:
        # Whatever broke the fit, whoever waits for the job must hear that it is over.
        logger.exception("fit_broke", extra={"job": task.job_id})
        listener.failed("internal_error", "the fit broke by an unexpected error")
    else:
        listener.finished(outcome, time.monotonic() - begun)
