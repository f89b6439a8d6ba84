"""Is this Redis fit to keep messages or results? Said by `manage.py check`, and by workers when they start.

E111 it evicts keys when its memory is full.
E112 it is too old.
W111 it keeps nothing on disk.
W112 it may evict results.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from django.core.checks import CheckMessage, Error, Warning  # noqa: A004  # Django's own name for it

from django_tasks.redis_servers import MINIMUM, Redis, RedisFailed

Info = Mapping[str, Any]
"""What `INFO` says."""


def evicts(info: Info) -> str:
    """Say what is wrong with a server that throws away any key when its memory is full; nothing of others.

    The policies whose names begin with "volatile" take keys alone that end some day, and no message does.
    """
    policy = str(info.get("maxmemory_policy", ""))
    if not policy.startswith("allkeys"):
        return ""
    return f"its maxmemory-policy is {policy!r}, so it throws messages away when its memory is full."


def is_old(info: Info) -> str:
    """Say what is wrong with a server that is too old; nothing of others."""
    version = str(info.get("redis_version", ""))
    numbers = tuple(int(number) for number in version.split(".")[:2] if number.isdigit())
    if not numbers or numbers >= MINIMUM:
        return ""
    return f"it needs Redis {'.'.join(map(str, MINIMUM))} or newer; this is {version}."


def keeps_nothing(info: Info) -> bool:
    """Tell whether a server has no append-only file."""
    return info.get("aof_enabled") == 0


def found_wrong(redis: Redis, who: str) -> Iterator[CheckMessage]:
    """Give what is wrong with a server that keeps messages."""
    for info in _answers(redis):
        yield from _too_old(info, who)
        if wrong := evicts(info):
            yield Error(
                f"{who}: {wrong}",
                hint="Set `maxmemory-policy noeviction` in redis.conf, or use a Redis that is not a cache.",
                id="django_tasks.E111",
            )
        if keeps_nothing(info):
            yield Warning(
                f"{who}: what waits there is lost when the server ends.",
                hint="Set `appendonly yes` in redis.conf.",
                id="django_tasks.W111",
            )


def found_wrong_with_results(redis: Redis, who: str) -> Iterator[CheckMessage]:
    """Give what is wrong with a server that keeps results."""
    for info in _answers(redis):
        yield from _too_old(info, who)
        policy = str(info.get("maxmemory_policy", "noeviction"))
        if policy != "noeviction":
            yield Warning(
                f"{who}: its maxmemory-policy is {policy!r}, so results may be gone before their time.",
                hint="Set `maxmemory-policy noeviction` in redis.conf, or use a Redis that is not a cache.",
                id="django_tasks.W112",
            )


def _too_old(info: Info, who: str) -> Iterator[CheckMessage]:
    if wrong := is_old(info):
        yield Error(f"{who}: {wrong}", hint="Update Redis.", id="django_tasks.E112")


def _answers(redis: Redis) -> list[dict[str, Any]]:
    try:
        return redis.info()
    except RedisFailed:
        # That it does not answer is not for a check of settings to say: migrate runs these, and so do tests.
        return []
