"""Has the server of a broker lost what it was given?

Some servers lose all, or the last of it, and say nothing: a Redis that was restarted without a file, was flushed, or
has handed over to a replica that lagged behind. So a mark with a number is left there now and then, and the number is
kept in the database too. A number that does not go on from there tells that the server forgot.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.utils import timezone

from django_tasks.backends.base import Broker, Mark
from django_tasks.models import ServerMark

RECENT = timedelta(days=7)
"""How long a loss is worth a word."""


@dataclass(frozen=True, slots=True)
class Loss:
    """What a server has forgotten."""

    broker: str
    """The alias."""
    place: str
    """The server, and what is kept of it there; without a password."""
    since: datetime | None
    """What was sent before this is still there; None if nothing is."""
    until: datetime
    """When it was found: what was sent later is there too."""

    def __str__(self) -> str:
        if self.since is None:
            gone = f"what was sent before {self.until:%Y-%m-%d %H:%M:%S} UTC and had not ended is gone."
        else:
            gone = (
                f"it is as it was at {self.since:%Y-%m-%d %H:%M:%S} UTC. What was sent from then to "
                f"{self.until:%Y-%m-%d %H:%M:%S} and had not ended is gone, and what ended then may run again."
            )
        return f"The broker {self.broker!r} ({self.place}) has lost messages: {gone}"


def watch(broker: Broker, queues: Sequence[str], using: str) -> list[Loss]:
    """Leave a mark on a broker's server, keep its number in a database, and return what was lost since the last one:
    each loss once, whoever asks. Raises BrokerUnavailable or a DatabaseError."""
    found: list[Loss] = []
    for mark, kept in _marks(broker, queues, using, leave=True):
        if kept is None:
            _remember(broker.alias, mark, using)
            continue
        values: dict[str, object] = {"number": mark.number, "marked_at": mark.now}
        loss = _loss(broker.alias, mark, kept)
        if loss is not None:
            values |= {"lost_at": loss.until, "lost_since": loss.since}
        # Guarded by the number: of several that noticed, one tells.
        changed = ServerMark.objects.using(using).filter(pk=kept.pk, number=kept.number).update(**values)
        if changed and loss is not None:
            found.append(loss)
    return found


def recent(broker: Broker, queues: Sequence[str], using: str) -> Iterator[Loss]:
    """Give what a broker's server has lost of late, whether or not a worker has noticed. Nothing is written down: that
    is left to workers, who tell of it."""
    for mark, kept in _marks(broker, queues, using, leave=False):
        if kept is None:
            continue
        if loss := _loss(broker.alias, mark, kept):
            yield loss
        elif kept.lost_at is not None and kept.lost_at >= timezone.now() - RECENT:
            yield Loss(broker.alias, kept.place, kept.lost_since, kept.lost_at)


def _marks(broker: Broker, queues: Sequence[str], using: str, *, leave: bool) -> list[tuple[Mark, ServerMark | None]]:
    """Return marks, each with what is kept of the last one there.

    What is kept is read first: other workers leave marks meanwhile, so that only a number which is not above it tells
    of a loss.
    """
    if not broker.features.marks:
        return []
    kept = {row.place: row for row in ServerMark.objects.using(using).filter(broker=broker.alias)}
    return [(mark, kept.get(mark.place)) for mark in broker.mark(queues, leave=leave)]


def _loss(alias: str, mark: Mark, kept: ServerMark) -> Loss | None:
    if mark.number > kept.number:
        return None
    # A mark that is younger than the last one we know of was left when the loss had happened already.
    since = mark.last if mark.last is not None and mark.last <= kept.marked_at else None
    return Loss(alias, mark.place, since, mark.now)


def _remember(alias: str, mark: Mark, using: str) -> None:
    row = ServerMark(broker=alias, place=mark.place, number=mark.number, marked_at=mark.now)
    ServerMark.objects.using(using).bulk_create([row], ignore_conflicts=True)
