"""What does every test find ready?"""

from __future__ import annotations

from pathlib import Path

import pytest
from django.conf import settings


@pytest.fixture(scope="session")
def django_db_modify_db_settings() -> None:
    """Leave the names alone: tests/settings.py makes them unique, for processes that tests start as well."""


def pytest_unconfigure() -> None:
    """Remove what killed processes leave beside the SQLite file: its journal and shared memory."""
    database = Path(settings.DATABASES["default"]["NAME"])
    for leftover in database.parent.glob(f"{database.name}*"):
        leftover.unlink(missing_ok=True)
