"""How do tasks run? One file a pool; `POOLS` gives their short names."""

from __future__ import annotations

POOLS = {
    "prefork": "django_tasks.pools.prefork.PreforkPool",
    "solo": "django_tasks.pools.solo.SoloPool",
    "threads": "django_tasks.pools.threads.ThreadPool",
}
