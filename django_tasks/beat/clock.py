"""What time is it, where all beats see the same clock?"""

from __future__ import annotations

from datetime import UTC, datetime

from django.db import connections

_QUESTIONS = {
    "postgresql": "SELECT statement_timestamp()",
    "mysql": "SELECT UTC_TIMESTAMP(6)",
}
"""SQLite has the clock of this host."""


def server_time(using: str) -> datetime:
    """Return the time of the database's server, so that a beat whose own clock is wrong runs nothing early."""
    question = _QUESTIONS.get(connections[using].vendor)
    if question is None:
        return datetime.now(UTC)
    with connections[using].cursor() as cursor:
        cursor.execute(question)
        moment: datetime = cursor.fetchone()[0]
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
