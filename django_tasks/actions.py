"""What can an operator do to tasks, and what came of it?

Shared by the admin, the API and the commands. Each function takes ids, does what can be done in one transaction where a
database is shared, and answers for every id: done, not found, or not possible and why.
"""
# Long because: what can be done to a task reads best side by side.

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from django.utils import timezone
from django.utils.translation import gettext as _

from django_tasks import conf, states
from django_tasks.backends.base import Broker
from django_tasks.connections import brokers, home, keepers, keepers_of, results
from django_tasks.control import client
from django_tasks.control.ledger import RevocationLedger
from django_tasks.display import moment_text
from django_tasks.exceptions import DecodeError, PublishError, SignatureError
from django_tasks.listing import DELAYED, LEASED, message_databases, standing, waiting
from django_tasks.message import Message
from django_tasks.models import Crash, QueuedMessage, TaskResult
from django_tasks.plan import Plan, Result
from django_tasks.protocol import load_message
from django_tasks.publisher import publish
from django_tasks.results.base import ResultStore
from django_tasks.routing import broker_for
from django_tasks.signing import resigned, verify
from django_tasks.transactions import retrying

_HISTORY, _ERROR = 65_536, 1_000
_CHUNK = 500


class Verdict(Enum):
    DONE = "done"
    NOT_FOUND = "not_found"
    NOT_POSSIBLE = "not_possible"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of an action for one task."""

    id: str
    verdict: Verdict
    code: str
    """One word, for programs."""
    text: str
    """A sentence, in the language of whoever asked."""


@dataclass(frozen=True, slots=True)
class Report:
    """What came of an action, one answer for each id, in the order in which they were given."""

    answers: tuple[Answer, ...]

    @property
    def done(self) -> list[str]:
        return [answer.id for answer in self.answers if answer.verdict is Verdict.DONE]

    @property
    def refused(self) -> list[Answer]:
        return [answer for answer in self.answers if answer.verdict is not Verdict.DONE]


Answers = dict[str, Answer]


def retry(ids: Sequence[str]) -> Report:
    """Send tasks that failed, or were revoked or rejected, once more, as they were: same id, same arguments.

    Their attempts and history go on; a revocation is taken back, evidence of crashes forgotten, and an expiry that has
    passed left out. Raises PublishError, and then nothing has changed.
    """
    ids = _unique(ids)
    store = results["default"]
    if store.database is None:
        return _report(ids, _retry_elsewhere(store, ids))
    return _report(ids, retrying(store.database, lambda: _retry_rows(str(store.database), ids)))


def revoke(ids: Sequence[str], *, terminate: bool = False, reason: str = "", expected: bool = False) -> Report:
    """Revoke tasks that have not ended: one that waits ends now, one that runs is not run again, and with `terminate`
    its worker ends it.

    Ids of which nothing is known are revoked where they may yet turn up: those that are `expected`, and all where
    messages cannot be looked up.
    """
    ids = _unique(ids)
    # In this order: a task that leaves its queue between the two looks has its result by then.
    rows = waiting(ids)
    known = _known_states(ids)
    # Where messages cannot be looked up by id, one that nobody knows may well wait.
    hidden = expected or any(broker.database is None and not broker.eager for broker in brokers.all())
    answers: Answers = {}
    for task_id in ids:
        if known.get(task_id) in states.FINAL:
            answers[task_id] = _ended(task_id, str(known[task_id]))
        elif not (hidden or task_id in known or task_id in rows):
            answers[task_id] = _not_found(task_id)
    asked = [task_id for task_id in ids if task_id not in answers]
    for task_id in asked:
        answers[task_id] = _done(
            task_id,
            "told",
            _("It runs, or is on its way to a worker, which will end it.")
            if terminate
            else _("It runs, or is on its way to a worker: it is not begun, and not run again."),
        )
    for task_id in _in_shared(lambda: client.revoke(asked, terminate=terminate, reason=reason)):
        answers[task_id] = _done(task_id, "revoked", _("It was waiting, and is revoked."))
    return _report(ids, answers)


def delete(ids: Sequence[str]) -> Report:
    """Remove results of tasks that have ended, or whose message is gone."""
    ids = _unique(ids)
    store = results["default"]
    if store.database is None:
        answers = _deletable(ids)
        store.forget([task_id for task_id, answer in answers.items() if answer.verdict is Verdict.DONE])
        return _report(ids, answers)

    def remove() -> Answers:
        answers = _deletable(ids)
        store.forget([task_id for task_id, answer in answers.items() if answer.verdict is Verdict.DONE])
        return answers

    return _report(ids, retrying(store.database, remove))


def discard(ids: Sequence[str]) -> Report:
    """Remove waiting messages without a trace: their tasks stay PENDING for whoever asks."""
    ids = _unique(ids)
    removed = {message.id for broker in keepers() if broker.features.discards for message in broker.discard(ids)}
    rows = waiting([task_id for task_id in ids if task_id not in removed])
    answers = {
        task_id: _done(task_id, "deleted", _("Its message is deleted."))
        if task_id in removed
        else _in_the_way(task_id, rows.get(task_id))
        for task_id in ids
    }
    return _report(ids, answers)


def run_now(ids: Sequence[str]) -> Report:
    """Make delayed messages ready at once; they stand behind those of their priority that are ready already."""
    ids = _unique(ids)
    answers: Answers = {task_id: _not_found(task_id) for task_id in ids}
    for broker in keepers():
        if broker.database is not None:
            answers |= retrying(broker.database, lambda broker=broker: _hasten(broker, ids))  # type: ignore[misc]
    return _report(ids, answers)


def take_back(ids: Sequence[str]) -> Report:
    """Take revocations back: messages of these tasks that are still on their way will be run."""
    ids = _unique(ids)
    ledger = RevocationLedger(home())
    known = ledger.among(ids)
    ledger.forget(list(known))
    return _report(ids, {task_id: _done(task_id, "taken_back", _("It may be run again.")) for task_id in known})


def purge(queue: str, broker: str | None = None) -> int:
    """Remove all messages of a queue that nobody has leased, without a trace; return how many.

    `broker` is an alias; without it, that of the broker to which the settings give the queue.
    """
    return sum(keeper.purge(queue) for keeper in keepers_of(broker_for(queue) if broker is None else broker))


# Sending again


def _retry_rows(database: str, ids: Sequence[str]) -> Answers:
    rows = TaskResult.objects.using(database).select_for_update().filter(task_id__in=ids).order_by("task_id")
    answers: Answers = {}
    messages: list[Message] = []
    changed: list[TaskResult] = []
    for row in rows:
        message, refusal = _sendable(row)
        if message is None:
            answers[row.task_id] = refusal
            continue
        messages.append(_renewed(message, row.attempts))
        changed.append(_reset(row))
        answers[row.task_id] = _done(row.task_id, "queued", _("It is sent again."))
    if messages:
        _clear_the_way([message.id for message in messages])
        TaskResult.objects.using(database).bulk_update(changed, _RESET, batch_size=100)
        publish(Plan(tuple(messages)))
    return answers


def _retry_elsewhere(store: ResultStore, ids: Sequence[str]) -> Answers:
    answers: Answers = {}
    kept: list[Result] = []
    messages: list[Message] = []
    for task_id, result in store.get(ids).items():
        refusal = _not_sendable(task_id, result.state, kept=result.message is not None) or _not_ours(result.message)
        if refusal is None and result.message is not None:
            kept.append(result)
            messages.append(_renewed(result.message, result.attempts))
        answers[task_id] = refusal or _done(task_id, "queued", _("It is sent again."))
    if messages:
        _clear_the_way([message.id for message in messages])
        store.forget([message.id for message in messages])
        try:
            publish(Plan(tuple(messages)))
        except PublishError:
            store.save(kept)
            raise
    return answers


def _sendable(row: TaskResult) -> tuple[Message | None, Answer]:
    refusal = _not_sendable(row.task_id, row.state, kept=row.message is not None)
    if refusal is not None:
        return None, refusal
    try:
        message = load_message(row.message or "")
    except DecodeError as error:
        text = _("Its message cannot be read: %(reason)s") % {"reason": error}
        return None, Answer(row.task_id, Verdict.NOT_POSSIBLE, "unreadable", text)
    refusal = _not_ours(message)
    return (message, _not_found(row.task_id)) if refusal is None else (None, refusal)


def _not_ours(message: Message | None) -> Answer | None:
    """Refuse what would be signed for the first time: it may be a forgery that a worker has turned away."""
    if message is None or not conf.get().signs:
        return None
    try:
        verify(message)
    except SignatureError as error:
        text = _("It cannot be signed again: %(reason)s") % {"reason": error}
        return Answer(message.id, Verdict.NOT_POSSIBLE, "not_signed", text)
    return None


def _not_sendable(task_id: str, state: str, *, kept: bool) -> Answer | None:
    if state not in states.FINAL:
        text = _("It has not ended: it is %(state)s.") % {"state": state}
        return Answer(task_id, Verdict.NOT_POSSIBLE, "not_ended", text)
    if state not in states.FAILED:
        text = _("It is %(state)s: only what failed, was revoked or rejected can be sent again.") % {"state": state}
        return Answer(task_id, Verdict.NOT_POSSIBLE, "not_failed", text)
    if not kept:
        text = _("Its message was not kept; see KEEP_ARGUMENTS in the settings.")
        return Answer(task_id, Verdict.NOT_POSSIBLE, "not_kept", text)
    return None


def _renewed(message: Message, attempts: int) -> Message:
    over = message.expires is not None and message.expires <= timezone.now()
    return replace(
        message,
        attempts=attempts,
        countdown=None,
        eta=None,
        signature=None,
        expires=None if over else message.expires,
        created_at=None,
    )


def _clear_the_way(ids: Sequence[str]) -> None:
    database = home()
    RevocationLedger(database).forget(ids)
    for part in (ids[start : start + _CHUNK] for start in range(0, len(ids), _CHUNK)):
        Crash.objects.using(database).filter(task_id__in=part).delete()


_RESET: Mapping[str, Any] = {
    "state": states.PENDING,
    "worker": "",
    "value": None,
    "error_type": "",
    "error_module": "",
    "error_message": "",
    "error_args": None,
    "error_notes": "",
    "traceback": "",
    "runtime": None,
    "started_at": None,
    "ended_at": None,
    "message": None,
    "children": None,
    "history": None,
}
"""What a result says while its task waits to be run again; the history is written for each."""


def _reset(row: TaskResult) -> TaskResult:
    history = row.history + _line(row)
    for name, value in _RESET.items():
        setattr(row, name, value)
    row.history = history[history.index("\n", len(history) - _HISTORY) + 1 :] if len(history) > _HISTORY else history
    return row


def _line(row: TaskResult) -> str:
    """Return the attempt that a result tells of as a line of its history."""
    told = {
        "attempt": row.attempts,
        "state": row.state,
        "worker": row.worker,
        "started": row.started_at and row.started_at.isoformat(),
        "ended": row.ended_at and row.ended_at.isoformat(),
        "error": f"{row.error_type}: {row.error_message}"[:_ERROR] if row.error_type else None,
    }
    return json.dumps(told) + "\n"


# Messages that wait


def _hasten(broker: Broker, ids: Sequence[str]) -> Answers:
    mine = QueuedMessage.objects.using(broker.database).filter(broker=broker.alias, task_id__in=ids).defer("body")
    rows = {row.task_id: row for row in mine}
    delayed = [task_id for task_id in ids if task_id in rows and standing(rows[task_id]) == DELAYED]
    taken = broker.discard(delayed)
    broker.publish(
        [
            # Its place in the count of attempts is kept, though the message is a new one for the broker.
            resigned(
                message,
                replace(message, countdown=None, eta=None, attempts=message.attempts + rows[message.id].deliveries),
            )
            for message in taken
        ]
    )
    answers = {message.id: _done(message.id, "ready", _("It is ready.")) for message in taken}
    for task_id, row in rows.items():
        if task_id in answers:
            continue
        if row.ready:
            text = _("It is ready already: it waits for a free worker.")
            answers[task_id] = Answer(task_id, Verdict.NOT_POSSIBLE, "ready", text)
        else:
            answers[task_id] = _in_the_way(task_id, row)
    return answers


def _in_the_way(task_id: str, row: QueuedMessage | None) -> Answer:
    if row is None:
        return _not_found(task_id)
    if standing(row) == LEASED:
        text = _("It is leased by %(worker)s until %(until)s: revoke it instead.") % {
            "worker": row.leased_by,
            "until": moment_text(row.visible_at),
        }
        return Answer(task_id, Verdict.NOT_POSSIBLE, "leased", text)
    return Answer(task_id, Verdict.NOT_POSSIBLE, "moved", _("It has just changed hands: look again."))


# What is known


def _known_states(ids: Sequence[str]) -> dict[str, str]:
    store = results["default"]
    if store.database is None:
        return {task_id: result.state for task_id, result in store.get(ids).items()}
    rows = TaskResult.objects.using(store.database).filter(task_id__in=ids)
    return dict(rows.values_list("task_id", "state"))


def _deletable(ids: Sequence[str]) -> Answers:
    known = _known_states(ids)
    rows = waiting([task_id for task_id, state in known.items() if state not in states.FINAL])
    answers: Answers = {}
    for task_id in ids:
        if task_id not in known:
            answers[task_id] = _not_found(task_id)
        elif task_id in rows:
            text = _("It has not ended: revoke it first.")
            answers[task_id] = Answer(task_id, Verdict.NOT_POSSIBLE, "not_ended", text)
        else:
            answers[task_id] = _done(task_id, "deleted", _("Its result is deleted."))
    return answers


def _in_shared(function: Any) -> Any:
    """Call a function in one transaction where messages, results and revocations share a database."""
    databases = {*message_databases(), results["default"].database, home()}
    shared = databases.pop() if len(databases) == 1 else None
    return function() if shared is None else retrying(shared, function)


def _unique(ids: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(ids))


def _report(ids: Sequence[str], answers: Mapping[str, Answer]) -> Report:
    return Report(tuple(answers.get(task_id) or _not_found(task_id) for task_id in ids))


def _done(task_id: str, code: str, text: str) -> Answer:
    return Answer(task_id, Verdict.DONE, code, text)


def _not_found(task_id: str) -> Answer:
    return Answer(task_id, Verdict.NOT_FOUND, "not_found", _("No task of this id is known."))


def _ended(task_id: str, state: str) -> Answer:
    text = _("It has ended: it is %(state)s.") % {"state": state}
    return Answer(task_id, Verdict.NOT_POSSIBLE, "ended", text)
