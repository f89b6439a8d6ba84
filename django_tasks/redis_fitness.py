"""Is this Redis fit to keep messages or results? Said by `manage.py check` and `tasks doctor`, and by workers.

E111 it evicts keys when its memory is full.
E112 it is too old.
E113 it is a replica, and takes no writes.
E114 it could not write its file.
W111 it keeps nothing on disk.
W112 it may evict results.
W113 it has a hole that is known.
W114 it asks for no password, and others can reach it.
W115 it is reached through a network without TLS.
W116 its memory is nearly full.
W117 its file reaches the disk late.
W118 a replica that takes over may lack what was sent last.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from django.core.checks import CheckMessage, Error, Warning  # noqa: A004  # Django's own name for it

from django_tasks.answers import once
from django_tasks.diagnosis import Diagnosis, all_local, clock_off
from django_tasks.redis_locations import masked
from django_tasks.redis_servers import MINIMUM, Redis, RedisFailed

Info = Mapping[str, Any]
"""What `INFO` says."""

PATCHED = {
    "Redis": {(6, 2): 20, (7, 2): 11, (7, 4): 6, (8, 0): 4, (8, 2): 2},
    "Valkey": {(7, 2): 11, (8, 0): 6, (8, 1): 4},
}
"""Of each line the first release without CVE-2025-49844, by which who may run scripts takes the server over. Lines that
are not here have none if they are older than the last of these, and never had it if they are newer.
https://redis.io/blog/security-advisory-cve-2025-49844/
"""

FULL = 0.8
"""The part of `maxmemory` beyond which a full memory is near."""


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
    numbers = _numbers(version)[:2]
    if not numbers or numbers >= MINIMUM:
        return ""
    return f"it needs Redis {'.'.join(map(str, MINIMUM))} or newer; this is {version}."


def keeps_nothing(info: Info) -> bool:
    """Tell whether a server has no append-only file."""
    return info.get("aof_enabled") == 0


def unfit_for_messages(info: Info, who: str) -> Iterator[CheckMessage]:
    """Give what every check should say of a server that keeps messages."""
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


def unfit_for_results(info: Info, who: str) -> Iterator[CheckMessage]:
    """Give what every check should say of a server that keeps results."""
    yield from _too_old(info, who)
    policy = str(info.get("maxmemory_policy", "noeviction"))
    if policy != "noeviction":
        yield Warning(
            f"{who}: its maxmemory-policy is {policy!r}, so results and groups may be gone before their time.",
            hint="Set `maxmemory-policy noeviction` in redis.conf, or use a Redis that is not a cache.",
            id="django_tasks.W112",
        )


Judge = Callable[[Info, str], Iterator[CheckMessage]]
"""What a server is asked to be fit for."""


def found_wrong(redis: Redis, who: str, judge: Judge) -> list[CheckMessage]:
    """Return what is wrong with a server; nothing if it does not answer."""
    try:
        _, servers, _ = _asked(redis, time.time)
    except RedisFailed:
        # That it does not answer is not for a check of settings to say: migrate runs these, and so do tests.
        return []
    return [message for info in servers for message in judge(info, who)]


def examine(
    redis: Redis, who: str, judge: Judge, *, ask: bool = True, clock: Callable[[], float] = time.time
) -> Diagnosis:
    """Return all that is unsafe about a server; raises RedisFailed if it does not answer."""
    access = redis.access
    remote = not all_local(access.hosts)
    where = masked(redis.location)
    found = [] if access.tls or not remote else [_in_clear(who)]
    if not ask:
        return Diagnosis("Redis", where, (*found, *_open_to_all(who, access.password, exposed=remote)), remote)
    before, servers, after = _asked(redis, clock)
    if not servers:
        # The account may not ask INFO; PING everybody may.
        redis.call("PING")
    exposed = remote or (not access.password and once(("strangers", redis.location), lambda: _takes_strangers(redis)))
    found += _open_to_all(who, access.password, exposed=exposed)
    for info in servers:
        found += [*judge(info, who), *_dangers(info, who)]
    found += _slack(redis, who, keeps_file=any(info.get("aof_enabled") == 1 for info in servers))
    for info in servers:
        if "server_time_usec" in info:
            found += clock_off(who, info["server_time_usec"] / 1e6, before, after)
    names = list(dict.fromkeys(f"{_product(info)[0]} {_product(info)[1]}" for info in servers))
    return Diagnosis(", ".join(names) or "Redis (which does not let this user ask INFO)", where, tuple(found), remote)


def _asked(redis: Redis, clock: Callable[[], float]) -> tuple[float, list[dict[str, Any]], float]:
    """Return what the servers say of themselves, and when that was asked and answered."""

    def ask() -> tuple[float, list[dict[str, Any]], float]:
        before = clock()
        servers = redis.info()
        return before, servers, clock()

    return once(("INFO", redis.location), ask)


def _too_old(info: Info, who: str) -> Iterator[CheckMessage]:
    if wrong := is_old(info):
        yield Error(f"{who}: {wrong}", hint="Update Redis.", id="django_tasks.E112")


def _dangers(info: Info, who: str) -> Iterator[CheckMessage]:
    """Give what is dangerous without being wrong for everybody."""
    if info.get("role") == "slave":
        yield Error(
            f"{who}: it is a replica of {info.get('master_host')}:{info.get('master_port')}, and takes no writes: "
            "nothing can be sent or taken there.",
            hint="Let LOCATION name the master, or the sentinels that know it (redis+sentinel://...).",
            id="django_tasks.E113",
        )
    yield from _unwritten(info, who)
    name, version = _product(info)
    if has_hole(name, version):
        yield Warning(
            f"{who}: {name} {version} lets whoever may run scripts there take the server over (CVE-2025-49844).",
            hint=f"Update {name}. If your system's vendor has mended this version, which its number does not tell, put "
            "this id into SILENCED_SYSTEM_CHECKS.",
            id="django_tasks.W113",
        )
    limit, used = int(info.get("maxmemory", 0)), int(info.get("used_memory", 0))
    if limit and used > FULL * limit:
        yield Warning(
            f"{who}: {used / limit:.0%} of its memory is used ({used >> 20} of {limit >> 20} MiB). When it is full, "
            "sending a task raises BrokerFull and results cannot be kept.",
            hint="Raise `maxmemory`, let results end sooner (EXPIRES), or add workers if messages pile up.",
            id="django_tasks.W116",
        )


def _unwritten(info: Info, who: str) -> Iterator[CheckMessage]:
    """Give what a server could not write to its disk."""
    failed = [name for name in ("aof_last_write_status", "rdb_last_bgsave_status") if info.get(name) == "err"]
    if failed:
        yield Error(
            f"{who}: it could not write its file ({failed[0]} is err), so it refuses messages, or loses them when it "
            "ends.",
            hint="Is its disk full, and may it write to the directory (CONFIG GET dir)? Its log says what failed.",
            id="django_tasks.E114",
        )


def _slack(redis: Redis, who: str, *, keeps_file: bool) -> Iterator[CheckMessage]:
    """Give what a server has taken and may yet lose, though it keeps a file or has replicas."""
    if keeps_file and _configured(redis, "appendfsync") == ["no"]:
        yield Warning(
            f"{who}: its file reaches the disk when the system likes (appendfsync no), half a minute late or more: "
            "a power cut takes what was sent meanwhile.",
            hint="Set `appendfsync everysec` in redis.conf, or `always`.",
            id="django_tasks.W117",
        )
    if "+sentinel" in redis.location and _configured(redis, "min-replicas-to-write") == ["0"]:
        yield Warning(
            f"{who}: it answers before any replica has what it was sent (min-replicas-to-write 0), and goes on so when "
            "it is cut off from all of them: when one takes over, that is lost.",
            hint="Set `min-replicas-to-write 1`, and `min-replicas-max-lag 10` or less, in redis.conf of all servers.",
            id="django_tasks.W118",
        )


def has_hole(product: str, version: str) -> bool:
    """Tell whether a release has the hole that PATCHED is about."""
    lines, numbers = PATCHED[product], _numbers(version)
    if len(numbers) < 2:
        return False
    line = numbers[:2]
    return numbers[2:3] < (lines[line],) if line in lines else line < max(lines)


def _product(info: Info) -> tuple[str, str]:
    """Return the name and the version of a server; Valkey says for old clients which Redis it is like."""
    if "valkey_version" in info:
        return "Valkey", str(info["valkey_version"])
    return "Redis", str(info.get("redis_version", "?"))


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in version.split(".") if number.isdigit())


def _in_clear(who: str) -> CheckMessage:
    return Warning(
        f"{who} is reached through a network without TLS: whoever listens there reads all arguments and the password, "
        "and can send tasks of their own.",
        hint="Set up TLS on the server, and write rediss:// in LOCATION.",
        id="django_tasks.W115",
    )


def _open_to_all(who: str, password: bool, *, exposed: bool) -> Iterator[CheckMessage]:
    if exposed and not password:
        yield Warning(
            f"{who} asks for no password, and is open to more than this machine: whoever reaches its port can run any "
            "task with any arguments.",
            hint="Give it a user with a password (ACL SETUSER, or requirepass) and write both in LOCATION; bind it to "
            "the addresses that need it, and leave protected-mode on.",
            id="django_tasks.W114",
        )


def _takes_strangers(redis: Redis) -> bool:
    """Tell whether a server on this machine takes connections from elsewhere without a password."""
    told = _configured(redis, "protected-mode", "bind")
    if told is None:
        return False
    protected, bound = told
    return protected == "no" and not (bound and all_local(word.removeprefix("-") for word in bound.split()))


def _configured(redis: Redis, *names: str) -> list[str] | None:
    """Return how a server is set up; None of a cluster, and where that may not be asked."""
    if redis.clustered:
        return None

    def ask() -> list[str] | None:
        try:
            # A server before 7.0 takes one name at a time, and may be told of here as too old.
            said = [redis.call("CONFIG", "GET", name) for name in names]
        except RedisFailed:
            return None
        return [answer[1].decode() if answer else "" for answer in said]

    return once(("CONFIG", redis.location, *names), ask)
