"""Is a message what it says, and is its id its own?"""

from __future__ import annotations

import copy
import os
import pickle
import re
import subprocess
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_tasks.message import (
    FIELDS,
    ID_LENGTH,
    Delivery,
    Message,
    first_id,
    member_group,
    member_id,
    message_of,
    message_with,
    new_group_id,
    new_id,
    valid_id,
)
from tests.unit.messages import BARE, FULL

SHAPE = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


def test_an_id_is_a_uuid_of_version_7() -> None:
    for _ in range(1_000):
        made = new_id()
        assert SHAPE.fullmatch(made)
        read = uuid.UUID(made)
        assert (read.version, read.variant, str(read)) == (7, uuid.RFC_4122, made)


def test_an_id_tells_the_millisecond_it_was_made_in() -> None:
    # The clock may have been turned back in an earlier test: a new id is then later than the clock says.
    before = max(time.time_ns() // 1_000_000, uuid.UUID(new_id()).int >> 80)
    stamp = uuid.UUID(new_id()).int >> 80
    after = max(time.time_ns() // 1_000_000, before)
    assert before <= stamp <= after + 1


def test_the_twelve_bits_after_the_version_count_parts_of_a_millisecond(monkeypatch: pytest.MonkeyPatch) -> None:
    far = 4_000_000_000_000  # a later millisecond than any other test has seen
    monkeypatch.setattr("django_tasks.message._last", 0)
    monkeypatch.setattr(time, "time_ns", lambda: far * 1_000_000 + 500_000)
    read = uuid.UUID(new_id()).int
    assert read >> 80 == far
    assert (read >> 64) & 0xFFF == 0x800


def test_ids_sort_by_the_order_they_were_made_in() -> None:
    made = [new_id() for _ in range(20_000)]
    assert made == sorted(made)
    assert len(set(made)) == len(made)


@pytest.mark.parametrize("step", [0, -1, -3_600_000_000_000])
def test_ids_sort_also_when_the_clock_does_not_go_on(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    times = (1_800_000_000_000_000_000 + step * n for n in range(5_000))
    monkeypatch.setattr("django_tasks.message._last", 0)
    monkeypatch.setattr(time, "time_ns", lambda: next(times))
    made = [new_id() for _ in range(5_000)]
    assert made == sorted(set(made))


def test_threads_never_make_the_same_id_and_each_sees_its_own_in_order() -> None:
    with ThreadPoolExecutor(16) as executor:
        batches = list(executor.map(lambda _: [new_id() for _ in range(2_000)], range(16)))
    assert len({made for batch in batches for made in batch}) == 32_000
    assert all(batch == sorted(batch) for batch in batches)


def test_the_system_is_asked_for_random_numbers_once_for_hundreds_of_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    random = os.urandom

    def counted(size: int) -> bytes:
        asked.append(size)
        return random(size)

    monkeypatch.setattr(os, "urandom", counted)
    made = [new_id() for _ in range(5_000)]
    assert len(asked) <= 10
    assert len({each[19:] for each in made}) == 5_000


FORKS = """
import os, signal, sys, threading, warnings
from django_tasks.message import new_id

warnings.simplefilter("ignore", DeprecationWarning)  # this is what a threaded server that forks does
new_id()
if sys.argv[1] == "busy":
    def make():
        while True:
            new_id()
    threading.Thread(target=make, daemon=True).start()

read, write = os.pipe()
children = int(sys.argv[2])
for _ in range(children):
    if os.fork() == 0:
        signal.alarm(10)  # ends a child that waits for a lock which nobody in it holds
        os.write(write, "".join(new_id() + " " for _ in range(20)).encode())
        os._exit(0)
os.close(write)
made = open(read).read().split()
statuses = [os.wait()[1] for _ in range(children)]
assert statuses == [0] * children, statuses
made += [new_id() for _ in range(20)]
assert len(made) == len(set(made)) == 20 * (children + 1), (len(made), len(set(made)))
print("unique")
"""


@pytest.mark.parametrize(("parent", "children"), [("idle", 20), ("busy", 100)])
def test_forked_processes_never_make_the_same_id(parent: str, children: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKS, parent, str(children)], capture_output=True, text=True, timeout=100, check=False
    )
    assert (done.stdout.strip(), done.returncode) == ("unique", 0), done.stderr


@pytest.mark.parametrize(
    "value", ["1", str(uuid.UUID(int=7)), "x" * ID_LENGTH, "order:42/mail", "中文", "é", "\N{GRINNING FACE}"]
)
def test_any_printable_word_may_be_an_id(value: str) -> None:
    assert valid_id(value)


@pytest.mark.parametrize(
    "value",
    ["", " ", "a b", "a\tb", "a\n", "a\u00a0b", "\u3000", "\x00", "\x7f", "\u200b", "\ud800", "x" * (ID_LENGTH + 1)],
)
def test_what_cannot_be_seen_or_stored_may_not_be_an_id(value: str) -> None:
    assert not valid_id(value)


@pytest.mark.parametrize("value", [None, 42, b"abc", uuid.UUID(int=7), ["a"], object()])
def test_what_is_no_text_may_not_be_an_id(value: object) -> None:
    assert not valid_id(value)


@given(st.text(max_size=300))
def test_what_may_be_an_id_survives_lines_words_and_encodings(value: str) -> None:
    if valid_id(value):
        assert value.split() == [value]
        assert value.encode().decode() == value
        assert len(value) <= ID_LENGTH


def message() -> Message:
    return Message(id="1", task="t", body=b"")


def test_an_id_comes_after_the_first_of_its_moment_and_before_that_of_a_later_one() -> None:
    made = new_id()
    moment = datetime.fromtimestamp(int(made[:8] + made[9:13], 16) / 1000, UTC)
    assert first_id(moment) <= made < first_id(moment + timedelta(milliseconds=2))


def test_a_member_leads_to_its_group() -> None:
    group_id = new_group_id()
    assert member_group(member_id(group_id, 70_000)) == group_id
    assert member_group("nightly") is None


def test_a_message_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        message().queue = "other"  # type: ignore[misc]
    with pytest.raises((AttributeError, TypeError)):
        object.__setattr__(message(), "surprise", 1)


def test_messages_and_deliveries_are_told_apart_by_identity() -> None:
    """They are keys of dictionaries on the way of every task: comparing all fields there would cost."""
    one, other = message(), message()
    assert one != other
    assert len({one, other}) == 2
    assert Delivery(one, 1) != Delivery(one, 1)


def test_messages_do_not_share_their_headers() -> None:
    assert message().headers == {}
    assert message().headers is not message().headers


@pytest.mark.parametrize(("before", "deliveries", "attempt"), [(0, 1, 1), (0, 3, 3), (2, 1, 3), (2, 2, 4)])
def test_attempts_are_counted_over_all_messages_of_an_id(before: int, deliveries: int, attempt: int) -> None:
    sent = Message(id="1", task="t", body=b"", attempts=before)
    assert Delivery(sent, receipt=object(), deliveries=deliveries).attempt == attempt


def said(message: Message) -> list[object]:
    return [getattr(message, name) for name in FIELDS]


@pytest.mark.parametrize("whole", [BARE, FULL], ids=["bare", "full"])
def test_a_message_made_of_values_is_like_any_other(whole: Message) -> None:
    made = message_of(said(whole))
    assert type(made) is Message
    assert said(made) == said(copy.copy(made)) == said(pickle.loads(pickle.dumps(made))) == said(whole)
    assert said(replace(made, queue="other")) == said(replace(whole, queue="other"))
    with pytest.raises(FrozenInstanceError):
        made.queue = "other"  # type: ignore[misc]
    assert not hasattr(made, "__dict__")


def test_values_that_are_too_few_or_too_many_make_no_message() -> None:
    for values in (said(BARE)[1:], [*said(BARE), None]):
        with pytest.raises(TypeError):
            message_of(values)


def test_what_is_not_said_is_at_its_default() -> None:
    made = message_with({"id": "id-1", "task": "shop.tasks.add", "body": BARE.body})
    assert said(made) == said(BARE)
    assert message_with({"id": "1", "task": "t", "body": b""}).headers is not made.headers
    with pytest.raises(TypeError):
        message_with({"id": "1", "task": "t", "body": b"", "colour": "blue"})
