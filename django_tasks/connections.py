"""Which broker and which store has this alias? Built from the settings, once a process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, TypeVar

from django.core.signals import setting_changed
from django.db import DEFAULT_DB_ALIAS
from django.utils.module_loading import import_string

from django_tasks import conf
from django_tasks.backends import BROKERS
from django_tasks.backends.base import Broker
from django_tasks.exceptions import ConfigurationError
from django_tasks.results import STORES
from django_tasks.results.base import ResultStore
from django_tasks.results.groups import Groups

T = TypeVar("T", Broker, ResultStore)


class Connections(Generic[T]):
    """Builds each alias of one setting when it is first asked for; any thread may ask."""

    def __init__(
        self,
        key: str,
        kind: type[Any],
        short_names: Mapping[str, str],
        entries: Callable[[], Any],
        always: Mapping[str, Any],
    ) -> None:
        self.key = key
        self.kind = kind
        self.short_names = short_names
        self.entries = entries
        self.always = always
        self._lock = threading.RLock()
        self._built: dict[str, T] = {}

    def __getitem__(self, alias: str) -> T:
        built = self._built.get(alias)
        if built is not None:
            return built
        with self._lock:
            if alias not in self._built:
                self._built[alias] = self._build(alias)
            return self._built[alias]

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries())

    def _build(self, alias: str) -> T:
        params: Mapping[str, Any] | None = self.always.get(alias) or self.entries().get(alias)
        where = f"{conf.SETTING}[{self.key!r}]"
        if params is None:
            raise ConfigurationError(f"{where} has no {alias!r}. {conf.nearest(alias, self.entries())}")
        path = params["BACKEND"]
        path = self.short_names.get(path, path)
        if "." not in path:
            raise ConfigurationError(f"{where}[{alias!r}]: no backend {path!r}. {conf.nearest(path, self.short_names)}")
        try:
            cls = import_string(path)
        except ImportError as error:
            raise ConfigurationError(f"{where}[{alias!r}]: cannot import {path}: {error}") from error
        if not (isinstance(cls, type) and issubclass(cls, self.kind)):
            raise ConfigurationError(f"{where}[{alias!r}]: {path} is not a {self.kind.__name__}.")
        built: T = cls(alias, params)
        return built

    def all(self) -> list[T]:
        """Return one for each alias of the setting."""
        return [self[alias] for alias in self]

    def close(self) -> None:
        """Let go of everything that was built; the next use builds it again."""
        with self._lock:
            for built in self._built.values():
                built.close()
            self._built.clear()


LOCAL = "(this process)"
"""The alias of a broker and of a store that are there whatever the settings name: `Task.apply` runs through them."""

_LOCAL_BROKER = {LOCAL: {"BACKEND": "immediate", "OPTIONS": {"RESULTS": LOCAL}}}
_LOCAL_STORE = {LOCAL: {"BACKEND": "memory"}}


def _broker_entries() -> dict[str, Any]:
    settings = conf.get()
    queues: dict[str, dict[str, Any]] = {alias: {} for alias in settings.brokers}
    for queue, entry in settings.queues.items():
        queues[entry.get("BROKER", "default")][queue] = entry
    return {alias: {**params, "QUEUES": queues[alias]} for alias, params in settings.brokers.items()}


brokers: Connections[Broker] = Connections("BROKERS", Broker, BROKERS, _broker_entries, _LOCAL_BROKER)
results: Connections[ResultStore] = Connections(
    "RESULTS", ResultStore, STORES, lambda: conf.get().results, _LOCAL_STORE
)


def relayed() -> list[str]:
    """Return the aliases of the brokers that have an outbox: those that take no part in a database's transactions."""
    return [broker.alias for broker in brokers.all() if has_outbox(broker)]


def has_outbox(broker: Broker) -> bool:
    """Tell whether messages for a broker may wait in the database until they are relayed."""
    return broker.database is None and broker.enqueue != "immediate"


def _outbox_entries() -> dict[str, Any]:
    return {alias: {"BACKEND": "database", "OPTIONS": {"USING": home()}} for alias in brokers}


outboxes: Connections[Broker] = Connections("BROKERS", Broker, BROKERS, _outbox_entries, {})
"""Where messages wait in the database until they are relayed to the broker of the same alias."""


def keepers() -> list[Broker]:
    """Return all that keeps messages: each broker, and the outboxes of those that have one."""
    return [*brokers.all(), *(outboxes[alias] for alias in relayed())]


def keepers_of(alias: str) -> list[Broker]:
    """Return what keeps the messages of one broker: itself, and its outbox if it has one."""
    broker = brokers[alias]
    return [broker, outboxes[alias]] if has_outbox(broker) else [broker]


def home() -> str:
    """Return the alias of the database that keeps what is neither message nor result: workers, crashes, revocations."""
    return brokers["default"].database or results["default"].database or DEFAULT_DB_ALIAS


GROUP_ROWS = "django_tasks.results.group_rows.GroupRows"


def groups_of(alias: str = "default") -> Groups:
    """Return where groups are recorded whose members' results one store keeps: there, or else in the database."""
    own = results[alias].groups
    # It holds database models, which cannot be imported before Django's apps are ready.
    made: Groups = import_string(GROUP_ROWS)(home()) if own is None else own
    return made


def _rebuild(*, setting: str, **_: Any) -> None:
    if setting in (conf.SETTING, "DATABASES"):
        outboxes.close()
        brokers.close()
        results.close()


setting_changed.connect(_rebuild, dispatch_uid="django_tasks.connections")
