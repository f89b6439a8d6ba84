"""What do the rows of the queue know of themselves?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from django.db import connections, models
from django.utils import timezone

from django_tasks.transactions import write

if TYPE_CHECKING:
    from django_tasks.periodic_models import PeriodicTask  # noqa: F401  # named in the text below

PLANNING = frozenset({"schedule", "timezone", "start_at", "end_at", "enabled"})
"""What decides when a periodic task is due."""


class PeriodicTaskQuerySet(models.QuerySet["PeriodicTask"]):
    """Periodic tasks; a change of what decides when they are due counts at the next tick, however it is made."""

    def update(self, **values: Any) -> int:
        """Change rows; those whose schedule changes are planned anew."""
        return super().update(**{**(anew() if PLANNING & values.keys() else {}), **values})

    update.alters_data = True  # type: ignore[attr-defined]

    def delete(self) -> tuple[int, dict[str, int]]:
        """Remove rows and their runs; a tick that is at one of them comes to its end before."""
        with held(self):
            return super().delete()

    delete.alters_data = True  # type: ignore[attr-defined]
    delete.queryset_only = True  # type: ignore[attr-defined]


@contextmanager
def held(rows: models.QuerySet[Any]) -> Iterator[None]:
    """Run the block in a transaction that has locked these rows."""
    with write(rows.db):
        if connections[rows.db].features.has_select_for_update:
            # Joins and DISTINCT, which some servers do not lock, stay inside.
            found = rows.model._base_manager.using(rows.db).filter(pk__in=rows.order_by().values("pk"))
            list(found.order_by("pk").select_for_update().values_list("pk", flat=True))
        yield


def anew() -> dict[str, Any]:
    """Return what has a row planned by the next tick, which finds it due and sees that it is not worked out. Its
    failures so far, and why it was disabled, count no more."""
    now = timezone.now()
    return {"planned": False, "next_run_at": now, "changed_at": now, "error": "", "failures": 0}
