"""On which brokers does an acceptance test run, and with which stores?

On the database, unless it names others: `@pytest.mark.brokers("redis", "amqp")`. Where TESTPROJECT_BROKER names one,
every test runs on that one, but for those that name others; these are deselected, and it is told how many and why.
Likewise with TESTPROJECT_RESULTS and `@pytest.mark.stores`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from testproject.backends import BROKERS, STORE_VARIABLE, STORES, VARIABLE, named, store_of

FOLDER = Path(__file__).parent
_KEY = pytest.StashKey[Counter[str]]()
_VENDORS = "other brokers and stores are tried beside one database, SQLite"


def chosen() -> str:
    """Return the broker that is asked for, or nothing."""
    return _named(VARIABLE, BROKERS)


def chosen_store() -> str:
    """Return the store that is asked for, or nothing."""
    return _named(STORE_VARIABLE, STORES)


def _named(variable: str, known: Sequence[str]) -> str:
    try:
        return named(variable, known)
    except ValueError as error:
        raise pytest.UsageError(str(error)) from error


def parametrize(metafunc: pytest.Metafunc) -> None:
    """Run a test that takes `broker` on each broker that it is for."""
    if "broker" in metafunc.fixturenames:
        mark = metafunc.definition.get_closest_marker("brokers")
        named = mark.args if mark else ("database",)
        metafunc.parametrize("broker", [chosen()] if chosen() else named)


def against(item: pytest.Item) -> str:
    """Say why a test is not run, if it is not."""
    if FOLDER not in item.path.parents:
        return ""
    brokers, params = item.get_closest_marker("brokers"), item.callspec.params if hasattr(item, "callspec") else {}
    broker = params.get("broker", chosen())
    store = chosen_store() or (store_of(broker) if broker else "")
    for word, mark in ((broker, brokers), (store, item.get_closest_marker("stores"))):
        if mark and word and word not in mark.args:
            return str(mark.kwargs.get("reason", f"about {' and '.join(mark.args)} alone"))
    elsewhere = {broker, store} - {"", "database"}
    return _VENDORS if elsewhere and params.get("alias", "default") != "default" else ""


def deselect(config: pytest.Config, items: list[pytest.Item]) -> None:
    reasons = {item.nodeid: reason for item in items if (reason := against(item))}
    config.stash[_KEY] = Counter(reasons.values())
    if reasons:
        config.hook.pytest_deselected(items=[item for item in items if item.nodeid in reasons])
        items[:] = [item for item in items if item.nodeid not in reasons]


def send_up(config: pytest.Config) -> None:
    """Tell the process that reports, where tests run in several; each has collected the same."""
    if hasattr(config, "workeroutput"):
        told: Counter[str] | None = config.stash.get(_KEY, None)
        config.workeroutput["deselected"] = dict(told or ())


def take_over(config: pytest.Config, output: dict[str, Any]) -> None:
    config.stash[_KEY] = Counter(output.get("deselected", {}))


def tell(terminal: pytest.TerminalReporter) -> None:
    reasons: Sequence[tuple[str, int]] = terminal.config.stash.get(_KEY, Counter[str]()).most_common()
    for reason, number in reasons:
        asked = " and ".join(filter(None, [chosen(), chosen_store() and f"results in {chosen_store()}"]))
        terminal.write_line(f"DESELECTED [{number}] {asked or 'by default'}: {reason}")
