"""What begins with a group, and what when its members have ended?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

from django_tasks.canvas.calls import Lineage
from django_tasks.canvas.signature import Signature, signature
from django_tasks.canvas.steps import NOTHING_MORE, Step
from django_tasks.canvas.tail import Tail
from django_tasks.options import check_call
from django_tasks.plan import NOTHING, Group, Place, Plan, joined


class Members(Protocol):
    """A frozen group, as far as planning needs to know it."""

    options: dict[str, Any]

    @property
    def tasks(self) -> Sequence[Signature]: ...
    @property
    def place(self) -> Place | None: ...


def fan(header: Members, step: Step) -> Plan:
    """Return what must be written for the members of a group to begin, and the rest when they have ended."""
    # It may come from a message, which anybody can have written.
    check_call({"timeout": header.options.get("timeout")})
    group_id: str = header.options["task_id"]
    root_id = step.comes_from.root_id or group_id
    if not header.tasks:
        # Nothing to wait for: a body begins with the empty list.
        return onward(step.tail, replace(step, given=([],), gather=None)) if step.tail else NOTHING
    then = NOTHING
    if step.tail:
        heir = Lineage(root_id, group_id, step.comes_from.priority)
        then = onward(step.tail, Step(heir, gather=group_id, replies=step.replies))
    each = replace(step, comes_from=step.comes_from._replace(root_id=root_id), tail=NOTHING_MORE)
    record = Group(
        id=group_id,
        size=len(header.tasks),
        then=then,
        place=None if step.tail else header.place,
        root_id=root_id,
        parent_id=step.comes_from.parent_id,
        timeout=header.options.get("timeout"),
    )
    return joined((Plan(groups=(record,)), *(member.begin(each) for member in header.tasks)))


def onward(tail: Tail, step: Step) -> Plan:
    """Return what must be written for the step that comes next to begin, given what it is told."""
    form, left = tail.parted()
    return signature(form).begin(replace(step, tail=left))
