"""Which tasks were revoked? Written in the database, so that no restart of a worker forgets it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from django_tasks.models import Revocation
from django_tasks.transactions import retrying

_CHUNK = 500


class RevocationLedger:
    """The revoked task ids, and stamps by their names, each with whether a run of it is to be ended."""

    def __init__(self, using: str) -> None:
        self.using = using

    def add(self, ids: Sequence[str], *, terminate: bool = False, reason: str = "") -> None:
        """Write revocations; one that is there already may become a terminating one, never the other way round."""
        rows = [Revocation(task_id=task_id, terminate=terminate, reason=reason) for task_id in ids]
        manager = Revocation.objects.using(self.using)

        def write() -> None:
            manager.bulk_create(rows, ignore_conflicts=True, batch_size=_CHUNK)
            if terminate:
                for part in _chunks(ids):
                    manager.filter(task_id__in=part).update(terminate=True)

        retrying(self.using, write)

    def among(self, ids: Sequence[str]) -> Mapping[str, bool]:
        """Return those of the ids that are revoked, with whether a run of them is to be ended."""
        found: dict[str, bool] = {}
        for part in _chunks(ids):
            rows = Revocation.objects.using(self.using).filter(task_id__in=part)
            found.update(rows.values_list("task_id", "terminate"))
        return found

    def any(self) -> bool:
        """Tell whether anything is revoked at all."""
        return Revocation.objects.using(self.using).exists()

    def forget(self, ids: Sequence[str]) -> None:
        """Take revocations back, so that the tasks may be sent again."""
        for part in _chunks(ids):
            Revocation.objects.using(self.using).filter(task_id__in=part).delete()

    def expire(self, before: datetime) -> int:
        """Remove revocations older than a time; return how many."""
        return Revocation.objects.using(self.using).filter(created_at__lt=before).delete()[0]


def _chunks(ids: Sequence[str]) -> list[Sequence[str]]:
    return [ids[start : start + _CHUNK] for start in range(0, len(ids), _CHUNK)]
