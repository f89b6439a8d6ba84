"""Does a call become the message that its options, its task and the settings ask for?"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.utils import timezone as django_timezone

from django_tasks import task
from django_tasks.backends.memory import MemoryBroker
from django_tasks.canvas.calls import aware, ignored, next_attempt, seal
from django_tasks.canvas.signature import Signature
from django_tasks.context import Request, answering
from django_tasks.exceptions import ConfigurationError, NotRegistered, SerializationError
from django_tasks.message import Message
from django_tasks.options import CallOptions
from django_tasks.serializers import decode_body

pytestmark = pytest.mark.usefixtures("configure")
Configure = Callable[..., None]

NEW_YEAR = datetime(2030, 1, 1, tzinfo=UTC)
SOON = timedelta(seconds=20)


@task(name="nodes.plain")
def plain(x: int = 0, password: str = "") -> int:
    return x


@task(name="nodes.declared", queue="slow", priority=-7, expires=60, ignore_result=True)
def declared() -> None:
    pass


def sealed(name: str = "nodes.plain", args: tuple[Any, ...] = (), **options: Any) -> Message:
    return seal(Signature(name, args, {}, CallOptions(**options)))  # type: ignore[typeddict-item]


# A signature


def test_setting_options_changes_a_signature_and_not_what_it_was_copied_from() -> None:
    first = Signature("nodes.plain", (1,), {}, {"queue": "a", "priority": 1})
    second = first.clone()
    assert second.set(queue="b") is second
    assert second == Signature("nodes.plain", (1,), {}, {"queue": "b", "priority": 1})
    assert first.options == {"queue": "a", "priority": 1}


def test_a_plan_holds_one_message_and_sends_nothing(queue: MemoryBroker) -> None:
    [message] = plain.s(3).plan().messages
    assert message.task == "nodes.plain"
    assert decode_body(message.body) == ((3,), {}, {})
    assert queue.stats() == []


def test_sending_a_signature_twice_makes_two_tasks(queue: MemoryBroker) -> None:
    call = plain.s(3)
    assert call.apply_async() != call.apply_async()
    assert len(queue.peek("default", 9)) == 2


# Options


def test_a_call_that_says_nothing_has_the_defaults() -> None:
    message = sealed()
    assert (message.queue, message.priority, message.retries, message.attempts) == ("default", 0, 0, 0)
    assert (message.eta, message.countdown, message.expires, message.ignore_result) == (None, None, None, None)
    assert (message.time_limit, message.soft_time_limit, message.shadow, message.headers) == (None, None, None, {})
    assert (message.root_id, message.parent_id, message.group_id, message.group_index) == (None, None, None, None)
    assert message.origin == f"gen{os.getpid()}@{socket.gethostname()}"


def test_a_call_has_what_its_task_declared() -> None:
    message = sealed("nodes.declared")
    assert (message.queue, message.priority, message.ignore_result) == ("slow", -7, True)
    assert message.expires is not None
    assert abs(message.expires - datetime.now(UTC) - timedelta(seconds=60)) < SOON


def test_the_call_wins_over_its_task() -> None:
    message = sealed("nodes.declared", queue="fast", priority=0, expires=NEW_YEAR, ignore_result=False)
    assert (message.queue, message.priority, message.expires, message.ignore_result) == ("fast", 0, NEW_YEAR, False)


def test_the_priority_of_the_queue_counts_where_nobody_says_one(configure: Configure) -> None:
    configure(QUEUES={"mail": {"PRIORITY": 9}})
    assert sealed(queue="mail").priority == 9
    assert sealed(queue="mail", priority=0).priority == 0


def test_a_call_may_say_everything() -> None:
    message = sealed(
        task_id="order-7",
        headers={"tenant": "a"},
        shadow="pay",
        time_limit=60,
        soft_time_limit=50,
        retries=2,
        root_id="1",
        parent_id="2",
        group_id="g",
        group_index=3,
    )
    assert (message.id, message.headers, message.shadow) == ("order-7", {"tenant": "a"}, "pay")
    assert (message.time_limit, message.soft_time_limit, message.retries) == (60, 50, 2)
    assert (message.root_id, message.parent_id, message.group_id, message.group_index) == ("1", "2", "g", 3)


def test_headers_are_the_messages_own() -> None:
    headers = {"tenant": "a"}
    message = sealed(headers=headers)
    headers["tenant"] = "b"
    assert message.headers == {"tenant": "a"}


def test_a_task_that_is_not_known_here_may_be_sent() -> None:
    assert sealed("elsewhere.tasks.run").task == "elsewhere.tasks.run"


def test_arguments_are_shown_without_what_goes_by_the_name_of_a_secret() -> None:
    message = seal(Signature("nodes.plain", (5, "hunter2"), {"api_key": "hunter3", "y": 1}))
    assert "hunter" not in message.args_repr + message.kwargs_repr
    assert message.args_repr.startswith("(5,")
    assert decode_body(message.body)[0] == (5, "hunter2")


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"cuontdown": 5}, TypeError, "no option 'cuontdown': Did you mean 'countdown'?"),
        ({"zzz": 1}, TypeError, "no option 'zzz': Known are: compression, countdown, encrypt, enqueue, eta, exc"),
        ({"countdown": 5, "eta": NEW_YEAR}, ValueError, "Give countdown or eta, not both."),
        ({"countdown": 1e12}, ValueError, "countdown=1000000000000.0 lies more than a thousand years ahead."),
        ({"countdown": float("inf")}, ValueError, "countdown=inf lies more than a thousand years ahead."),
        ({"expires": 1e300}, ValueError, "expires=1e+300 lies more than a thousand years ahead."),
        ({"countdown": timedelta(minutes=1)}, TypeError, "countdown is a number of seconds, not datetime.timedelta"),
        ({"expires": "never"}, TypeError, "expires is a number of seconds or a datetime, not 'never'."),
        ({"eta": "2030-01-01"}, TypeError, "eta must be a datetime, not str."),
        ({"task_id": "a b"}, ValueError, "1 to 255 printable characters without white space, not 'a b'."),
        ({"task_id": ""}, ValueError, "task_id must be 1 to 255 printable characters without white space, not ''."),
        ({"task_id": "x" * 256}, ValueError, "task_id must be 1 to 255 printable characters without white space"),
        ({"headers": {5: "x"}}, TypeError, "headers: the name 5 is not a string."),
        ({"queue": "a\nb"}, ConfigurationError, "cannot be a queue's name: 1 to 128 printable characters."),
        ({"priority": 500}, ConfigurationError, "A priority is a whole number from -100 to 100; this one is 500."),
        ({"time_limit": 0}, ValueError, "time_limit is a number of seconds above 0, not 0."),
        ({"retries": -1}, ValueError, "retries is 0 or more, not -1."),
    ],
)
def test_an_option_that_cannot_be_is_refused_before_anything_is_sent(
    queue: MemoryBroker, options: Any, error: type[Exception], said: str
) -> None:
    with pytest.raises(error) as caught:
        plain.apply_async(**options)
    assert said in str(caught.value)
    assert queue.stats() == []


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 256])
def test_what_cannot_be_a_tasks_name_is_refused(name: str) -> None:
    with pytest.raises(NotRegistered, match=r"A task's name has 1 to 255 printable characters\."):
        sealed(name)


def test_arguments_that_cannot_be_sent_are_refused_with_their_path() -> None:
    with pytest.raises(SerializationError, match=r"^args\[0\]\['x'\]"):
        sealed(args=({"x": object()},))


# Times


@pytest.mark.parametrize("countdown", [0, -5, -1e300, float("nan")])
def test_a_countdown_of_0_or_less_is_at_once(countdown: float) -> None:
    message = sealed(countdown=countdown)
    assert (message.countdown, message.eta) == (None, None)


def test_a_countdown_travels_as_such_with_the_time_that_it_stands_for() -> None:
    message = sealed(countdown=3600)
    assert message.countdown == 3600
    assert message.eta is not None
    assert abs(message.eta - datetime.now(UTC) - timedelta(hours=1)) < SOON


def test_an_aware_eta_is_told_in_utc() -> None:
    message = sealed(eta=datetime(2030, 1, 1, 1, tzinfo=timezone(timedelta(hours=1))))
    assert (message.eta, message.countdown) == (NEW_YEAR, None)
    assert message.eta is not None
    assert message.eta.tzinfo is UTC


def test_a_naive_eta_is_read_in_djangos_current_time_zone() -> None:
    with django_timezone.override(ZoneInfo("Asia/Tokyo")):
        assert sealed(eta=datetime(2030, 1, 1, 9)).eta == NEW_YEAR  # noqa: DTZ001  # naive is the point
        assert sealed(expires=datetime(2030, 1, 1, 9)).expires == NEW_YEAR  # noqa: DTZ001


def test_a_naive_eta_in_the_hour_that_summer_time_skips_is_a_time_all_the_same() -> None:
    with django_timezone.override(ZoneInfo("Europe/Berlin")):
        assert sealed(eta=datetime(2030, 3, 31, 2, 30)).eta == datetime(2030, 3, 31, 1, 30, tzinfo=UTC)  # noqa: DTZ001


def test_an_eta_in_the_past_is_kept_and_means_at_once(queue: MemoryBroker) -> None:
    past = datetime(2020, 1, 1, tzinfo=UTC)
    plain.apply_async(eta=past)
    [delivery] = queue.fetch(["default"], 1, lease=30, consumer="w")
    assert delivery.message.eta == past


def test_the_last_day_of_the_calendar_can_be_said() -> None:
    end = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
    assert sealed(eta=end, expires=end).eta == end


@pytest.mark.parametrize(
    "moment",
    [
        datetime(9999, 12, 31, 23, 59, tzinfo=timezone(timedelta(hours=-5))),
        datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=5))),
    ],
)
def test_a_time_beyond_the_calendar_in_utc_is_refused_with_the_way_out(moment: datetime) -> None:
    with pytest.raises(ValueError, match=r"eta=.* cannot be told in UTC; stay a day within the years 1 and 9999\."):
        aware("eta", moment)


def test_one_that_expired_before_it_was_sent_still_travels() -> None:
    message = sealed(expires=-5)
    assert message.expires is not None
    assert message.expires <= datetime.now(UTC)


def test_one_may_expire_before_its_eta() -> None:
    message = sealed(eta=NEW_YEAR, expires=1)
    assert message.expires is not None
    assert message.expires < NEW_YEAR == message.eta


# Inside a task


def test_what_a_task_sends_names_its_parent_and_its_root() -> None:
    with answering(Request(Message(id="2", task="t", body=b"", root_id="1"))):
        message = sealed()
        own = sealed(root_id="r", parent_id="p")
    assert (message.root_id, message.parent_id) == ("1", "2")
    assert (own.root_id, own.parent_id) == ("r", "p")


# The next attempt


BEFORE = Message(
    id="7",
    task="nodes.plain",
    body=b'[[1],{"x":2},{}]',
    queue="slow",
    priority=4,
    eta=NEW_YEAR,
    expires=NEW_YEAR,
    retries=1,
    attempts=2,
    time_limit=60,
    soft_time_limit=50,
    ignore_result=True,
    root_id="1",
    parent_id="2",
    group_id="g",
    group_index=3,
    shadow="pay",
    headers={"tenant": "a", "trace": "t"},
)


def again(args: Any = None, kwargs: Any = None, **options: Any) -> Message:
    request = Request(BEFORE, (1,), {"x": 2}, deliveries=2)
    return next_attempt(request, args, kwargs, CallOptions(**options))  # type: ignore[typeddict-item]


def test_the_next_attempt_is_the_same_call_under_the_same_id() -> None:
    message = again()
    same = ["id", "task", "body", "queue", "priority", "expires", "time_limit", "soft_time_limit", "ignore_result"]
    same += ["root_id", "parent_id", "group_id", "group_index", "shadow", "headers"]
    assert {name: getattr(message, name) for name in same} == {name: getattr(BEFORE, name) for name in same}
    assert (message.retries, message.attempts) == (2, 4)
    assert (message.eta, message.countdown) == (None, None)


def test_arguments_that_are_not_given_stay_as_they_were() -> None:
    assert decode_body(again(args=[5]).body) == ((5,), {"x": 2}, {})
    assert decode_body(again(kwargs={}).body) == ((1,), {}, {})
    assert decode_body(again(args=(), kwargs={"x": 1}).body) == ((), {"x": 1}, {})


def test_the_original_body_is_sent_again_whatever_the_function_did_to_its_arguments() -> None:
    assert again().body is BEFORE.body


def test_the_next_attempt_may_have_options_of_its_own() -> None:
    message = again(
        countdown=5, queue="fast", priority=-1, expires=60, headers={"tenant": "b"}, time_limit=6, soft_time_limit=5
    )
    assert (message.countdown, message.queue, message.priority) == (5, "fast", -1)
    assert (message.time_limit, message.soft_time_limit) == (6, 5)
    assert message.headers == {"tenant": "b", "trace": "t"}
    assert message.expires is not None
    assert message.expires < NEW_YEAR


@pytest.mark.parametrize("options", [{"countdown": 1e12}, {"eta": "later"}, {"queue": "a\nb"}, {"priority": 500}])
def test_the_next_attempt_is_held_to_the_same_rules(options: Any) -> None:
    with pytest.raises((TypeError, ValueError, ConfigurationError)):
        again(**options)


# The handle


def test_a_handle_knows_whether_anything_will_be_kept(configure: Configure) -> None:
    assert not ignored(sealed())
    assert ignored(sealed("nodes.declared"))
    configure(IGNORE_RESULT=True)
    assert ignored(sealed())
    assert not ignored(sealed(ignore_result=False))
