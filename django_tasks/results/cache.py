"""Where are results kept when one of Django's caches keeps them?"""

from __future__ import annotations

import logging
import math
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar, cast

from django.conf import settings
from django.core.cache import caches
from django.core.cache.backends.base import BaseCache
from django.core.cache.backends.db import DatabaseCache
from django.core.cache.backends.dummy import DummyCache
from django.core.cache.backends.filebased import FileBasedCache
from django.core.cache.backends.locmem import LocMemCache
from django.core.cache.backends.memcached import BaseMemcachedCache
from django.core.checks import CheckMessage, Error, Warning  # noqa: A004  # Django's own name for it
from django.core.files import locks
from django.utils.module_loading import import_string

from django_tasks.exceptions import ConfigurationError, ResultTooLarge, StoreUnavailable
from django_tasks.message import Clock, new_id
from django_tasks.options import RNG
from django_tasks.plan import Result
from django_tasks.results.base import ResultStore, StoreFeatures, merged
from django_tasks.results.fields import fields_of, packed, results_of, to_bytes, unpacked

_log = logging.getLogger("django_tasks.worker")

T = TypeVar("T")

UNFINISHED = timedelta(days=90)
"""How much longer than others results are kept of tasks that never ended."""

FEW = 100_000
"""Results that a cache with a bound of its own should have room for."""

_KEYS = 1_000
"""How many keys are asked for at once."""
_SMALL = 100_000
"""Bytes that no cache refuses for their number: one that does not take so many does not work."""
_OVER = b"over"
"""Stands in place of a state that is not final when the final one has been written: a reader that saw neither of them
at once looks again."""
_OVER_SECONDS = 60
_FIRST, _GROWTH, _LONGEST = 0.005, 1.5, 0.5
"""Seconds between two looks of who waits: at first, by how much more each time, and at most unless `POLL` is given."""
_IDLE = 8
"""Caches that are kept, with their connections, for the next who asks."""
_READABLE = re.compile(r"[0-9a-z-]{1,64}")

_inherited: list[BaseCache] = []
"""Caches of a process that forked this one. They are kept, so that nobody closes what is in use over there."""


