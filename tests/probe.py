"""May tests make databases on a server? `python -m tests.probe URL` says why not."""

from __future__ import annotations

import os
import sys

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError
from django.db.utils import ConnectionHandler

from tests import databases


def probe(url: str) -> str:
    """Make a database and drop it; say what went wrong, if anything."""
    entry = databases.parse(url, name=f"django_tasks_probe_{os.getpid()}")
    connection = ConnectionHandler({"default": entry})["default"]
    name = connection.ops.quote_name(entry["NAME"])
    try:
        with connection._nodb_cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {name}")
            cursor.execute(f"DROP DATABASE {name}")
    except (DatabaseError, ImproperlyConfigured) as error:
        return str(error)
    return ""


if __name__ == "__main__":
    settings.configure()
    sys.exit(probe(sys.argv[1]) or 0)
