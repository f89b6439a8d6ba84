"""What can an operator do to a whole group of tasks, and what came of it?"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from django_tasks import actions
from django_tasks.actions import Answer, Report, Verdict
from django_tasks.models import TaskGroup
from django_tasks.workflows import find_group, inner_groups, open_members

PATIENCE = 15.0
"""Seconds after which an action leaves the rest of its work to the next time it is asked for."""

_CHUNK = 500


@dataclass(slots=True)
class _Tally:
    """What came of the members of one group."""

    revoked: int = 0
    told: int = 0
    left: int = 0

    def add(self, report: Report) -> None:
        codes = [answer.code for answer in report.answers]
        self.revoked += codes.count("revoked")
        self.told += codes.count("told")


def revoke_members(
    ids: Sequence[str], *, patience: float = PATIENCE, clock: Callable[[], float] = time.monotonic
) -> Report:
    """Revoke the members of groups that have not ended: those that wait end now, those that run go on, and are not run
    again.

    The last ones are revoked first, since workers come from the other side. After `patience` seconds the answer tells
    how many are left; to ask again goes on with them.
    """
    deadline = clock() + patience
    return Report(tuple(_revoke(group_id, lambda: clock() < deadline) for group_id in dict.fromkeys(ids)))


def _revoke(group_id: str, may_go_on: Callable[[], bool]) -> Answer:
    row = find_group(group_id)
    if row is None:
        return Answer(group_id, Verdict.NOT_FOUND, "not_found", _("No group of this id is known."))
    if row.done >= row.size or (row.failed_id == row.group_id and row.done == 0):
        text = _("None of its members waits or runs any more.")
        return Answer(group_id, Verdict.NOT_POSSIBLE, "ended", text)
    tally = _Tally()
    groups, seen = [row], {row.group_id}
    while groups:
        group = groups.pop()
        _revoke_in(group, tally, may_go_on)
        fresh = [inner for inner in inner_groups(group) if inner.group_id not in seen]
        seen.update(inner.group_id for inner in fresh)
        groups += fresh
    return Answer(group_id, Verdict.DONE, "left" if tally.left else "revoked", _text(tally))


def _revoke_in(row: TaskGroup, tally: _Tally, may_go_on: Callable[[], bool]) -> None:
    for stop in range(row.size, 0, -_CHUNK):
        start = max(0, stop - _CHUNK)
        if not may_go_on():
            tally.left += stop
            return
        if ids := open_members(row, range(start, stop)):
            tally.add(actions.revoke(ids, expected=True))


def _text(tally: _Tally) -> str:
    told = [
        ngettext("%(number)d that was waiting is revoked.", "%(number)d that were waiting are revoked.", tally.revoked)
        % {"number": tally.revoked}
    ]
    if tally.told:
        told.append(
            ngettext(
                "%(number)d runs, or was not found waiting: it is not begun, and not run again.",
                "%(number)d run, or were not found waiting: they are not begun, and not run again.",
                tally.told,
            )
            % {"number": tally.told}
        )
    if tally.left:
        told.append(
            ngettext(
                "Up to %(number)d is left: do it again to go on.",
                "Up to %(number)d are left: do it again to go on.",
                tally.left,
            )
            % {"number": tally.left}
        )
    return " ".join(told)
