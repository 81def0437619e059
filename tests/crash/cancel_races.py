"""Cancel fits at the moment of their end, again and again: each ends once, one way or the other.

``python -m tests.crash.cancel_races [CYCLES] [--seed SEED]``
"""

import tempfile
import threading
import time
from pathlib import Path
from random import Random

import numpy as np

from service.domain.catalogue import ModelChange
from service.domain.data import Table
from service.domain.records import JobStatus
from service.settings import Settings
from service.wiring import build_services
from tests.crash.report import Report, command_line
from tests.service.rows import TWO_GROUPS

MODEL = "raced"
PATIENCE_SECONDS = 120.0
UNDISTURBED = 2
"""The first fits tell how long one takes: the first of all waits for the worker, too."""
LEAST_CYCLES_FOR_BOTH = 200
"""With so many, each of the two ends must have come."""


class End(threading.Event):
    """Notes when it came."""

    at = 0.0

    def note(self) -> None:
        self.at = time.monotonic()
        self.set()


def main(cycles: int, *, seed: int = 0) -> Report:
    rng, report = Random(seed), Report("cancel against completion")
    table = Table(np.array(TWO_GROUPS, dtype=np.float64))
    with tempfile.TemporaryDirectory() as directory:
        settings = Settings(registry_dir=Path(directory) / "registry", fit_processes=1)
        services = build_services(settings)
        services.start()
        fitting = services.fitting
        services.catalogue.create_model(MODEL, ModelChange({"n_components": 2, "random_state": 0}))
        usual_seconds = 0.0
        for cycle in range(cycles):
            ended, begun = End(), time.monotonic()
            job_id = fitting.start(MODEL, table).id
            fitting.when_done(job_id, ended.note)
            if cycle < UNDISTURBED:
                ended.wait(PATIENCE_SECONDS)
            else:
                time.sleep(rng.uniform(0.0, 1.5 * usual_seconds))
            fitting.cancel(job_id)
            report.hold(ended.wait(PATIENCE_SECONDS), "never ended")
            job = fitting.get_job(job_id)
            if job.status is JobStatus.SUCCEEDED:
                report.acknowledged += 1
                took_seconds = ended.at - begun
                share = 1.0 if cycle < UNDISTURBED else 0.2
                usual_seconds += share * (took_seconds - usual_seconds)
            report.hold(job.status in {JobStatus.SUCCEEDED, JobStatus.CANCELLED}, job.status)
            page = services.catalogue.list_versions(MODEL, page_size=cycles + 1, page_token=None)
            numbers = {version.number for version in page.items if version.job_id == job_id}
            report.hold(numbers == ({job.version} - {None}), "version and end differ")
            report.hold((job.version is None) == (job.status is JobStatus.CANCELLED), "two ends")
            fitting.cancel(job_id)
            report.hold(fitting.get_job(job_id) == job, "ended twice")
            for number in numbers:
                services.catalogue.delete_version(MODEL, number)
            report.cycles += 1
        services.close(0.0)
    if cycles >= LEAST_CYCLES_FOR_BOTH:
        report.hold(0 < report.acknowledged < cycles, "only one of the two ends came")
    return report


if __name__ == "__main__":
    words = command_line(__doc__, cycles=50).parse_args()
    main(words.cycles, seed=words.seed).finish()
