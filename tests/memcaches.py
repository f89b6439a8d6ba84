"""How does a test have a memcached?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tools.memcached import PrivateMemcached
from tools.servers import configured, private

NOWHERE = "127.0.0.1:1"
"""Where no server is."""


@contextmanager
def private_memcached(*arguments: str) -> Iterator[PrivateMemcached]:
    """Run a server of one's own, with settings as on its command line."""

    with private(configured(PrivateMemcached, *arguments)) as server:
        yield server


def entry(location: str, **options: Any) -> dict[str, Any]:
    """Return what stands for it in CACHES."""
    backend = "django.core.cache.backends.memcached.PyMemcacheCache"
    return {"BACKEND": backend, "LOCATION": location, "OPTIONS": {"connect_timeout": 3, "timeout": 10, **options}}
