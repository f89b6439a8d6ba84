"""Does it work on every Python with every Django? `nox`, or one pair: `nox -s "tests(python='3.13', django='6.0')"`."""

from __future__ import annotations

import os

import nox

nox.options.default_venv_backend = "uv|virtualenv"
nox.options.error_on_missing_interpreters = "CI" in os.environ

PYTHONS = ("3.11", "3.12", "3.13", "3.14")
DJANGOS = ("5.2", "6.0", "6.1")
# Django 6 needs Python 3.12.
PAIRS = [(python, django) for python in PYTHONS for django in DJANGOS if (python, django[0]) != ("3.11", "6")]


@nox.session
@nox.parametrize(("python", "django"), PAIRS)
def tests(session: nox.Session, django: str) -> None:
    """Run the tests; the servers are those of DJANGO_TASKS_TEST_*_URL or the local default ports."""
    project = nox.project.load_toml("pyproject.toml")
    session.install(*nox.project.dependency_groups(project, "test", "mariadb"), "-e", ".", f"django~={django}.0")
    session.run("pytest", *session.posargs)


@nox.session
def coverage(session: nox.Session) -> None:
    """Measure which branches the tests take, in workers and their children too."""
    project = nox.project.load_toml("pyproject.toml")
    session.install(*nox.project.dependency_groups(project, "test", "mariadb"), "-e", ".")
    session.run("coverage", "run", "-m", "pytest", *session.posargs)
    session.run("coverage", "combine")
    session.run("coverage", "report")
