"""Is a task declared, called, sent and retried as its user says?"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import django_tasks
from django_tasks import Task, abulk, bulk, current_task, group, send_task, shared_task, states, task
from django_tasks.backends.memory import MemoryBroker
from django_tasks.canvas.signature import Signature
from django_tasks.connections import LOCAL, results
from django_tasks.context import Request, answering
from django_tasks.exceptions import (
    ConfigurationError,
    Ignore,
    MaxRetriesExceeded,
    NotRegistered,
    Reject,
    ResultNotSerializable,
    Retry,
    SerializationError,
    TaskExpired,
    TaskRejected,
)
from django_tasks.message import Delivery, Message
from django_tasks.plan import Outcome
from django_tasks.registry import tasks
from django_tasks.serializers import decode_body, loads

pytestmark = pytest.mark.usefixtures("configure")
Configure = Callable[..., None]
Bound = Task[..., Any]


@task
def add(x: int, y: int = 1, *, z: int = 0) -> int:
    """Add numbers."""
    return x + y + z


@task
def everything(*args: Any, **kwargs: Any) -> list[Any]:
    return [list(args), kwargs]


@task(typing=False)
def lenient(x: int) -> int:
    return x


@task(bind=True)
def bound(self: Bound, x: int) -> tuple[str | None, int]:
    return self.request.id, x


@task
async def wait_a_turn(x: int) -> int:
    await asyncio.sleep(0)
    return x + 1


@task(bind=True)
async def wait_bound(self: Bound, x: int) -> tuple[str | None, int]:
    await asyncio.sleep(0)
    return self.request.id, x


@task(queue="slow", priority=3)
def declared() -> None:
    pass


def sent(queue: MemoryBroker, name: str = "default") -> Message:
    """Take the one message that is there."""
    [message] = queue.peek(name, 9)
    return message


def body(message: Message) -> tuple[Any, Any]:
    return decode_body(message.body)[:2]


# Declaring


def test_a_task_is_named_after_its_module_and_function() -> None:
    assert add.name == f"{__name__}.add"
    assert tasks[add.name] is add
    assert repr(add) == f"<@task: {__name__}.add>"


def test_a_task_looks_like_its_function() -> None:
    assert (vars(add)["__name__"], add.__doc__, add.__module__) == ("add", "Add numbers.", __name__)
    assert str(inspect.signature(add)) == "(x: 'int', y: 'int' = 1, *, z: 'int' = 0) -> 'int'"


def test_calling_a_task_runs_its_function_here() -> None:
    assert add(2, 3) == 5
    assert bound(5) == (None, 5)
    assert asyncio.run(wait_a_turn(1)) == 2  # type: ignore[arg-type]  # the checker sees what `get` returns


def test_a_name_may_be_given() -> None:
    @task(name="shop.pay")
    def pay() -> None: ...

    assert pay.name == "shop.pay"
    assert tasks["shop.pay"] is pay


def test_two_functions_cannot_have_one_name() -> None:
    def one() -> None: ...
    def other() -> None: ...

    task(name="shop.sell")(one)
    with pytest.raises(ConfigurationError, match=r"Two tasks have the name 'shop\.sell'.*@task\(name=\.\.\.\)"):
        task(name="shop.sell")(other)


def test_shared_task_is_the_same() -> None:
    assert shared_task is task


def test_an_option_that_is_not_there_is_answered_with_the_nearest() -> None:
    with pytest.raises(TypeError, match=r"^no option 'max_retrys': Did you mean 'max_retries'\?$"):
        task(max_retrys=5)  # type: ignore[call-overload]  # the point


def test_what_is_no_function_is_refused() -> None:
    with pytest.raises(
        TypeError, match=r"@task takes a function; options are given by name, such as name='shop\.pay'\."
    ):
        task("shop.pay")  # type: ignore[call-overload]  # the point


def test_a_bound_task_needs_an_argument_for_itself() -> None:
    with pytest.raises(TypeError, match=r"nothing is declared with bind=True but takes no argument for the task\."):

        @task(bind=True)  # type: ignore[arg-type]  # the point
        def nothing() -> None: ...


def test_a_base_class_gives_options_and_methods_and_the_decorator_wins() -> None:
    class Mail(Task[..., Any]):
        queue = "mail"
        priority = 9

        def subject(self) -> str:
            return f"about {self.name}"

    @task(base=Mail, priority=1, name="mail.send", bind=True)
    def send(self: Mail) -> str:
        return self.subject()

    assert isinstance(send, Mail)
    assert (send.options.queue, send.options.priority) == ("mail", 1)
    assert send() == "about mail.send"


def test_max_retries_tells_what_counts(configure: Configure) -> None:
    configure(MAX_RETRIES=8)
    assert add.max_retries == 8

    @task(name="t.own", max_retries=None)
    def own() -> None: ...

    assert own.max_retries is None


def test_the_public_names_are_there() -> None:
    assert {name for name in django_tasks.__all__ if not hasattr(django_tasks, name)} == set()
    assert django_tasks.__all__ == sorted(django_tasks.__all__)


# Sending


def test_delay_sends_the_arguments_and_returns_the_handle(queue: MemoryBroker) -> None:
    handle = add.delay(2, y=3)
    message = sent(queue)
    assert (message.id, message.task, body(message)) == (handle.id, add.name, ((2,), {"y": 3}))


def test_apply_async_takes_arguments_and_options_apart(queue: MemoryBroker) -> None:
    handle = add.apply_async((2,), {"y": 3}, task_id="order-7", priority=5, queue="money")
    message = sent(queue, "money")
    assert (handle.id, message.id, message.priority, body(message)) == ("order-7", "order-7", 5, ((2,), {"y": 3}))


def test_apply_async_takes_any_iterable_and_any_mapping(queue: MemoryBroker) -> None:
    everything.apply_async(iter([1, 2]), None)
    assert body(sent(queue)) == ((1, 2), {})


@pytest.mark.parametrize("word", ["self", "args", "kwargs", "task_id", "countdown", "options", "name", "function"])
def test_a_task_may_have_arguments_of_any_name(queue: MemoryBroker, word: str) -> None:
    everything.delay(**{word: 1})
    assert body(sent(queue)) == ((), {word: 1})
    assert everything(**{word: 1}) == [[], {word: 1}]
    assert everything.apply(kwargs={word: 1}).get() == [[], {word: 1}]


def test_an_id_that_waits_already_is_not_queued_twice(queue: MemoryBroker) -> None:
    for _ in range(2):
        add.apply_async((1,), task_id="order-7")
    assert sent(queue).id == "order-7"


def test_using_lays_options_under_each_call(queue: MemoryBroker) -> None:
    slow = add.using(queue="slow", priority=5).using(priority=-5)
    slow.delay(1)
    assert (sent(queue, "slow").priority, body(sent(queue, "slow"))) == (-5, ((1,), {}))
    slow.apply_async((1,), queue="other")
    assert sent(queue, "other").priority == -5
    assert slow.s(1).options == {"queue": "slow", "priority": -5}
    assert add.s(1).options == {}
    assert slow(1) == 2
    assert tasks[add.name] is add


def test_s_describes_a_call_and_sends_nothing(queue: MemoryBroker) -> None:
    call = add.s(1, z=2)
    assert call == Signature(add.name, (1,), {"z": 2})
    assert queue.stats() == []
    handle = call.set(queue="slow").apply_async()
    assert sent(queue, "slow").id == handle.id


def test_bulk_publishes_once_and_returns_handles_in_order(queue: MemoryBroker) -> None:
    told: list[int] = []

    def published(messages, **_):
        told.append(len(messages))

    django_tasks.signals.task_published.connect(published)
    handles = bulk(add.s(number) for number in range(100))
    django_tasks.signals.task_published.disconnect(published)
    assert told == [100]
    assert [found.id for found in queue.peek("default", 200)] == [handle.id for handle in handles]
    assert bulk([]) == []


def test_bulk_keeps_the_order_of_plain_calls_and_others(queue: MemoryBroker) -> None:
    calls = [add.s(0), add.s(1), add.s(2).set(task_id="mine"), group(add.s(3), add.s(4)), add.s(5)]
    handles = bulk(calls)
    waiting = queue.peek("default", 10)
    assert [body(message)[0] for message in waiting] == [(0,), (1,), (2,), (3,), (4,), (5,)]
    leaves = [leaf for handle in handles for leaf in getattr(handle, "results", [handle])]
    assert [leaf.id for leaf in leaves] == [message.id for message in waiting]
    assert leaves[2].id == "mine"


def test_of_a_bulk_with_one_bad_call_nothing_is_sent(queue: MemoryBroker) -> None:
    with pytest.raises(SerializationError, match=r"args\[0\]"):
        bulk([add.s(1), everything.s(object()), add.s(2)])
    with pytest.raises(TypeError, match="missing a required argument: 'x'"):
        bulk(call() for call in (lambda: add.s(1), add.s))
    assert queue.stats() == []


def test_send_task_knows_no_more_than_a_name(queue: MemoryBroker) -> None:
    handle = send_task("elsewhere.tasks.run", (1,), {"x": 2}, countdown=5)
    message = sent(queue)
    assert (message.id, message.task, message.countdown, body(message)) == (
        handle.id,
        "elsewhere.tasks.run",
        5,
        ((1,), {"x": 2}),
    )


def test_send_task_of_a_known_name_has_what_that_task_declared(queue: MemoryBroker) -> None:
    send_task(declared.name)
    assert sent(queue, "slow").priority == 3


def test_send_task_refuses_what_cannot_be_a_name() -> None:
    with pytest.raises(NotRegistered, match="A task's name has 1 to 255 printable characters"):
        send_task("")


def test_the_asynchronous_twins_send_the_same(queue: MemoryBroker) -> None:
    async def send() -> list[str]:
        handles = [
            await add.adelay(1, y=2),
            await add.aapply_async((1,), {"y": 2}, priority=0),
            await add.using(priority=0).adelay(1, y=2),
            *await abulk([add.s(1, y=2)]),
        ]
        return [handle.id for handle in handles]

    ids = asyncio.run(send())
    messages = queue.peek("default", 9)
    assert [message.id for message in messages] == ids
    assert {body(message)[0] for message in messages} == {(1,)}


def test_an_asynchronous_twin_keeps_the_parent(queue: MemoryBroker) -> None:
    async def send() -> None:
        with answering(Request(Message(id="2", task="t", body=b"", root_id="1"))):
            await add.adelay(1)

    asyncio.run(send())
    assert (sent(queue).parent_id, sent(queue).root_id) == ("2", "1")


# Arguments


@pytest.mark.parametrize(
    ("args", "kwargs", "said"),
    [
        ((), {}, "missing a required argument: 'x'"),
        ((1, 2, 3), {}, "too many positional arguments"),
        ((1,), {"x": 2}, "multiple values for argument 'x'"),
        ((1,), {"w": 2}, "got an unexpected keyword argument 'w'"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_at_the_call(
    queue: MemoryBroker, args: Any, kwargs: Any, said: str
) -> None:
    words = f"{add.name}(x: 'int', y: 'int' = 1, *, z: 'int' = 0) -> 'int': {said}"
    for call in (
        lambda: add.delay(*args, **kwargs),
        lambda: add.apply_async(args, kwargs),
        lambda: add.apply(args, kwargs),
        lambda: add.s(*args, **kwargs).delay(),
        lambda: asyncio.run(add.adelay(*args, **kwargs)),
    ):
        with pytest.raises(TypeError) as caught:
            call()
        assert str(caught.value) == words
    assert queue.stats() == []


@pytest.mark.parametrize(("args", "kwargs"), [((1,), {}), ((1, 2), {}), ((), {"x": 1}), ((1,), {"z": 5, "y": 3})])
def test_arguments_that_fit_are_taken(args: Any, kwargs: Any) -> None:
    add.check_arguments(args, kwargs)


def test_the_task_itself_is_not_counted_among_a_bound_tasks_arguments() -> None:
    bound.check_arguments((1,), {})
    with pytest.raises(TypeError, match="too many positional arguments"):
        bound.check_arguments((1, 2), {})


def test_a_keyword_only_argument_must_be_given() -> None:
    @task(name="t.keyword")
    def keyword(*rest: int, must: int) -> None: ...

    keyword.check_arguments((1, 2, 3), {"must": 1})
    for args in ((), (1,), (1, 2)):
        with pytest.raises(TypeError, match="missing a required.*'must'"):
            keyword.check_arguments(args, {})


def test_any_number_of_arguments_fits_a_task_that_takes_any(queue: MemoryBroker) -> None:
    everything.check_arguments(tuple(range(100)), {"a": 1})
    everything.check_arguments((), {})


def test_a_task_or_the_settings_can_turn_the_check_off(configure: Configure, queue: MemoryBroker) -> None:
    lenient.delay()  # type: ignore[call-arg]  # the point
    with pytest.raises(TypeError):
        add.delay()  # type: ignore[call-arg]
    configure(TYPING=False)
    add.delay()  # type: ignore[call-arg]


def test_what_cannot_be_sent_is_refused_with_its_path(queue: MemoryBroker) -> None:
    with pytest.raises(SerializationError, match=r"^args\[0\]\['when'\]\[1\]: "):
        everything.delay({"when": [1, object()]})
    with pytest.raises(SerializationError, match=r"^kwargs\['x'\]: "):
        everything.delay(x=lambda: 1)
    assert queue.stats() == []


# Here and now


def test_apply_runs_the_task_as_a_worker_would() -> None:
    ended = bound.apply((5,), task_id="order-7")
    assert (ended.state, ended.get(), ended.id) == (states.SUCCESS, ("order-7", 5), "order-7")
    assert ended.name == bound.name
    assert wait_a_turn.apply((1,)).get() == 2
    assert wait_bound.apply((1,), task_id="order-8").get() == ("order-8", 1)


def test_apply_holds_what_the_task_raised_until_it_is_asked_for() -> None:
    @task(name="t.raises")
    def raises() -> None:
        raise LookupError("no such order")

    ended = raises.apply()
    assert ended.state == states.FAILURE
    with pytest.raises(LookupError, match="no such order"):
        ended.get()
    assert isinstance(ended.get(propagate=False), LookupError)


def test_apply_runs_every_retry_at_once() -> None:
    runs: list[int] = []

    @task(name="t.third", bind=True, max_retries=5, default_retry_delay=3600)
    def third(self: Bound) -> int:
        runs.append(self.request.retries)
        if self.request.retries < 2:
            raise self.retry()
        return self.request.attempt

    ended = third.apply()
    assert (ended.get(), ended.retries, runs) == (3, 2, [0, 1, 2])


def test_apply_keeps_nothing_in_the_process_beside_its_handle() -> None:
    ended = add.apply((1,))
    assert results[LOCAL].get([ended.id]) == {}
    assert ended.get() == 2


def test_applying_one_id_twice_tells_each_run_apart() -> None:
    assert [add.apply((number,), task_id="order-7").get() for number in (1, 2)] == [2, 3]


@pytest.mark.parametrize("error", [Ignore(), Reject("later", requeue=True)])
def test_nobody_waits_for_a_task_that_keeps_no_result(error: Exception) -> None:
    @task(name=f"t.leaves_{type(error).__name__}")
    def leaves() -> None:
        raise error

    assert leaves.apply().get() is None


def test_the_ignored_result_of_apply_is_not_waited_for() -> None:
    @task(name="t.ignored", ignore_result=True)
    def ignored() -> int:
        return 5

    assert ignored.apply().get() is None


def test_apply_of_a_task_that_rejects_itself_raises_so() -> None:
    @task(name="t.rejects")
    def rejects() -> None:
        raise Reject("malformed order")

    with pytest.raises(TaskRejected, match="malformed order"):
        rejects.apply().get()


def test_apply_of_what_expired_raises_so() -> None:
    with pytest.raises(TaskExpired):
        add.apply((1,), expires=-1).get()


def test_apply_leaves_the_queues_alone(queue: MemoryBroker) -> None:
    add.apply((1,), queue="slow", countdown=3600)
    assert queue.stats() == []


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: wait_a_turn(1), "a coroutine"),
        (lambda: (number for number in range(3)), "a generator"),
        (lambda: Path(__file__).open(), "TextIOWrapper"),  # noqa: SIM115  # the test closes it
        (lambda: lambda: 1, "a lambda"),
    ],
)
def test_what_cannot_be_kept_of_a_result_fails_the_task_with_the_path(make: Callable[[], Any], reason: str) -> None:
    made: list[Any] = []

    @task(name=f"t.returns_{reason[-5:]}")
    def returns() -> Any:
        made.append(make())
        return made[0]

    ended = returns.apply()
    with pytest.raises(ResultNotSerializable, match=r"^result: "):
        ended.get()
    assert reason in str(ended.get(propagate=False))
    if hasattr(made[0], "close"):
        made[0].close()


# While it runs


def test_the_request_is_that_of_the_call_that_is_being_answered() -> None:
    with answering(Request(Message(id="7", task=bound.name, body=b""))):
        assert bound.request.id == "7"
        assert bound.using(queue="x").request.id == "7"
        # Another task that is called as a function from here is not what the worker was asked for.
        assert add.request.called_directly
        assert add.request.id is None
    assert bound.request.called_directly


def test_current_task_is_the_one_that_runs_here() -> None:
    seen: list[Any] = []

    @task(name="t.looks")
    def looks() -> None:
        seen.append(current_task())

    looks.apply()
    looks()
    assert seen == [looks, None]


def test_what_a_task_sends_knows_where_it_came_from(queue: MemoryBroker) -> None:
    @task(name="t.parent")
    def parent() -> str:
        return add.delay(1).id

    ended = parent.apply(root_id="1")
    message = sent(queue)
    assert (message.id, message.parent_id, message.root_id) == (ended.get(), ended.id, "1")


def reporting(request: Request) -> list[Outcome]:
    told: list[Outcome] = []
    request.report = told.append
    return told


def test_update_state_reports_a_state_with_its_meta() -> None:
    request = Request(Message(id="7", task=add.name, body=b""))
    told = reporting(request)
    with answering(request):
        add.update_state(state="PROGRESS", meta={"done": 3, "at": datetime(2030, 1, 1, tzinfo=UTC)})
        add.update_state(state="UPLOADING")
    assert [(outcome.state, outcome.interim) for outcome in told] == [("PROGRESS", True), ("UPLOADING", True)]
    assert told[0].value is not None
    assert loads(told[0].value) == {"done": 3, "at": datetime(2030, 1, 1, tzinfo=UTC)}


@pytest.mark.parametrize("state", [*sorted(states.FINAL), "PENDING", "RETRY", "RECEIVED", "", "x" * 51])
def test_a_state_that_is_not_a_tasks_to_set_is_refused_with_what_to_do(state: str) -> None:
    with pytest.raises(ValueError, match=r"cannot be set by a task: return, raise, or choose a name of your own\."):
        add.update_state(state=state)


def test_meta_that_cannot_be_kept_is_refused_with_its_path() -> None:
    with pytest.raises(SerializationError, match=r"^meta\['x'\]: "):
        add.update_state(state="PROGRESS", meta={"x": object()})


def test_a_function_that_was_called_directly_tells_nobody() -> None:
    add.update_state(state="PROGRESS")


# Retrying


@task(bind=True, max_retries=2, default_retry_delay=7)
def stubborn(self: Bound, x: int = 0) -> None: ...


@task(bind=True, retry_backoff=2, retry_backoff_max=20, retry_jitter=False, max_retries=None)
def patient(self: Bound) -> None: ...


def asked(task: Task[..., Any] = stubborn, *, retries: int = 0) -> Request:
    message = Message(id="7", task=task.name, body=b'[[1],{"y":2},{}]', retries=retries)
    return Request(message, (1,), {"y": 2})


def retried(request: Request, *args: Any, **options: Any) -> Message:
    """Ask for a retry and return the message of the next attempt."""
    with answering(request), pytest.raises(Retry) as caught:
        tasks[request.task].retry(*args, **options)
    assert request.directive is caught.value
    [message] = request.following
    return message


def test_a_retry_is_raised_and_prepares_the_next_attempt() -> None:
    message = retried(asked())
    assert (message.id, message.retries, message.attempts, message.countdown) == ("7", 1, 1, 7)
    assert body(message) == ((1,), {"y": 2})


def test_the_words_of_a_retry_say_when() -> None:
    when = datetime(2030, 1, 1, tzinfo=UTC)
    with answering(asked()):
        with pytest.raises(Retry, match=r"^Retry in 7s$") as caught:
            stubborn.retry()
        assert caught.value.when == 7
        with pytest.raises(Retry, match=r"^Retry at 2030-01-01 00:00:00\+00:00$") as caught:
            stubborn.retry(eta=when)
        assert caught.value.when == when


def test_a_retry_may_have_other_arguments() -> None:
    assert body(retried(asked(), (5,), {})) == ((5,), {})
    assert body(retried(asked(), kwargs={"y": 9})) == ((1,), {"y": 9})


def test_a_retry_may_say_when() -> None:
    assert retried(asked(), countdown=0.5).countdown == 0.5
    assert retried(asked(), countdown=0).countdown is None
    when = datetime.now(UTC) + timedelta(days=1)
    message = retried(asked(), eta=when)
    assert (message.eta, message.countdown) == (when, None)


def test_a_retry_waits_as_the_backoff_says() -> None:
    waits = [retried(asked(patient, retries=retries)).countdown for retries in range(6)]
    assert waits == [2, 4, 8, 16, 20, 20]


def test_a_retry_may_have_other_options() -> None:
    message = retried(asked(), queue="slow", priority=-5, headers={"tenant": "b"}, time_limit=60, soft_time_limit=50)
    assert (message.queue, message.priority, message.headers) == ("slow", -5, {"tenant": "b"})
    assert (message.time_limit, message.soft_time_limit) == (60, 50)


def test_a_retry_carries_the_exception_that_it_is_for() -> None:
    error = ConnectionError("down")
    with answering(asked()), pytest.raises(Retry) as caught:
        stubborn.retry(exc=error)
    assert caught.value.exc is error
    assert caught.value.__cause__ is error


def test_without_throwing_the_retry_is_returned_and_counts_when_the_function_returns() -> None:
    runs: list[int] = []

    @task(name="t.quiet", bind=True, max_retries=3)
    def quiet(self: Bound) -> str:
        runs.append(self.request.retries)
        if self.request.retries < 2:
            assert isinstance(self.retry(throw=False), Retry)
            return "dropped"
        return "kept"

    assert quiet.apply().get() == "kept"
    assert runs == [0, 1, 2]


def test_after_the_last_retry_the_exception_is_raised() -> None:
    error = ConnectionError("down")
    with answering(asked(retries=2)), pytest.raises(ConnectionError) as caught:
        stubborn.retry(exc=error)
    assert caught.value is error


def test_after_the_last_retry_without_an_exception_it_is_said_that_there_were_too_many() -> None:
    with answering(asked(retries=2)), pytest.raises(MaxRetriesExceeded) as caught:
        stubborn.retry()
    assert str(caught.value) == f"Cannot retry {stubborn.name}[7]: it was retried 2 times."


def test_an_exception_that_counts_as_false_is_raised_all_the_same() -> None:
    class Empty(Exception):
        def __bool__(self) -> bool:
            return False

    with answering(asked(retries=2)), pytest.raises(Empty):
        stubborn.retry(exc=Empty())
    with pytest.raises(Empty):
        stubborn.retry(exc=Empty())


def test_one_retry_may_say_how_many_there_may_be() -> None:
    assert retried(asked(retries=2), max_retries=3).retries == 3
    with answering(asked()), pytest.raises(MaxRetriesExceeded):
        stubborn.retry(max_retries=0)


def test_a_task_without_end_of_retries_is_retried_without_end() -> None:
    assert retried(asked(patient, retries=10**6)).retries == 10**6 + 1


def test_a_retry_needs_countdown_or_eta_not_both() -> None:
    with answering(asked()), pytest.raises(ValueError, match=r"Give countdown or eta, not both\."):
        stubborn.retry(countdown=1, eta=datetime.now(UTC))


def test_outside_of_a_worker_a_retry_raises_the_exception_or_says_why_it_cannot() -> None:
    error = ConnectionError("down")
    with pytest.raises(ConnectionError) as caught:
        stubborn.retry(exc=error)
    assert caught.value is error
    with pytest.raises(Retry, match="Task can be retried only by a worker"):
        stubborn.retry()


def test_a_task_that_another_calls_as_a_function_cannot_retry_that_one() -> None:
    with answering(asked()), pytest.raises(Retry, match="only by a worker"):
        patient.retry()


def test_a_body_that_was_changed_in_place_is_sent_as_it_was() -> None:
    seen: list[list[int]] = []

    @task(name="t.mutates", bind=True, max_retries=1)
    def mutates(self: Bound, numbers: list[int]) -> list[int]:
        seen.append(list(numbers))
        numbers.append(0)
        if self.request.retries == 0:
            raise self.retry()
        return numbers

    assert mutates.apply(([1, 2],)).get() == [1, 2, 0]
    assert seen == [[1, 2], [1, 2]]


def test_a_delivery_counts_the_runs_before_it() -> None:
    message = retried(asked(retries=1))
    assert Delivery(message, 1, deliveries=1).attempt == 2
