"""Is what a task or a call says of itself read, and what it cannot say refused where it is said?"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from django_tasks.options import DECLARATION, UNSET, TaskOptions, check_call, declared, retry_policy
from django_tasks.retry import RetryPolicy
from django_tasks.task import Task

NEW_YEAR = datetime(2030, 1, 1, tzinfo=UTC)

EVERYTHING: dict[str, Any] = {
    "queue": "mail",
    "priority": 5,
    "max_retries": 7,
    "default_retry_delay": 1.5,
    "autoretry_for": (OSError,),
    "dont_autoretry_for": (FileNotFoundError,),
    "retry_backoff": 2.0,
    "retry_backoff_max": 60,
    "retry_jitter": False,
    "throws": (KeyError,),
    "time_limit": 60,
    "soft_time_limit": 50.5,
    "acks_late": False,
    "on_crash": "fail",
    "max_crashes": 1,
    "ignore_result": True,
    "store_errors_even_if_ignored": False,
    "track_started": True,
    "expires": 3600,
    "typing": False,
    "atomic": "reports",
    "enqueue": "transaction",
    "serializer": "msgpack",
    "compression": "zstd",
    "encrypt": True,
    "api": True,
    "schedule": 60,
}


def read(base: type = Task, /, **given: Any) -> TaskOptions:
    return declared(base, given)  # type: ignore[arg-type]  # what a user may get wrong is the point


def test_every_option_is_kept_as_it_was_given() -> None:
    assert {*EVERYTHING, "retry_kwargs"} == DECLARATION
    found = read(**EVERYTHING)
    assert {name: getattr(found, name) for name in EVERYTHING} == EVERYTHING


def test_what_is_not_said_is_left_to_the_settings() -> None:
    found = read()
    assert found == TaskOptions()
    assert (found.max_retries, found.default_retry_delay, found.acks_late, found.queue) == (UNSET, UNSET, None, None)


def test_a_base_class_says_options_as_attributes_and_the_decorator_says_better() -> None:
    class Mail(Task[..., Any]):
        queue = "mail"
        priority = 3
        max_retries = 9
        autoretry_for = (OSError,)

    found = read(Mail, priority=4)
    assert (found.queue, found.priority, found.max_retries, found.autoretry_for) == ("mail", 4, 9, (OSError,))


def test_a_base_class_inherits_options_as_it_inherits_all_else() -> None:
    class Mail(Task[..., Any]):
        queue = "mail"
        acks_late = False

    class Bulk(Mail):
        queue = "bulk"

    assert (read(Bulk).queue, read(Bulk).acks_late) == ("bulk", False)


@pytest.mark.parametrize("name", ["autoretry_for", "dont_autoretry_for", "throws"])
def test_one_exception_class_or_several_in_any_sequence_are_the_same(name: str) -> None:
    assert getattr(read(**{name: OSError}), name) == (OSError,)
    assert getattr(read(**{name: [OSError, KeyError]}), name) == (OSError, KeyError)
    assert getattr(read(**{name: ()}), name) == ()


@pytest.mark.parametrize("name", ["autoretry_for", "dont_autoretry_for", "throws"])
@pytest.mark.parametrize("value", [("OSError",), int, (OSError, ValueError("x"))])
def test_what_is_no_exception_class_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=rf"{name} takes exception classes; .* is not one\."):
        read(**{name: value})


def test_retry_kwargs_are_celerys_way_to_say_two_options() -> None:
    found = read(retry_kwargs={"max_retries": 8, "countdown": 2})
    assert (found.max_retries, found.default_retry_delay) == (8, 2)


def test_an_option_said_by_its_own_name_wins_over_retry_kwargs() -> None:
    found = read(max_retries=1, default_retry_delay=5, retry_kwargs={"max_retries": 8, "countdown": 2})
    assert (found.max_retries, found.default_retry_delay) == (1, 5)


def test_retry_kwargs_take_nothing_else() -> None:
    with pytest.raises(TypeError, match=r"retry_kwargs takes max_retries and countdown, not queue\."):
        read(retry_kwargs={"queue": "mail"})


@pytest.mark.parametrize(("said", "meant"), [(True, 1.0), (False, None), (0, None), (5, 5.0), (0.5, 0.5), (None, None)])
def test_a_backoff_of_true_begins_at_one_second(said: Any, meant: float | None) -> None:
    assert read(retry_backoff=said).retry_backoff == meant


@pytest.mark.parametrize(
    ("name", "value", "error", "said"),
    [
        ("queue", 5, TypeError, "queue is the name of a queue, not 5."),
        ("queue", "", ValueError, "queue is the name of a queue, not ''."),
        ("priority", "high", TypeError, "priority is a whole number from -100 to 100, not 'high'."),
        ("priority", 101, ValueError, "priority is a whole number from -100 to 100, not 101."),
        ("max_retries", "5", TypeError, "max_retries is 0 or more, or None for no end, not '5'."),
        ("max_retries", -1, ValueError, "max_retries is 0 or more, or None for no end, not -1."),
        ("max_retries", True, TypeError, "max_retries is 0 or more, or None for no end, not True."),
        ("default_retry_delay", None, TypeError, "default_retry_delay is a number of seconds, 0 or more, not None."),
        ("default_retry_delay", -1, ValueError, "default_retry_delay is a number of seconds, 0 or more, not -1."),
        ("retry_backoff", -1, ValueError, "retry_backoff is True or a number of seconds, 0 or more, not -1."),
        ("retry_backoff", "2s", TypeError, "retry_backoff is True or a number of seconds, 0 or more, not '2s'."),
        ("retry_backoff_max", 0, ValueError, "retry_backoff_max is a number of seconds above 0, not 0."),
        ("retry_jitter", 0.5, TypeError, "retry_jitter is True or False, not 0.5."),
        ("time_limit", 0, ValueError, "time_limit is a number of seconds above 0, not 0."),
        ("time_limit", "60", TypeError, "time_limit is a number of seconds above 0, not '60'."),
        ("soft_time_limit", float("nan"), ValueError, "soft_time_limit is a number of seconds above 0, not nan."),
        ("acks_late", "no", TypeError, "acks_late is True, False or None, not 'no'."),
        ("on_crash", "die", ValueError, "on_crash is 'retry' or 'fail', not 'die'."),
        ("on_crash", True, TypeError, "on_crash is 'retry' or 'fail', not True."),
        ("max_crashes", 0, ValueError, "max_crashes is 1 or more, not 0."),
        (
            "expires",
            timedelta(hours=1),
            TypeError,
            "expires is a number of seconds or a datetime, not datetime.timedelta",
        ),
        ("typing", 1, TypeError, "typing is True, False or None, not 1."),
        ("atomic", None, TypeError, "atomic is True, False or the alias of a database, not None."),
        ("atomic", "", ValueError, "atomic is True, False or the alias of a database, not ''."),
        ("api", "yes", TypeError, "api is True or False, not 'yes'."),
    ],
)
def test_a_declaration_that_cannot_be_says_what_the_option_is(
    name: str, value: Any, error: type[Exception], said: str
) -> None:
    with pytest.raises(error) as caught:
        read(**{name: value})
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "error", "said"),
    [
        ("countdown", "5", TypeError, "countdown is a number of seconds, not '5'."),
        ("countdown", timedelta(minutes=5), TypeError, "countdown is a number of seconds, not datetime.timedelta"),
        ("expires", "tomorrow", TypeError, "expires is a number of seconds or a datetime, not 'tomorrow'."),
        ("time_limit", -1, ValueError, "time_limit is a number of seconds above 0, not -1."),
        ("soft_time_limit", 0, ValueError, "soft_time_limit is a number of seconds above 0, not 0."),
        ("retries", -1, ValueError, "retries is 0 or more, not -1."),
        ("retries", None, TypeError, "retries is 0 or more, not None."),
        ("ignore_result", "yes", TypeError, "ignore_result is True, False or None, not 'yes'."),
        ("shadow", 5, TypeError, "shadow is a name, not 5."),
        ("root_id", 5, TypeError, "root_id is the id of a task, not 5."),
        ("parent_id", 5, TypeError, "parent_id is the id of a task, not 5."),
        ("group_id", 5, TypeError, "group_id is the id of a group, not 5."),
        ("group_index", "1", TypeError, "group_index is a whole number, not '1'."),
    ],
)
def test_a_call_that_cannot_be_says_what_the_option_is(
    name: str, value: Any, error: type[Exception], said: str
) -> None:
    with pytest.raises(error) as caught:
        check_call({name: value})
    assert said in str(caught.value)


def test_a_huge_value_does_not_make_a_huge_message() -> None:
    with pytest.raises(TypeError) as caught:
        check_call({"countdown": "9" * 10_000})
    assert len(str(caught.value)) < 200


def test_the_settings_say_how_often_and_how_late_where_the_task_does_not() -> None:
    assert retry_policy(read(), 4, 30) == RetryPolicy(max_retries=4, delay=30)
    assert retry_policy(read(max_retries=None, default_retry_delay=0), 4, 30) == RetryPolicy(max_retries=None, delay=0)


def test_a_policy_says_all_that_the_task_says_of_retries() -> None:
    assert retry_policy(read(**EVERYTHING), 4, 30) == RetryPolicy(
        max_retries=7,
        delay=1.5,
        backoff=2.0,
        backoff_max=60,
        jitter=False,
        errors=(OSError,),
        except_for=(FileNotFoundError,),
    )
