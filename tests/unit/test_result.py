"""Does a handle tell what came of a task, and wait as long as it is told to?"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connections

from django_tasks import AsyncResult, states
from django_tasks.backends.memory import MemoryBroker
from django_tasks.context import Request, allow_join_result, answering
from django_tasks.exceptions import RemoteError, ResultTimeout, TaskError, TaskRevoked
from django_tasks.failure import Failure, capture
from django_tasks.message import Message
from django_tasks.models import Revocation
from django_tasks.plan import Result
from django_tasks.result import value_of
from django_tasks.results.memory import MemoryStore
from django_tasks.serializers import dumps

ENDED = datetime(2030, 1, 1, tzinfo=UTC)


def success(value: Any = 5, **more: Any) -> Result:
    return Result(id="7", state=states.SUCCESS, value=dumps(value), task="shop.pay", ended_at=ENDED, **more)


def failure(error: BaseException, state: str = states.FAILURE) -> Result:
    return Result(id="7", state=state, failure=capture(error), task="shop.pay", ended_at=ENDED)


@pytest.fixture
def handle(kept: MemoryStore) -> AsyncResult[Any]:
    return AsyncResult("7")


def test_two_handles_with_one_id_are_equal() -> None:
    one, same, other = AsyncResult[int]("7"), AsyncResult[int]("7", "archive"), AsyncResult[int]("8")
    assert (one == same, one == other, one == "7") == (True, False, False)
    assert len({one, same, other}) == 2
    assert (str(one), repr(one), one.task_id) == ("7", "<AsyncResult: 7>", "7")


def test_a_task_that_nobody_knows_is_pending(handle: AsyncResult[Any]) -> None:
    assert (handle.state, handle.status, handle.result, handle.traceback) == ("PENDING", "PENDING", None, None)
    assert not any([handle.ready(), handle.successful(), handle.failed(), handle.exists()])
    handle.maybe_throw()


def test_a_task_that_ended_well_tells_its_value(kept: MemoryStore, handle: AsyncResult[Any]) -> None:
    kept.save([success({"at": ENDED})])
    assert (handle.get(), handle.result, handle.info, handle.wait(0)) == ({"at": ENDED},) * 4
    assert (handle.state, handle.ready(), handle.successful(), handle.failed()) == ("SUCCESS", True, True, False)
    assert handle.exists()


def test_a_handle_tells_all_that_is_kept(kept: MemoryStore, handle: AsyncResult[Any]) -> None:
    kept.save([success(queue="slow", worker="w1", args_repr="(1,)", kwargs_repr="{}", retries=2)])
    assert (handle.name, handle.queue, handle.worker, handle.args, handle.kwargs, handle.retries, handle.date_done) == (
        "shop.pay",
        "slow",
        "w1",
        "(1,)",
        "{}",
        2,
        ENDED,
    )


def test_a_task_that_failed_raises_its_own_exception(kept: MemoryStore, handle: AsyncResult[Any]) -> None:
    kept.save([failure(LookupError("no such order", 7))])
    for ask in (handle.get, handle.wait, handle.maybe_throw, handle.throw):
        with pytest.raises(LookupError) as caught:
            ask()
        assert caught.value.args == ("no such order", 7)
    assert isinstance(handle.get(propagate=False), LookupError)
    assert isinstance(handle.wait(propagate=False), LookupError)
    assert isinstance(handle.result, LookupError)
    assert (handle.failed(), handle.successful(), handle.ready()) == (True, False, True)
    assert handle.traceback is not None
    assert "no such order" in handle.traceback


def test_an_exception_whose_class_is_not_known_here_is_a_remote_error(
    kept: MemoryStore, handle: AsyncResult[Any]
) -> None:
    kept.save([Result(id="7", state=states.FAILURE, failure=Failure("Gone", "elsewhere.errors", "it went"))])
    with pytest.raises(RemoteError, match=r"^elsewhere\.errors\.Gone: it went$"):
        handle.get()


@pytest.mark.parametrize("state", sorted(states.FAILED))
def test_each_way_to_end_badly_raises(kept: MemoryStore, handle: AsyncResult[Any], state: str) -> None:
    kept.save([failure(TaskRevoked("revoked before it was begun"), state)])
    with pytest.raises(TaskRevoked, match="revoked before it was begun"):
        handle.get()


def test_an_end_without_an_exception_is_told_all_the_same() -> None:
    ended = value_of(Result(id="7", state=states.REJECTED))
    assert isinstance(ended, TaskError)
    assert str(ended) == "Task 7 ended as REJECTED."


def test_a_custom_state_tells_its_meta_and_a_retry_its_reason(kept: MemoryStore, handle: AsyncResult[Any]) -> None:
    kept.save([Result(id="7", state="PROGRESS", value=dumps({"done": 3}), task="shop.pay")])
    assert (handle.state, handle.info, handle.ready(), handle.exists()) == ("PROGRESS", {"done": 3}, False, True)
    handle.maybe_throw()
    kept.save([Result(id="7", state=states.RETRY, failure=capture(ConnectionError("down")))])
    assert (handle.state, type(handle.result), handle.ready()) == ("RETRY", ConnectionError, False)
    handle.maybe_throw()


def test_a_handle_asks_each_time_until_the_task_has_ended(kept: MemoryStore, handle: AsyncResult[Any]) -> None:
    assert handle.state == "PENDING"
    kept.save([Result(id="7", state=states.STARTED)])
    assert handle.state == "STARTED"
    kept.save([success(5)])
    assert handle.state == "SUCCESS"
    kept.forget(["7"])
    assert handle.get() == 5


def test_getting_waits_for_the_end(kept: MemoryStore, handle: AsyncResult[Any]) -> None:
    with ThreadPoolExecutor(1) as executor:
        waiting = executor.submit(handle.get, 30)
        kept.save([success(5)])
        assert waiting.result(30) == 5


def test_getting_waits_no_longer_than_it_is_told_and_says_how_the_task_stands(
    kept: MemoryStore, handle: AsyncResult[Any]
) -> None:
    kept.save([Result(id="7", state="PROGRESS")])
    with pytest.raises(ResultTimeout, match=r"^Task 7 did not end within 0 seconds; it is PROGRESS\.$") as caught:
        handle.get(timeout=0)
    assert isinstance(caught.value, TimeoutError)


def test_what_is_not_kept_is_not_waited_for(kept: MemoryStore) -> None:
    assert AsyncResult[int]("7", ignored=True).get() is None


def test_forgetting_removes_it_here_and_in_the_store(kept: MemoryStore, handle: AsyncResult[Any]) -> None:
    kept.save([success()])
    assert handle.get() == 5
    handle.forget()
    assert handle.state == "PENDING"
    assert kept.get(["7"]) == {}


def test_a_task_does_not_wait_for_another_unless_it_says_that_it_knows(
    kept: MemoryStore, handle: AsyncResult[Any]
) -> None:
    kept.save([success()])
    with answering(Request(Message(id="1", task="t", body=b""))):
        for ask in (handle.get, handle.wait):
            with pytest.raises(RuntimeError, match=r"Chain the tasks, or wrap the call in allow_join_result\(\)"):
                ask()
        with allow_join_result():
            assert handle.get() == 5
        assert handle.get(disable_sync_subtasks=False) == 5
        assert handle.state == "SUCCESS"


def test_an_asynchronous_task_does_not_wait_either(kept: MemoryStore, handle: AsyncResult[Any]) -> None:
    kept.save([success()])
    with (
        answering(Request(Message(id="1", task="t", body=b""))),
        pytest.raises(RuntimeError, match="allow_join_result"),
    ):
        asyncio.run(handle.aget())


def test_a_task_that_is_applied_on_the_spot_may_wait(kept: MemoryStore, handle: AsyncResult[Any]) -> None:
    kept.save([success()])
    with answering(Request(Message(id="1", task="t", body=b""), is_eager=True)):
        assert handle.get() == 5


def test_the_asynchronous_twins_tell_the_same(kept: MemoryStore, handle: AsyncResult[Any]) -> None:
    async def ask() -> tuple[Any, ...]:
        found = await handle.aget(), await handle.aget(timeout=5, propagate=False), (await handle.afetch()).state
        await handle.aforget()
        return found

    kept.save([success()])
    assert asyncio.run(ask()) == (5, 5, "SUCCESS")
    assert kept.get(["7"]) == {}


def test_waiting_asynchronously_lets_others_go_on(kept: MemoryStore, handle: AsyncResult[Any]) -> None:
    async def ask() -> Any:
        waiting = asyncio.create_task(handle.aget(30))
        await asyncio.sleep(0)
        kept.save([success()])
        return await waiting

    assert asyncio.run(ask()) == 5


def test_waiting_asynchronously_raises_what_the_task_raised(kept: MemoryStore, handle: AsyncResult[Any]) -> None:
    kept.save([failure(LookupError("x"))])
    with pytest.raises(LookupError):
        asyncio.run(handle.aget())


@pytest.mark.django_db(transaction=True)
def test_waiting_asynchronously_leaves_no_connection_open() -> None:
    """The thread that waits belongs to the event loop, and answers no request whose end would close them."""

    def still_open() -> list[str]:
        return [found.alias for found in connections.all(initialized_only=True) if found.connection is not None]

    async def ask() -> list[str]:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        with pytest.raises(ResultTimeout):
            await AsyncResult[int]("nobody").aget(0)
        return await sync_to_async(still_open, thread_sensitive=False)()

    assert asyncio.run(ask()) == []


@pytest.mark.django_db
def test_revoking_takes_the_task_out_of_its_queue(queue: MemoryBroker, handle: AsyncResult[Any]) -> None:
    queue.publish([Message(id="7", task="shop.pay", body=b"")])
    handle.revoke()
    assert queue.peek("default", 9) == []
    with pytest.raises(TaskRevoked, match="revoked before it was begun"):
        handle.get()


@pytest.mark.django_db(transaction=True)
def test_revoking_asynchronously_is_the_same(queue: MemoryBroker, handle: AsyncResult[Any]) -> None:
    async def revoke() -> None:
        await handle.arevoke(terminate=True)
        # As the end of a request does, in the thread that asgiref keeps for it.
        await sync_to_async(connections.close_all)()

    asyncio.run(revoke())
    assert list(Revocation.objects.values_list("task_id", "terminate")) == [("7", True)]


def test_several_threads_may_wait_with_one_handle(kept: MemoryStore, handle: AsyncResult[Any]) -> None:
    ready = threading.Barrier(5)

    def wait(_: int) -> Any:
        ready.wait(30)
        return handle.get(30)

    with ThreadPoolExecutor(4) as executor:
        waiting = [executor.submit(wait, number) for number in range(4)]
        ready.wait(30)
        kept.save([success()])
        assert [each.result(30) for each in waiting] == [5] * 4
