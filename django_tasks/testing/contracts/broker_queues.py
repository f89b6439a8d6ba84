"""Does a broker keep what is published, whole, once, and in order?"""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from functools import partial

import pytest

from django_tasks.backends.base import Broker
from django_tasks.exceptions import PublishError, SerializationError, SignatureError
from django_tasks.message import Message, new_id
from django_tasks.signing import sign, verify
from django_tasks.testing.contracts.harness import (
    ALIKE,
    QUEUE,
    TEXTS,
    BrokerHarness,
    content,
    ids,
    needs,
    sample,
    samples,
    together,
)

FULL = Message(
    id="every-field",
    task="shop.tasks.bill",
    body=bytes(range(256)),
    queue=QUEUE,
    priority=7,
    content_type="application/x-msgpack",
    content_encoding="binary",
    compression="application/zstd",
    eta=datetime(2020, 2, 29, 23, 59, 59, 123456, tzinfo=timezone(timedelta(hours=5, minutes=45))),
    expires=datetime(2090, 1, 1, 0, 0, 0, 1, tzinfo=UTC),
    retries=2,
    attempts=5,
    time_limit=30.5,
    soft_time_limit=20.25,
    ignore_result=True,
    root_id="root",
    parent_id="parent",
    group_id="group",
    group_index=3,
    shadow="billing",
    args_repr="(1, 'zwei')",
    kwargs_repr="{'drei': 3}",
    origin="web@here",
    headers={"tenant": "blue", "nested": {"list": [1, 2.5, None, True], "empty": {}}, "trace": "00-ab-cd-01"},
)


