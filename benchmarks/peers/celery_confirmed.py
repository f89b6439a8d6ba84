"""How does Celery do it when it waits for each message to be confirmed, as we always do?"""
# /// script
# requires-python = ">=3.11"
# dependencies = ["celery>=5.7", "django-celery-results", "django"]
#
# [tool.benchmarks]
# name = "Celery, confirms"
# places = ["rabbitmq", "rabbitmq-postgres"]
# program = "celery"
# worker = [
#     "--app", "benchmarks.peers.celery_confirmed", "worker", "--pool", "prefork", "--concurrency", "2",
#     "--prefetch-multiplier", "64", "--without-gossip", "--without-mingle", "--loglevel", "warning",
# ]
# processes = 1
# bulk = false
# tasks = 6000
# answers = true
#
# [tool.benchmarks.settings]
# INSTALLED_APPS = ["django_celery_results"]
# CELERY_BROKER_URL = "{broker}"
# CELERY_BROKER_TRANSPORT_OPTIONS = { confirm_publish = true }
#
# [tool.benchmarks.rabbitmq-postgres]
# CELERY_RESULT_BACKEND = "django-db"
# ///

from __future__ import annotations

from benchmarks.peers.celery_prefork import app, enqueue, round_trips

__all__ = ["app", "enqueue", "round_trips"]
