"""Does only the holder of a lease change a message, and does nobody else have it meanwhile?"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest

from django_tasks.backends.base import Broker
from django_tasks.exceptions import PublishError, SerializationError
from django_tasks.message import Delivery
from django_tasks.testing.contracts.harness import (
    QUEUE,
    BrokerHarness,
    content,
    ids,
    needs,
    sample,
    samples,
    together,
)

Write = Callable[[Broker, list[Delivery]], list[Delivery]]

WRITES: dict[str, Write] = {
    "ack": lambda broker, deliveries: broker.ack(deliveries),
    "nack": lambda broker, deliveries: broker.nack(deliveries),
    "nack spent": lambda broker, deliveries: broker.nack(deliveries, spent=True),
    "nack with a delay": lambda broker, deliveries: broker.nack(deliveries, delay=3600),
    "extend": lambda broker, deliveries: broker.extend(deliveries, 3600),
    "replace": lambda broker, deliveries: broker.replace([(one, one.message) for one in deliveries]),
}
"""What a holder may do, and one who lost the lease may not."""

every_write = pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)


class LeaseContract(BrokerHarness):
    def test_a_leased_message_is_invisible(self, broker: Broker) -> None:
        self.published(broker, 3)
        assert self.take(broker) == []
        assert self.take(self.peer(broker)) == []

    def test_what_is_acked_is_gone_for_good(self, broker: Broker) -> None:
        needs(broker, "leases")
        held = self.published(broker, 3)
        assert broker.ack(held) == held
        self.elapse(broker, self.lease * 1.5)
        assert self.take(broker) == []

    @every_write
    def test_every_write_returns_what_was_held_and_only_that(self, broker: Broker, write: Write) -> None:
        needs(broker, "leases")
        held, done = self.published(broker, 4), self.published(broker, 3)
        broker.ack(done)
        mixed = [held[0], done[0], held[1], done[1], held[2], done[2], held[3]]
        assert write(broker, mixed) == held

    @every_write
    def test_every_write_takes_large_batches(self, broker: Broker, write: Write) -> None:
        needs(broker, "leases")
        broker.publish(samples(2_500))
        held = broker.fetch([QUEUE], 2_500, lease=3600, consumer="w")
        assert sorted(ids(write(broker, held))) == sorted(ids(held))

    def test_a_second_ack_is_not_held(self, broker: Broker) -> None:
        held = self.published(broker, 2)
        broker.ack(held)
        assert broker.ack(held) == []

    def test_a_message_put_back_is_visible_at_once_and_its_delivery_does_not_count(self, broker: Broker) -> None:
        held = self.published(broker)
        for _ in range(3):
            assert broker.nack(held) == held
            assert broker.ack(held) == []
            held = self.gather(broker, 1)
            assert held[0].deliveries == 1

    def test_a_message_put_back_as_spent_counts_its_delivery(self, broker: Broker) -> None:
        held = self.published(broker)
        for number in (1, 2, 3):
            assert (held[0].deliveries, held[0].attempt) == (number, number)
            assert broker.nack(held, spent=True) == held
            held = self.gather(broker, 1)

    def test_a_message_put_back_is_otherwise_unchanged(self, broker: Broker) -> None:
        held = self.published(broker)
        broker.nack(held, spent=True)
        [again] = self.gather(broker, 1)
        assert content(again.message) == content(held[0].message)
        assert again.message.created_at == held[0].message.created_at

    def test_a_message_put_back_with_a_delay_is_visible_after_it(self, broker: Broker) -> None:
        needs(broker, "delay")
        held = self.published(broker, 2)
        assert broker.nack(held[:1], delay=self.lease) == held[:1]
        assert self.take(broker) == []
        broker.ack(held)
        self.elapse(broker, self.lease * 1.25)
        assert ids(self.gather(broker, 1)) == ids(held[:1])

    def test_a_negative_delay_is_none(self, broker: Broker) -> None:
        broker.nack(self.published(broker), delay=-5.0)
        self.gather(broker, 1)

    def test_a_message_is_replaced_by_the_next_attempt_of_its_id(self, broker: Broker) -> None:
        held = self.published(broker, 3)
        following = [
            replace(one.message, body=b"[[], {}, {}]", retries=1, attempts=one.attempt, queue="again", created_at=None)
            for one in held
        ]
        assert broker.replace(list(zip(held, following, strict=True))) == held
        assert self.take(broker) == []
        found = self.gather(broker, 3, queues=["again"])
        assert [content(one.message) for one in found] == [content(one) for one in following]
        assert {(one.deliveries, one.attempt) for one in found} == {(1, 2)}
        assert broker.ack(held) == []
        assert broker.ack(found) == found

    def test_a_replacement_may_be_delayed(self, broker: Broker) -> None:
        needs(broker, "delay")
        held = self.published(broker)
        broker.replace([(held[0], replace(held[0].message, countdown=self.lease))])
        assert self.take(broker) == []
        self.elapse(broker, self.lease * 1.25)
        self.gather(broker, 1)

    def test_a_stale_holder_replaces_nothing(self, broker: Broker) -> None:
        needs(broker, "leases")
        zombie = self.published(broker)
        self.elapse(broker, self.lease * 1.25)
        holder = self.gather(broker, 1)
        other = replace(zombie[0].message, queue="again")
        assert broker.replace([(zombie[0], other)]) == []
        assert broker.ack(holder) == holder
        assert broker.replace([(zombie[0], other)]) == []
        assert self.take(broker, queues=["again"]) == []

    def test_a_replacement_that_cannot_be_sent_leaves_all_as_it_was(self, broker: Broker) -> None:
        held = self.published(broker, 2)
        broken = replace(held[1].message, headers={"lock": threading.Lock()})
        with pytest.raises((PublishError, SerializationError)):
            broker.replace([(held[0], held[0].message), (held[1], broken)])
        assert broker.ack(held) == held

    def test_a_message_whose_lease_ran_out_is_visible_again_and_its_delivery_counts(self, broker: Broker) -> None:
        needs(broker, "leases")
        lost = self.published(broker, 3)
        for number in (2, 3):
            self.elapse(broker, self.lease * 1.25)
            found = self.gather(broker, 3)
            assert sorted(ids(found)) == sorted(ids(lost))
            assert {delivery.deliveries for delivery in found} == {number}

    def test_an_extended_lease_holds_until_its_new_end(self, broker: Broker) -> None:
        needs(broker, "leases")
        held = self.published(broker, 2)
        self.elapse(broker, self.lease / 2)
        assert broker.extend(held, self.lease * 2) == held
        self.elapse(broker, self.lease * 1.25)
        assert self.take(broker) == []
        self.elapse(broker, self.lease)
        assert {delivery.deliveries for delivery in self.gather(broker, 2)} == {2}

    def test_a_lease_may_be_extended_over_and_over(self, broker: Broker) -> None:
        needs(broker, "leases")
        held = self.published(broker)
        for _ in range(4):
            self.elapse(broker, self.lease / 2)
            assert broker.extend(held, self.lease) == held
        assert self.take(broker) == []
        assert broker.ack(held) == held

    @every_write
    def test_a_lease_that_ran_out_is_held_until_somebody_else_has_the_message(
        self, broker: Broker, write: Write
    ) -> None:
        needs(broker, "leases")
        late = self.published(broker, 2)
        self.elapse(broker, self.lease * 1.25)
        assert write(broker, late) == late

    @every_write
    def test_a_stale_holder_changes_nothing_while_another_holds(self, broker: Broker, write: Write) -> None:
        needs(broker, "leases")
        zombie = self.published(broker, 3)
        self.elapse(broker, self.lease * 1.25)
        holder = self.gather(broker, 3)
        assert write(broker, zombie) == []
        assert self.take(broker) == []
        assert sorted(ids(broker.ack(holder))) == sorted(ids(zombie))
        assert write(broker, zombie) == []
        self.elapse(broker, self.lease * 1.25)
        assert self.take(broker) == []

    @every_write
    def test_a_stale_holder_changes_nothing_after_another_put_it_back(self, broker: Broker, write: Write) -> None:
        needs(broker, "leases")
        zombie = self.published(broker, 1)
        self.elapse(broker, self.lease * 1.25)
        broker.nack(self.gather(broker, 1), spent=True)
        assert write(broker, zombie) == []
        [found] = self.gather(broker, 1)
        assert found.deliveries == 3

    @every_write
    def test_a_stale_holder_changes_nothing_after_the_id_was_queued_anew(self, broker: Broker, write: Write) -> None:
        old = self.published(broker, 1)
        broker.ack(old)
        broker.publish([old[0].message])
        assert write(broker, old) == []
        [new] = self.gather(broker, 1)
        assert write(broker, old) == []
        assert broker.ack([new]) == [new]

    def test_the_same_worker_has_a_new_receipt_at_each_claim(self, broker: Broker) -> None:
        needs(broker, "leases")
        first = self.published(broker)
        self.elapse(broker, self.lease * 1.25)
        second = self.gather(broker, 1)
        assert first[0].receipt != second[0].receipt
        assert broker.ack(first) == []
        assert broker.ack(second) == second

    @pytest.mark.parametrize("countdown", [0.0, -1.0, -1e9])
    def test_a_countdown_that_is_over_delays_nothing(self, broker: Broker, countdown: float) -> None:
        broker.publish([replace(sample(), countdown=countdown)])
        self.gather(broker, 1)

    @pytest.mark.parametrize("days", [1, 365, 20_000])
    def test_an_eta_that_is_over_delays_nothing(self, broker: Broker, days: int) -> None:
        broker.publish([replace(sample(), eta=datetime.fromtimestamp(broker.clock(), UTC) - timedelta(days=days))])
        self.gather(broker, 1)

    def test_a_countdown_is_waited_for(self, broker: Broker) -> None:
        needs(broker, "delay")
        later, now = replace(sample(), countdown=self.lease), sample()
        broker.publish([later, now])
        assert ids(self.take(broker)) == [now.id]
        self.elapse(broker, self.lease * 1.25)
        [delivery] = self.gather(broker, 1)
        assert (delivery.message.id, delivery.deliveries) == (later.id, 1)

    @pytest.mark.parametrize("zone", [UTC, timezone(timedelta(hours=-9, minutes=-30)), timezone(timedelta(hours=14))])
    def test_an_eta_is_waited_for_whatever_its_zone(self, broker: Broker, zone: timezone) -> None:
        needs(broker, "delay")
        eta = datetime.fromtimestamp(broker.clock() + self.lease, zone)
        broker.publish([replace(sample(), eta=eta)])
        assert self.take(broker) == []
        self.elapse(broker, self.lease * 1.25)
        self.gather(broker, 1)

    def test_a_countdown_wins_over_an_eta(self, broker: Broker) -> None:
        needs(broker, "delay")
        past, future = datetime(2001, 1, 1, tzinfo=UTC), datetime(2999, 1, 1, tzinfo=UTC)
        soon, late = replace(sample(), countdown=0, eta=future), replace(sample(), countdown=3600, eta=past)
        broker.publish([late, soon])
        assert ids(self.take(broker)) == [soon.id]

    def test_a_delay_may_be_as_long_as_time(self, broker: Broker) -> None:
        needs(broker, "delay", "discards")
        last = datetime.max.replace(tzinfo=UTC)
        far = [replace(sample(), countdown=10 * 365 * 86_400), replace(sample(), eta=last), sample()]
        broker.publish(far)
        assert ids(self.take(broker)) == [far[2].id]
        assert sorted(ids(broker.discard(ids(far)))) == sorted(ids(far[:2]))

    def test_a_delayed_message_keeps_its_priority(self, broker: Broker) -> None:
        needs(broker, "delay", "priorities")
        first = replace(sample(), countdown=self.lease, priority=50)
        rest = [replace(sample(), priority=priority) for priority in (10, 90)]
        broker.publish([first, *rest])
        self.elapse(broker, self.lease * 1.25)
        assert ids(self.gather(broker, 3)) == [rest[1].id, first.id, rest[0].id]

    def test_completion_and_rescue_in_the_same_instant_never_both_win(self, broker: Broker) -> None:
        self._race(broker, lambda mine, share: mine.ack(share))

    def test_renewal_and_rescue_in_the_same_instant_never_both_win(self, broker: Broker) -> None:
        self._race(broker, lambda mine, share: mine.extend(share, 3600))

    def test_replacement_and_rescue_in_the_same_instant_never_both_win(self, broker: Broker) -> None:
        self._race(
            broker,
            lambda mine, share: mine.replace([(one, replace(one.message, countdown=3600)) for one in share]),
        )

    def _race(self, broker: Broker, write: Write) -> None:
        """Let a holder whose lease ran out write while another worker fetches: each message has one winner."""
        needs(broker, "leases")
        for _ in range(self.rounds):
            late = self.published(broker, 50)
            self.elapse(broker, self.lease * 1.25)

            def hold(late: list[Delivery] = late) -> list[Delivery]:
                mine = self.peer(broker)
                return [delivery for n in range(0, 50, 5) for delivery in write(mine, late[n : n + 5])]

            def rescue() -> list[Delivery]:
                mine = self.peer(broker)
                found: list[Delivery] = []
                while fetched := mine.fetch([QUEUE], 7, lease=3600, consumer="rescuer"):
                    found += fetched
                return found

            held, rescued = together(hold, rescue)
            rescued += self.take(broker)
            assert sorted(ids(held) + ids(rescued)) == sorted(ids(late))
            assert broker.ack(rescued) == rescued
            broker.ack(held)
            broker.purge(QUEUE)
            assert self.take(broker) == []

    def test_two_workers_that_put_back_and_fetch_never_hold_one_message_together(self, broker: Broker) -> None:
        broker.publish(samples(20))
        turns = self.rounds * 5

        def juggle() -> int:
            mine = self.peer(broker)
            handled = 0
            for turn in range(turns):
                held = mine.fetch([QUEUE], 5, lease=3600, consumer="juggler")
                assert sorted(ids(mine.nack(held, spent=turn % 2 == 0))) == sorted(ids(held))
                handled += len(held)
            return handled

        assert sum(together(*[juggle] * 4)) > 0
        assert len(self.gather(broker, 20)) == 20
