"""What every runner of fits promises, held over each of them."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from gmm_engine import FitOptions, FitResult, StopReason, fit
from gmm_engine.preprocessing import Preprocessing
from service.adapters.fit_spool import FitSpool
from service.adapters.runner_inline import InlineRunner
from service.adapters.runner_process import ProcessRunner, WorkerLimits
from service.domain.fit_task import FitOutcome, FitTask, digest_of, run_fit_task
from service.domain.ports import JobRunner
from service.domain.records import FitOrder, JobProgress, SelectionPlan, SelectionRecord
from service.errors import TooManyRequests, Unavailable
from tests.service.rows import TWO_GROUPS
from tests.support.records import is_same_mixture

PATIENCE_SECONDS = 60.0


@dataclass
class Recorder:
    """A listener that writes down what it hears."""

    heard: list[str] = field(default_factory=list)
    results: list[FitResult] = field(default_factory=list)
    selections: list[SelectionRecord | None] = field(default_factory=list)
    failures: list[tuple[str, str]] = field(default_factory=list)
    progress: list[JobProgress] = field(default_factory=list)
    on_progress: Callable[[], None] = lambda: None
    ended: threading.Event = field(default_factory=threading.Event)

    def started(self) -> None:
        self.heard.append("started")

    def progressed(self, progress: JobProgress) -> None:
        self.progress.append(progress)
        self.on_progress()

    def finished(self, outcome: FitOutcome, duration_seconds: float) -> None:
        self.results.append(outcome.result)
        self.selections.append(outcome.selection)
        assert duration_seconds > 0
        self._end("finished")

    def failed(self, code: str, detail: str) -> None:
        self.failures.append((code, detail))
        self._end("failed")

    def cancelled(self) -> None:
        self._end("cancelled")

    def wait(self) -> str:
        assert self.ended.wait(PATIENCE_SECONDS)
        return self.heard[-1]

    def _end(self, how: str) -> None:
        self.heard.append(how)
        self.ended.set()


def task(
    job_id: str = "job", *, X: object = TWO_GROUPS, options: FitOptions | None = None
) -> FitTask:
    chosen = options or FitOptions(n_components=2, random_state=0)
    return FitTask(job_id=job_id, options=chosen, X=np.array(X, dtype=np.float64))


def long_task(job_id: str = "job") -> FitTask:
    """Return a fit of many thousand steps: overlapping components that creep to the limit."""
    X = np.random.default_rng(0).normal(size=(2000, 2))
    return task(
        job_id, X=X, options=FitOptions(n_components=8, tol=0.0, max_iter=100_000, random_state=0)
    )


def middling_task(job_id: str) -> FitTask:
    """Return a fit of some hundred steps, accelerated ones among them."""
    return replace(long_task(job_id), options=replace(long_task().options, tol=1e-14, max_iter=400))


def order_of(task: FitTask) -> FitOrder:
    return FitOrder("uid", task.options, digest_of(task.X, task.sample_weight))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProcessRunner]:
    """One worker and room for one fit in the queue; for tests that leave it open."""
    runner = ProcessRunner(
        processes=1, queue_size=1, spool=FitSpool(tmp_path_factory.mktemp("spool"))
    )
    runner.start()
    yield runner
    runner.close(0.0)


@pytest.fixture(params=["inline", "process"])
def runner(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[JobRunner]:
    runner: JobRunner = InlineRunner()
    if request.param == "process":
        runner = ProcessRunner(processes=1, queue_size=8, spool=FitSpool(tmp_path))
        runner.start()
    yield runner
    runner.close(0.0)


@pytest.fixture
def single(tmp_path: Path) -> Iterator[ProcessRunner]:
    runner = ProcessRunner(processes=1, queue_size=1, spool=FitSpool(tmp_path))
    runner.start()
    yield runner
    runner.close(0.0)


def test_a_fit_is_started_followed_and_finished(runner: JobRunner) -> None:
    listener = Recorder()

    runner.submit(task(), listener)

    assert listener.wait() == "finished"
    assert listener.heard == ["started", "finished"]
    assert listener.progress
    direct = fit(np.array(TWO_GROUPS), FitOptions(n_components=2, random_state=0))
    assert np.array_equal(listener.results[0].mixture.means, direct.mixture.means)


def test_a_selection_tells_who_leads_and_hands_over_its_table_with_the_best(
    runner: JobRunner,
) -> None:
    listener = Recorder()
    plan = SelectionPlan((1, 2), ("full", "spherical"), "bic", 5)

    runner.submit(replace(task(), plan=plan), listener)

    assert listener.wait() == "finished"
    (result,), (selection,) = listener.results, listener.selections
    assert selection is not None
    assert selection.plan == plan
    assert [candidate.n_components for candidate in selection.candidates] == [1, 1, 2, 2]
    assert selection.best.n_components == result.mixture.n_components
    assert selection.best.value == pytest.approx(result.criteria.bic, rel=1e-12)
    boards = [progress.leaderboard for progress in listener.progress]
    assert all(board is not None and board.n_candidates == 4 for board in boards)


def test_an_engine_s_refusal_is_a_failure_with_its_code(runner: JobRunner) -> None:
    listener = Recorder()

    runner.submit(task(X=[[1.0, 2.0]]), listener)

    assert listener.wait() == "failed"
    assert listener.failures[0][0] == "too_few_samples"


def test_an_unexpected_error_is_a_failure_that_tells_nothing_of_it(
    runner: JobRunner, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> None:
        raise RuntimeError("xqz7")

    listener = Recorder(on_progress=broken)

    runner.submit(task(), listener)

    assert listener.wait() == "failed"
    code, detail = listener.failures[0]
    assert code == "internal_error"
    assert "xqz7" not in detail
    assert "xqz7" in caplog.text


def test_a_running_fit_stops_between_two_steps_when_asked(runner: JobRunner) -> None:
    listener = Recorder()
    listener.on_progress = lambda: runner.cancel("job")

    runner.submit(long_task(), listener)

    assert listener.wait() == "cancelled"
    assert len(listener.progress) <= 3


def test_a_running_fit_finishes_with_the_best_it_has_when_asked(runner: JobRunner) -> None:
    listener = Recorder()
    listener.on_progress = lambda: runner.cancel("job", keep_best=True)

    runner.submit(long_task(), listener)

    assert listener.wait() == "finished"
    result = listener.results[0]
    assert result.stop_reason is StopReason.CANCELLED
    assert 1 <= result.n_iter < 100_000
    assert np.isfinite(result.log_likelihood)


def test_a_fit_that_is_to_keep_its_best_can_still_be_cancelled(runner: JobRunner) -> None:
    listener = Recorder()

    def ask_twice() -> None:
        runner.cancel("job", keep_best=True)
        runner.cancel("job")

    listener.on_progress = ask_twice
    runner.submit(long_task(), listener)

    assert listener.wait() == "cancelled"


def test_cancelling_what_is_not_there_does_nothing(runner: JobRunner) -> None:
    runner.cancel("nowhere")
    listener = Recorder()
    runner.submit(task(), listener)
    listener.wait()
    runner.cancel("job")

    assert listener.heard == ["started", "finished"]


def test_fits_end_each_for_itself(runner: JobRunner) -> None:
    listeners = [Recorder() for _ in range(5)]

    for number, listener in enumerate(listeners):
        X = TWO_GROUPS if number % 2 else [[1.0, 2.0]]
        runner.submit(task(f"job-{number}", X=X), listener)

    ends = [listener.wait() for listener in listeners]
    assert ends == ["failed", "finished", "failed", "finished", "failed"]


def test_a_closed_runner_takes_no_more(runner: JobRunner) -> None:
    runner.close(1.0)

    with pytest.raises(Unavailable) as refused:
        runner.submit(task(), Recorder())
    assert refused.value.code == "draining"


def test_what_is_not_there_can_not_be_gone_on_with(runner: JobRunner) -> None:
    listener = Recorder()

    assert not runner.resume("nowhere", order_of(task()), listener)

    assert listener.heard == []


def test_closing_lets_go_of_what_is_left_and_another_runner_goes_on_with_it(
    tmp_path: Path,
) -> None:
    limits = WorkerLimits(checkpoint_seconds=0.0)
    spool, left, queued = FitSpool(tmp_path), Recorder(), Recorder()
    before = ProcessRunner(processes=1, queue_size=1, spool=spool, limits=limits)
    before.start()
    interrupted = middling_task("left")
    before.submit(interrupted, left)
    until = time.monotonic() + PATIENCE_SECONDS
    while not spool.checkpoint("left").exists():
        assert time.monotonic() < until
        time.sleep(0.01)
    before.submit(task("queued"), queued)

    before.close(0.05)

    after = ProcessRunner(processes=1, queue_size=1, spool=FitSpool(tmp_path))
    after.start()
    gone_on, begun = Recorder(), Recorder()
    assert after.resume("left", order_of(interrupted), gone_on)
    assert after.resume("queued", order_of(task("queued")), begun)
    assert (gone_on.wait(), begun.wait()) == ("finished", "finished")
    after.close(PATIENCE_SECONDS)
    assert (left.heard, queued.heard) == (["started"], [])
    assert gone_on.progress[0].iteration > 0
    whole = fit(interrupted.X, interrupted.options)
    assert is_same_mixture(gone_on.results[0].mixture, whole.mixture)
    assert np.array_equal(gone_on.results[0].log_likelihoods, whole.log_likelihoods)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "kind",
    [
        {},
        {"plan": SelectionPlan((2, 3), ("full", "diag"), "bic", 5)},
    ],
    ids=["fit", "selection"],
)
def test_what_is_cut_off_over_mapped_rows_ends_in_the_same_bits(
    tmp_path: Path, kind: dict[str, SelectionPlan]
) -> None:
    mapping = Preprocessing(standardize=True, pca_components=1)
    limits, spool = WorkerLimits(checkpoint_seconds=0.0), FitSpool(tmp_path)
    long = middling_task("cut")
    cut = replace(long, X=long.X[:400], preprocessing=mapping, plan=kind.get("plan"))
    order = replace(order_of(cut), plan=cut.plan, preprocessing=mapping)
    begun, cut_off = threading.Event(), Recorder()
    cut_off.on_progress = begun.set
    before = ProcessRunner(processes=1, queue_size=1, spool=spool, limits=limits)
    before.start()
    before.submit(cut, cut_off)
    assert begun.wait(PATIENCE_SECONDS)
    before.close(0.0)

    after = ProcessRunner(processes=1, queue_size=1, spool=FitSpool(tmp_path))
    after.start()
    gone_on = Recorder()
    assert after.resume("cut", order, gone_on)
    assert gone_on.wait() == "finished"
    after.close(PATIENCE_SECONDS)
    whole = run_fit_task(cut, on_progress=lambda _: None, is_cancelled=lambda: False)
    for name, array in whole.result.mixture.to_arrays().items():
        assert np.array_equal(gone_on.results[0].mixture.to_arrays()[name], array), name
    assert values_of(gone_on.selections[0]) == values_of(whole.selection)


def values_of(selection: SelectionRecord | None) -> list[float | None]:
    return [] if selection is None else [each.value for each in selection.candidates]


def test_what_was_cut_off_keeps_its_best_when_it_is_cancelled_in_the_queue(tmp_path: Path) -> None:
    limits = WorkerLimits(checkpoint_seconds=0.0)
    spool, running, begun = FitSpool(tmp_path), Recorder(), threading.Event()
    before = ProcessRunner(processes=1, queue_size=1, spool=spool, limits=limits)
    before.start()
    before.submit(middling_task("cut"), Recorder())
    until = time.monotonic() + PATIENCE_SECONDS
    while not spool.checkpoint("cut").exists():
        assert time.monotonic() < until
        time.sleep(0.01)
    before.close(0.0)
    after = ProcessRunner(processes=1, queue_size=1, spool=FitSpool(tmp_path))
    after.start()
    running.on_progress = begun.set
    after.submit(long_task("running"), running)
    assert begun.wait(PATIENCE_SECONDS)
    cut = Recorder()
    assert after.resume("cut", order_of(middling_task("cut")), cut)

    after.cancel("cut", keep_best=True)
    after.cancel("running")

    assert (running.wait(), cut.wait()) == ("cancelled", "finished")
    assert cut.results[0].stop_reason is StopReason.CANCELLED
    after.close(PATIENCE_SECONDS)


def test_a_held_fit_begins_when_it_is_admitted_and_others_go_past_it(runner: JobRunner) -> None:
    held, other = Recorder(), Recorder()
    runner.submit(task("held"), held, is_held=True)
    runner.submit(task("other"), other)
    assert other.wait() == "finished"
    assert held.heard == []

    runner.admit("nowhere")
    runner.admit("held")

    assert held.wait() == "finished"


def test_a_held_fit_can_be_cancelled(runner: JobRunner) -> None:
    held = Recorder()
    runner.submit(task("held"), held, is_held=True)

    runner.cancel("held")
    runner.admit("held")

    assert held.heard == ["cancelled"]


def test_closing_does_not_wait_for_a_held_fit(tmp_path: Path) -> None:
    runner = ProcessRunner(processes=1, queue_size=1, spool=FitSpool(tmp_path))
    runner.start()
    held = Recorder()
    runner.submit(task("held"), held, is_held=True)
    begun = time.monotonic()

    runner.close(PATIENCE_SECONDS)

    assert time.monotonic() - begun < PATIENCE_SECONDS / 2
    assert held.heard == []
    after = ProcessRunner(processes=1, queue_size=1, spool=FitSpool(tmp_path))
    after.start()
    assert after.resume("held", order_of(task()), held)
    assert held.wait() == "finished"
    after.close(PATIENCE_SECONDS)


def test_closing_lets_a_short_fit_end(single: ProcessRunner) -> None:
    listener = Recorder()
    single.submit(task(), listener)

    single.close(PATIENCE_SECONDS)

    assert listener.heard == ["started", "finished"]


def test_a_full_queue_refuses_at_once(shared: ProcessRunner) -> None:
    running, queued, begun = Recorder(), Recorder(), threading.Event()
    running.on_progress = begun.set
    shared.submit(long_task("running"), running)
    assert begun.wait(PATIENCE_SECONDS)
    shared.submit(task("queued"), queued)

    with pytest.raises(TooManyRequests) as refused:
        shared.submit(task("refused"), Recorder())

    assert refused.value.code == "fit_queue_full"
    assert refused.value.retry_after_seconds is not None
    shared.cancel("running")
    assert (running.wait(), queued.wait()) == ("cancelled", "finished")


def test_a_queued_fit_is_cancelled_before_it_begins(shared: ProcessRunner) -> None:
    running, queued, begun = Recorder(), Recorder(), threading.Event()
    running.on_progress = begun.set
    shared.submit(long_task("running"), running)
    assert begun.wait(PATIENCE_SECONDS)
    shared.submit(task("queued"), queued)

    shared.cancel("queued")

    assert queued.heard == ["cancelled"]
    shared.cancel("running")
    assert running.wait() == "cancelled"


def test_a_listener_that_breaks_does_not_stop_the_next_fit(
    single: ProcessRunner, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Recorder):
        def finished(self, outcome: FitOutcome, duration_seconds: float) -> None:
            super().finished(outcome, duration_seconds)
            raise RuntimeError("the listener broke")

    broken, next_one = Broken(), Recorder()
    single.submit(task("first"), broken)
    broken.wait()
    single.submit(task("second"), next_one)

    assert next_one.wait() == "finished"
    assert "the listener broke" in caplog.text
