"""How do tests have both sides of the rpc store in one process?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import amqp

from django_tasks import states
from django_tasks.message import new_id
from django_tasks.plan import Result
from django_tasks.results.base import ResultStore
from django_tasks.results.rpc import RpcStore
from tests.rabbit import connected
from tests.settings import AMQP_URL

NOWHERE = "amqp://127.0.0.1:1"
PATIENCE = 60.0


class BothSides(ResultStore):
    """A worker that saves what the caller then asks for."""

    features = RpcStore.features

    def __init__(self, location: str = AMQP_URL, **options: Any) -> None:
        params = {"LOCATION": location, "OPTIONS": options}
        super().__init__("default", params)
        self.caller = RpcStore("default", params)
        self.worker = RpcStore("default", params)

    @property
    def queue(self) -> str:
        """The caller's."""
        return self.caller.reply_to()

    def save(self, results: Sequence[Result]) -> None:
        """Return when all has come: replies keep their order, so what is sent after them comes last."""
        if not results:
            return
        last = Result(id=new_id(), state=states.SUCCESS)
        self.worker.save([replace(result, reply_to=self.queue) for result in (*results, last)])
        assert self.caller.wait([last.id], PATIENCE)
        self.caller.forget([last.id])

    def get(self, ids: Sequence[str]) -> dict[str, Result]:
        return self.caller.get(ids)

    def wait(self, ids: Sequence[str], timeout: float | None) -> dict[str, Result]:
        return self.caller.wait(ids, timeout)

    def forget(self, ids: Sequence[str]) -> int:
        return self.caller.forget(ids)

    def expire(self, before: datetime, limit: int = 1000) -> int:
        return self.caller.expire(before, limit)

    def close(self) -> None:
        self.worker.close()
        self.caller.close()


def ready(queue: str) -> int | None:
    """Return how many replies wait in a queue; None if there is no such queue."""
    with connected(AMQP_URL) as connection:
        try:
            return int(connection.channel().queue_declare(queue, passive=True).message_count)
        except amqp.NotFound:
            return None


def delete(queue: str) -> None:
    with connected(AMQP_URL) as connection:
        connection.channel().queue_delete(queue)
