"""Which tasks are always there? Celery has them under the same names."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django_tasks.canvas.mapped import ACCUMULATE, MAP, STARMAP
from django_tasks.canvas.signature import signature
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
