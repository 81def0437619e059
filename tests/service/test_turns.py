"""Turns among threads: who waits, who is refused, and who leaves."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel
import pytest
from starlette.requests import ClientDisconnect
from starlette.types import Message

from service.api.turns import CALLER, Caller, Handed, Turns
from service.errors import Unavailable

Receive = Callable[[], Awaitable[Message]]


async def stays() -> Message:
    await anyio.sleep_forever()
    raise AssertionError("sleeps for ever")


@asynccontextmanager
async def busy(turns: Turns) -> AsyncIterator[None]:
    """Hold the only turn for as long as the block lasts."""
    done = threading.Event()
    begun = asyncio.Event()
    loop = asyncio.get_running_loop()

    def hold() -> None:
        loop.call_soon_threadsafe(begun.set)
        done.wait(60)

    async with anyio.create_task_group() as group:
        group.start_soon(turns.run, hold)
        await begun.wait()
        try:
            yield
        finally:
            done.set()


def one_turn(*, queue_size: int = 8, wait_seconds: float = 60.0) -> Turns:
    return Turns(1, queue_size=queue_size, wait_seconds=wait_seconds)


def caller(receive: Receive = stays, *, seconds: float = 60.0) -> Caller:
    return Caller(receive, deadline=time.monotonic() + seconds, has_sent_all=True)


def test_a_call_returns_what_it_makes() -> None:
    assert anyio.run(one_turn().run, lambda: 7) == 7


def test_who_waits_gets_the_turn_when_it_is_free() -> None:
    async def story() -> str:
        turns = one_turn()
        CALLER.set(caller())
        told: list[str] = []

        async def wait() -> None:
            told.append(await turns.run(lambda: "mine"))

        async with anyio.create_task_group() as group, busy(turns):
            group.start_soon(wait)
            await anyio.sleep(0.1)
            assert told == []
        return told[0]

    assert anyio.run(story) == "mine"


def test_who_comes_to_a_full_queue_is_refused_at_once() -> None:
    async def story() -> Unavailable:
        turns = one_turn(queue_size=0)
        async with busy(turns):
            with pytest.raises(Unavailable) as refused:
                await turns.run(lambda: None)
        return refused.value

    refusal = anyio.run(story)

    assert refusal.code == "overloaded"
    assert refusal.retry_after_seconds == 1


def test_who_grows_old_in_the_queue_is_refused() -> None:
    async def story() -> str:
        turns = one_turn(wait_seconds=0.05)
        CALLER.set(caller())
        async with busy(turns):
            with pytest.raises(Unavailable) as refused:
                await turns.run(lambda: None)
        return refused.value.code

    assert anyio.run(story) == "overloaded"


def test_a_question_whose_time_has_passed_leaves_the_queue_unanswered() -> None:
    async def story() -> tuple[str, list[str]]:
        turns = one_turn()
        CALLER.set(caller(seconds=0.05))
        answered: list[str] = []
        async with busy(turns):
            with pytest.raises(Unavailable) as refused:
                await turns.run(lambda: answered.append("late"))
        return refused.value.code, answered

    assert anyio.run(story) == ("deadline_exceeded", [])


def test_a_question_that_comes_too_late_is_not_begun() -> None:
    async def story() -> str:
        CALLER.set(caller(seconds=0.0))
        with pytest.raises(Unavailable) as refused:
            await one_turn().run(lambda: None)
        return refused.value.code

    assert anyio.run(story) == "deadline_exceeded"


def test_a_client_that_goes_away_frees_its_place() -> None:
    async def leaves() -> Message:
        await anyio.sleep(0.05)
        return {"type": "http.disconnect"}

    async def story() -> list[str]:
        turns = one_turn(queue_size=1)
        CALLER.set(caller(leaves))
        answered: list[str] = []
        async with busy(turns):
            with pytest.raises(ClientDisconnect):
                await turns.run(lambda: answered.append("to nobody"))
            CALLER.set(caller(seconds=0.05))
            with pytest.raises(
                Unavailable, match="Request-Timeout"
            ):  # it may queue: a place is free
                await turns.run(lambda: None)
        return answered

    assert anyio.run(story) == []


def test_what_has_begun_is_not_refused_however_long_it_waits() -> None:
    async def story() -> list[str]:
        turns = one_turn(queue_size=0, wait_seconds=0.01)
        CALLER.set(caller(seconds=0.01))
        done: list[str] = []
        async with anyio.create_task_group() as group, busy(turns):
            group.start_soon(turns.go_on, lambda: done.append("part"))
            await anyio.sleep(0.1)
            assert done == []
        return done

    assert anyio.run(story) == ["part"]


def test_a_turn_that_ended_badly_is_given_back() -> None:
    def fail() -> None:
        raise ValueError("broken")

    async def story() -> int:
        turns = one_turn()
        with pytest.raises(ValueError, match="broken"):
            await turns.run(fail)
        return await turns.run(lambda: 7)

    assert anyio.run(story) == 7


def test_a_body_that_still_comes_in_is_not_taken_for_a_leaving_client() -> None:
    async def story() -> bool:
        known = Caller(stays)
        with anyio.move_on_after(0.05) as scope:
            await known.gone()
        return scope.cancelled_caught

    assert anyio.run(story)


def test_places_are_kept_for_as_many_as_may_wait_and_be_served() -> None:
    async def story() -> list[bool]:
        turns = one_turn(queue_size=1)
        first, second = turns.let_in(), turns.let_in()
        told = [turns.let_in() is None]
        assert first is not None
        first.free()
        first.free()
        told.append(turns.let_in() is not None)
        told.append(turns.let_in() is None)
        assert second is not None
        second.free()
        async with busy(turns):
            told.append(turns.let_in() is None)
        told.append(turns.let_in() is not None)
        return told

    assert anyio.run(story) == [True] * 5


def test_who_is_cancelled_in_the_queue_keeps_nobody_from_a_turn() -> None:
    async def story() -> int:
        turns = one_turn()
        async with busy(turns):
            leaving = asyncio.create_task(turns.run(lambda: 0))
            await anyio.lowlevel.checkpoint()
            leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        return await turns.run(lambda: 7)

    assert anyio.run(story) == 7


class Calls:
    """Calls handed over to turns, and what came of them."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.called: list[str] = []
        self.over: list[tuple[str, str | None]] = []
        self.changed = asyncio.Event()

    def hand(self, name: str) -> Handed:
        def over(error: Unavailable | None) -> None:
            self.over.append((name, None if error is None else error.code))
            self.changed.set()

        return self.turns.hand(lambda: self.called.append(name), over)

    async def all_over(self, n_calls: int) -> None:
        with anyio.fail_after(10):
            while len(self.over) < n_calls:
                await self.changed.wait()
                self.changed.clear()


