"""Which scripts does the Redis broker run? One for each of its verbs."""

from __future__ import annotations

from pathlib import Path

from django_tasks.redis_servers import load_scripts

SCRIPTS = load_scripts(Path(__file__).parent)
