"""How is the site set up? For development: nothing here is secret, and nothing is hardened.

DATABASE_URL     such as postgres://user:password@host:port/name; a SQLite file beside this one unless given
DEBUG            0 for workers, which would keep a log of their queries; 1 unless given
And see backends.py for those that choose the broker.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import django

from testproject.backends import from_environment
from tests import databases

HERE = Path(__file__).resolve().parent

# For development only.
SECRET_KEY = "django-insecure-development-only"  # noqa: S105
DEBUG = os.environ.get("DEBUG", "1") != "0"
ALLOWED_HOSTS = ["localhost", "127.0.0.1", "[::1]", "testserver"]

DATABASES = {"default": databases.parse(os.environ.get("DATABASE_URL", f"sqlite:///{HERE / 'db.sqlite3'}"))}
if DATABASES["default"]["ENGINE"] == databases.SQLITE:
    # A transaction that reads first and writes later cannot wait for another writer: it fails at once.
    DATABASES["default"]["OPTIONS"]["transaction_mode"] = "IMMEDIATE"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django_tasks",
    "testproject.shop",
    "testproject.words",
]
if find_spec("rest_framework"):
    INSTALLED_APPS.append("rest_framework")
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
ROOT_URLCONF = "testproject.urls"
STATIC_URL = "/static/"
# Mails are printed by the worker.
if django.VERSION >= (6, 1):
    MAILERS = {"default": {"BACKEND": "django.core.mail.backends.console.EmailBackend"}}
else:
    EMAIL_BACKEND = "django.core.mail.backends.console.EmailBackend"
USE_TZ = True
TIME_ZONE = "UTC"

DJANGO_TASKS = {
    **from_environment(),
    "QUEUES": {"mail": {"PRIORITY": -5}},
    "ROUTES": {"testproject.shop.tasks.email_*": "mail"},
}
