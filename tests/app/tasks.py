"""Which tasks would a user write?"""

from __future__ import annotations

from typing import Any

from django_tasks import task
from tests.app.models import Note


@task
def add(x: int, y: int) -> int:
    return x + y


@task
def echo(*args: Any, **kwargs: Any) -> list[Any]:
    return [list(args), kwargs]


@task
def fail(message: str) -> None:
    raise ValueError(message)


@task
def write_note(text: str, using: str = "default") -> int:
    """Leave a row behind, so that a test can count how often the task ran."""
    return Note.objects.using(using).create(text=text).pk
