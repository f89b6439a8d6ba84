"""Where do messages wait? One file a broker; `BROKERS` gives their short names."""

from __future__ import annotations

BROKERS = {
    "amqp": "django_tasks.backends.amqp.AmqpBroker",
    "database": "django_tasks.backends.database.DatabaseBroker",
    "dummy": "django_tasks.backends.dummy.DummyBroker",
    "immediate": "django_tasks.backends.immediate.ImmediateBroker",
    "memory": "django_tasks.backends.memory.MemoryBroker",
    "redis": "django_tasks.backends.redis.RedisBroker",
}
