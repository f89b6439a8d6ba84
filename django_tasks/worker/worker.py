"""What does a worker do, from its start to its end?"""
# Long because: a worker's life reads best in one piece.

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from django.db import DatabaseError, connections

from django_tasks import conf, signals, states
from django_tasks.backends.base import Broker
from django_tasks.connections import groups_of, home, relayed
from django_tasks.control.ledger import RevocationLedger
from django_tasks.endings import handed_back
from django_tasks.exceptions import BrokerUnavailable, DjangoTasksError
from django_tasks.failure import capture
from django_tasks.losses import watch
from django_tasks.message import Delivery
from django_tasks.plan import Outcome
from django_tasks.pools.base import Pool
from django_tasks.results.base import ResultStore
from django_tasks.sequel import PASSING, sweep
from django_tasks.settlement import Done, Settlement
from django_tasks.version import VERSION
from django_tasks.worker.backoff import Backoff
from django_tasks.worker.bell import Bell
from django_tasks.worker.buffer import Buffer
from django_tasks.worker.crashes import CrashBook
from django_tasks.worker.heart import Heart
from django_tasks.worker.holdings import Holdings
from django_tasks.worker.keeper import Keeper
from django_tasks.worker.listener import Listener
from django_tasks.worker.lookahead import LookAhead
from django_tasks.worker.maintenance import Maintenance, older_than
from django_tasks.worker.presence import Identity, Presence
from django_tasks.worker.relay import Relay
from django_tasks.worker.revocation import Revocations
from django_tasks.worker.seals import Seals
from django_tasks.worker.stride import Stride

_log = logging.getLogger("django_tasks.worker")

POLL = 5.0
"""Seconds between looks at an idle broker that has said nothing."""
STUCK = 1.0
"""Seconds after which what waits behind running tasks goes back for other workers to take."""
MOST = 10_000
"""How much is fetched or settled at once, at most."""


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """How a worker is to run."""

    name: str
    queues: Sequence[str]
    lease: float = 30.0
    heartbeat: float = 5.0
    grace: float = 25.0
    """Seconds that running tasks get when the worker is asked to stop."""
    prefetch: int = 500
    """At most how many deliveries to have at hand beyond those that run."""
    burst: bool = False
    """Leave when the queues are empty."""
    max_tasks: int | None = None
    """Leave after that many."""


