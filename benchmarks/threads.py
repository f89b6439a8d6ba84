"""How do we do it with threads? Two worker processes of four each: no task crosses to another process."""
# /// script
# requires-python = ">=3.11"
# dependencies = []
#
# [tool.benchmarks]
# name = "django_tasks, threads"
# databases = ["sqlite", "postgres", "mariadb"]
# worker = ["runworker", "--workers", "2", "--pool", "threads", "--concurrency", "4", "--loglevel", "warning"]
# processes = 1
# bulk = true
# tasks = 40000
# unfinished = "SELECT count(*) FROM django_tasks_queuedmessage"
#
# [tool.benchmarks.settings]
# INSTALLED_APPS = ["django_tasks", "benchmarks"]
# ///

from __future__ import annotations

from benchmarks.tasks import bulk, enqueue

__all__ = ["bulk", "enqueue"]
