"""How is the Django project of a system under test set up? By its header, and by who starts it:

BENCHMARKS_SYSTEM      the module of the system
BENCHMARKS_DATABASE    an entry of DATABASES, as JSON
"""

from __future__ import annotations

import json
import os

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
globals().update(header.read(os.environ["BENCHMARKS_SYSTEM"]).settings)
