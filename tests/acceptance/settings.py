"""Which site do the workers run that acceptance tests start? One whose only database is the test's."""

from __future__ import annotations

import json
import os

from tests.databases import parse
from tests.settings import *  # noqa: F403
from tests.settings import DATABASES as _ALL

_alias = os.environ["DJANGO_TASKS_TEST_ALIAS"]
_url = os.environ.get("DJANGO_TASKS_TEST_URL")

DATABASES = {"default": parse(_url) if _url else _ALL[_alias]}
# json.loads: a test passes what it wants to see changed.
DATABASES["default"].update(json.loads(os.environ.get("DJANGO_TASKS_TEST_DATABASE", "{}")))
# No more than the tasks need: hundreds of workers are started, and each imports all of it.
INSTALLED_APPS = ["django.contrib.contenttypes", "django_tasks", "tests.app", "tests.acceptance"]
MIDDLEWARE = []
ROOT_URLCONF = "tests.acceptance.urls"
# The key first, then those that it follows.
if "DJANGO_TASKS_TEST_KEYS" in os.environ:
    SECRET_KEY, *SECRET_KEY_FALLBACKS = json.loads(os.environ["DJANGO_TASKS_TEST_KEYS"])
DJANGO_TASKS = json.loads(os.environ.get("DJANGO_TASKS_TEST_SETTINGS", "{}"))
