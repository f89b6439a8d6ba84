"""What is a serializer?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from django_tasks.encoding import Limits


class Dumps(Protocol):
    """Raises SerializationError, whose path begins with `root`."""

    def __call__(self, value: object, *, root: str = ..., limits: Limits = ...) -> bytes: ...


class Loads(Protocol):
    """Raises DecodeError."""

    def __call__(self, data: bytes, limits: Limits = ...) -> Any: ...


@dataclass(frozen=True, slots=True)
class Serializer:
    """One way to write values as bytes."""

    name: str
    content_type: str
    content_encoding: str
    dumps: Dumps
    loads: Loads
    missing: str = ""
    """What is to be installed before it works; empty when it does."""
    signed_only: bool = False
    """Whether reading it may run what its writer chose, so that nobody reads it without a signature."""
    wraps: bool = False
    """Whether what it writes holds a body with a content type of its own, and who vouches for that."""


def too_large(size: int, limits: Limits) -> str | None:
    """Say that bytes pass their limit."""
    return f"{size:,} bytes; the limit is {limits.bytes:,}" if size > limits.bytes else None


def missing(library: object, extra: str) -> str:
    """Say which extra to install for a library that could not be imported."""
    return "" if library is not None else f"pip install 'django-tasks-queue[{extra}]'"
