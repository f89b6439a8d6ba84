"""Which site do the tests run in?

Each run has databases of its own, named after its process, so that several runs share one server. Processes that a
test starts inherit DJANGO_TASKS_TEST_RUN and so find the same ones.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from tests import databases

_run = os.environ.setdefault("DJANGO_TASKS_TEST_RUN", str(os.getpid()))
_name = "_".join(["django_tasks", _run, *filter(None, [os.environ.get("PYTEST_XDIST_WORKER")])])

POSTGRES_URL = os.environ.get("DJANGO_TASKS_TEST_POSTGRES_URL", "postgres://postgres@127.0.0.1:5432")
REDIS_URL = os.environ.get("DJANGO_TASKS_TEST_REDIS_URL", "redis://127.0.0.1:6379")
REDIS_PREFIX = _name
"""Begins the names of all keys of this run, so that several runs share one server."""
AMQP_URL = os.environ.get("DJANGO_TASKS_TEST_AMQP_URL", "amqp://guest:guest@127.0.0.1:5672")
MARIADB_URL = os.environ.get("DJANGO_TASKS_TEST_MARIADB_URL", "mariadb://root@127.0.0.1:3306")

DATABASES = {
    "default": databases.parse("sqlite:///", name=str(Path(tempfile.gettempdir(), f"{_name}.sqlite3"))),
    "postgres": databases.parse(POSTGRES_URL, name=_name),
    "mariadb": databases.parse(MARIADB_URL, name=_name),
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "django_tasks",
    "tests.app",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
ROOT_URLCONF = "tests.urls"
STATIC_URL = "/static/"
ALLOWED_HOSTS = ["localhost", "127.0.0.1", "testserver"]
SECRET_KEY = "guards nothing"
USE_TZ = True
# The only hasher that costs nothing: tests log in often.
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