class CacheStore(ResultStore):
    """Keeps results in the cache whose alias is the `LOCATION`, each under a key that ends by itself.

    A result has two keys: one is overwritten while the task runs, the other is only ever added, with the final state,
    so that the first final state stays whoever comes second. Whether it is there is looked up where `add` does not say
    so: a cache that swallows its server's errors loses no result. What the cache itself throws away is lost.

    `OPTIONS`: `EXPIRES`; `KEY_PREFIX`, what its keys begin with; `POLL`, the longest pause in seconds between two looks
    of who waits.
    """

    def __init__(self, alias: str, params: Mapping[str, Any], *, clock: Clock = time.time) -> None:
        super().__init__(alias, params, clock=clock)
        self._where = f"The cache store {alias!r}"
        if unknown := sorted(set(self.options) - {"EXPIRES", "KEY_PREFIX", "POLL"}):
            raise ConfigurationError(
                f"{self._where} has no option {unknown[0]!r}; it has EXPIRES, KEY_PREFIX and POLL."
            )
        self.location = self.location or "default"
        if self.location not in settings.CACHES:
            known = ", ".join(map(repr, settings.CACHES))
            raise ConfigurationError(
                f"{self._where}: LOCATION is the alias of a cache. CACHES has no {self.location!r}; it has {known}."
            )
        self.prefix = self.options.get("KEY_PREFIX", "django_tasks")
        if not (isinstance(self.prefix, str) and re.fullmatch(r"[!-~]{1,100}", self.prefix)):
            raise ConfigurationError(
                f"{self._where}: KEY_PREFIX must be up to 100 printable ASCII characters without spaces, "
                f"not {self.prefix!r}."
            )
        self.longest_pause = float(self.options.get("POLL", _LONGEST))
        if not 0 < self.longest_pause <= 60:
            raise ConfigurationError(f"{self._where}: POLL is a number of seconds above 0 and up to 60.")
        self._lock = threading.Lock()
        self._idle: list[tuple[int, BaseCache]] = []
        self._kind = _class_of(self.location)
        self.features = StoreFeatures(expires=False, large=not issubclass(self._kind, BaseMemcachedCache))

    def save(self, results: Sequence[Result]) -> None:
        """Write results: one trip for all that are not final, and one for each that is, because a cache adds one by
        one."""
        if not results:
            return
        with self._alone():
            ids = list(dict.fromkeys(result.id for result in results))
            before = self._read(ids)
            now = _last_that_count(results, before)
            self._save_open([result for result in now.values() if not result.final])
            ended = [result for result in now.values() if result.final]
            self._save_final(ended)
            self._end([result.id for result in ended if result.id in before])

    def _save_open(self, results: Sequence[Result]) -> None:
        """Overwrite states that are not final; one that is too large is kept without its value."""
        if not results:
            return
        packs = {self._open_key(result.id): packed(fields_of(result)) for result in results}
        if not self._set(packs):
            bare = [replace(result, value=None, failure=None, message=None) for result in results]
            large = [result.id for result in results if len(packs[self._open_key(result.id)]) > _SMALL]
            if not large or not self._set({self._open_key(result.id): packed(fields_of(result)) for result in bare}):
                raise self._refused()
            _log.warning("States were too large to be kept with their data", extra={"task_ids": large})

    def _set(self, packs: Mapping[str, bytes]) -> bool:
        kept = None if self.expires is None else _seconds(self.expires + UNFINISHED)
        try:
            refused = self._ask(lambda cache: cache.set_many(dict(packs), kept))
        except StoreUnavailable:
            return False
        return not refused

    def _save_final(self, results: Sequence[Result]) -> None:
        """Add final states, and see to it that each is there: this one, or the one that came first."""
        packs = {self._final_key(result.id): packed(fields_of(result)) for result in results}
        missing = [key for key, raw in packs.items() if not self._add(key, raw)]
        if missing:
            found = self._get(missing)
            for key in missing:
                if key not in found:
                    self._insist(key, packs[key])

    def _add(self, key: str, raw: bytes) -> bool:
        kept = None if self.expires is None else _seconds(self.expires)
        try:
            return bool(self._ask(lambda cache: cache.add(key, raw, kept)))
        except StoreUnavailable:
            # What is large may be what is wrong.
            if len(raw) <= _SMALL:
                raise
            return False

    def _insist(self, key: str, raw: bytes) -> None:
        """Add once more what is not there; raise ResultTooLarge if the cache takes other things at this moment."""
        answers = self._works()
        if answers and (self._add(key, raw) or key in self._get([key])):
            return
        if answers and len(raw) > _SMALL and self._works():
            raise ResultTooLarge(
                f"{self._where}: the cache {self.location!r} works and does not take a result of {len(raw):,} bytes. "
                "memcached takes up to a megabyte unless started with a larger -I. Return less, such as the name of "
                "where the data is, or keep results in the database."
            )
        raise self._refused()

    def _works(self) -> bool:
        """Tell whether the cache keeps something small."""
        key, word = f"{self.prefix}:probe:{new_id()}", b"1"

        def keeps(cache: BaseCache) -> bool:
            cache.set(key, word, _OVER_SECONDS)
            return bool(cache.get(key) == word)

        try:
            return self._ask(keeps)
        except StoreUnavailable:
            return False

    def _refused(self) -> StoreUnavailable:
        return StoreUnavailable(
            f"{self._where}: the cache {self.location!r} keeps nothing at the moment; its server may be down or full."
        )

    def _end(self, ids: Sequence[str]) -> None:
        """Let what was said of running tasks go."""
        if ids:
            self._ask(lambda cache: cache.set_many({self._open_key(one): _OVER for one in ids}, _OVER_SECONDS))

    def get(self, ids: Sequence[str]) -> dict[str, Result]:
        unique = list(dict.fromkeys(ids))
        return self._read(unique) if unique else {}

    def _read(self, ids: Sequence[str]) -> dict[str, Result]:
        """Return what is known, final states before others."""
        final, known = map(self._final_key, ids), map(self._open_key, ids)
        keys = {task_id: pair for task_id, *pair in zip(ids, final, known, strict=True)}
        found = self._get([key for pair in keys.values() for key in pair])
        over = [pair[0] for pair in keys.values() if found.get(pair[1]) == _OVER and pair[0] not in found]
        found |= self._get(over)
        raws = [found.get(pair[0], found.get(pair[1], b"")) for pair in keys.values()]
        return _results(list(keys), raws)

    def wait(self, ids: Sequence[str], timeout: float | None) -> dict[str, Result]:
        """Look again and again, less often the longer it takes; a cache tells nobody of what it was given."""
        unique = list(dict.fromkeys(ids))
        if not unique:
            return {}
        keys = [self._final_key(task_id) for task_id in unique]
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        pause = _FIRST
        while True:
            found = self._get(keys)
            ended = _results(unique, [found.get(key, b"") for key in keys])
            left = deadline - time.monotonic()
            if ended or left <= 0:
                return ended
            # Scattered, so that who began to wait together does not ask together.
            time.sleep(min(left, pause * RNG.uniform(0.5, 1.0)))
            pause = min(self.longest_pause, pause * _GROWTH)

    def forget(self, ids: Sequence[str]) -> int:
        known = self._read(list(dict.fromkeys(ids)))
        keys = [key for task_id in known for key in (self._final_key(task_id), self._open_key(task_id))]
        for chunk in _chunks(keys):
            self._ask(lambda cache, chunk=chunk: cache.delete_many(chunk))  # type: ignore[misc]
        return len(known)

    def expire(self, before: datetime, limit: int = 1000) -> int:
        """Return 0: a cache cannot be searched. Each result goes by itself when its time is over."""
        return 0

    def close(self) -> None:
        self._drop()

    def check(self, databases: Sequence[str] = ()) -> list[CheckMessage]:
        who = f"{self._where}: the cache {self.location!r}"
        return list(_found_wrong(self._kind, settings.CACHES[self.location], who))

    # Keys

    def _final_key(self, task_id: str) -> str:
        return f"{self.prefix}:result:{_name(task_id)}"

    def _open_key(self, task_id: str) -> str:
        return f"{self.prefix}:state:{_name(task_id)}"

    # The cache

    def _get(self, keys: Sequence[str]) -> dict[str, bytes]:
        found: dict[str, Any] = {}
        for chunk in _chunks(keys):
            found |= self._ask(lambda cache, chunk=chunk: cache.get_many(chunk))  # type: ignore[misc]
        return {key: raw for key, raw in found.items() if isinstance(raw, bytes)}

    def _ask(self, question: Callable[[BaseCache], T]) -> T:
        """Ask the cache, and once more over new connections: those at hand may have been closed by a server that is
        back. All that is asked may be repeated."""
        try:
            return self._asked(question, self._taken())
        except Exception:  # noqa: BLE001  # a cache raises whatever its driver does
            # What is idle was opened to the same server.
            self._drop()
        try:
            return self._asked(question, self._new_cache())
        except Exception as error:
            told = str(error) or type(error).__name__
            raise StoreUnavailable(f"{self._where}: the cache {self.location!r} does not answer: {told}") from error

    def _asked(self, question: Callable[[BaseCache], T], cache: BaseCache) -> T:
        try:
            answer = question(cache)
        except BaseException:
            # A client of memcached that has seen its server fail answers by itself for a while: with nothing.
            _close(cache)
            raise
        with self._lock:
            if len(self._idle) < _IDLE:
                self._idle.append((os.getpid(), cache))
                return answer
        _close(cache)
        return answer

    def _taken(self) -> BaseCache:
        """Return the cache with connections for one thread: many caches are not for two at once."""
        with self._lock:
            while self._idle:
                pid, cache = self._idle.pop()
                if pid == os.getpid():
                    return cache
                _inherited.append(cache)
        return self._new_cache()

    def _new_cache(self) -> BaseCache:
        cache: BaseCache = caches.create_connection(self.location)
        return cache

    def _drop(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for pid, cache in idle:
            if pid == os.getpid():
                _close(cache)
            else:
                _inherited.append(cache)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep others out where the cache's `add` looks first and writes then: that of files does."""
        if not issubclass(self._kind, FileBasedCache):
            yield
            return
        folder = Path(settings.CACHES[self.location]["LOCATION"])
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            file = (folder / "django_tasks.lock").open("ab")
        except OSError as error:
            raise StoreUnavailable(f"{self._where}: the cache {self.location!r} cannot be written: {error}") from error
        with file:
            locks.lock(file, locks.LOCK_EX)
            yield


def _last_that_count(results: Sequence[Result], before: Mapping[str, Result]) -> dict[str, Result]:
    """Return what is to be written, by id."""
    now: dict[str, Result] = {}
    for result in results:
        known = now.get(result.id) or before.get(result.id)
        if known is None:
            now[result.id] = result
        elif not known.final:
            now[result.id] = merged(known, result)
    return now


def _close(cache: BaseCache) -> None:
    with suppress(Exception):  # it is of no use any more, whatever it says
        cache.close()


def _results(ids: Sequence[str], raws: Sequence[bytes]) -> dict[str, Result]:
    return {result.id: result for result in results_of(ids, [unpacked(raw) for raw in raws])}


def _name(task_id: str) -> str:
    """Return what stands for an id in a key: it fits into memcached, and in any collation there is no other like it."""
    if _READABLE.fullmatch(task_id):
        return task_id
    return f"-:{sha256(to_bytes(task_id)).hexdigest()}"


def _seconds(span: timedelta) -> int:
    """Return whole seconds, at least one: to a cache, none means that it is over already."""
    return max(1, math.ceil(span.total_seconds()))


def _chunks(values: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(values), _KEYS):
        yield values[start : start + _KEYS]


def _class_of(alias: str) -> type[BaseCache]:
    entry = settings.CACHES[alias]
    try:
        found = import_string(entry["BACKEND"])
    except (KeyError, ImportError) as error:
        raise ConfigurationError(f"CACHES[{alias!r}]: its BACKEND cannot be imported: {error}") from error
    return cast(type[BaseCache], found)


def _found_wrong(kind: type[BaseCache], entry: Mapping[str, Any], who: str) -> Iterator[CheckMessage]:
    if issubclass(kind, DummyCache):
        yield Error(f"{who} keeps nothing.", hint="Name a cache that does.", id="django_tasks.E131")
    if issubclass(kind, LocMemCache):
        yield Warning(
            f"{who} is in the memory of one process: what a worker keeps there nobody else sees.",
            hint="Name a cache that processes share, or keep results in the database.",
            id="django_tasks.W131",
        )
    if issubclass(kind, DatabaseCache | FileBasedCache | LocMemCache):
        most = {**entry, **entry.get("OPTIONS", {})}.get("MAX_ENTRIES", 300)
        if int(most) < FEW:
            yield Warning(
                f"{who} throws entries away when it has more than {most}.",
                hint=f"Set its OPTIONS to {{'MAX_ENTRIES': {FEW}}} or more.",
                id="django_tasks.W132",
            )
