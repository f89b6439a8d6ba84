"""Which tasks are always there? Celery has them under the same names, but for the last."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django_tasks.canvas.mapped import ACCUMULATE, MAP, STARMAP
from django_tasks.canvas.resumption import resumed
from django_tasks.canvas.signature import signature
from django_tasks.canvas.tail import REST
from django_tasks.exceptions import Replaced
from django_tasks.task import Task
from django_tasks.task import task as declare


@declare(name=MAP)
def call_each(task: Any, it: Iterable[Any]) -> list[Any]:
    """Call a task for each item."""
    node = signature(task)
    return [node(item) for item in it]


@declare(name=STARMAP)
def call_each_with(task: Any, it: Iterable[Iterable[Any]]) -> list[Any]:
    """Call a task with the arguments in each item."""
    node = signature(task)
    return [node(*item) for item in it]


@declare(name=ACCUMULATE)
def accumulate(*args: Any, index: int | None = None) -> Any:
    """Return the arguments as a list, or one of them."""
    return list(args) if index is None else args[index]


@declare(name=REST, bind=True, ignore_result=True)
def go_on(self: Task[..., Any], *args: Any, packed: str, steps: int, size: int) -> None:
    """Go on with the steps of a chain that are packed in the arguments."""
    raise Replaced(resumed(self.request))
