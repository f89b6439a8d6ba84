"""Is this RabbitMQ fit to keep messages? Said by `manage.py tasks doctor` and `manage.py check --deploy`.

E121 a queue drops its oldest messages when it is full.
E122 an alarm is in force, and it takes no messages.
W121 the account is the one that everybody knows.
W122 it is reached through a network without TLS.
W123 its version gets no corrections any more.
W125 classic queues, though several servers are named.
W126 a queue was declared otherwise than the settings say.

What only the management API tells is not seen here: policies, permissions, and the `consumer_timeout` in force.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import unquote, urlsplit

from amqp.exceptions import ChannelError
from django.core.checks import CheckMessage, Error, Warning  # noqa: A004  # Django's own name for it

from django_tasks.backends.links.frames import Address, publication
from django_tasks.backends.links.layout import Declaration, Layout
from django_tasks.backends.links.rabbit import RabbitConnection
from django_tasks.backends.links.servers import Servers, shown
from django_tasks.diagnosis import Diagnosis, all_local

SUPPORTED = (3, 12)

_MOST = 10
"""How many arguments of one queue are looked at; there are about as many."""

_OTHERWISE = re.compile(
    r"inequivalent arg '(?P<name>[\w-]+)' .* but current is (?:none|the value '(?P<value>.*)' of type '(?P<kind>\w+)')"
)

NOWHERE = "django_tasks.nowhere"
"""A queue that nobody has."""

NO_PROPERTIES = bytes(2)

_PATIENCE = 3.0
"""Seconds to wait for what the server says of a message."""

_BOUNDS = ("x-max-length", "x-max-length-bytes")


_CLOUDS = ("sqs", "azureservicebus", "azurestoragequeues", "gcpubsub")
"""Transports whose URLs need no host to be elsewhere."""


def emulated(servers: Servers) -> Diagnosis:
    """Return what another of kombu's transports is, and where, as far as its URLs say."""
    hosts = [urlsplit(url).hostname or "" for url in servers.urls]
    remote = not all_local(hosts) or (servers.scheme in _CLOUDS and not all(hosts))
    return Diagnosis(f"kombu's transport {servers.scheme}", _shown(servers), remote=remote)


def examine(servers: Servers, layout: Layout, queues: Sequence[str], who: str, *, ask: bool) -> Diagnosis:
    """Return what a RabbitMQ is and what is unsafe about it and about these queues; without `ask`, what the settings
    show. Raises BrokerUnavailable."""
    told = _from_settings(servers, layout, who)
    if not ask:
        return told
    with servers.telling():
        alarms: list[str] = []
        connection = RabbitConnection(servers, "doctor", {"on_blocked": alarms.append})
        try:
            what, found = _asked(connection, layout, queues, who)
            # Last: once there is an alarm, the server hears nothing more on this connection.
            _provoke(connection, alarms)
            found += _alarmed(alarms, who)
        finally:
            connection.close()
    return replace(told, what=what, found=(*told.found, *found))


def _from_settings(servers: Servers, layout: Layout, who: str) -> Diagnosis:
    """Return what the settings show of a RabbitMQ."""
    accounts = [_account(url) for url in servers.urls]
    remote = not all_local(host for host, _ in accounts)
    found: list[CheckMessage] = []
    if any(user == "guest" for _, user in accounts):
        found.append(
            Warning(
                f"{who} uses the account guest, whose password everybody knows and which may do everything.",
                hint="Make an account that may use this site's queues alone, write it in LOCATION, and delete guest.",
                id="django_tasks.W121",
            )
        )
    if remote and not servers.options.tls and any(not url.startswith("amqps") for url in servers.urls):
        found.append(
            Warning(
                f"{who} is reached through a network without TLS: whoever listens there reads all arguments and the "
                "password, and can send tasks of their own.",
                hint="Set up TLS on the server, and write amqps:// in LOCATION.",
                id="django_tasks.W122",
            )
        )
    if len(servers.urls) > 1 and layout.options.queue_type == "classic":
        found.append(
            Warning(
                f"{who} names {len(servers.urls)} servers and declares classic queues, each of which lives on one of "
                "them: while that one is away its messages cannot be had, and if its disk is lost they are gone.",
                hint='Set "QUEUE_TYPE": "quorum" in OPTIONS, for queues of a new name or after deleting the old ones.',
                id="django_tasks.W125",
            )
        )
    return Diagnosis("RabbitMQ", _shown(servers), tuple(found), remote)


