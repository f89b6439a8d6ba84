"""Does a task that is to be retried come back, where broker and store share no transaction?"""

from __future__ import annotations

from dataclasses import replace

from django.test import override_settings

from django_tasks import states
from django_tasks.connections import brokers, results
from django_tasks.message import Message, new_id
from django_tasks.plan import Outcome, Plan
from django_tasks.settlement import Settlement

APART = {
    "BROKERS": {"default": {"BACKEND": "memory"}},
    "RESULTS": {"default": {"BACKEND": "memory"}},
}


@override_settings(DJANGO_TASKS=APART)
def test_a_task_that_is_retried_on_the_memory_broker_is_run_again() -> None:
    """The next attempt has the id of the one that is being settled, which is queued until it is acknowledged."""
    broker, store = brokers["default"], results["default"]
    first = Message(id=new_id(), task="t", body=b"[[], {}, {}]")
    broker.publish([first])
    [delivery] = broker.fetch(["default"], 1, lease=30, consumer="w")
    retry = Outcome(states.RETRY, plan=Plan((replace(first, retries=1, attempts=1),)))
    Settlement(broker, store, worker="w", lease=30).settle([(delivery, retry)])
    [again] = broker.fetch(["default"], 1, lease=30, consumer="w")
    assert (again.message.id, again.message.retries, again.attempt) == (first.id, 1, 2)
