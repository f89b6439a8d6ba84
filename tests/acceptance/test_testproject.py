"""Does the example site do with its tasks what it says?"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from testproject.backends import BROKERS, on
from testproject.children import Child

ROOT = Path(__file__).parent.parent.parent
MANAGE = [sys.executable, str(ROOT / "testproject" / "manage.py")]


@pytest.fixture
def environment(tmp_path: Path, broker: str, prefix: str) -> dict[str, str]:
    """Name an empty database and a broker, in the environment of processes that are to use them."""
    # The parent's settings are those of the tests.
    inherited = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    return {**inherited, **on(broker, prefix), "DATABASE_URL": f"sqlite:///{tmp_path / 'site.sqlite3'}"}


@pytest.fixture
def worker(tmp_path: Path, environment: dict[str, str]) -> Iterator[Child]:
    manage(environment, "migrate", "--verbosity=0")
    worker = Child("worker", [*MANAGE, "runworker", "--concurrency=2"], tmp_path, {**environment, "DEBUG": "0"})
    worker.start()
    yield worker
    worker.stop(30)


def manage(environment: dict[str, str], *arguments: str) -> str:
    # From elsewhere: the site is found by where manage.py is.
    done = subprocess.run([*MANAGE, *arguments], cwd="/", env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.brokers(*BROKERS)
def test_the_shop_uses_every_feature(worker: Child, environment: dict[str, str]) -> None:
    said = dict(line.split(": ", 1) for line in manage(environment, "open_shop").splitlines())

    assert said["import_products"] == "2"
    assert said["quote"] == "13.50"
    assert said["place_order of too many"].startswith("OutOfStock: ")
    assert said["retries of charge"] == "2"
    assert said["read_prices"] == "1"
    assert said["journal of ship"] == "started, succeeded, ended"
    assert said["track"] == f"{{'{said['place_order']}': 'on its way'}}"
    assert said["stock_report"].startswith("unfinished, ")
    assert said["bulk of quote"] == "5.00, 19.90"
    worker.stop(30)
    mails = worker.log.read_text()
    assert "To: ann@example.com\n" in mails
    assert "To: ann@example.com, bob@example.com\n" in mails


def test_its_models_match_its_migrations(environment: dict[str, str]) -> None:
    assert "No changes detected" in manage(environment, "makemigrations", "--check", "--dry-run", "shop", "words")


def test_its_checks_are_silent(environment: dict[str, str]) -> None:
    manage(environment, "check", "--fail-level=WARNING")
