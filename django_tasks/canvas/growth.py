"""How does a group gain a member while one of its members runs?"""

from __future__ import annotations

from uuid import NAMESPACE_OID, uuid5

from django_tasks.canvas.calls import lineage, place_of
from django_tasks.canvas.signature import Signature
from django_tasks.canvas.steps import Step
from django_tasks.connections import LOCAL, brokers, groups_of
from django_tasks.context import Request
from django_tasks.exceptions import ChordError
from django_tasks.publisher import begin


def member(request: Request, node: Signature) -> Signature:
    """Return a copy of a node, frozen, that is one more member of the group of which the running task is one.

    The group has grown by then. The first that a run adds is the same member as the first that another run of the task
    added, and so on: whatever is repeated after a crash changes nothing. Raises ValueError for a task that is no member
    of a group, ChordError for a group that has ended.
    """
    place = place_of(request.message)
    if place is None or request.called_directly:
        raise ValueError(f"{request.task} is not a member of a chord or a group: there is nothing to add to.")
    if node.is_empty:
        raise ValueError("There is nothing in what is to be added.")
    group_id = place[0]
    name = str(uuid5(NAMESPACE_OID, f"{request.id} {request.added}"))
    number = groups_of(request.store).grow(group_id, name)
    if number is None:
        raise ChordError(f"Nothing can be added to the group {group_id}: it has ended, or is not kept any more.")
    request.added += 1
    return node.clone().frozen((group_id, number))


def send(request: Request, node: Signature) -> None:
    """Send a member that was added."""
    plan = node.begin(Step(lineage(), replies=not request.is_eager))
    if request.store == LOCAL:
        groups_of(LOCAL).open(plan.groups)
        brokers[LOCAL].publish(plan.messages)
    else:
        begin(plan)
