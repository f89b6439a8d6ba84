"""Which task has this name?"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

from django_tasks.exceptions import ConfigurationError, NotRegistered

if TYPE_CHECKING:
    from django_tasks.task import Task


class TaskRegistry(dict[str, "Task[Any, Any]"]):
    """Tasks by name."""

    def register(self, task: Task[Any, Any]) -> None:
        """Add a task; the same function may be declared again (a module that is reloaded), another may not."""
        known = self.get(task.name)
        if known is not None and known.origin != task.origin:
            raise ConfigurationError(
                f"Two tasks have the name {task.name!r}: {known.origin} and {task.origin}. Give one of them another "
                "name: @task(name=...)."
            )
        self[task.name] = task

    def __missing__(self, name: str) -> Task[Any, Any]:
        close = difflib.get_close_matches(name, self, n=1)
        raise NotRegistered(
            name,
            f"Did you mean {close[0]!r}?"
            if close
            else "Is its module named tasks.py in an installed app, or imported by one?",
        )


tasks = TaskRegistry()
