"""Which workflows are measured, and what is asked of them?"""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any

import redis
from django.db import connection

from benchmarks import ledger
from benchmarks.settings import BENCHMARKS_BROKER, BENCHMARKS_RESULTS
from django_tasks import GroupResult, chain, chord, group, states, task
from django_tasks import bulk as publish
from django_tasks.connections import results

BATCH = 500
MISSING = -1
"""What a task returns that got something else than it should have."""


@task(ignore_result=not BENCHMARKS_RESULTS)
def member(number: int) -> int:
    ledger.mark()
    return number


@task
def body(values: list[int]) -> int:
    """Return how many values there are, if they are those of all members in their order."""
    ledger.mark()
    return len(values) if values == list(range(len(values))) else MISSING


@task(ignore_result=not BENCHMARKS_RESULTS)
def step(value: int) -> int:
    ledger.mark()
    return value + 1


@task(ignore_result=not BENCHMARKS_RESULTS)
def failing() -> None:
    ledger.mark()
    raise ValueError("as told")


@task
def errback(task_id: str) -> None:
    ledger.mark()


def bulk_members(number: int) -> None:
    """Enqueue the members of a chord, without the chord."""
    for begin in range(0, number, BATCH):
        publish(member.s(i) for i in range(begin, min(begin + BATCH, number)))


def send_chord(number: int) -> str:
    """Send a chord of so many members; return the id of its body."""
    sent = chord((member.s(i) for i in range(number)), body.s()).apply_async()
    return str(sent.id)


def send_failing_chord(number: int) -> None:
    """Send a chord of so many members, of which one fails."""
    header = [member.s(i) if i != number // 2 else failing.s() for i in range(number)]
    chord(header, body.s().on_error(errback.s())).apply_async()


def send_group(number: int) -> str:
    """Send a group of so many members; return its id."""
    return str(group(member.s(i) for i in range(number)).apply_async().id)


def send_chain(steps: int) -> int:
    """Send a chain; return the bytes of its first message's body."""
    frozen = chain(step.s(0), *(step.s() for _ in range(steps - 1))).frozen()
    size = len(frozen.plan().messages[0].body)
    frozen.apply_async()
    return size


def get_group(group_id: str) -> dict[str, int]:
    """Get what the members of a group returned; say how many values came and how many questions that took."""
    asked = 0

    def counting(execute: Any, *call: Any) -> Any:
        nonlocal asked
        asked += 1
        return execute(*call)

    handle = GroupResult.restore(group_id)
    assert handle is not None
    before = _commands()
    with connection.execute_wrapper(counting):
        values = handle.get(timeout=0)
    # The question itself is a command.
    asked += max(0, _commands() - before - 1)
    return {"values": len(values) if values == list(range(len(values))) else MISSING, "asked": asked}


def _commands() -> int:
    if not BENCHMARKS_BROKER.startswith("redis"):
        return 0
    with redis.Redis.from_url(BENCHMARKS_BROKER) as client:
        return int(client.info("stats")["total_commands_processed"])


# Chords while workers are killed

WIDE = 20
"""Members of each."""
BRIEF = 0.01
"""Seconds that a member takes, and the body."""
AWAY, EVERY = 500, 0.1
"""Chords that may be under way at most, and seconds between two of them."""
NEVER = 1_000
"""Crashes after which a task is given up: here each is killed again and again for what others do."""


_PUBLISHED = "AFTER INSERT ON django_tasks_queuedmessage FOR EACH ROW"
_IS_BODY = "NEW.task = 'benchmarks.workflows.whole'"
_NOTE = "INSERT INTO published VALUES (NEW.task_id);"
WATCHING = {
    "postgresql": (
        f"CREATE FUNCTION note_body() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {_NOTE} RETURN NEW; END $$",
        f"CREATE TRIGGER watch {_PUBLISHED} WHEN ({_IS_BODY}) EXECUTE FUNCTION note_body()",
    ),
    "sqlite": (f"CREATE TRIGGER watch {_PUBLISHED} WHEN {_IS_BODY} BEGIN {_NOTE} END",),
    "mysql": (f"CREATE TRIGGER watch {_PUBLISHED} IF {_IS_BODY} THEN {_NOTE} END IF",),
}
"""Triggers, by vendor."""


@task(max_crashes=NEVER)
def part(number: int) -> int:
    ledger.note(number, "part")
    time.sleep(BRIEF)
    return number


@task(max_crashes=NEVER)
def whole(values: list[int], number: int) -> int:
    ledger.note(number, "begin")
    time.sleep(BRIEF)
    ledger.note(number, "end")
    return sum(values)


def body_id(number: int) -> str:
    return f"body-{number}"


def expected(number: int) -> int:
    """Return what the body of a chord returns."""
    return sum(range(number, number + WIDE))


def watch_bodies() -> None:
    """Have the database itself write down each message of a body: in the transaction that publishes it, or not."""
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE published (task_id varchar(255))")
        for statement in WATCHING[connection.vendor]:
            cursor.execute(statement)


def send_chords(going: str, book: str) -> int:
    """Send a chord every now and then for as long as a file is there; return how many were sent."""
    number, seen, done = 0, 0, 0
    while Path(going).exists():
        with Path(book).open("rb") as lines:
            lines.seek(seen)
            news = lines.read()
        seen, done = seen + len(news), done + news.count(b"end ")
        if number - done < AWAY:
            header = [part.s(number + i) for i in range(WIDE)]
            chord(header, whole.s(number).set(task_id=body_id(number))).apply_async()
            number += 1
        time.sleep(EVERY)
    return number


def chord_outcomes(chords: int) -> dict[str, int]:
    """Say how all chords have ended, and of how many of them what should not be."""
    found = Counter[str]()
    for begin in range(0, chords, BATCH):
        numbers = range(begin, min(begin + BATCH, chords))
        known = results["default"].get([body_id(number) for number in numbers])
        for number in numbers:
            result = known.get(body_id(number))
            if result is None or result.state != states.SUCCESS:
                found["not ended well"] += 1
            elif result.value != b"%d" % expected(number):
                found["wrong value"] += 1
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*), count(DISTINCT task_id) FROM published")
        published, different = cursor.fetchone()
        cursor.execute("SELECT count(*) FROM django_tasks_taskgroup WHERE done <> size OR size <> %s", [WIDE])
        (odd,) = cursor.fetchone()
        cursor.execute("SELECT count(*) FROM django_tasks_grouppart")
        (parts,) = cursor.fetchone()
    return {**found, "published": published, "published once": different, "odd groups": odd, "parts": parts}
