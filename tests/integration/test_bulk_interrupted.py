"""What is there of a large batch that was interrupted half-way, and what when it is sent again?"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from django_tasks.connections import brokers
from django_tasks.exceptions import BrokerUnavailable
from django_tasks.testing.contracts.harness import samples
from tests.integration.wired import wired
from tests.wires import Wire

NUMBER = 25_000
"""A hundred thousand say no more, and take half a minute on a busy machine."""
PIECE = 20_000
"""Of what Redis takes at once."""

pytestmark = pytest.mark.django_db(databases=["default", "postgres"], transaction=True)


@pytest.fixture(params=["redis", "postgres"])
def wire(request: pytest.FixtureRequest) -> Iterator[Wire]:
    with wired(request.param) as wire:
        yield wire


def ready() -> int:
    [stats] = brokers["default"].stats(["default"], ceiling=1_000_000)
    return stats.ready


def test_a_batch_that_was_interrupted_half_way_is_there_in_whole_pieces_and_whole_when_it_is_sent_again(
    wire: Wire, thorough: bool
):
    number = 4 * NUMBER if thorough else NUMBER
    broker, messages = brokers["default"], samples(number)
    before = wire.asked
    broker.publish(messages[:1000])
    size = (wire.asked - before) * number // 1000
    wire.cut_after_asking(size * 9 // 10, last=True)
    with pytest.raises(BrokerUnavailable):
        broker.publish(messages)
    wire.reopen()
    if broker.database is None:
        # Those before it stay, since nobody could take them back.
        assert ready() % PIECE == 0
        assert 0 < ready() < number
    else:
        # All of it is one transaction.
        assert ready() == 1000
    broker.publish(messages)
    assert ready() == number
