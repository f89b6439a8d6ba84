"""What is a server that a backend uses, and what is unsafe about it?"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

from django.core.checks import CheckMessage, Warning  # noqa: A004  # Django's own name for it

TOLERATED = 2.0
"""Seconds that the clock of this machine may be off the server's."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What a backend says of its server."""

    what: str
    """Its kind, with the version where the server was asked."""
    where: str = ""
    """Its address, without a password."""
    found: tuple[CheckMessage, ...] = ()
    remote: bool = False
    """Whether it is reached through a network, and not on this machine alone."""
    connections: int | None = None
    """How many it takes at once, where each worker needs several and it tells."""


def is_local(host: str) -> bool:
    """Tell whether a host is this machine by its very name; nobody is asked. No name, or a path, is a socket."""
    name = host.strip("[]").lower()
    if not name or name.startswith("/") or name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def all_local(hosts: Iterable[str]) -> bool:
    return all(map(is_local, hosts))


def ahead(server: float, before: float, after: float) -> float:
    """Return by how many seconds the clock of a server which said its time between two moments here is ahead of this
    machine's; 0 if the answer may have been under way for all of that."""
    difference = server - (before + after) / 2
    return difference if abs(difference) > (after - before) / 2 else 0.0


def clock_off(who: str, server: float, before: float, after: float) -> list[CheckMessage]:
    """Say how far this machine's clock is off that of a server which said its time between two moments here.

    The answer was under way for some part of the time between them, so half of that is taken off.
    """
    difference = ahead(server, before, after)
    if abs(difference) - (after - before) / 2 <= TOLERATED:
        return []
    way = "ahead of" if difference < 0 else "behind"
    return [
        Warning(
            f"{who}: the clock of this machine is {abs(difference):.1f} s {way} the server's, so what is sent for a "
            "certain time comes early or late, and expires so.",
            hint="Let a time service (NTP) set the clocks of all machines.",
            id="django_tasks.W154",
        )
    ]
