"""Which tasks do workflows of tests consist of?"""

from __future__ import annotations

from typing import Any

from django_tasks import Task, signature, task

told: list[Any] = []
"""What errbacks and callbacks of this process have been told."""


@task
def add(x: int, y: int) -> int:
    return x + y


@task
def mul(x: int, y: int) -> int:
    return x * y


@task
def tsum(numbers: list[Any]) -> Any:
    return sum(numbers)


@task
def same(value: Any) -> Any:
    return value


@task
def nothing() -> None:
    """Do nothing."""


@task
def fail(*args: Any) -> None:
    raise ValueError("on purpose")


@task
def note(*args: Any) -> Any:
    told.append(list(args))
    return list(args)


@task
def on_error(request: Any, exc: BaseException, traceback: str) -> str:
    told.append([request.id, type(exc).__name__, str(exc), "on purpose" in traceback])
    return "told"


@task
def on_error_id(task_id: str) -> str:
    told.append(task_id)
    return task_id


@task(bind=True)
def become(self: Task[..., Any], form: dict[str, Any]) -> Any:
    """Have another call run in this one's place."""
    self.replace(signature(form))


@task(bind=True)
def ids(self: Task[..., Any], *args: Any) -> dict[str, Any]:
    """Tell who is who."""
    request = self.request
    return {"id": request.id, "root": request.root_id, "parent": request.parent_id, "group": request.group}


@task
def collect(*args: Any) -> list[Any]:
    """Return all that it was given."""
    return list(args)


@task(bind=True)
def send(self: Task[..., Any], forms: list[Any]) -> int:
    """Send calls; note what the request says of them."""
    for form in forms:
        signature(form).apply_async()
    told.append([[list(head), members] for head, members in self.request.children])
    return len(forms)


@task(bind=True)
def stamped(self: Task[..., Any], *args: Any) -> dict[str, Any]:
    """Tell what the call was stamped with."""
    told.append(self.request.stamps)
    return self.request.stamps


@task(bind=True)
def grow(self: Task[..., Any], forms: list[Any], retries: int = 0, *, lazy: bool = False) -> str:
    """Add calls to the chord of which this one is a member, in each of so many runs and one more."""
    for form in forms:
        added = self.add_to_chord(signature(form), lazy=lazy)
        told.append(added.id)
        if lazy:
            added.delay()
    if self.request.retries < retries:
        raise self.retry(countdown=0)
    return "grown"
