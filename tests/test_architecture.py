"""Is the package built as its rules say?"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.apps import apps
from django.core.management import call_command
from django.db.migrations.autodetector import MigrationAutodetector
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.state import ProjectState

import django_tasks

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "django_tasks"
# An empty file has nothing to say.
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.stat().st_size and path.parent.name != "migrations")
LINES = 400
REASON = "# Long because: "
NEAR_THE_TOP = 15

# An import inside a function hides a circle, or makes the first call slow. Exceptions: (file, module), and the reason.
IMPORTS_INSIDE: dict[tuple[str, str], str] = {}

each_module = pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))


def test_floors() -> None:
    """The contracts of `[tool.importlinter]` hold."""
    # In a process of its own: it configures logging anew, which switches off every logger there is.
    program = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([program, "--no-cache"], cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@each_module
def test_no_import_inside_a_function(path: Path) -> None:
    name = path.relative_to(PACKAGE).as_posix()
    found = {(name, module) for module in _imports_inside(ast.parse(path.read_text()))}
    assert found <= IMPORTS_INSIDE.keys()


def test_exceptions_to_the_rule_are_in_use() -> None:
    used = {
        (path.relative_to(PACKAGE).as_posix(), module)
        for path in MODULES
        for module in _imports_inside(ast.parse(path.read_text()))
    }
    assert used == IMPORTS_INSIDE.keys()


@each_module
def test_length(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert len(lines) <= LINES or any(REASON in line for line in lines[:NEAR_THE_TOP])


@each_module
def test_first_line_says_what_the_module_is_for(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    assert docstring is not None
    assert docstring.splitlines()[0].rstrip(")").endswith((".", "?", ":"))


def test_public_names() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    imported = {
        alias.asname or alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module not in {"__future__", "django_tasks.version"}
        for alias in node.names
    }
    assert sorted(imported) == sorted(django_tasks.__all__)
    assert all(hasattr(django_tasks, name) for name in django_tasks.__all__)


def test_import_needs_no_settings() -> None:
    """tasks.py and settings.py import django_tasks before Django's apps are ready."""
    code = "import sys, django_tasks; sys.exit('django_tasks.models' in sys.modules)"
    environment = {key: value for key, value in os.environ.items() if key != "DJANGO_SETTINGS_MODULE"}
    subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=ROOT, env=environment, check=True)


def test_models_match_the_migrations() -> None:
    """What `makemigrations --check` asks, without a database."""
    loader = MigrationLoader(None)
    changes = MigrationAutodetector(loader.project_state(), ProjectState.from_apps(apps)).changes(loader.graph)
    assert "django_tasks" not in changes


@pytest.mark.django_db(databases="__all__")
def test_system_checks_are_silent() -> None:
    call_command("check", "--fail-level=WARNING")


def _imports_inside(tree: ast.Module) -> Iterator[str]:
    """Give the modules that functions import."""
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            for node in ast.walk(function):
                if isinstance(node, ast.ImportFrom):
                    yield f"{'.' * node.level}{node.module or ''}"
                elif isinstance(node, ast.Import):
                    yield from (alias.name for alias in node.names)
