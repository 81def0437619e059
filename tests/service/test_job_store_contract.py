"""What every store of jobs promises."""

import threading
import time

import pytest

from service.adapters.job_store_memory import MemoryJobStore
from service.domain.ports import JobStore
from service.domain.records import IllegalTransition, JobFailure, JobRecord, JobStatus
from service.errors import NotFound


@pytest.fixture
def store() -> JobStore:
    return MemoryJobStore()


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


def test_waiting_ends_with_the_job(store: JobStore) -> None:
    store.add(JobRecord(id="job", model_id="m"))
    threading.Timer(0.1, lambda: store.update("job", ended)).start()
    begun = time.monotonic()

    assert store.wait("job", 20.0).is_done
    assert time.monotonic() - begun < 10.0


def test_waiting_ends_with_the_time(store: JobStore) -> None:
    store.add(JobRecord(id="job", model_id="m"))

    assert not store.wait("job", 0.01).is_done


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


def test_a_removed_job_is_gone(store: JobStore) -> None:
    store.add(JobRecord(id="job", model_id="m"))
    store.remove("job")
    store.remove("job")

    assert store.list() == []


def test_the_oldest_ended_jobs_are_forgotten_and_running_ones_never() -> None:
    store = MemoryJobStore(max_ended_jobs=2)
    store.add(JobRecord(id="running", model_id="m"))
    for number in range(4):
        store.add(JobRecord(id=f"job-{number}", model_id="m"))
        store.update(f"job-{number}", ended)

    assert [job.id for job in store.list()] == ["job-3", "job-2", "running"]
