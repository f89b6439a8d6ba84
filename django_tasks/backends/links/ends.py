"""What sends and receives the messages of one process, and how does it give back what it received?"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from django_tasks.backends.links.link import Arrival, Parcel, Receiver, Sender
from django_tasks.exceptions import PublishError
from django_tasks.wire import DELIVERIES, WAY, Wire, deliveries_of, unmarked

_log = logging.getLogger("django_tasks.broker")


@dataclass(frozen=True, slots=True)
class Ends:
    """Both ends of the broker in one process."""

    sender: Sender
    receiver: Receiver


def send_back(ends: Ends, arrivals: Sequence[Arrival]) -> None:
    """Put arrivals back where they came from, as if they had not come."""
    if arrivals:
        ends.sender.send([Parcel(one.queue, resent(one), returned=True) for one in arrivals])
        ends.receiver.ack([arrival.receipt for arrival in arrivals])


def give_back(ends: Ends, arrivals: Sequence[Arrival]) -> None:
    """Put arrivals back, if need be in the way that always goes and counts as a loss."""
    try:
        send_back(ends, arrivals)
    except PublishError as error:
        _log.warning("Giving messages back without their count", extra={"error": str(error)})
        ends.receiver.requeue([arrival.receipt for arrival in arrivals])


def resent(arrival: Arrival) -> Wire:
    """Return an arrival as it is sent again: unchanged, but for what the server noted on it, and for what we note: the
    count, and what it came by."""
    headers = unmarked(arrival.wire.headers)
    headers[DELIVERIES] = deliveries_of(headers) + arrival.losses
    if arrival.exchange:
        headers[WAY] = [arrival.exchange, arrival.key]
    return Wire(headers, arrival.wire.properties, arrival.wire.body)
