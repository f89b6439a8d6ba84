"""Can the package be imported before Django's apps are ready, and does it find their tasks when they are?"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.apps import apps
from django.core.checks.registry import registry

from django_tasks.apps import DjangoTasksConfig
from django_tasks.checks import check_backends, check_import_name, check_settings
from django_tasks.registry import tasks

ROOT = Path(__file__).parents[2]


def python(code: str, folder: Path, settings: str | None = None) -> str:
    """Run a program in a process of its own and return what it prints."""
    bare = {key: value for key, value in os.environ.items() if not key.startswith("DJANGO_")}
    path = os.pathsep.join([str(folder), str(ROOT)])
    said = {"DJANGO_SETTINGS_MODULE": settings} if settings else {}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**bare, **said, "PYTHONPATH": path},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_tasks_of_every_app_are_known_by_name() -> None:
    assert "tests.app.tasks.add" in tasks
    assert isinstance(apps.get_app_config("django_tasks"), DjangoTasksConfig)


def test_the_system_checks_are_registered() -> None:
    assert {check_settings, check_import_name, check_backends} <= set(registry.get_checks())


def test_importing_asks_for_no_settings_and_brings_in_no_models(tmp_path: Path) -> None:
    assert python("import django_tasks, sys; print('django_tasks.models' in sys.modules)", tmp_path) == "False"


def test_declaring_a_task_asks_for_no_settings(tmp_path: Path) -> None:
    code = """
from django_tasks import shared_task, task

@task(queue="slow", max_retries=None, autoretry_for=(OSError,), retry_backoff=True)
def add(x: int, y: int) -> int:
    return x + y

@shared_task(bind=True)
def look(self):
    return self.request.called_directly

print(add(2, 3), look())
"""
    assert python(code, tmp_path) == "5 True"


def site(folder: Path) -> None:
    """Write a project whose settings and whose models import the package."""
    (folder / "project_settings.py").write_text(
        """
import django_tasks
from django_tasks import task

INSTALLED_APPS = ["shop", "django_tasks"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
DJANGO_TASKS = {"BROKERS": {"default": {"BACKEND": "memory"}}, "TIME_LIMIT": 60}
SECRET_KEY = "guards nothing"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
"""
    )
    shop = folder / "shop"
    shop.mkdir()
    (shop / "__init__.py").write_text("from django_tasks import task\n")
    (shop / "models.py").write_text(
        """
from django.db import models
from django_tasks import task

class Order(models.Model):
    paid = models.BooleanField(default=False)

@task
def beside_a_model() -> int:
    return 1
"""
    )
    (shop / "tasks.py").write_text(
        """
from django_tasks import task
from shop.models import Order

@task
def pay(number: int) -> int:
    return number
"""
    )


def test_settings_and_models_may_import_it_and_setup_finds_the_tasks(tmp_path: Path) -> None:
    site(tmp_path)
    code = """
import django
django.setup()
from django_tasks.registry import tasks
from shop.tasks import pay
print(sorted(name for name in tasks if name.startswith("shop")), pay.apply((7,)).get())
"""
    assert python(code, tmp_path, "project_settings") == "['shop.models.beside_a_model', 'shop.tasks.pay'] 7"


def test_sending_before_the_apps_are_ready_is_told_by_djangos_own_error(tmp_path: Path) -> None:
    site(tmp_path)
    code = """
from django.core.exceptions import AppRegistryNotReady
from django_tasks import send_task, revoke
print(send_task("shop.tasks.pay", (7,)).id != "")
try:
    revoke(["7"])
except AppRegistryNotReady as error:
    print(error)
"""
    assert python(code, tmp_path, "project_settings") == "True\nApps aren't loaded yet."


@pytest.mark.parametrize("module", ["django_tasks.checks", "django_tasks.apps", "django_tasks.publisher"])
def test_modules_that_run_before_the_apps_are_ready_import_no_models(tmp_path: Path, module: str) -> None:
    assert python(f"import {module}, sys; print('django_tasks.models' in sys.modules)", tmp_path) == "False"
