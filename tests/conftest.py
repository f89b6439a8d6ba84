"""What does every test find ready?"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--thorough", action="store_true", help="run long tests at their full length")


@pytest.fixture
def thorough(request: pytest.FixtureRequest) -> bool:
    """Tell whether a test is to run at its full length, and not at the one that a suite can bear."""
    if request.config.getoption("--thorough"):
        request.node.add_marker(pytest.mark.timeout(600))
        return True
    return False


@pytest.fixture(scope="session")
def django_db_modify_db_settings() -> None:
    """Leave the names alone: tests/settings.py makes them unique, for processes that tests start as well."""


@pytest.fixture(autouse=True)
def own_logger() -> Iterator[None]:
    """Give the package's logger back as it was: a command that a test ran may have set it up for good."""
    logger = logging.getLogger("django_tasks")
    before = list(logger.handlers), logger.level, logger.propagate, logger.disabled
    yield
    for handler in set(logger.handlers) - set(before[0]):
        handler.close()
    logger.handlers[:], logger.level, logger.propagate, logger.disabled = before
    # Levels are cached by name; this forgets them.
    logger.setLevel(before[1])


def pytest_unconfigure() -> None:
    """Remove what killed processes leave beside the SQLite file: its journal and shared memory."""
    database = Path(settings.DATABASES["default"]["NAME"])
    for leftover in database.parent.glob(f"{database.name}*"):
        leftover.unlink(missing_ok=True)
