"""What every store of jobs promises, held over each of them."""

import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from service.adapters.job_store_memory import MemoryJobStore
from service.domain.ports import JobStore
from service.domain.records import (
    FitSummary,
    FitWarningRecord,
    IllegalTransition,
    JobFailure,
    JobProgress,
    JobRecord,
    JobStatus,
    StopWish,
)
from service.errors import Conflict, NotFound
from tests.support.databases import DATABASES, store_in

PATIENCE_SECONDS = 20.0
PROGRESS = JobProgress(
    restart=0,
    n_init=1,
    iteration=3,
    max_iter=9,
    log_likelihood=-1.5,
    delta=0.1,
    eta_seconds=2.0,
)
SUMMARY = FitSummary(
    converged=True,
    stop_reason="converged",
    n_iter=2,
    n_samples=8.0,
    n_features=2,
    n_parameters=11,
    log_likelihood=-1.0 / 3.0,
    mean_log_likelihood=-1.0 / 24.0,
    bic=1.0,
    aic=2.0,
    aicc=float("inf"),
    icl=3.0,
    log_likelihood_history=(-0.5, -1.0 / 3.0),
    weights=(0.25, 0.75),
    warnings=(FitWarningRecord("constant_feature", "a feature is constant"),),
    duration_seconds=0.1,
)


@pytest.fixture(params=["memory", *DATABASES])
def store(request: pytest.FixtureRequest) -> Iterator[JobStore]:
    if request.param == "memory":
        yield MemoryJobStore(max_ended_jobs=2)
        return
    with store_in(request, request.param, max_ended_jobs=2) as store:
        yield store


def ended(job: JobRecord) -> JobRecord:
    return job.failed(JobFailure("broken", "it broke"))


def test_a_job_is_found_again(store: JobStore) -> None:
    job = JobRecord(id="job", model_id="m")
    store.add(job)

    assert store.get("job") == job
    with pytest.raises(NotFound):
        store.get("nowhere")


def test_jobs_are_listed_the_newest_first(store: JobStore) -> None:
    for number, model in enumerate("aba"):
        store.add(JobRecord(id=f"job-{number}", model_id=model))

    assert [job.id for job in store.list()] == ["job-2", "job-1", "job-0"]
    assert [job.id for job in store.list(model_id="a")] == ["job-2", "job-0"]


def test_an_illegal_step_changes_nothing(store: JobStore) -> None:
    store.add(JobRecord(id="job", model_id="m"))
    store.update("job", ended)

    with pytest.raises(IllegalTransition):
        store.update("job", JobRecord.started)

    assert store.get("job").status is JobStatus.FAILED