class QueueContract(BrokerHarness):
    def test_every_field_of_a_message_comes_through(self, broker: Broker) -> None:
        broker.publish([FULL])
        [delivery] = self.gather(broker, 1)
        assert content(delivery.message) == content(FULL)

    def test_what_was_signed_holds_when_it_comes_back(self, broker: Broker) -> None:
        zone = timezone(timedelta(hours=-3))
        odd = {"n": -0.0, "big": 10**30, "numbers": {2: "b", 10: "a"}, "reply_to": "", "lang": "py", "stamps": {}}
        first = sample()
        sent = [
            sign(FULL),
            sign(replace(first, root_id=first.id, time_limit=30, headers=odd, countdown=0.0, eta=FULL.eta)),
            sign(
                replace(sample(), args_repr="('\u4e2d',)", shadow="\u4e2d", expires=datetime(2090, 1, 1, tzinfo=zone))
            ),
        ]
        broker.publish(sent)
        delivered = self.gather(broker, len(sent))
        broker.nack(delivered)
        for delivery in self.gather(broker, len(sent)):
            verify(delivery.message)
            with pytest.raises(SignatureError):
                verify(replace(delivery.message, retries=9))

    def test_what_a_message_leaves_out_is_not_made_up(self, broker: Broker) -> None:
        bare = Message(id=new_id(), task="t", body=b"")
        broker.publish([bare])
        [delivery] = self.gather(broker, 1)
        assert content(delivery.message) == content(bare)

    def test_values_that_are_false_but_said_come_through(self, broker: Broker) -> None:
        said = replace(
            sample(), ignore_result=False, group_id="g", group_index=0, headers={"flag": False, "n": 0, "": None}
        )
        broker.publish([said])
        [delivery] = self.gather(broker, 1)
        assert content(delivery.message) == content(said)

    @pytest.mark.parametrize("text", TEXTS)
    def test_any_text_in_headers_comes_through(self, broker: Broker, text: str) -> None:
        sent = replace(
            sample(), headers={text: [text, {text: text}]}, args_repr=text, kwargs_repr=text, shadow=text or "x"
        )
        broker.publish([sent])
        [delivery] = self.gather(broker, 1)
        assert content(delivery.message) == content(sent)

    @pytest.mark.parametrize(
        "body", [b"", b"\x00", b"\x00\xff" * 1000, "中文 \N{GRINNING FACE}".encode(), b"%s\\'\"{}"]
    )
    def test_any_bytes_in_a_body_come_through(self, broker: Broker, body: bytes) -> None:
        broker.publish([replace(sample(), body=body)])
        [delivery] = self.gather(broker, 1)
        assert delivery.message.body == body
        assert type(delivery.message.body) is bytes

    def test_the_largest_body_comes_through(self, broker: Broker) -> None:
        body = bytes(range(256)) * (self.largest // 256)
        broker.publish([replace(sample(), body=body), replace(sample(), body=body)])
        assert [delivery.message.body == body for delivery in self.gather(broker, 2)] == [True, True]

    def test_the_broker_says_when_a_message_was_published(self, broker: Broker) -> None:
        [delivery] = self.published(broker)
        assert delivery.message.created_at is not None
        assert delivery.message.created_at.tzinfo is not None

    def test_a_worker_that_changes_headers_changes_no_later_delivery(self, broker: Broker) -> None:
        headers = {"list": [1]}
        broker.publish([replace(sample(), headers=headers)])
        headers["list"].append(2)
        [first] = self.gather(broker, 1)
        first.message.headers["list"].append(3)
        broker.nack([first])
        [second] = self.gather(broker, 1)
        assert dict(second.message.headers) == {"list": [1]}

    def test_names_that_look_alike_are_kept_apart(self, broker: Broker) -> None:
        sent = [replace(sample(queue=name), id=name, task=name) for name in ALIKE]
        broker.publish(sent)
        for one in sent:
            [delivery] = self.gather(broker, 1, queues=[one.queue])
            assert (delivery.message.id, delivery.message.task) == (one.id, one.task)
            assert self.take(broker, queues=[one.queue]) == []

    @pytest.mark.parametrize("letter", ["x", "é", "中", "\N{GRINNING FACE}"])
    def test_names_may_be_as_long_as_they_may_be(self, broker: Broker, letter: str) -> None:
        long = replace(sample(queue=letter * 128), id=letter * 255, task=letter * 255)
        broker.publish([long])
        [delivery] = self.gather(broker, 1, queues=[long.queue])
        assert content(delivery.message) == content(long)
        assert ids(broker.ack([delivery])) == [long.id]

    def test_nothing_is_queued_when_one_of_a_batch_cannot_be_sent(self, broker: Broker) -> None:
        batch = [*samples(3), replace(sample(), headers={"lock": threading.Lock()}), *samples(3)]
        with pytest.raises((PublishError, SerializationError)):
            broker.publish(batch)
        assert self.take(broker) == []

    def test_empty_sequences_cost_nothing(self, broker: Broker) -> None:
        broker.publish([])
        broker.publish(samples(1))
        assert broker.fetch([], 10, lease=self.lease, consumer="w") == []
        assert broker.fetch([QUEUE], 0, lease=self.lease, consumer="w") == []
        assert broker.ack([]) == []
        assert broker.nack([]) == []
        assert broker.extend([], self.lease) == []
        assert broker.discard([]) == []
        assert len(self.gather(broker, 1)) == 1

    def test_an_id_that_is_queued_is_not_queued_twice(self, broker: Broker) -> None:
        needs(broker, "unique")
        first, other = sample(), sample()
        broker.publish([first, first, other])
        broker.publish([first, replace(first, body=b"changed", queue="elsewhere", priority=9)])
        found = self.take(broker, queues=[QUEUE, "elsewhere"])
        assert sorted(ids(found)) == sorted([first.id, other.id])
        assert {delivery.message.body for delivery in found} == {first.body}

    def test_an_id_that_is_leased_is_not_queued_twice(self, broker: Broker) -> None:
        needs(broker, "unique")
        [delivery] = self.published(broker)
        broker.publish([delivery.message])
        assert self.take(broker) == []
        assert broker.ack([delivery]) == [delivery]
        assert self.take(broker) == []

    def test_an_id_that_was_done_may_be_queued_again(self, broker: Broker) -> None:
        [delivery] = self.published(broker)
        broker.ack([delivery])
        broker.publish([delivery.message])
        [again] = self.gather(broker, 1)
        assert (again.message.id, again.deliveries) == (delivery.message.id, 1)

    def test_the_oldest_of_a_queue_goes_first(self, broker: Broker) -> None:
        batches = [samples(7) for _ in range(5)]
        for batch in batches:
            broker.publish(batch)
        sent = [one.id for batch in batches for one in batch]
        got = [task_id for _ in range(7) for task_id in ids(self.gather(broker, 5))]
        assert got == sent

    def test_the_highest_priority_goes_first_and_then_the_oldest(self, broker: Broker) -> None:
        needs(broker, "priorities")
        order = (0, -100, 100, 5, -5, 0, 100, 99, -99, 5)
        sent = [replace(sample(), priority=priority) for priority in order]
        broker.publish(sent[:5])
        broker.publish(sent[5:])
        expected = sorted(sent, key=lambda message: -message.priority)
        assert ids(self.gather(broker, 4)) + ids(self.gather(broker, 6)) == ids(expected)

    def test_a_batch_from_several_queues_has_the_best_first(self, broker: Broker) -> None:
        needs(broker, "priorities")
        sent = [replace(sample(f"q{n % 3}"), priority=n * 37 % 11) for n in range(12)]
        broker.publish(sent)
        expected = sorted(sent, key=lambda message: -message.priority)
        assert ids(self.gather(broker, 12, queues=["q0", "q1", "q2"])) == ids(expected)

    def test_a_long_queue_does_not_starve_a_short_one(self, broker: Broker) -> None:
        broker.publish(samples(100, "long"))
        broker.publish(samples(1, "short"))
        queues = ["long", "short", "empty"]
        found = [delivery.message.queue for _ in queues for delivery in self.take(broker, 5, queues=queues)]
        assert "short" in found

    def test_only_the_queues_that_were_named_are_looked_at(self, broker: Broker) -> None:
        broker.publish([*samples(2, "mail"), *samples(2, "Mail"), *samples(2, "mail.bulk")])
        assert self.take(broker, queues=["other", "mai", "mail%", "mail_bulk"]) == []
        assert {one.message.queue for one in self.gather(broker, 2, queues=["mail", "mail"])} == {"mail"}
        assert self.take(broker, queues=["mail"]) == []

    def test_a_fetch_takes_no_more_than_its_limit(self, broker: Broker) -> None:
        broker.publish(samples(5))
        assert [len(self.take(broker, limit)) for limit in (1, 3, 100, 100)] == [1, 3, 1, 0]

    def test_a_fetch_of_nothing_does_not_block(self, broker: Broker) -> None:
        began = time.monotonic()
        assert [self.take(broker) for _ in range(5)] == [[]] * 5
        assert time.monotonic() - began < self.patience / 2

    def test_ten_thousand_messages_are_published_at_once_and_come_in_order(self, broker: Broker) -> None:
        sent = samples(10_000)
        broker.publish(sent)
        got: list[str] = []
        while fetched := self.take(broker, 1_000):
            got += ids(fetched)
            assert len(broker.ack(fetched)) == len(fetched)
        assert got == ids(sent)

    def test_many_threads_publish_through_one_broker(self, broker: Broker) -> None:
        batches = [samples(25) for _ in range(16)]
        together(*[partial(broker.publish, batch) for batch in batches])
        found = self.gather(broker, 400)
        assert sorted(ids(found)) == sorted(one.id for batch in batches for one in batch)

    def test_threads_that_publish_the_same_ids_queue_each_once(self, broker: Broker) -> None:
        needs(broker, "unique")
        for _ in range(self.rounds):
            batch = samples(20)
            together(partial(broker.publish, batch), partial(broker.publish, batch[::-1]))
            found = self.take(broker)
            assert sorted(ids(found)) == sorted(ids(batch))
            broker.ack(found)

    def test_sixteen_threads_fetch_two_thousand_messages_and_none_twice(self, broker: Broker) -> None:
        sent = samples(2_000)
        broker.publish(sent)

        def drain() -> list[str]:
            mine = self.peer(broker)
            got: list[str] = []
            while len(got) < len(sent) and (fetched := mine.fetch([QUEUE], 10, lease=3600, consumer="w")):
                got += ids(fetched)
                # What this one holds when it goes is its own for as long as leases last, where there are any.
                done = fetched[::2] if mine.features.leases else fetched
                assert len(mine.ack(done)) == len(done)
            mine.close()
            return got

        got = [task_id for share in together(*[drain] * 16) for task_id in share]
        # Whoever found every row locked by others left early; what is left comes now.
        got += ids(self.take(broker, 2_000))
        assert sorted(got) == sorted(ids(sent))
