"""Where are groups recorded when a Redis keeps the results?"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from hmac import compare_digest
from typing import Any

from django.conf import settings
from django.utils.crypto import salted_hmac

from django_tasks.exceptions import DecodeError
from django_tasks.plan import NOTHING, Group, Part, Place, Plan, place_from
from django_tasks.protocol import dump_plan, load_plan
from django_tasks.redis_servers import Redis
from django_tasks.results.fields import packed, to_bytes, unpacked
from django_tasks.results.groups import GRACE, MISSING, Ended, Groups, Progress, failure_from, failure_text, lateness
from django_tasks.results.lua import GROUPS
from django_tasks.results.redis_places import IDS, Places, asking, chunks, itself, lives, pieces

_log = logging.getLogger("django_tasks.worker")

_SALT = "django_tasks.results.redis_groups"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_Said = Sequence[bytes | None]
"""What scripts tell of a group: the values of some of its fields."""


class RedisGroups(Groups):
    """Keeps groups in a Redis, each under keys that end by themselves once what follows it has been sent.

    A batch of members is one script, and so is the reading of a few thousand of them: in a cluster one for each of the
    parts into which it is divided, of which each group has its place in one. Times are those of the server.
    """

    def __init__(self, redis: Redis, places: Places, expires: timedelta | None) -> None:
        self.expires = expires
        self._redis = redis
        self._places = places

    def open(self, groups: Sequence[Group]) -> None:
        with asking():
            for base, mine in self._places.parted(groups, _id_of):
                for piece in pieces([_opening(group) for group in mine]):
                    self._run("open", base, [*lives(self.expires), *(word for words in piece for word in words)])

    def record(self, parts: Sequence[Part]) -> list[Ended]:
        ended: list[Ended] = []
        with asking():
            for base, mine in self._places.parted(parts, _group_of):
                for piece in pieces([_recording(part) for part in mine]):
                    # Whoever asks once more, since the answer was lost, is given the same groups.
                    name, words = secrets.token_hex(8), _by_group(piece)
                    given = self._redis.run(GROUPS["record"], [base], [name, 0, *words], again=[name, 1, *words])
                    ended += map(_ended, given)
        return ended

    def late(self, limit: int = 100) -> list[str]:
        found: list[str] = []
        with asking():
            for base in self._places.all():
                if len(found) < limit:
                    found += map(_name, self._run("late", base, [limit - len(found)]))
        return found

    def give_up(self, ids: Sequence[str]) -> list[Ended]:
        ended: list[Ended] = []
        with asking():
            for base, chunk in self._chunks(ids):
                ended += map(_ended, self._run("give_up", base, [MISSING, *map(to_bytes, chunk)]))
        return ended

    def fired(self, ids: Sequence[str]) -> None:
        kept, _ = lives(self.expires)
        with asking():
            for base, chunk in self._chunks(ids):
                self._run("fired", base, [kept, *map(to_bytes, chunk)])

    def unfired(self, limit: int = 100) -> list[Ended]:
        found: list[Ended] = []
        with asking():
            for base in self._places.all():
                if len(found) < limit:
                    given = self._run("unfired", base, [int(GRACE * 1_000_000), limit - len(found)])
                    found += map(_ended, given)
        return found

    def values(self, group_id: str) -> list[bytes] | None:
        found: list[bytes] = []
        for size, failed, done, several in self._read(group_id):
            if failed or done < size:
                return None
            for raw in several:
                if raw is None or (part := _part(group_id, 0, raw)) is None:
                    return None
                found.append(part.value or b"null")
        return found or None

    def parts(self, group_id: str) -> list[Part]:
        every = (raw for _, _, _, several in self._read(group_id) for raw in several)
        found = (_part(group_id, index, raw) for index, raw in enumerate(every) if raw is not None)
        return [part for part in found if part is not None]

    def _read(self, group_id: str) -> Iterator[tuple[int, bool, int, _Said]]:
        """Give, a few thousand members at a time, the size of a group, whether a member failed, how many have ended,
        and what is kept of each; nothing of a group that is not known."""
        base, first, size = self._places.of(group_id), 0, 1
        while first < size:
            with asking():
                found = self._run("read", base, [to_bytes(group_id), first, IDS])
            if not found:
                return
            size, failed, done, several = int(found[0]), bool(found[1]), found[2], found[3]
            yield size, failed, done, several
            if not several:
                return
            first += len(several)

    def progress(self, ids: Sequence[str]) -> dict[str, Progress]:
        known: dict[str, Progress] = {}
        with asking():
            for base, chunk in self._chunks(ids):
                found = self._run("progress", base, list(map(to_bytes, chunk)))
                for group_id, (size, ended, *failed, done) in zip(chunk, found, strict=True):
                    if (number := _number(size)) is not None:
                        first = _failed(group_id, number, *failed)
                        known[group_id] = Progress(group_id, number, done, first, _moment(ended))
        return known

    def keep(self, group_id: str, size: int, text: str) -> None:
        _, kept = lives(self.expires)
        said = [kept, to_bytes(group_id), to_bytes(text), *_fields_of(Group(group_id, size))]
        with asking():
            self._run("keep", self._places.of(group_id), said)

    def kept(self, group_id: str) -> str | None:
        key = self._places.of(group_id) + b"group:" + to_bytes(group_id)
        with asking():
            text = self._redis.call("HGET", key, b"s")
        return _text(text)

    def grow(self, group_id: str, name: str) -> int | None:
        with asking():
            number: int | None = self._run("grow", self._places.of(group_id), [to_bytes(group_id), to_bytes(name)])
        return number

    def forget(self, ids: Sequence[str]) -> int:
        with asking():
            return sum(self._run("forget", base, list(map(to_bytes, chunk))) for base, chunk in self._chunks(ids))

    def expire(self, before: datetime, limit: int = 100) -> int:
        with asking():
            return self._places.expire(partial(self._run, "expire"), before, limit)

    def _chunks(self, ids: Sequence[str]) -> Iterator[tuple[bytes, Sequence[str]]]:
        for base, mine in self._places.parted(list(dict.fromkeys(ids)), itself):
            for chunk in chunks(mine):
                yield base, chunk

    def _run(self, name: str, base: bytes, args: Sequence[Any]) -> Any:
        return self._redis.run(GROUPS[name], [base], args)


def _id_of(group: Group) -> str:
    return group.id


def _group_of(part: Part) -> str:
    return part.place[0]


# How groups look in bytes


def _opening(group: Group) -> list[Any]:
    """Return a group as the script takes it."""
    fields = _fields_of(group)
    if group.failure is not None:
        fields += (b"x", b"0", b"w", _packed(Part((group.id, 0), group.id, failure=group.failure)))
    limit = b"" if group.timeout is None else b"%d" % (group.timeout * 1_000_000)
    return [to_bytes(group.id), int(group.failure is not None), limit, len(fields), *fields]


def _fields_of(group: Group) -> list[bytes]:
    said = {b"n": b"%d" % group.size}
    if group.then:
        said[b"t"] = dump_plan(group.then).encode()
    if group.place is not None:
        said[b"o"] = json.dumps(group.place).encode()
    for name, text in ((b"r", group.root_id), (b"p", group.parent_id)):
        if text is not None:
            said[name] = to_bytes(text)
    said[b"h"] = _digest(group.id, said, settings.SECRET_KEY)
    return [word for pair in said.items() for word in pair]


def _digest(group_id: str, said: Mapping[bytes, bytes], key: str | bytes) -> bytes:
    """Vouch for what is to follow a group: whoever can write to this Redis could have a worker send anything else."""
    words = [to_bytes(group_id), *(said.get(name, b"") for name in (b"n", b"t", b"o", b"r", b"p"))]
    return salted_hmac(_SALT, packed(words), secret=key, algorithm="sha256").hexdigest().encode()


def _ended(given: tuple[bytes, _Said]) -> Ended:
    """Return a group that a script gave out. Of one that cannot be read nothing follows."""
    raw_id, values = given
    group_id = _name(raw_id)
    said = {name: value for name, value in zip(_TOLD, values, strict=True) if value is not None}
    mac, size = said.get(b"h", b""), (_number(said.get(b"n")) or 0) + (_number(said.get(b"c")) or 0)
    keys = (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)
    vouched = any(compare_digest(_digest(group_id, said, key), mac) for key in keys)
    try:
        then = load_plan(said.get(b"t", b"").decode())
        place = _place(said.get(b"o"))
    except (DecodeError, TypeError, ValueError) as error:
        _log.error("What follows a group cannot be read", extra={"group_id": group_id, "error": str(error)})
        then, place = _UNREADABLE
    root_id, parent_id = (_text(said.get(name)) for name in (b"r", b"p"))
    group = Group(group_id, size, then, place, None, root_id, parent_id)
    return Ended(group, _failed(group_id, size, *map(said.get, (b"x", b"w", b"m"))), vouched)


_TOLD = (b"n", b"t", b"o", b"r", b"p", b"h", b"x", b"w", b"m", b"c")
"""The names of the fields that scripts tell, in order."""
_DIGITS = 17
"""As many as a number does not have that is kept here."""
_UNREADABLE: tuple[Plan, Place | None] = (NOTHING, None)


def _place(raw: bytes | None) -> Place | None:
    if raw is None:
        return None
    outer, index = json.loads(raw)
    return place_from(outer, index)


def _name(raw: bytes) -> str:
    return _text(raw) or ""


def _text(raw: bytes | None) -> str | None:
    if raw is None:
        return None
    try:
        return raw.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return raw.decode("utf-8", "replace")


def _number(raw: bytes | None) -> int | None:
    return int(raw) if raw is not None and raw.isdigit() and len(raw) < _DIGITS else None


def _moment(raw: bytes | None) -> datetime | None:
    number = _number(raw)
    return None if number is None else _EPOCH + timedelta(microseconds=number)


def _recording(part: Part) -> list[Any]:
    """Return a part as the script takes it, after the id of its group."""
    group_id, index = part.place
    return [to_bytes(group_id), index, int(part.failure is not None), _packed(part)]


def _by_group(piece: Sequence[list[Any]]) -> list[Any]:
    """Return parts as the script takes them, those of a group together."""
    groups: dict[bytes, list[Any]] = {}
    for group_id, *words in piece:
        groups.setdefault(group_id, []).extend(words)
    return [word for group_id, words in groups.items() for word in (group_id, len(words) // 3, *words)]


def _packed(part: Part) -> bytes:
    fields = [b"i", to_bytes(part.task_id)]
    if part.value is not None:
        fields += (b"v", part.value)
    if part.failure is not None:
        fields += (b"f", failure_text(part.failure).encode())
    return packed(fields)


def _part(group_id: str, index: int, raw: bytes) -> Part | None:
    """Return the part that was packed; None if it cannot be read."""
    fields = unpacked(raw)
    said = dict(zip(fields[::2], fields[1::2], strict=False))
    if b"i" not in said:
        return None
    failure = failure_from(said[b"f"]) if b"f" in said else None
    return Part((group_id, index), _name(said[b"i"]), said.get(b"v"), failure)


def _failed(group_id: str, size: int, index: bytes | None, raw: bytes | None, late: bytes | None) -> Part | None:
    """Return the first member that failed, or the first that did not end in time; None if there is none."""
    if index is None:
        return None
    number = _number(index) or 0
    if late is not None:
        count, *missing = (_number(word) or 0 for word in late.split())
        return Part((group_id, number), group_id, failure=lateness(missing or [number], count, size))
    return _part(group_id, number, raw or b"") or Part((group_id, number), group_id, failure=failure_from(b""))
