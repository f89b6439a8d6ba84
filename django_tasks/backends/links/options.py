"""What can be said about an AMQP broker in the settings?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from django_tasks.exceptions import ConfigurationError


def _known(*words: str) -> tuple[Callable[[Any], bool], str]:
    return (lambda value: value in words), " or ".join(map(repr, words))


_FLAG = (lambda value: isinstance(value, bool)), "True or False"
_TEXT = (lambda value: isinstance(value, str)), "text"
_MAPPING = (lambda value: isinstance(value, Mapping)), "a dict"
_COUNT = (lambda value: value is None or (type(value) is int and value > 0)), "a whole number above 0, or None"
_SECONDS = (lambda value: type(value) in (int, float) and value > 0), "a number of seconds above 0"


def _option(default: Any, rule: tuple[Callable[[Any], bool], str]) -> Any:
    made = {"default_factory": dict} if default == {} else {"default": default}
    return field(metadata={"rule": rule}, **made)


@dataclass(frozen=True, slots=True)
class AmqpOptions:
    """OPTIONS of an AMQP broker with their defaults. The key of a field is its name in capitals."""

    queue_type: Literal["classic", "quorum"] = _option("classic", _known("classic", "quorum"))
    priorities: bool = _option(True, _FLAG)
    """Whether classic queues are declared with priorities."""
    prefix: str = _option("", _TEXT)
    """Stands before the name of each queue on the server."""
    max_length: int | None = _option(None, _COUNT)
    dead_letter_exchange: str = _option("", _TEXT)
    drop_expired: bool = _option(False, _FLAG)
    tls: Mapping[str, Any] = _option({}, _MAPPING)
    heartbeat: float = _option(15, _SECONDS)
    consumer_timeout: float = _option(1800, _SECONDS)
    """What the server is configured with; it tells nobody."""
    publish_timeout: float = _option(5, _SECONDS)
    connect_timeout: float = _option(3, _SECONDS)
    transport: Mapping[str, Any] = _option({}, _MAPPING)
    """`transport_options` of kombu's other transports."""


_KEYS = {entry.name.upper(): entry for entry in fields(AmqpOptions)}


def read_options(
    alias: str, options: Mapping[str, Any], *, where: str = "", keys: Sequence[str] = tuple(_KEYS)
) -> AmqpOptions:
    """Return OPTIONS checked, of which only `keys` may be given; raises ConfigurationError."""
    # One look each, by name, so that what can be said here is seen at a glance.
    given = {
        "QUEUE_TYPE": options.get("QUEUE_TYPE"),
        "PRIORITIES": options.get("PRIORITIES"),
        "PREFIX": options.get("PREFIX"),
        "MAX_LENGTH": options.get("MAX_LENGTH"),
        "DEAD_LETTER_EXCHANGE": options.get("DEAD_LETTER_EXCHANGE"),
        "DROP_EXPIRED": options.get("DROP_EXPIRED"),
        "TLS": options.get("TLS"),
        "HEARTBEAT": options.get("HEARTBEAT"),
        "CONSUMER_TIMEOUT": options.get("CONSUMER_TIMEOUT"),
        "PUBLISH_TIMEOUT": options.get("PUBLISH_TIMEOUT"),
        "CONNECT_TIMEOUT": options.get("CONNECT_TIMEOUT"),
        "TRANSPORT": options.get("TRANSPORT"),
    }
    where = where or f"The AMQP broker {alias!r}"
    if unknown := sorted(set(options) - set(keys)):
        raise ConfigurationError(f"{where} has no option {unknown[0]!r}; it has {', '.join(keys)}.")
    told: dict[str, Any] = {key: value for key, value in given.items() if key in options}
    for key, value in told.items():
        fits, wanted = _KEYS[key].metadata["rule"]
        if not fits(value):
            raise ConfigurationError(f"{where}: {key} is {wanted}, not {value!r}.")
    return AmqpOptions(**{key.lower(): value for key, value in told.items()})