def test_of_many_racing_steps_one_is_taken(store: JobStore) -> None:
    store.add(JobRecord(id="job", model_id="m"))
    taken: list[int] = []

    def race(number: int) -> None:
        try:
            store.update("job", JobRecord.started)
            taken.append(number)
        except IllegalTransition:
            return

    racers = [threading.Thread(target=race, args=(number,)) for number in range(20)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()

    assert len(taken) == 1


def test_every_field_of_a_job_is_kept(store: JobStore) -> None:
    store.add(JobRecord(id="job", model_id="m"))
    store.update("job", JobRecord.started)
    store.note_progress("job", PROGRESS)

    ended = store.update("job", lambda job: job.succeeded(3, SUMMARY))

    assert store.get("job") == ended
    assert ended.summary == SUMMARY
    assert ended.progress == PROGRESS.at_the_end(SUMMARY)


def test_progress_is_seen_at_once_and_never_after_the_end(store: JobStore) -> None:
    store.add(JobRecord(id="job", model_id="m"))
    store.update("job", JobRecord.started)
    store.note_progress("job", PROGRESS)
    assert store.get("job").progress == PROGRESS
    assert store.list()[0].progress == PROGRESS

    store.update("job", ended)
    later = JobProgress(1, 1, 1, 1, 0.0, None, None)
    store.note_progress("job", later)
    store.note_progress("nowhere", later)

    assert store.get("job").progress == replace(PROGRESS, eta_seconds=None)


def test_who_reports_progress_hears_that_the_job_is_to_stop(store: JobStore) -> None:
    store.add(JobRecord(id="job", model_id="m"))
    store.update("job", JobRecord.started)
    store.update("job", lambda job: job.asked_to_stop(StopWish.KEEP_BEST))

    told = store.note_progress("job", PROGRESS)
    store.update("job", ended)

    assert told is not None
    assert told.stop is StopWish.KEEP_BEST
    assert store.note_progress("job", PROGRESS) is None


def test_jobs_that_are_done_are_told_from_the_others(store: JobStore) -> None:
    for name in ("one", "two"):
        store.add(JobRecord(id=name, model_id="m"))
    store.update("one", ended)

    assert [job.id for job in store.list(is_done=True)] == ["one"]
    assert [job.id for job in store.list(is_done=False, model_id="m")] == ["two"]


def test_the_end_is_told_once_also_when_it_has_been(store: JobStore) -> None:
    store.add(JobRecord(id="job", model_id="m"))
    told: list[str] = []
    store.when_done("job", lambda: told.append("early"))
    forget = store.when_done("job", lambda: told.append("taken back"))
    forget()
    forget()

    store.update("job", JobRecord.started)
    store.update("job", ended)
    store.when_done("job", lambda: told.append("late"))

    assert told == ["early", "late"]


def test_a_job_that_must_be_alone_waits_for_no_other(store: JobStore) -> None:
    store.add(JobRecord(id="job", model_id="m"))
    store.add(JobRecord(id="elsewhere", model_id="n"), is_alone=False)
    with pytest.raises(Conflict) as refused:
        store.add(JobRecord(id="refused", model_id="m"), is_alone=True)
    assert refused.value.code == "fit_in_progress"

    store.update("job", ended)
    store.add(JobRecord(id="alone", model_id="m"), is_alone=True)

    assert [job.id for job in store.list(is_done=False)] == ["alone", "elsewhere"]


def test_of_many_racing_jobs_that_must_be_alone_one_is_stored(store: JobStore) -> None:
    refused: list[str] = []

    def race(number: int) -> None:
        try:
            store.add(JobRecord(id=f"job-{number}", model_id="m"), is_alone=True)
        except Conflict as error:
            refused.append(error.code)

    racers = [threading.Thread(target=race, args=(number,)) for number in range(20)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()

    assert len(store.list()) == 1
    assert refused == ["fit_in_progress"] * 19


def test_a_removed_job_is_gone(store: JobStore) -> None:
    store.add(JobRecord(id="job", model_id="m"))
    store.remove("job")
    store.remove("job")

    assert store.list() == []


def test_who_waits_for_a_job_is_told_that_it_is_removed(store: JobStore) -> None:
    store.add(JobRecord(id="job", model_id="m"))
    told: list[bool] = []
    store.when_done("job", lambda: told.append(True))

    store.remove("job")

    assert told == [True]


def test_each_change_is_told_until_that_is_taken_back(store: JobStore) -> None:
    store.add(JobRecord(id="job", model_id="m"))
    told: list[JobStatus] = []
    forget = store.when_changed("job", lambda: told.append(JobStatus.RUNNING))

    store.update("job", JobRecord.started)
    store.note_progress("job", PROGRESS)
    forget()
    store.update("job", ended)

    assert len(told) == 2
    with pytest.raises(NotFound):
        store.when_changed("nowhere", lambda: None)


def test_the_jobs_of_a_living_process_are_not_abandoned(store: JobStore) -> None:
    store.add(JobRecord(id="job", model_id="m"))

    assert store.abandoned() == []


def test_the_oldest_ended_jobs_are_forgotten_and_running_ones_never(store: JobStore) -> None:
    store.add(JobRecord(id="running", model_id="m"))
    for number in range(4):
        store.add(JobRecord(id=f"job-{number}", model_id="m"))
        store.update(f"job-{number}", ended)

    assert [job.id for job in store.list()] == ["job-3", "job-2", "running"]
