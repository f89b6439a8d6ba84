"""How do we do it with threads? Two worker processes of four each: no task crosses to another process."""
# /// script
# requires-python = ">=3.11"
# dependencies = []
#
# [tool.benchmarks]
# name = "django_tasks, threads"
# places = ["sqlite", "postgres", "mariadb", "redis", "rabbitmq", "redis-postgres", "rabbitmq-postgres"]
# worker = ["runworker", "--workers", "2", "--pool", "threads", "--concurrency", "4", "--loglevel", "warning"]
# processes = 1
# bulk = true
# tasks = 40000
# unfinished = "SELECT count(*) FROM django_tasks_queuedmessage"
#
# [tool.benchmarks.settings]
# INSTALLED_APPS = ["django_tasks", "benchmarks"]
#
# [tool.benchmarks.redis.DJANGO_TASKS]
# BROKERS = { default = { BACKEND = "redis", LOCATION = "{broker}" } }
# RESULTS = { default = { BACKEND = "redis", LOCATION = "{broker}" } }
#
# [tool.benchmarks.rabbitmq.DJANGO_TASKS]
# BROKERS = { default = { BACKEND = "amqp", LOCATION = "{broker}" } }
#
# [tool.benchmarks.redis-postgres.DJANGO_TASKS]
# BROKERS = { default = { BACKEND = "redis", LOCATION = "{broker}" } }
#
# [tool.benchmarks.rabbitmq-postgres.DJANGO_TASKS]
# BROKERS = { default = { BACKEND = "amqp", LOCATION = "{broker}" } }
# ///

from __future__ import annotations

from benchmarks.tasks import bulk, enqueue

__all__ = ["bulk", "enqueue"]
