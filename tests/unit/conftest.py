"""What do the unit tests share? A site whose messages and results stay in this process."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

from django_tasks.backends.memory import MemoryBroker
from django_tasks.connections import brokers, results
from django_tasks.results.memory import MemoryStore

MEMORY = {"BROKERS": {"default": {"BACKEND": "memory"}}, "RESULTS": {"default": {"BACKEND": "memory"}}}


@pytest.fixture
def configure(settings: Any) -> Callable[..., None]:
    """Say keys of DJANGO_TASKS, over a memory broker and a memory store."""

    def configure(**keys: Any) -> None:
        settings.DJANGO_TASKS = {**MEMORY, **keys}

    configure()
    return configure


@pytest.fixture
def queue(configure: Callable[..., None]) -> MemoryBroker:
    """Give the default broker of a site that keeps everything in this process."""
    return cast(MemoryBroker, brokers["default"])


@pytest.fixture
def kept(configure: Callable[..., None]) -> MemoryStore:
    """Give the default store of a site that keeps everything in this process."""
    return cast(MemoryStore, results["default"])


@pytest.fixture
def own_signals() -> Iterator[None]:
    """Give the process back its signal handlers."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGCHLD, signal.SIGUSR1)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def own_log() -> Iterator[logging.Logger]:
    """Give the package's logger as nobody has configured it, and back as it was."""
    logger = logging.getLogger("django_tasks")
    before = logger.handlers, logger.level, logger.propagate
    logger.handlers = []
    yield logger
    for handler in logger.handlers:
        handler.close()
    logger.handlers, level, logger.propagate = before
    logger.setLevel(level)
