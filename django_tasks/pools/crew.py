"""Who runs what in a prefork pool, and who takes the place of whom?"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import selectors
import signal
import time
from collections import deque
from collections.abc import Sequence
from functools import partial

from django_tasks import endings
from django_tasks.message import Delivery
from django_tasks.plan import Outcome
from django_tasks.pools import frames, limits
from django_tasks.pools.base import Done, PoolOptions
from django_tasks.pools.child import PRESENT
from django_tasks.pools.handle import PACKET_BYTES, Handle, Job
from django_tasks.pools.limits import NEVER
from django_tasks.pools.template import ENDED, FORKED, Template, how_it_ended

DEPTH = 64
"""How many deliveries one child may hold at most."""
AHEAD = 0.005
"""Seconds of work that a child may hold."""
LONG = 0.010
"""Seconds after which what waits behind a running task is taken back."""
UNANSWERED = 0.050
"""Seconds after which a delivery that a child has not even begun goes to another one; doubled each time. Looked at only
when the pool comes by for another reason, or `prefork.LOOK` seconds have passed."""
BACKOFF, BACKOFF_MAX = 0.1, 10.0
"""Seconds until the next try after a child that died before it came up; doubled each time."""
FORKS = 8
"""How many children are asked for at once."""

_OVERHEAD = 400
"""Bytes of a delivery besides its body, about."""

_log = logging.getLogger("django_tasks.worker")


class Crew:
    """The children of a pool, and the deliveries that wait for them.

    A delivery is in the inbox, in the line of one child, or done. Threads are not known here: the pool calls this
    under its lock.
    """

    def __init__(self, options: PoolOptions) -> None:
        self.options = options
        self.size = options.size
        self.inbox: deque[Job] = deque()
        self.done: deque[Done] = deque()
        self.produced = 0
        """How many outcomes were ever put there; others take them away at any time."""
        self.unfinished = 0
        """How many deliveries were added and are not done."""
        self.lost = False
        """Whether the template is gone, and with it all children."""
        self.children: dict[int, Handle] = {}
        self.template = Template()
        self.selector = selectors.DefaultSelector()
        self._seats = itertools.count()
        self._order = itertools.count()
        self._pace: float | None = None
        self.restaff = True
        self._stillborn = 0
        self._spawn_after = 0.0
        self._stop_at: float | None = None

    @property
    def ended(self) -> bool:
        """Tell whether it was told to stop and nobody is left."""
        return self._stop_at is not None and not self.children

    # Work.

    def add(self, deliveries: Sequence[Delivery], now: float) -> None:
        """Take deliveries in, in this order."""
        self.unfinished += len(deliveries)
        self.inbox.extend(Job(delivery, next(self._order), now) for delivery in deliveries)

    def reclaim(self, before: float) -> list[Delivery]:
        """Give back what was added before and has not begun."""
        waiting = list(self.inbox)
        for handle in self.children.values():
            if any(job.submitted <= before for job in handle.jobs):
                waiting += handle.take_back()
        waiting.sort(key=_order)
        taken = [job for job in waiting if job.submitted <= before]
        self.inbox = deque(job for job in waiting if job.submitted > before)
        self.unfinished -= len(taken)
        return [job.delivery for job in taken]

    def cancel(self, task_id: str, now: float, *, kill: bool) -> bool:
        """Stop a task, or keep it from beginning; return whether it was found."""
        for handle in self.children.values():
            if any(job.delivery.message.id == task_id for job in handle.jobs):
                self._put_back(handle.take_back())
                if not handle.jobs or handle.jobs[0].delivery.message.id != task_id:
                    break
                if kill:
                    return limits.end(handle, endings.cancelled, now, self._collect)
                limits.strike(handle, limits.REVOKED, now)
                return True
        found = [job for job in self.inbox if job.delivery.message.id == task_id]
        for job in found:
            self.inbox.remove(job)
            self._finish(job, endings.revoked(job.delivery))
        return bool(found)

    def _finish(self, job: Job, outcome: Outcome) -> None:
        self.unfinished -= 1
        self._produce(job, outcome)

    def _produce(self, job: Job, outcome: Outcome) -> None:
        self.produced += 1
        self.done.append((job.delivery, outcome))

    def _put_back(self, jobs: Sequence[Job]) -> None:
        self.inbox.extendleft(reversed(jobs))

    # What has happened.

    def watch(self) -> None:
        """See what has happened since the last time."""
        watched = self.selector.get_map()
        for key, _ in self.selector.select(0):
            if watched.get(key.fd) is key:  # else what came before it has put an end to this
                key.data()

    def _collect(self, handle: Handle) -> None:
        """Take in all that a child has written."""
        while self._read(handle):
            pass

    def _read(self, handle: Handle) -> bool:
        try:
            rows = handle.read()
        except EOFError:
            handle.silent = True
            self.selector.unregister(handle.results)
            return False
        if rows is None:
            return False
        finished = 0
        jobs = handle.jobs
        for number, _, row in rows:
            if number == PRESENT:
                self.restaff = self.restaff or not handle.born
                handle.adopt(row)  # the template's word may come later
                handle.born = handle.present = True
                self._stillborn = 0
            elif jobs and jobs[0].number == number:
                outcome = frames.outcome_from(row)
                if outcome.interim:
                    self._produce(jobs[0], outcome)
                else:
                    self._finish(jobs.popleft(), outcome)
                    finished += 1
        if finished:
            self._keep_pace(handle, finished)
        if rows and rows[-1][1]:
            self._dismiss(handle)
        return True

    def _keep_pace(self, handle: Handle, finished: int) -> None:
        now = time.monotonic()
        each = (now - handle.since) / finished
        self._pace = each if self._pace is None else self._pace + (each - self._pace) * min(1.0, 0.1 * finished)
        handle.begin(now)

    def _flush(self, handle: Handle) -> None:
        handle.flush()
        if not handle.clogged:
            self.selector.unregister(handle.work)

    def hear(self) -> None:
        try:
            reports = self.template.reports()
        except EOFError:
            self._mourn()
            return
        for kind, seat, pid, status in reports:
            handle = self.children[seat]
            if kind == FORKED:
                handle.adopt(pid)
                if handle.killed:
                    handle.kill()
            elif kind == ENDED:
                self._bury(handle, status)
            else:
                _log.error("No child process can be forked", extra={"error": os.strerror(status)})
                self._bury(handle, 0)

    # What is due.

    def see_to(self, now: float) -> float:
        """Keep children coming and fed, enforce limits; return when to do so again at the latest."""
        for handle in self.children.values():
            if handle.jobs:
                self._loosen(handle, now)
        if self._stop_at is not None:
            due = self._wind_up(now)
        else:
            due = self._staff(now)
            self._feed(now)
        for handle in self.children.values():
            if handle.jobs:
                due = min(due, limits.enforce(handle, self.options, now, self._collect))
                if len(handle.jobs) > 1:
                    due = min(due, handle.since + LONG)
        return due

    def _loosen(self, handle: Handle, now: float) -> None:
        """Take back what waits behind a long task, and what a child that does not react has not begun."""
        if len(handle.jobs) > 1 and now >= handle.since + LONG:
            back = handle.take_back()
            handle.present = handle.present and bool(handle.jobs)
            self._put_back(back)
        if handle.answered or not handle.jobs or now < handle.since + UNANSWERED * 2 ** handle.jobs[0].moves:
            return
        back = handle.take_back()
        handle.answered = not back
        if back:
            handle.present = False
            back[0].moves += 1
            self._put_back(back)

    def _feed(self, now: float) -> None:
        """Hand out what waits: to idle children first, and more than one only while tasks are short."""
        if not self.inbox:
            return
        depth = 1 if self._pace is None else max(1, min(DEPTH, int(AHEAD / max(self._pace, 1e-9))))
        takers = [
            handle
            for handle in self.children.values()
            if len(handle.jobs) * 2 <= depth and handle.may_take() and (not handle.jobs or now < handle.since + LONG)
        ]
        if not takers:
            return
        takers.sort(key=_load)
        level = min(depth, -(-(len(self.inbox) + sum(map(_load, takers))) // len(takers)))
        for handle in takers:
            jobs = self._packet(level - len(handle.jobs))
            if jobs:
                handle.hand(jobs, now)
                if handle.clogged:
                    self.selector.register(handle.work, selectors.EVENT_WRITE, partial(self._flush, handle))

    def _packet(self, count: int) -> list[Job]:
        jobs: list[Job] = []
        size = 0
        while self.inbox and len(jobs) < count:
            size += len(self.inbox[0].delivery.message.body) + _OVERHEAD
            if jobs and size > PACKET_BYTES:
                break
            jobs.append(self.inbox.popleft())
        return jobs

    # Coming and going.

    def _staff(self, now: float) -> float:
        """Fork children that are missing, let surplus ones go; return when to try again."""
        if self.lost or not self.restaff:
            return NEVER
        standing = [handle for handle in self.children.values() if not handle.leaving and not handle.killed]
        missing = self.size - len(standing)
        if missing < 0:
            standing.sort(key=_load)
            for handle in standing[:-missing]:
                self._dismiss(handle)
        if missing > 0 and now < self._spawn_after:
            return self._spawn_after
        unborn = sum(not handle.born for handle in standing)
        for _ in range(min(missing, FORKS - unborn)):
            if not self._fork(now):
                return self._spawn_after
        self.restaff = missing > FORKS - unborn
        return NEVER

    def _fork(self, now: float) -> bool:
        try:
            handle = Handle(next(self._seats))
        except OSError as error:
            self._hold_off(now, str(error))
            return False
        try:
            self.template.ask(handle.seat, handle.far_ends)
        except OSError as error:
            handle.send_off()
            handle.close()
            self._hold_off(now, str(error))
            return False
        handle.send_off()
        self.children[handle.seat] = handle
        self.selector.register(handle.results, selectors.EVENT_READ, partial(self._read, handle))
        return True

    def _hold_off(self, now: float, reason: str) -> None:
        pause = min(BACKOFF_MAX, BACKOFF * 2**self._stillborn)
        self._stillborn += 1
        self._spawn_after = now + pause
        self.restaff = True
        _log.error("A child process did not come up", extra={"reason": reason, "next_try_in": pause})

    def _dismiss(self, handle: Handle) -> None:
        """Let a child end when it has done what it is doing."""
        self._unwatch(handle.work)
        self._put_back(handle.dismiss())
        self.restaff = True

    def _unwatch(self, fd: int) -> None:
        with contextlib.suppress(KeyError, ValueError):
            self.selector.unregister(fd)

    def _bury(self, handle: Handle, status: int) -> None:
        """Take in what a dead child has left."""
        if not handle.silent:
            self._collect(handle)
        self._put_back(handle.take_back())
        reason = how_it_ended(status)
        if handle.jobs:
            job = handle.jobs.popleft()
            if handle.killed and handle.verdict is not None:
                self._finish(job, handle.verdict(job.delivery))
            else:
                _log.error(
                    "A child process died in a task",
                    extra={"pid": handle.pid, "reason": reason, "task_id": job.delivery.message.id},
                )
                self._finish(job, endings.lost(job.delivery, reason))
        self._unwatch(handle.results)
        self._unwatch(handle.work)
        handle.close()
        del self.children[handle.seat]
        self.restaff = True
        if not handle.born and not handle.leaving and not handle.killed:
            self._hold_off(time.monotonic(), reason)

    def _mourn(self) -> None:
        """The template is gone, and the kernel has killed or will kill its children: nobody runs anything any more."""
        _log.critical("The template process died: no child can be forked any more; the worker must be started anew")
        self.lost = True
        self.selector.unregister(self.template.control)
        for handle in list(self.children.values()):
            handle.signal(signal.SIGKILL)
            handle.wait(1.0)
            self._bury(handle, signal.SIGKILL)

    # The end.

    def stop(self, deadline: float) -> None:
        """Begin to end, or be in more of a hurry: nothing begins any more, and what runs has until the deadline."""
        if self._stop_at is None:
            self._stop_at = deadline
            for handle in self.children.values():
                self._dismiss(handle)
        self._stop_at = min(self._stop_at, deadline)

    def _wind_up(self, now: float) -> float:
        while self.inbox:
            job = self.inbox.popleft()
            self._finish(job, endings.handed_back(job.delivery))
        assert self._stop_at is not None
        if now < self._stop_at:
            return self._stop_at
        for handle in self.children.values():
            if not handle.killed:
                handle.verdict = endings.interrupted
                handle.kill()
        return NEVER

    def close(self) -> None:
        """End whoever is left and give everything back to the system."""
        self.template.close()
        for handle in list(self.children.values()):
            handle.verdict = endings.interrupted
            handle.kill()
            handle.wait(1.0)
            self._bury(handle, signal.SIGKILL)
        while self.inbox:
            job = self.inbox.popleft()
            self._finish(job, endings.handed_back(job.delivery))
        self.selector.close()


def _order(job: Job) -> int:
    return job.order


def _load(handle: Handle) -> int:
    return len(handle.jobs)
