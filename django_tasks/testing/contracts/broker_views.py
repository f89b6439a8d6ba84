"""Does a broker wake who waits, tell how queues stand, and let an operator in?"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from threading import Event

import pytest
from django.core.checks import CheckMessage
from django.db import connections

from django_tasks.backends.base import Broker, QueueStats
from django_tasks.exceptions import BrokerUnavailable
from django_tasks.testing.contracts.harness import (
    ALIKE,
    QUEUE,
    BrokerHarness,
    content,
    ids,
    needs,
    sample,
    samples,
    together,
)


class ViewContract(BrokerHarness):
    def test_waiting_ends_with_its_timeout(self, broker: Broker) -> None:
        self.take(broker)
        for timeout in (0.0, 0.05):
            broker.wait([QUEUE], timeout, Event())

    def test_waiting_ends_when_it_is_told_to_stop(self, broker: Broker) -> None:
        stop = Event()
        stop.set()
        assert broker.wait([QUEUE], self.patience * 10, stop) is False

    def test_waiting_ends_soon_after_it_is_told_to_stop(self, broker: Broker) -> None:
        with self._asleep(broker, QUEUE):
            pass

    def test_waiting_for_nothing_blocks(self, broker: Broker) -> None:
        """One that always returned at once would be a worker that spins."""
        needs(broker, "wakeups")
        self._settle(broker)

    def test_what_nobody_fetches_does_not_wake_over_and_over(self, broker: Broker) -> None:
        """A worker that has no free slot leaves messages where they are."""
        needs(broker, "wakeups")
        broker.publish(samples(3))
        self._settle(broker)

    def test_what_arrived_before_the_wait_ends_it(self, broker: Broker) -> None:
        needs(broker, "wakeups")
        mine = self.peer(broker)
        self._settle(mine)
        broker.publish(samples(1))
        began = time.monotonic()
        assert mine.wait([QUEUE], self.patience * 10, Event()) is True
        assert time.monotonic() - began < self.patience

    def test_a_message_wakes_who_waits(self, broker: Broker) -> None:
        needs(broker, "wakeups")
        self._wakes(broker, lambda: broker.publish(samples(1)))

    def test_a_message_wakes_who_waits_for_several_queues(self, broker: Broker) -> None:
        needs(broker, "wakeups")
        self._wakes(broker, lambda: broker.publish(samples(1, "third")), "first", "second", "third")

    def test_a_message_put_back_wakes_who_waits(self, broker: Broker) -> None:
        needs(broker, "wakeups")
        held = self.published(broker)
        self._wakes(broker, lambda: broker.nack(held))

    def test_the_end_of_a_delay_wakes_who_waits(self, broker: Broker) -> None:
        needs(broker, "wakeups", "delay")
        broker.publish([replace(sample(), countdown=self.lease)])
        assert self.take(broker) == []
        self._wakes(broker, lambda: self.elapse(broker, self.lease))

    def _settle(self, broker: Broker, queues: Sequence[str] = (QUEUE,)) -> None:
        """Wait until a wait blocks: a broker may wake once too often, but not always."""
        for _ in range(20):
            began = time.monotonic()
            broker.wait(queues, 0.25, Event())
            if time.monotonic() - began >= 0.25:
                return
        pytest.fail("wait never blocks, so a worker with nothing to do would spin")

    @contextmanager
    def _asleep(self, broker: Broker, *queues: str) -> Iterator[Event]:
        """Give an event that is set when a listener, asleep by now, wakes up; stop the listener in the end."""
        mine, stop, asleep, woken = self.peer(broker), Event(), Event(), Event()

        def listen() -> None:
            self._settle(mine, queues)
            asleep.set()
            while not stop.is_set():
                if mine.wait(queues, self.patience * 10, stop):
                    woken.set()

        with ThreadPoolExecutor(1) as executor:
            listening = executor.submit(listen)
            listening.add_done_callback(lambda _: asleep.set())
            assert asleep.wait(self.patience)
            woken.clear()
            try:
                yield woken
            finally:
                stop.set()
                listening.result(self.patience / 2)
                executor.submit(connections.close_all)
        mine.close()

    def _wakes(self, broker: Broker, event: Callable[[], object], *queues: str) -> None:
        with self._asleep(broker, *queues or (QUEUE,)) as woken:
            event()
            assert woken.wait(self.patience)
        self.gather(broker, 1, queues=queues or (QUEUE,))

    def test_an_empty_broker_has_no_queues(self, broker: Broker) -> None:
        assert broker.stats() == []
        assert broker.stats(["never"]) == [QueueStats("never", 0, 0, 0, 0.0)]

    def test_stats_count_what_is_ready_delayed_and_leased(self, broker: Broker) -> None:
        needs(broker, "overview", "delay")
        held = self.published(broker, 5)
        broker.publish([*samples(3), *(replace(sample(), countdown=3600) for _ in range(2)), *samples(1, "mail")])
        broker.nack(held[:1], delay=3600)
        assert self._counts(broker) == {QUEUE: (3, 3, 4), "mail": (1, 0, 0)}
        assert self._counts(broker, "mail", "never") == {"mail": (1, 0, 0), "never": (0, 0, 0)}
        broker.ack(held)
        assert self._counts(broker, QUEUE) == {QUEUE: (3, 3, 0)}

    def test_stats_count_as_ready_what_may_be_taken(self, broker: Broker) -> None:
        needs(broker, "overview", "delay", "leases")
        self.published(broker, 2)
        broker.publish([replace(sample(), countdown=self.lease)])
        self.elapse(broker, self.lease * 1.25)
        assert self._counts(broker) == {QUEUE: (3, 0, 0)}

    def test_stats_tell_names_apart(self, broker: Broker) -> None:
        broker.publish([sample(queue=name) for name in ALIKE])
        assert self._counts(broker) == dict.fromkeys(ALIKE, (1, 0, 0))

    def test_stats_stop_counting_at_the_ceiling(self, broker: Broker) -> None:
        needs(broker, "overview")
        self.published(broker, 4)
        broker.publish(samples(7))
        broker.publish([replace(sample(), countdown=3600) for _ in range(5)])
        [stats] = broker.stats(ceiling=3)
        assert (stats.ready, stats.delayed, stats.leased) == (3, 3, 3)

    def test_stats_tell_how_long_the_oldest_ready_message_waits(self, broker: Broker) -> None:
        needs(broker, "overview")
        broker.publish(samples(1))
        self.elapse(broker, self.lease)
        broker.publish(samples(2))
        [stats] = broker.stats()
        assert self.lease * 0.9 <= stats.oldest < self.lease * 0.9 + self.patience
        self.gather(broker, 3)
        [stats] = broker.stats()
        assert stats.oldest == 0.0

    def test_an_eta_long_past_says_nothing_about_the_wait(self, broker: Broker) -> None:
        now = datetime.fromtimestamp(broker.clock(), UTC)
        broker.publish([replace(sample(), eta=now - timedelta(days=3650))])
        [stats] = broker.stats()
        assert stats.oldest < self.patience

    def test_stats_tell_how_long_it_was_ready_not_how_old_it_is(self, broker: Broker) -> None:
        needs(broker, "overview")
        [held] = self.published(broker)
        self.elapse(broker, self.lease / 2)
        broker.nack([held])
        [stats] = broker.stats()
        assert stats.oldest < self.lease * 0.4

    def _counts(self, broker: Broker, *queues: str) -> dict[str, tuple[int, int, int]]:
        return {stats.queue: (stats.ready, stats.delayed, stats.leased) for stats in broker.stats(queues)}

    def test_a_purge_leaves_what_is_leased_and_what_is_elsewhere(self, broker: Broker) -> None:
        held = self.published(broker, 2)
        broker.publish([*samples(2_500), *samples(1, "mail"), *samples(1, "Default")])
        broker.publish([replace(sample(), countdown=3600)])
        assert broker.purge(QUEUE) == 2_501
        assert broker.purge(QUEUE) == 0
        assert broker.purge("never") == 0
        assert self.take(broker) == []
        assert broker.ack(held) == held
        self.gather(broker, 2, queues=["mail", "Default"])

    def test_a_discard_returns_what_it_took_and_leaves_the_rest(self, broker: Broker) -> None:
        needs(broker, "discards")
        [held] = self.published(broker)
        ready, later, other = sample(), replace(sample(), countdown=3600), sample("mail")
        broker.publish([ready, later, other])
        found = broker.discard([ready.id, later.id, ready.id, held.message.id, "unknown", ready.id.upper() + "?"])
        assert sorted(ids(found)) == sorted([ready.id, later.id])
        assert {one.id: content(one) for one in found}[ready.id] == content(ready)
        assert broker.discard([ready.id, later.id]) == []
        assert self.take(broker) == []
        assert broker.ack([held]) == [held]
        assert ids(self.take(broker, queues=["mail"])) == [other.id]

    def test_a_discard_tells_names_apart(self, broker: Broker) -> None:
        needs(broker, "discards")
        broker.publish([replace(sample(), id=name) for name in ALIKE])
        for name in ALIKE:
            assert ids(broker.discard([name])) == [name]

    def test_a_discard_takes_large_batches(self, broker: Broker) -> None:
        needs(broker, "discards")
        sent = samples(2_500)
        broker.publish(sent)
        assert sorted(ids(broker.discard([*ids(sent), *(f"unknown-{n}" for n in range(70_000))]))) == sorted(ids(sent))

    def test_a_discard_and_a_fetch_in_the_same_instant_never_both_win(self, broker: Broker) -> None:
        needs(broker, "discards")
        for _ in range(self.rounds):
            sent = samples(50)
            broker.publish(sent)
            chunks = [ids(sent[n : n + 5]) for n in range(0, 50, 5)][::-1]
            removed, fetched = together(partial(self._discard, broker, chunks), partial(self._fetch, broker))
            left = broker.fetch([QUEUE], 100, lease=3600, consumer="worker@here")
            assert sorted(removed + fetched + ids(left)) == sorted(ids(sent))
            broker.purge(QUEUE)

    def test_a_purge_and_a_fetch_in_the_same_instant_never_both_win(self, broker: Broker) -> None:
        for _ in range(self.rounds):
            broker.publish(samples(50))
            removed, fetched = together(partial(self._purge, broker), partial(self._fetch, broker))
            left = broker.fetch([QUEUE], 100, lease=3600, consumer="worker@here")
            assert len(removed) + len(fetched) + len(left) == 50

    def _fetch(self, broker: Broker) -> list[str]:
        mine = self.peer(broker)
        # Leases that outlast the test: one that ends gives its message to the next fetch.
        return [
            task_id for _ in range(10) for task_id in ids(mine.fetch([QUEUE], 5, lease=3600, consumer="worker@here"))
        ]

    def _discard(self, broker: Broker, chunks: list[list[str]]) -> list[str]:
        return [message.id for chunk in chunks for message in broker.discard(chunk)]

    def _purge(self, broker: Broker) -> list[str]:
        return ["purged"] * broker.purge(QUEUE)

    def test_a_peek_returns_what_waits_best_first_and_leaves_it(self, broker: Broker) -> None:
        needs(broker, "peeks")
        self.published(broker, 2)
        sent = [replace(sample(), priority=priority) for priority in (0, 5, -5, 5)]
        later = [replace(sample(), countdown=countdown) for countdown in (7200, 3600)]
        broker.publish([*later, *sent, sample("mail")])
        expected = [sent[1], sent[3], sent[0], sent[2], later[1], later[0]]
        assert ids(broker.peek(QUEUE, 100)) == ids(expected)
        assert ids(broker.peek(QUEUE, 3)) == ids(expected[:3])
        assert content(broker.peek(QUEUE, 1)[0]) == content(expected[0])
        assert broker.peek("never", 100) == []
        assert broker.peek(QUEUE, 0) == []
        assert ids(self.gather(broker, 4)) == ids(expected[:4])

    def test_a_closed_broker_opens_again_and_has_lost_nothing(self, broker: Broker) -> None:
        broker.publish(samples(2))
        broker.wait([QUEUE], 0.0, Event())
        for _ in range(2):
            broker.close()
        assert len(self.gather(broker, 2)) == 2
        broker.close()
        broker.publish(samples(1, "mail"))
        broker.close()
        broker.wait(["mail"], 0.0, Event())
        self.gather(broker, 1, queues=["mail"])

    def test_a_closed_broker_still_holds_what_it_leased(self, broker: Broker) -> None:
        needs(broker, "leases")
        held = self.published(broker, 2)
        broker.close()
        assert self.take(broker) == []
        broker.close()
        assert broker.ack(held) == held

    def test_a_peer_sees_the_same_queues(self, broker: Broker) -> None:
        peer = self.peer(broker)
        broker.publish(samples(4))
        held = self.gather(peer, 2)
        [stats] = broker.stats([QUEUE])
        assert stats.ready == 2
        if broker.features.leases:
            assert broker.ack(held) == held
            assert peer.ack(held) == []
        peer.close()

    def test_a_peer_sees_what_is_leased(self, broker: Broker) -> None:
        needs(broker, "overview")
        peer = self.peer(broker)
        broker.publish(samples(4))
        self.gather(peer, 2)
        assert self._counts(broker) == {QUEUE: (2, 0, 2)}
        peer.close()

    def test_marks_are_numbered_wherever_messages_are_kept(self, broker: Broker) -> None:
        needs(broker, "marks")
        peer = self.peer(broker)
        first, second, third = (one.mark([QUEUE, "other"]) for one in (broker, peer, broker))
        assert first
        [*looked] = broker.mark([QUEUE, "other"], leave=False)
        assert [mark.number for mark in looked] == [mark.number + 1 for mark in third]
        assert [mark.place for mark in first] == [mark.place for mark in second]
        for one, two, three in zip(first, second, third, strict=True):
            assert (two.number, three.number) == (one.number + 1, one.number + 2)
            assert two.last == one.now
            assert three.last == two.now <= three.now
        peer.close()

    def test_checks_say_something_or_nothing(self, broker: Broker) -> None:
        assert all(isinstance(said, CheckMessage) for said in broker.check())

    def test_a_diagnosis_names_the_server_and_says_what_the_settings_alone_show(self, broker: Broker) -> None:
        asked, unasked = broker.diagnose([QUEUE]), broker.diagnose([QUEUE], ask=False)
        assert asked.what
        assert all(isinstance(said, CheckMessage) for said in asked.found)
        assert all(said in asked.found for said in unasked.found)

    def test_a_server_that_does_not_answer_is_told_as_such(self, broker: Broker) -> None:
        cut = self.unreachable()
        if cut is None:
            pytest.skip(f"{type(broker).__name__} has no server, or the suite was not told how to cut it off")
        [held] = self.published(broker)
        attempts: list[Callable[[], object]] = [
            lambda: cut.publish(samples(1)),
            lambda: cut.fetch([QUEUE], 1, lease=self.lease, consumer="w"),
            lambda: cut.ack([held]),
            lambda: cut.nack([held]),
            lambda: cut.extend([held], self.lease),
            lambda: cut.stats([QUEUE]),
            lambda: cut.purge(QUEUE),
        ]
        if broker.features.discards:
            attempts.append(lambda: cut.discard([held.message.id]))
        if broker.features.peeks:
            attempts.append(lambda: cut.peek(QUEUE, 1))
        for attempt in attempts:
            with pytest.raises(BrokerUnavailable):
                attempt()
        cut.wait([QUEUE], 0.0, Event())
        cut.close()
