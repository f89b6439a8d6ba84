"""Which scripts does the Redis store run?"""

from __future__ import annotations

from pathlib import Path

from django_tasks.redis_servers import load_scripts

_HERE = Path(__file__).parent

SCRIPTS = load_scripts(_HERE)
"""For results."""
GROUPS = load_scripts(_HERE / "groups")
"""For groups."""
