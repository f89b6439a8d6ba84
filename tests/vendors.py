"""How does one test run on SQLite, PostgreSQL and MariaDB?

@each_vendor(transaction=True)
def test_claim(alias): ...

@each_vendor("postgres")
class TestListen: ...
"""

from __future__ import annotations

import pytest
from django.db import connections

from tests import databases

ALIASES = {"sqlite": "default", "postgres": "postgres", "mariadb": "mariadb"}
"""Database aliases of tests/settings.py, by the vendor that stands behind each."""


def each_vendor(*vendors: str, transaction: bool = False) -> pytest.MarkDecorator:
    """Run a test, or every test of a class or module, once on each vendor; it takes the argument `alias`.

    Only that database is open to the test, and only databases that some collected test asks for are created.
    """
    return pytest.mark.parametrize(
        "alias",
        [
            pytest.param(alias, id=vendor, marks=pytest.mark.django_db(databases=[alias], transaction=transaction))
            for vendor, alias in ALIASES.items()
            if vendor in (vendors or ALIASES)
        ],
    )


def database_url(alias: str) -> str:
    """Say where a test's database is, as the DATABASE_URL for a process that the test starts."""
    return databases.url(connections[alias].settings_dict)