def _asked(
    connection: RabbitConnection, layout: Layout, queues: Sequence[str], who: str
) -> tuple[str, list[CheckMessage]]:
    """Return what a server is, and what is unsafe about it and about these queues."""
    product, version = connection.product
    found = list(out_of_support(product, version, who))
    for queue in queues:
        found += _queue_otherwise(connection, layout.queue(queue), who)
    return f"{product} {version}", found


def _provoke(connection: RabbitConnection, alarms: Sequence[str]) -> None:
    """Send a message that no queue takes: only who has sent something is told of an alarm."""
    to = Address("", NOWHERE, mandatory=False)
    try:
        connection.channel.confirm_select()
        connection.write(publication(connection.number, to, NO_PROPERTIES, b"", connection.frame_max))
        deadline = time.monotonic() + _PATIENCE
        while not alarms and not connection.inbox.confirms and (left := deadline - time.monotonic()) > 0:
            connection.pump(left)
    except ChannelError:
        # The account may not send there: then nothing is known.
        return


def _alarmed(alarms: Sequence[str], who: str) -> Iterator[CheckMessage]:
    # What is said of the reason py-amqp keeps to itself.
    if alarms:
        yield Error(
            f"{who}: an alarm of its memory or disk is in force, and it takes no messages until that is over: sending "
            "a task raises BrokerFull. Workers go on.",
            hint="Let workers empty the queues, give it more memory or disk, or correct vm_memory_high_watermark and "
            "disk_free_limit. `rabbitmq-diagnostics alarms` says where.",
            id="django_tasks.E122",
        )


def out_of_support(product: str, version: str, who: str) -> Iterator[CheckMessage]:
    """Give what is wrong with a version for which there are no corrections any more."""
    numbers = tuple(int(number) for number in version.split(".")[:2] if number.isdigit())
    if product == "RabbitMQ" and numbers and numbers < SUPPORTED:
        yield Warning(
            f"{who}: RabbitMQ {version} gets no corrections any more, not of its security either.",
            hint=f"Update RabbitMQ to {'.'.join(map(str, SUPPORTED))} or newer.",
            id="django_tasks.W123",
        )


def _queue_otherwise(connection: RabbitConnection, wanted: Declaration, who: str) -> Iterator[CheckMessage]:
    """Give what is wrong with a queue that is there and has other arguments than we would give it."""
    there = _arguments(connection, wanted)
    changed = {name: value for name, value in there.items() if value != wanted.arguments.get(name)}
    bounds = [name for name in _BOUNDS if there.get(name) is not None]
    if bounds and there.get("x-overflow", "drop-head") == "drop-head":
        limits = ", ".join(f"{name} = {there[name]}" for name in bounds)
        yield Error(
            f"{who}: the queue {wanted.name!r} is bounded ({limits}) and drops its oldest message for each new one: "
            "tasks are lost, and nobody is told.",
            hint="Delete the queue when it is empty, and set MAX_LENGTH in OPTIONS: then it refuses what is too much.",
            id="django_tasks.E121",
        )
    elif changed:
        told = ", ".join(f"{name} = {'nothing' if value is None else value}" for name, value in sorted(changed.items()))
        yield Warning(
            f"{who}: the queue {wanted.name!r} is used as it is, though it was declared otherwise than the settings "
            f"say: {told}.",
            hint="Delete the queue when it is empty, so that it is made anew, or write what it is into OPTIONS.",
            id="django_tasks.W126",
        )


def _arguments(connection: RabbitConnection, wanted: Declaration) -> dict[str, Any]:
    """Return the arguments of a queue; none of one that is not there.

    The server tells of one argument at a time that is not as declared; so it is declared again with that.
    """
    arguments = dict(wanted.arguments)
    seen: set[str] = set()
    for _ in range(_MOST):
        said = _OTHERWISE.search(connection.otherwise(Declaration(wanted.name, _given(arguments))))
        if said is None or said["name"] in seen:
            break
        seen.add(said["name"])
        arguments[said["name"]] = _value(said["value"], said["kind"])
    return arguments


def _given(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if value is not None}


def _value(text: str | None, kind: str | None) -> Any:
    return int(text) if text is not None and kind not in ("longstr", "bool") and text.isdigit() else text


def _account(url: str) -> tuple[str, str]:
    """Return the host and the user that a URL names, or leaves to be understood."""
    parts = urlsplit(url)
    return parts.hostname or "localhost", unquote(parts.username or "guest")


def _shown(servers: Servers) -> str:
    return "; ".join(map(shown, servers.urls))
