"""Is each task found by its name, and a name that nobody has answered with what to do?"""

from __future__ import annotations

import pytest

from django_tasks.exceptions import ConfigurationError, NotRegistered
from django_tasks.registry import TaskRegistry
from django_tasks.task import Task


def pay() -> int:
    return 1


def sell() -> int:
    return 2


def made(function, name="shop.pay"):
    return Task(function, name, bind=False, given={})


@pytest.fixture
def registry() -> TaskRegistry:
    found = TaskRegistry()
    found.register(made(pay))
    return found


def test_a_task_is_found_by_its_name(registry: TaskRegistry) -> None:
    assert registry["shop.pay"].function is pay


def test_a_module_that_is_reloaded_may_declare_its_tasks_again(registry: TaskRegistry) -> None:
    again = made(pay)
    registry.register(again)
    assert registry["shop.pay"] is again


def test_two_functions_cannot_have_one_name(registry: TaskRegistry) -> None:
    with pytest.raises(ConfigurationError) as caught:
        registry.register(made(sell))
    assert str(caught.value) == (
        f"Two tasks have the name 'shop.pay': {__name__}.pay and {__name__}.sell. Give one of them another name: "
        "@task(name=...)."
    )
    assert registry["shop.pay"].function is pay


def test_a_name_like_another_is_answered_with_that(registry: TaskRegistry) -> None:
    with pytest.raises(NotRegistered) as caught:
        registry["shop.pya"]
    assert str(caught.value) == "No task named 'shop.pya' is registered here. Did you mean 'shop.pay'?"
    assert isinstance(caught.value, LookupError)


def test_a_name_like_no_other_is_answered_with_where_tasks_are_looked_for(registry: TaskRegistry) -> None:
    with pytest.raises(NotRegistered, match=r"'quux'.*Is its module named tasks\.py in an installed app, or imported"):
        registry["quux"]


def test_asking_without_raising_does_not_raise(registry: TaskRegistry) -> None:
    assert registry.get("quux") is None
    assert "quux" not in registry
