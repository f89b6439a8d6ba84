"""How is the Django project of a system under test set up? By its header, and by who starts it:

BENCHMARKS_SYSTEM      the module of the system
BENCHMARKS_PLACE       the name of the place
BENCHMARKS_DATABASE    an entry of DATABASES, as JSON
BENCHMARKS_BROKER      the URL of the server for messages, if there is one
BENCHMARKS_RESULTS     whether tasks that return nothing leave results
"""

from __future__ import annotations

import json
import os
from typing import Any

from benchmarks import header

# Guards nothing: the database lives as long as the benchmark.
SECRET_KEY = "benchmarks"  # noqa: S105
USE_TZ = True
DATABASES = {"default": json.loads(os.environ["BENCHMARKS_DATABASE"])}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
# Nobody is to be slowed down by what it says; each says its warnings.
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["console"], "level": "WARNING"},
}
BENCHMARKS_BROKER = os.environ["BENCHMARKS_BROKER"]
BENCHMARKS_RESULTS = os.environ["BENCHMARKS_RESULTS"] == "True"


def _filled(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _filled(item) for key, item in value.items()}
    return value.replace("{broker}", BENCHMARKS_BROKER) if isinstance(value, str) else value


_header = header.read(os.environ["BENCHMARKS_SYSTEM"])
globals().update(_filled({**_header.settings, **_header.settings_of.get(os.environ["BENCHMARKS_PLACE"], {})}))
