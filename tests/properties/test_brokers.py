"""Does each broker do what a list would, whatever workers do to it?

Hypothesis publishes, fetches, acknowledges, puts back, renews, lets time pass, forgets (a crashed worker), comes back
late (a zombie), repeats itself, purges, discards and peeks, and compares each answer with that of a plain list.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from threading import Event
from typing import ClassVar

from django.db.models import F
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from django_tasks.backends.base import Broker
from django_tasks.backends.database import DatabaseBroker
from django_tasks.backends.memory import MemoryBroker
from django_tasks.backends.redis import RedisBroker
from django_tasks.message import Delivery, Message
from django_tasks.models import QueuedMessage
from django_tasks.testing.contracts.harness import content, ids
from tests import redises
from tests.clocks import TurnedClock
from tests.settings import REDIS_URL
from tests.vendors import each_vendor

QUEUES = ("mail", "Mail", "bulk")
UNIT = 100
"""Seconds. Every delay and lease is a multiple of it, so that the real time which a database's clock adds changes
nothing that the model can see."""

queues = st.sampled_from([QUEUES, QUEUES[::-1], QUEUES[:1], QUEUES[1:], ("mail", "mail"), ("never",)])
units = st.sampled_from([0, 0, 0, 1, 2, 3])
several = st.lists(st.integers(0, 12), min_size=1, max_size=4)
calls = st.tuples(st.integers(0, 12), st.sampled_from(QUEUES), st.sampled_from([0, 0, 0, 7, 100, -100]), units)


@dataclass(slots=True, eq=False)
class Place:
    """What the list knows of one message."""

    message: Message
    number: int
    due: int
    """The unit of time when it is visible; in the past: it is."""
    token: Delivery | None = None
    deliveries: int = 0
    swept: bool = True
    """Whether a fetch has happened since its lease ran out: then the broker may have made it ready or not."""
    prompt: bool = True
    """Whether it was visible as soon as it came or came back, and so nothing has to be noticed before it is found."""

    @property
    def rank(self) -> tuple[int, int]:
        return -self.message.priority, self.number


class BrokerMachine(RuleBasedStateMachine):
    """Drives one broker and one list side by side."""

    attentive = False
    """Whether it looks for what has come due each time."""

    def __init__(self) -> None:
        super().__init__()
        self.peers = self.open()
        self.turns = itertools.cycle(self.peers)
        self.now = 0
        self.places: dict[str, Place] = {}
        self.given: list[Delivery] = []
        self.count = 0

    def open(self) -> list[Broker]:
        """Return the empty broker, as one process or several have it."""
        raise NotImplementedError

    def turn(self, seconds: int) -> None:
        raise NotImplementedError

    @property
    def broker(self) -> Broker:
        return next(self.turns)

    @initialize(batch=st.lists(calls, min_size=6, max_size=12), limit=st.integers(0, 6))
    def begin(self, batch: list[tuple[int, str, int, int]], limit: int) -> None:
        assert self.broker.stats() == []
        self.publish(batch)
        self.fetch(QUEUES, limit, 2)

    # What workers and publishers do

    @rule(batch=st.lists(calls, min_size=1, max_size=6))
    def publish(self, batch: list[tuple[int, str, int, int]]) -> None:
        messages = [
            Message(
                id=f"task-{name}",
                task="t",
                body=b"%d" % (self.count + place),
                queue=queue,
                priority=priority,
                countdown=wait * UNIT or None,
            )
            for place, (name, queue, priority, wait) in enumerate(batch)
        ]
        self.broker.publish(messages)
        for message in messages:
            self.count += 1
            due = self.now + int((message.countdown or 0) // UNIT)
            self.places.setdefault(message.id, Place(message, self.count, due, prompt=due <= self.now))

    @rule(names=queues, limit=st.sampled_from([100, 4, 2, 1, 0]), lease=st.integers(1, 3))
    def fetch(self, names: Sequence[str], limit: int, lease: int) -> None:
        candidates = [place for place in self.places.values() if place.message.queue in names and place.due <= self.now]
        found = self.broker.fetch(names, limit, lease=lease * UNIT, consumer="worker")
        self._check_number(candidates, len(found), limit)
        assert len(set(ids(found))) == len(found)
        taken = [self.places[delivery.message.id] for delivery in found]
        assert all(place in candidates for place in taken)
        assert taken == sorted(taken, key=lambda place: place.rank)
        self._check_best(candidates, taken)
        for place in self.places.values():
            place.swept = place.swept or place.due <= self.now
        for place, delivery in zip(taken, found, strict=True):
            place.deliveries += 1
            assert delivery.deliveries == place.deliveries
            assert content(delivery.message) == content(place.message)
            place.token, place.due, place.swept, place.prompt = delivery, self.now + lease, False, False
        self.given += found

    def _check_number(self, candidates: list[Place], found: int, limit: int) -> None:
        """Check that a fetch brought all it could; a broker need not look for what has come due while there is more."""
        sure = [place for place in candidates if place.prompt or self.attentive]
        assert min(limit, max(len(sure), bool(candidates))) <= found <= min(limit, len(candidates))

    def _check_best(self, candidates: list[Place], taken: list[Place]) -> None:
        """Check that nothing better was left in a queue that something was taken from. A broker may look only now and
        then for what has come due, and what it did not notice it cannot prefer."""
        for left in candidates:
            if left not in taken and (left.prompt or self.attentive):
                assert not [one for one in taken if one.message.queue == left.message.queue and one.rank > left.rank]

    @precondition(lambda self: self.given)
    @rule(picks=several)
    def ack(self, picks: list[int]) -> None:
        deliveries = self._picked(picks)
        for place in self._held(deliveries, self.broker.ack(deliveries)):
            del self.places[place.message.id]

    @precondition(lambda self: self.given)
    @rule(picks=several, delay=units, spent=st.booleans())
    def nack(self, picks: list[int], delay: int, spent: bool) -> None:
        deliveries = self._picked(picks)
        for place in self._held(deliveries, self.broker.nack(deliveries, delay=delay * UNIT, spent=spent)):
            place.deliveries -= not spent
            place.token, place.due, place.swept, place.prompt = None, self.now + delay, True, delay == 0

    @precondition(lambda self: self.given)
    @rule(picks=several, lease=st.integers(1, 3))
    def extend(self, picks: list[int], lease: int) -> None:
        deliveries = self._picked(picks)
        for place in self._held(deliveries, self.broker.extend(deliveries, lease * UNIT)):
            place.due, place.swept = self.now + lease, False

    @precondition(lambda self: self.given)
    @rule(picks=several, queue=st.sampled_from(QUEUES), delay=units)
    def replace(self, picks: list[int], queue: str, delay: int) -> None:
        deliveries = self._picked(picks)
        following = {
            id(one): replace(one.message, queue=queue, countdown=delay * UNIT or None, retries=one.message.retries + 1)
            for one in deliveries
        }
        answer = self.broker.replace([(one, following[id(one)]) for one in deliveries])
        for place in self._held(deliveries, answer):
            message = following[id(place.token)]
            self.count += 1
            self.places[message.id] = Place(message, self.count, self.now + delay, prompt=delay == 0)

    def _picked(self, picks: list[int]) -> list[Delivery]:
        """Return deliveries of any age: those in hand, those of crashed workers, those long done."""
        chosen = [self.given[-1 - pick % len(self.given)] for pick in picks]
        return list({id(one): one for one in chosen}.values())

    def _held(self, deliveries: list[Delivery], answer: list[Delivery]) -> list[Place]:
        """Check which deliveries the broker called held, and return their places."""
        assert set(map(id, answer)) <= set(map(id, deliveries))
        assert len(answer) == len(set(map(id, answer)))
        held = []
        for delivery in deliveries:
            place = self.places.get(delivery.message.id)
            said = any(one is delivery for one in answer)
            if place is None or place.token is not delivery:
                assert not said, "a stale holder was believed"
                continue
            if place.due > self.now or not place.swept:
                assert said, "a holder was not believed"
            if said:
                held.append(place)
            else:
                place.token = None
        return held

    @rule(spell=st.integers(1, 3))
    def time_passes(self, spell: int) -> None:
        self.now += spell
        self.turn(spell * UNIT)

    @rule()
    def close(self) -> None:
        self.broker.close()

    @rule(names=queues)
    def wait(self, names: Sequence[str]) -> None:
        self.broker.wait(names, 0.0, Event())
        for place in self.places.values():
            place.swept = place.swept or place.due <= self.now

    # What operators do

    def _unsure(self) -> list[Place]:
        """Return messages whose lease has run out: whether somebody has them is for the broker to say."""
        return [place for place in self.places.values() if place.token is not None and place.due <= self.now]

    def _idle(self) -> list[Place]:
        return [place for place in self.places.values() if place.token is None]

    @rule(names=st.lists(st.integers(0, 14), max_size=5))
    def discard(self, names: list[int]) -> None:
        wanted = [f"task-{name}" for name in names]
        unsure = {place.message.id for place in self._unsure()}
        found = self.broker.discard(wanted)
        sure = {place.message.id for place in self._idle()} & set(wanted)
        assert len(set(ids(found))) == len(found)
        assert sure <= set(ids(found)) <= (sure | unsure) & set(wanted)
        for message in found:
            assert content(message) == content(self.places.pop(message.id).message)

    @precondition(lambda self: not self._unsure())
    @rule(name=st.sampled_from(QUEUES))
    def purge(self, name: str) -> None:
        idle = [place.message.id for place in self._idle() if place.message.queue == name]
        assert self.broker.purge(name) == len(idle)
        for task_id in idle:
            del self.places[task_id]

    @precondition(lambda self: not self._unsure())
    @rule(name=st.sampled_from(QUEUES), limit=st.integers(0, 20))
    def peek(self, name: str, limit: int) -> None:
        waiting = [place for place in self._idle() if place.message.queue == name]
        found = ids(self.broker.peek(name, limit))
        assert len(found) == len(set(found)) == min(limit, len(waiting))
        assert set(found) <= {place.message.id for place in waiting}
        ready = sorted((place for place in waiting if place.due <= self.now), key=lambda place: place.rank)
        assert {place.message.id for place in ready} >= set(found[: len(ready)])
        sure = [place.message.id for place in ready if place.prompt or self.attentive]
        assert [task_id for task_id in found if task_id in sure] == sure[: sum(task_id in sure for task_id in found)]

    @invariant()
    def stats_agree(self) -> None:
        expected: dict[str, list[int]] = {}
        for place in self.places.values():
            counts = expected.setdefault(place.message.queue, [0, 0, 0])
            counts[0 if place.due <= self.now else 1 if place.token is None else 2] += 1
        said = {stats.queue: [stats.ready, stats.delayed, stats.leased] for stats in self.broker.stats()}
        assert said == expected

    def teardown(self) -> None:
        """Let every lease and delay end: all that was not done comes out, once, and then the queues are empty."""
        self.turn(10 * UNIT)
        found: list[Delivery] = []
        while fetched := self.broker.fetch(QUEUES, 5, lease=100 * UNIT, consumer="last"):
            found += fetched
        assert sorted(ids(found)) == sorted(self.places)
        assert len(self.broker.ack(found)) == len(found)
        assert self.broker.stats() == []
        for broker in self.peers:
            broker.close()


def drive(machine: type[BrokerMachine], examples: int, steps: int) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


class MemoryMachine(BrokerMachine):
    attentive = True

    def open(self) -> list[Broker]:
        self.clock = TurnedClock()
        return [MemoryBroker("default", {}, clock=self.clock)]

    def turn(self, seconds: int) -> None:
        self.clock.turn(seconds)


class DatabaseMachine(BrokerMachine):
    alias: ClassVar[str]

    def open(self) -> list[Broker]:
        QueuedMessage.objects.using(self.alias).delete()
        return [DatabaseBroker("default", {"OPTIONS": {"USING": self.alias}}) for _ in range(2)]

    def turn(self, seconds: int) -> None:
        QueuedMessage.objects.using(self.alias).update(visible_at=F("visible_at") - timedelta(seconds=seconds))


class RedisMachine(BrokerMachine):
    attentive = True

    def open(self) -> list[Broker]:
        self.prefix = redises.new_prefix()
        options = {"KEY_PREFIX": self.prefix}
        return [RedisBroker("default", {"LOCATION": REDIS_URL, "OPTIONS": options}) for _ in range(2)]

    def turn(self, seconds: int) -> None:
        redises.elapse(self.prefix, seconds)

    def teardown(self) -> None:
        try:
            super().teardown()
        finally:
            redises.wipe(self.prefix)


def test_the_memory_broker_does_what_a_list_does() -> None:
    drive(MemoryMachine, examples=300, steps=40)


@each_vendor(transaction=True)
def test_the_database_broker_does_what_a_list_does(alias: str) -> None:
    drive(type("Machine", (DatabaseMachine,), {"alias": alias}), examples=40, steps=30)


def test_the_redis_broker_does_what_a_list_does() -> None:
    drive(RedisMachine, examples=40, steps=30)