class Worker:
    """Takes messages from one broker, has a pool run them, and writes down what came of them.

    The thread that calls `run` is the loop: it alone fetches, acknowledges and gives back. The heart renews leases,
    the listener waits for messages, and the pool has threads of its own. Nothing that matters is kept in memory: a
    worker that is killed leaves its messages to be taken by others when their lease ends.
    """

    def __init__(self, broker: Broker, store: ResultStore, pool: Pool, bell: Bell, options: WorkerOptions) -> None:
        self.broker = broker
        self.store = store
        self.pool = pool
        self.bell = bell
        self.options = options
        self.processed = 0
        self.failed = 0
        self.stopping: str | None = None
        self.broken = False
        """Whether the worker stops because its pool cannot go on."""
        self.holdings = Holdings()
        self.settlement = Settlement(broker, store, worker=options.name, lease=options.lease)
        self.crashes = CrashBook(options.name, home())
        self.revocations = Revocations(RevocationLedger(home()))
        self.buffer = Buffer(broker, Seals(store), self.crashes, self.revocations)
        self.presence = Presence(
            Identity(
                name=options.name,
                pool=type(pool).__name__,
                concurrency=pool.size,
                queues=options.queues,
                broker=broker.alias,
                version=VERSION,
            ),
            home(),
        )
        self.lookahead = LookAhead(options.prefetch)
        self.listener = Listener(broker, options.queues, bell.ring, poll=POLL)
        self.heart = Heart(
            broker,
            self.holdings,
            lease=options.lease,
            interval=options.heartbeat,
            on_lost=self._on_lost,
            on_beat=self._beat,
        )
        self.keeper = (
            None if pool.features.survives else Keeper(broker, lease=options.lease, interval=options.heartbeat)
        )
        self.maintenance = Maintenance(store, self._chores(), lambda: sweep(store), watch=self._watch)
        self.relay = Relay(relayed(), lease=options.lease, consumer=options.name)
        self._unsettled: list[Done] = []
        self._lost: list[Delivery] = []
        self._fetched = 0
        self._deadline: float | None = None
        self._moved_at = time.monotonic()
        self._dump_asked = False
        self._backoff = Backoff()
        self._fetching, self._settling = Stride(MOST), Stride(MOST)
        self._empty = False

    def run(self) -> None:
        """Work until told to stop, then leave nothing behind."""
        signals.announce(signals.worker_starting, self)
        # Processes are forked before this one has connections or threads that a child could inherit.
        connections.close_all()
        if self.keeper is not None:
            self.keeper.start()
        self.pool.start()
        for thread in (self.heart, self.listener, self.maintenance, self.relay):
            thread.start()
        signals.announce(signals.worker_ready, self)
        try:
            while not self._finished():
                self.settle()
                self.refill()
                self.rest()
        finally:
            self._close()

    def stop(self, how: str = "warm") -> None:
        """Ask the worker to leave: `warm` finishes what runs within the grace period, `cold` hands it back at once.

        Safe in a signal handler; a second call can only make it colder.
        """
        if self.stopping is None or how == "cold":
            self.stopping = how
        self.bell.ring()

    def dump_stacks(self) -> None:
        """Ask for the stacks of the pool's processes; safe in a signal handler."""
        self._dump_asked = True
        self.bell.ring()

    # The loop

    def settle(self) -> None:
        """Write down what has come out of the pool."""
        self._end_lost()
        if self._dump_asked:
            self._dump_asked = False
            self.pool.dump_stacks()
        # What another worker may have by now is not ours to write down.
        self._unsettled = [pair for pair in self._unsettled + self.pool.drain() if pair[0] in self.holdings]
        if self._backoff.left:
            return
        number = self._settling.size
        try:
            done = self.crashes.judged(self._unsettled[:number])
            self._unsettled = self._unsettled[number:]
            if done:
                self._settle_all(done)
            self.crashes.clear()
        except (DjangoTasksError, DatabaseError) as error:
            self._backoff.failed(error)

    def refill(self) -> None:
        """Fetch as much as the pool has use for."""
        self._return_stuck()
        # After a standstill the heart first finds out which leases were lost, so that those runs end before new ones.
        if self.stopping is not None or self._backoff.left or self.heart.overdue:
            return
        self._begin_suspects()
        wanted = min(self._wanted(), self._fetching.size)
        if wanted <= 0:
            self._empty = False
            return
        lease, asked = self.options.lease, time.monotonic()
        try:
            fetched = self.broker.fetch(self.options.queues, wanted, lease=lease, consumer=self.options.name)
            self._backoff.answered()
            took = time.monotonic() - asked
            self._fetching.went(len(fetched), took, within=lease / 6)
            self._empty = len(fetched) < wanted
            if took > lease / 2:
                # It came over a slow link, and its lease began before it was sent: others may have some of it by now.
                asked = time.monotonic()
                fetched = self.broker.extend(fetched, lease)
        except BrokerUnavailable as error:
            self._fetching.failed(wanted, time.monotonic() - asked)
            self._backoff.failed(error)
            return
        if fetched:
            self._take(fetched, asked)

    def rest(self) -> None:
        """Block until there is something to do."""
        if self._finished() or (self._unsettled and not self._backoff.left):
            return
        timeout = POLL
        if self._backoff.left:
            timeout = self._backoff.left
        elif self.heart.overdue:
            timeout = 0.05
        elif self.stopping is None and not self._empty and self._wanted() > 0:
            return
        elif self.stopping is None:
            self.listener.want()
        if self._deadline is not None:
            timeout = min(timeout, max(0.0, self._deadline - time.monotonic()))
        if self._crowded() or self.buffer:
            timeout = min(timeout, STUCK)
        self.bell.wait(timeout)

    # Taking

    def _take(self, fetched: Sequence[Delivery], asked: float) -> None:
        self.holdings.add(fetched, asked)
        self._fetched += len(fetched)
        signals.announce(signals.received, self, deliveries=fetched)
        try:
            runnable, refused = self.buffer.take(fetched)
        except (DjangoTasksError, DatabaseError) as error:
            # Nothing of it was handed to the pool yet.
            self._hand_back(fetched)
            self._backoff.failed(error)
            return
        # Those that were acknowledged early have another receipt now.
        self.holdings.add(runnable, asked)
        if self.keeper is not None:
            self.keeper.tell(self.holdings.leased())
        self._unsettled += refused
        self.pool.submit(runnable)
        self._begin_suspects()

    def _begin_suspects(self) -> None:
        while self.buffer and self.pool.free > 0:
            try:
                begun = self.buffer.release()
            except (DjangoTasksError, DatabaseError) as error:
                self._backoff.failed(error)
                return
            if not begun:
                return
            self._moved_at = time.monotonic()
            self.holdings.add(begun, self._moved_at)
            self.pool.submit(begun)

    def _wanted(self) -> int:
        ahead = 0 if self.options.burst and self._empty else self.lookahead.size(self.pool.size)
        return min(self.pool.size + ahead - len(self.holdings), self._left())

    def _crowded(self) -> bool:
        return self.pool.free <= 0 and len(self.holdings) > self.pool.size

    def _left(self) -> int:
        return 1 << 30 if self.options.max_tasks is None else max(0, self.options.max_tasks - self._fetched)

    def _return_stuck(self) -> None:
        """Give what waits behind long tasks to whoever has a free slot."""
        if not self._crowded() and not self.buffer:
            self._moved_at = time.monotonic()
            return
        back = self.pool.reclaim(STUCK) if self._crowded() else []
        if time.monotonic() - self._moved_at > STUCK:
            back += self.buffer.empty()
        if back:
            self.lookahead.forget()
            self._hand_back(back)
            self.settle()

    # Settling

    def _settle_all(self, done: list[Done]) -> None:
        """Settle a batch; if it cannot be written down as a whole, one by one."""
        began = time.monotonic()
        try:
            self._settled(done, self.settlement.settle(done))
        except PASSING as error:
            # Kept until the server is back; the heart holds the leases meanwhile.
            self._unsettled = done + self._unsettled
            self._settling.failed(len(done), time.monotonic() - began)
            self._backoff.failed(error)
        except (DjangoTasksError, DatabaseError) as error:
            if len(done) > 1:
                for pair in done:
                    self._settle_all([pair])
            else:
                self._settle_refused(done[0], error)

    def _settle_refused(self, pair: Done, error: Exception) -> None:
        """Settle a task whose outcome the store does not take, whatever the reason."""
        delivery, outcome = pair
        _log.error("An outcome could not be written down", exc_info=error, extra={"task_id": delivery.message.id})
        instead = Outcome(states.FAILURE, failure=capture(error), started=outcome.started, ended=outcome.ended)
        try:
            self._settled([(delivery, instead)], self.settlement.settle([(delivery, instead)]))
        except PASSING as again:
            self._unsettled.append(pair)
            self._backoff.failed(again)
        except (DjangoTasksError, DatabaseError):
            _log.exception("Not even the failure could be written down; the task is dropped from this worker")
            self.holdings.remove([delivery])

    def _settled(self, done: Sequence[Done], counted: Sequence[Done]) -> None:
        self._backoff.answered()
        self._settling.went(len(done))
        over = [delivery for delivery, outcome in done if not outcome.interim]
        self.holdings.remove(over)
        self.buffer.ended(over)
        self.crashes.ended(counted)
        for _, outcome in counted:
            if outcome.requeue is not None:
                # It may be ready again, and nobody need be told of it by the broker.
                self._empty = False
            if outcome.ended is not None and outcome.started is not None:
                self.lookahead.observe(outcome.runtime)
            if outcome.state in states.FINAL:
                self.processed += 1
                self.failed += outcome.state == states.FAILURE
        signals.announce(signals.settled, self, done=counted)

    # Leases

    def _on_lost(self, lost: Sequence[Delivery]) -> None:
        """Take note, in the heart's thread, that leases were lost."""
        self._lost += lost
        self.bell.ring()

    def _end_lost(self) -> None:
        """End runs whose task another worker may have by now: what they do from here on is done twice."""
        if not self._lost:
            return
        lost, self._lost = self._lost, []
        self.holdings.remove(lost)
        self.buffer.drop(lost)
        signals.announce(signals.lease_lost, self, deliveries=lost)
        for delivery in lost:
            if not self.holdings.has(delivery.message.id):  # not leased anew by this very worker
                self.pool.cancel(delivery.message.id, kill=True)

    def _beat(self) -> None:
        """Show that the worker is alive and end what was revoked; in the heart's thread."""
        running = self.pool.running()
        self.presence.beat((self.stopping and "stopping") or "running", self.processed, self.failed, running)
        self.revocations.refresh()
        for delivery in self.revocations.to_end([entry.delivery for entry in running]):
            self.pool.cancel(delivery.message.id, kill=True)

    def _watch(self) -> None:
        """See whether the broker's server has forgotten anything; in the thread of maintenance."""
        if losses := watch(self.broker, self.options.queues, home()):
            signals.announce(signals.messages_lost, self, losses=losses)

    def _chores(self) -> list[Callable[[], int]]:
        settings = conf.get()
        return [
            older_than(self.revocations.ledger.expire, settings.revocations_kept),
            older_than(self.crashes.expire, settings.revocations_kept),
            self.presence.prune,
            older_than(groups_of(self.store.alias).expire, self.store.expires),
        ]

    # Leaving

    def _finished(self) -> bool:
        idle = len(self.holdings) == 0 and not self._unsettled
        if self.pool.exhausted and not self.broken:
            _log.critical("The pool cannot go on; the worker ends and must be started anew")
            self.broken = True
            self.stop("cold")
        if self.stopping is None:
            if idle and (self._left() == 0 or (self.options.burst and self._empty and not self._flushed())):
                self.stop()
            return False
        return self._overdue() or idle

    def _flushed(self) -> bool:
        """Send on what waits in outboxes, such as what follows a group; tell whether there was anything."""
        try:
            flushed = self.relay.flush()
        except (DjangoTasksError, DatabaseError) as error:
            self._backoff.failed(error)
            return True
        if flushed:
            self._empty = False
        return flushed

    def _overdue(self) -> bool:
        if self._deadline is None:
            self._deadline = time.monotonic() + self.options.grace
            signals.announce(signals.worker_stopping, self, how=self.stopping)
            self._hand_back(self.buffer.empty() + self.pool.reclaim())
        return self.stopping == "cold" or time.monotonic() >= self._deadline

    def _hand_back(self, deliveries: Sequence[Delivery]) -> None:
        self._fetched -= len(deliveries)
        self._unsettled += [(delivery, handed_back(delivery)) for delivery in deliveries]

    def _close(self) -> None:
        """Hand back what has not ended and leave."""
        self.listener.stop()
        self._hand_back(self.buffer.empty() + self.pool.reclaim())
        self.pool.stop(0.0 if self.holdings else self.options.grace)
        self._backoff.hurry()
        self.settle()
        while self._unsettled and not self._backoff.left:
            self.settle()
        for thread in (self.heart, self.maintenance, self.relay):
            thread.stop()
        if self.keeper is not None:
            self.keeper.stop()
        # What has come and was not fetched goes back as if it had not.
        self.broker.close()
        try:
            self.presence.leave(self.processed, self.failed)
        except (DjangoTasksError, DatabaseError) as error:
            _log.warning("Could not sign off", extra={"error": str(error)})
        signals.announce(signals.worker_stopped, self)
        connections.close_all()
