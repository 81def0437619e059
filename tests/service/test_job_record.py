"""A job's record from its order to its end."""

from dataclasses import replace

import pytest

from gmm_engine import FitOptions
from service.domain.records import (
    FitOrder,
    JobFailure,
    JobProgress,
    JobRecord,
    JobStatus,
    StopWish,
)
from tests.support.records import a_mixture, a_summary

ORDER = FitOrder("uid", FitOptions(random_state=1), "digest")
PROGRESS = JobProgress(
    restart=2, n_init=3, iteration=9, max_iter=50, log_likelihood=-7.0, delta=0.5, eta_seconds=4.0
)


def running() -> JobRecord:
    return replace(JobRecord(id="job", model_id="m", order=ORDER).started(), progress=PROGRESS)


def test_the_progress_of_a_fit_that_succeeded_is_that_of_its_result() -> None:
    summary = a_summary(a_mixture(), log_likelihood_history=[-5.0, -4.5])

    progress = running().succeeded(1, summary).progress

    assert progress is not None
    assert progress.iteration == summary.n_iter
    assert progress.log_likelihood == summary.log_likelihood
    assert progress.delta == 0.5
    assert progress.eta_seconds == 0.0


@pytest.mark.parametrize(
    "ended",
    [
        running().failed(JobFailure("code", "detail")),
        running().cancelled(),
        running().interrupted(),
    ],
    ids=lambda job: str(job.status),
)
def test_a_fit_that_ended_without_a_result_has_no_time_left_and_no_order(ended: JobRecord) -> None:
    assert ended.progress is not None
    assert ended.progress.eta_seconds is None
    assert ended.order is None


def test_a_fit_that_goes_on_waits_again_and_keeps_when_it_began() -> None:
    job = running()

    again = job.resumed()

    assert (again.status, again.n_resumed, again.order) == (JobStatus.QUEUED, 1, ORDER)
    assert again.started().started_at == job.started_at
    assert JobRecord(id="job", model_id="m").resumed().status is JobStatus.QUEUED


def test_a_fit_that_has_not_begun_has_nothing_to_keep() -> None:
    queued = JobRecord(id="job", model_id="m", order=ORDER)

    assert queued.asked_to_stop(StopWish.KEEP_BEST).stop is StopWish.DISCARD
    assert running().asked_to_stop(StopWish.KEEP_BEST).stop is StopWish.KEEP_BEST
    assert running().resumed().asked_to_stop(StopWish.KEEP_BEST).stop is StopWish.KEEP_BEST


def test_to_discard_outweighs_to_keep() -> None:
    once = running().asked_to_stop(StopWish.KEEP_BEST)
    twice = once.asked_to_stop(StopWish.DISCARD)

    assert twice.stop is StopWish.DISCARD
    assert twice.asked_to_stop(StopWish.KEEP_BEST).stop is StopWish.DISCARD


def test_a_fit_that_has_ended_can_not_be_asked_to_stop() -> None:
    ended = running().cancelled()

    assert ended.asked_to_stop(StopWish.DISCARD) is ended
