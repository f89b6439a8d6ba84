"""May tests make databases, keys or queues on a server? `python -m tests.probe URL` says why not."""

from __future__ import annotations

import os
import sys

import redis
from amqp.exceptions import AMQPError
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError
from django.db.utils import ConnectionHandler
from kombu import Connection

from tests import databases


def probe(url: str) -> str:
    """Make something and remove it; say what went wrong, if anything."""
    if url.startswith("redis"):
        return _probe_redis(url)
    return _probe_queue(url) if url.startswith("amqp") else _probe_database(url)


def _probe_redis(url: str) -> str:
    name = f"django_tasks_probe_{os.getpid()}"
    try:
        with redis.Redis.from_url(url, socket_connect_timeout=3, socket_timeout=3) as client:
            client.eval("#!lua flags=allow-oom\nredis.call('SET', KEYS[1], 1) redis.call('DEL', KEYS[1])", 1, name)
            policy = str(client.info("memory")["maxmemory_policy"])
    except redis.RedisError as error:
        return str(error)
    return f"its maxmemory-policy is {policy}" if policy.startswith("allkeys") else ""


def _probe_queue(url: str) -> str:
    connection = Connection(url.replace("amqp:", "pyamqp:", 1), connect_timeout=3)
    name = f"django_tasks_probe_{os.getpid()}"
    try:
        with connection.channel() as channel:
            channel.queue_declare(name, exclusive=True)
            channel.queue_delete(name)
    except (AMQPError, OSError) as error:
        return str(error)
    finally:
        connection.release()
    return ""


def _probe_database(url: str) -> str:
    entry = databases.parse(url, name=f"django_tasks_probe_{os.getpid()}")
    connection = ConnectionHandler({"default": entry})["default"]
    name = connection.ops.quote_name(entry["NAME"])
    try:
        with connection._nodb_cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {name}")
            cursor.execute(f"DROP DATABASE {name}")
    except (DatabaseError, ImproperlyConfigured) as error:
        return str(error)
    return ""


if __name__ == "__main__":
    settings.configure()
    sys.exit(probe(sys.argv[1]) or 0)