def test_calls_that_are_handed_over_come_in_their_order_with_those_that_wait() -> None:
    async def story() -> tuple[Calls, list[bool]]:
        turns = one_turn()
        calls = Calls(turns)
        async with anyio.create_task_group() as group:
            async with busy(turns):
                calls.hand("first")
                calls.hand("second")
                group.start_soon(turns.run, lambda: calls.called.append("third"))
                await anyio.sleep(0.05)
                calls.hand("fourth")
                assert calls.called == []
            await calls.all_over(3)
        return calls, places(turns)

    calls, told = anyio.run(story)
    assert calls.called == ["first", "second", "third", "fourth"]
    assert calls.over == [("first", None), ("second", None), ("fourth", None)]
    assert told == [True] * 9 + [False]


def places(turns: Turns) -> list[bool]:
    """Say of one place after another whether it is free, of one turn and eight who may wait."""
    return [turns.let_in() is not None for _ in range(10)]


def test_a_thread_takes_the_next_call_while_the_loop_is_held() -> None:
    async def story() -> list[str]:
        turns = one_turn()
        calls = Calls(turns)
        both = threading.Event()
        async with busy(turns):
            calls.hand("first")
            turns.hand(both.set, lambda _: None)
        assert both.wait(10)  # the loop stands still meanwhile
        return calls.called

    assert anyio.run(story) == ["first"]


def test_a_call_is_not_handed_over_to_a_full_queue() -> None:
    async def story() -> str:
        turns = one_turn(queue_size=0)
        async with busy(turns):
            with pytest.raises(Unavailable) as refused:
                Calls(turns).hand("refused")
        return refused.value.code

    assert anyio.run(story) == "overloaded"


def test_a_call_that_grows_old_is_refused_and_never_called() -> None:
    async def story() -> tuple[Calls, list[bool]]:
        turns = one_turn(wait_seconds=0.05)
        calls = Calls(turns)
        async with busy(turns):
            calls.hand("late")
            await calls.all_over(1)
        await turns.run(lambda: None)
        return calls, places(turns)

    calls, told = anyio.run(story)
    assert (calls.called, calls.over) == ([], [("late", "overloaded")])
    assert told == [True] * 9 + [False]


def test_a_call_is_taken_back_as_long_as_it_waits() -> None:
    async def story() -> tuple[Calls, list[bool], list[bool]]:
        turns = one_turn()
        calls = Calls(turns)
        async with busy(turns):
            waiting = calls.hand("taken back")
            told = [turns.withdraw(waiting), turns.withdraw(waiting)]
            begun = calls.hand("called")
        await calls.all_over(1)
        return calls, [*told, turns.withdraw(begun)], places(turns)

    calls, told, free = anyio.run(story)
    assert (calls.called, told) == (["called"], [True, False, False])
    assert free == [True] * 9 + [False]
