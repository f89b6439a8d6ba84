"""How do leases stay held while a task keeps Python's interpreter lock to itself?"""

from __future__ import annotations

import contextlib
import logging
import marshal
import os
import select
import signal
import time
from collections.abc import Sequence

from django.db import DatabaseError, connections

from django_tasks.backends.base import Broker
from django_tasks.exceptions import PublishError
from django_tasks.message import Delivery, Message
from django_tasks.pools.parentage import die_with_parent

_log = logging.getLogger("django_tasks.worker")
_HEADER = 4
_NOT_ITS_OWN = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1)
"""Signals that are meant for the worker, and reach its whole process group."""


class Keeper:
    """A process beside the worker that renews its leases too, for pools whose tasks run in the worker's own process.

    Code that holds the interpreter lock (a long regular expression, a C extension) stops every thread, the heart
    included; it cannot stop another process. The keeper ends with its worker.
    """

    def __init__(self, broker: Broker, *, lease: float, interval: float) -> None:
        self.broker = broker
        self.lease = lease
        self.interval = interval
        self.pid = 0
        self._pipe = -1

    def start(self) -> None:
        """Fork; called before the worker has threads or database connections."""
        read, self._pipe = os.pipe()
        parent = os.getpid()
        # A signal that comes before the new process has turned a deaf ear to it must not end it, either.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _NOT_ITS_OWN)
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.close(self._pipe)
                for number in _NOT_ITS_OWN:
                    signal.signal(number, signal.SIG_IGN)
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
                die_with_parent(parent)
                self._keep(read)
            finally:
                os._exit(0)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(read)

    def tell(self, held: Sequence[Delivery]) -> None:
        """Say which deliveries are held now; what was said before is forgotten."""
        body = marshal.dumps([(delivery.message.id, delivery.receipt) for delivery in held])
        frame = memoryview(len(body).to_bytes(_HEADER) + body)
        with contextlib.suppress(BrokenPipeError):
            while frame:
                frame = frame[os.write(self._pipe, frame) :]

    def stop(self) -> None:
        """End the process and wait for it."""
        if self.pid:
            os.close(self._pipe)
            os.waitpid(self.pid, 0)
            self.pid = 0

    def _keep(self, pipe: int) -> None:
        connections.close_all()
        held: list[Delivery] = []
        beat = time.monotonic() + self.interval
        while True:
            ready, _, _ = select.select([pipe], [], [], max(0.0, beat - time.monotonic()))
            if ready:
                told = _read(pipe)
                if told is None:
                    return
                held = told
            if time.monotonic() >= beat:
                beat = time.monotonic() + self.interval
                self._renew(held)

    def _renew(self, held: Sequence[Delivery]) -> None:
        try:
            self.broker.extend(held, self.lease)
        except (PublishError, DatabaseError) as error:
            _log.warning("The keeper could not renew leases; trying again", extra={"error": str(error)})


def _read(pipe: int) -> list[Delivery] | None:
    """Return what the worker says, or None when it has gone."""
    header = _exactly(pipe, _HEADER)
    body = _exactly(pipe, int.from_bytes(header)) if header else b""
    if not body:
        return None
    told = marshal.loads(body)  # noqa: S302  # written by the worker that forked this process
    return [Delivery(Message(id=task_id, task="", body=b""), receipt) for task_id, receipt in told]


def _exactly(pipe: int, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        part = os.read(pipe, size - len(parts))
        if not part:
            return b""
        parts += part
    return bytes(parts)
