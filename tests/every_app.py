"""Which models does the type checker know? Those of the tests and of the demonstration site together."""

from __future__ import annotations

from tests.settings import *  # noqa: F403 - settings are their module's names
from tests.settings import INSTALLED_APPS as _APPS

INSTALLED_APPS = [*_APPS, "testproject.shop", "testproject.words"]
