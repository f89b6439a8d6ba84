"""What happened? Django signals, each with its sender and arguments.

Sent where the task runs (in a prefork pool: in the child), with the task as sender:
    task_started(request), task_succeeded(request, value), task_retried(request, exception),
    task_failed(request, exception), task_finished(request, outcome)
Sent where tasks are published, with the broker's class as sender:
    task_publishing(messages), task_published(messages)
Sent in the worker's own process, with the worker as sender:
    worker_starting(), worker_ready(), worker_stopping(how), worker_stopped(), lease_lost(deliveries),
    received(deliveries), settled(done), messages_lost(losses)
Sent in a child of a prefork pool, with the pool's class as sender:
    child_started(), child_stopping()
Sent where what the code declares is read, with the name of the module that does it as sender:
    schedule_loading()
Sent where tasks are revoked, with the name of the module that does it as sender:
    task_revoked(ids)
"""

from __future__ import annotations

import logging
from typing import Any

from django.dispatch import Signal

task_publishing = Signal()
task_published = Signal()
task_started = Signal()
task_succeeded = Signal()
task_retried = Signal()
task_failed = Signal()
task_finished = Signal()
task_revoked = Signal()
schedule_loading = Signal()

worker_starting = Signal()
worker_ready = Signal()
worker_stopping = Signal()
worker_stopped = Signal()
lease_lost = Signal()
messages_lost = Signal()
received = Signal()
settled = Signal()
child_started = Signal()
child_stopping = Signal()

_log = logging.getLogger("django_tasks.signals")


def announce(signal: Signal, sender: Any, **named: Any) -> None:
    """Send a signal; a receiver that raises is logged and stops nobody else."""
    if not signal.receivers:
        return
    for receiver, answer in signal.send_robust(sender, **named):
        if isinstance(answer, Exception):
            _log.error("A signal receiver raised", exc_info=answer, extra={"receiver": repr(receiver)})
