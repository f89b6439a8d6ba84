"""Where are results kept? One file a store; `STORES` gives their short names."""

from __future__ import annotations

STORES = {
    "cache": "django_tasks.results.cache.CacheStore",
    "celery-redis": "django_tasks.results.celery_redis.CeleryRedisStore",
    "database": "django_tasks.results.database.DatabaseStore",
    "dummy": "django_tasks.results.dummy.DummyStore",
    "memory": "django_tasks.results.memory.MemoryStore",
    "redis": "django_tasks.results.redis.RedisStore",
    "rpc": "django_tasks.results.rpc.RpcStore",
}
