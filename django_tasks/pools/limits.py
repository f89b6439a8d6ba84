"""How does a prefork pool end, or interrupt, the one task that it means to, and no other?"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from django_tasks import endings
from django_tasks.pools.base import PoolOptions
from django_tasks.pools.handle import Handle, Verdict

RESTRIKE, RESTRIKE_MAX = 0.05, 10.0
"""Seconds after which an exception is sent once more to a task that goes on, since the first may have come before its
function was entered; doubled each time."""
SPARED = 0.050
"""Seconds until the next try to kill a child that was writing a result."""
SPARED_TIMES = 20

SOFT, REVOKED = range(2)
"""Kinds of strikes, as places in `child.STRIKES`."""

NEVER = float("inf")

Collect = Callable[[Handle], None]
"""Takes in all that a child has written."""

_log = logging.getLogger("django_tasks.worker")


def enforce(handle: Handle, options: PoolOptions, now: float, collect: Collect) -> float:
    """Do what is due about a child's running task; return when to look again."""
    if handle.killed or not handle.jobs:
        return NEVER
    if handle.limits is None:
        handle.limits = endings.limits(handle.jobs[0].delivery, options)
    hard, soft = handle.limits
    if hard is not None and handle.verdict is None and now >= handle.since + hard:
        if handle.begun is None:
            handle.since = now
        else:
            handle.verdict = partial(endings.timed_out, limit=hard)
    if handle.verdict is not None:
        if now >= handle.next_kill and not end(handle, handle.verdict, now, collect):
            return now  # it had ended, and made room for another
        return handle.next_kill or NEVER
    if handle.strike_kind is not None and now >= handle.next_strike:
        strike(handle, handle.strike_kind, now)
    elif handle.strike_kind is None and soft is not None and now >= handle.since + soft:
        strike(handle, SOFT, now)
    due = handle.since + soft if soft is not None and handle.strike_kind is None else handle.next_strike or NEVER
    return due if hard is None else min(due, handle.since + hard)


def strike(handle: Handle, kind: int, now: float) -> None:
    """Have an exception raised in the task that runs, and again later if that goes on."""
    handle.strike_kind = kind
    handle.next_strike = now + min(RESTRIKE_MAX, RESTRIKE * 2**handle.strikes)
    handle.strikes += 1
    handle.strike(kind)


def end(handle: Handle, verdict: Verdict, now: float, collect: Collect) -> bool:
    """Kill a child while it runs its first job, and only then; return whether it does.

    The process is stopped before it is looked at: what it has written by then is all it has done. If something is
    only half written it goes on, and is looked at again a little later.
    """
    job = handle.jobs[0]
    handle.freeze()
    collect(handle)
    if handle.begun is not job:
        handle.thaw()
        return False
    handle.verdict = verdict
    if handle.mid_frame and handle.spared < SPARED_TIMES:
        handle.spared += 1
        handle.next_kill = now + SPARED
        handle.thaw()
    else:
        _log.warning("A child process is killed", extra={"pid": handle.pid, "task_id": job.delivery.message.id})
        handle.kill()
    return True
