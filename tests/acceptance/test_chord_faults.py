"""Does the body of a chord run once, wherever those who run its members are killed?"""

from __future__ import annotations

import signal

from django_tasks import chord
from django_tasks.models import GroupPart, TaskGroup
from tests.acceptance import killing, tasks
from tests.acceptance.conftest import Site
from tests.vendors import each_vendor

POINTS = [
    "INSERT django_tasks_taskresult",
    "INSERT django_tasks_grouppart",
    "UPDATE django_tasks_taskgroup done",
    "UPDATE django_tasks_taskgroup ended_at",
    "INSERT django_tasks_queuedmessage",
]
"""Statements by which the end of the last member is written down, and the body sent."""


@each_vendor("postgres", transaction=True)
def test_a_body_runs_once_whichever_statement_of_the_last_members_end_its_worker_is_killed_at(site: Site):
    # Every worker but the last is killed, and what another has had before counts against a member each time.
    site.settings |= {"MAX_CRASHES": 20, "LEASE": 1.5}
    sent = []
    for point in POINTS:
        members = [tasks.note.s(str(site.ledger)), tasks.note.s(str(site.ledger))]
        sent.append(chord(members, tasks.told.s(str(site.ledger))).apply_async())
        site.environment[killing.VARIABLE] = point
        assert site.worker(ready=False).wait() == -signal.SIGKILL
    assert site.ledger.count("told") == {}, "none of them got to the end"
    del site.environment[killing.VARIABLE]
    # A member whose own process is killed, and which is run again, counts once as well.
    dying = tasks.die.s(str(site.ledger), signal.SIGKILL, times=1)
    sent.append(chord([dying, tasks.note.s(str(site.ledger))], tasks.told.s(str(site.ledger))).apply_async())
    last = site.worker()
    site.ended(*sent)
    assert [result.get(0.1) for result in sent] == [2] * len(sent)
    assert site.ledger.count("told") == {result.id: 1 for result in sent}
    assert GroupPart.objects.using(site.alias).count() == 2 * len(sent)
    assert set(TaskGroup.objects.using(site.alias).values_list("done", flat=True)) == {2}
    site.until(site.quiet, "nothing is left in the queue")
    assert last.stop() == 0
