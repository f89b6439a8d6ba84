"""Does the type checker see a task as its users call it?

`make lint` checks this file: `assert_type` fails there when a type is another, and a comment that ignores an error
fails when there is none.
"""

from __future__ import annotations

from typing import assert_type

import pytest

from django_tasks import AsyncResult, Signature, Task, bulk, send_task, shared_task, task
from django_tasks.connections import brokers

pytestmark = pytest.mark.usefixtures("configure")


@task
def plain(x: int, y: str = "") -> float:
    return float(x)


@task(name="types.options", queue="slow", max_retries=None, autoretry_for=(OSError,), expires=5)
def with_options(x: int) -> list[str]:
    return []


@task(name="types.bound", bind=True)
def bound(self: Task[..., float], x: int) -> float:
    return 1.0


@task
async def asynchronous(x: int) -> bytes:
    return b""


@task(name="types.async_options", queue="slow")
async def async_with_options(x: int) -> bytes:
    return b""


@task(name="types.async_bound", bind=True)
async def async_bound(self: Task[..., bytes], x: int) -> bytes:
    return b""


@shared_task(name="types.shared")
def shared(x: int) -> str:
    return ""


def test_a_handle_is_one_on_what_the_function_returns() -> None:
    assert_type(plain.delay(1, y="a"), AsyncResult[float])
    assert_type(plain.apply_async((1,), {"y": "a"}, countdown=5), AsyncResult[float])
    assert_type(plain.apply((1,)).get(), float)
    assert_type(with_options.delay(1), AsyncResult[list[str]])
    assert_type(bound.delay(1), AsyncResult[float])
    assert_type(shared.delay(x=1), AsyncResult[str])


def test_a_task_declared_with_async_def_is_one_on_what_it_ends_with() -> None:
    assert_type(asynchronous.delay(1), AsyncResult[bytes])
    assert_type(async_with_options.delay(1), AsyncResult[bytes])
    assert_type(async_bound.apply((1,)).get(), bytes)


def test_calling_a_task_is_calling_its_function() -> None:
    assert_type(plain(1, "a"), float)
    assert_type(bound(1), float)


def test_options_laid_under_calls_change_no_type() -> None:
    assert_type(plain.using(queue="slow").delay(1), AsyncResult[float])


def test_a_description_of_a_call_may_be_of_any_task() -> None:
    assert_type(plain.s(1), Signature)
    assert isinstance(bulk([plain.s(1), bound.s(2)]), list)
    assert isinstance(send_task("elsewhere.run", (1,)), AsyncResult)


def test_the_checker_refuses_what_does_not_fit() -> None:
    with pytest.raises(TypeError):
        plain.delay()  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        plain.delay(1, "a", 2)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        bound.delay(1, z=2)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        with_options.delay(y=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        plain.apply_async((1,), cuontdown=5)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        plain.using(priority=5, zzz=1).delay(1)  # type: ignore[call-arg]
    assert brokers["default"].stats() == []


def test_the_checker_knows_the_kinds_of_arguments() -> None:
    plain.delay("1")  # type: ignore[arg-type]
    async_with_options.delay("1")  # type: ignore[arg-type]
    async_bound.delay("1")  # type: ignore[arg-type]
