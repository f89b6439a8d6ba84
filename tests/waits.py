"""How does a test let time pass for groups that wait, wherever they are kept?"""

from __future__ import annotations

from datetime import timedelta

from django.db.models import F

from django_tasks.models import TaskGroup
from django_tasks.results.groups import Groups
from django_tasks.results.memory_groups import MemoryGroups
from tests import redises
from tests.settings import REDIS_PREFIX


def elapse(groups: Groups, seconds: float, prefix: str = REDIS_PREFIX) -> None:
    """Let time pass for groups; those in Redis have keys that begin with a prefix."""
    if isinstance(groups, MemoryGroups):
        before = groups.clock
        groups.clock = lambda: before() + seconds
    elif groups.database is not None:
        rows = TaskGroup.objects.using(groups.database).exclude(deadline=None)
        rows.update(deadline=F("deadline") - timedelta(seconds=seconds))
    else:
        # Of what is kept there these alone.
        redises.elapse(f"{prefix}:*groups", seconds)
