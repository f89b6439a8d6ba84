"""Is what people see of a task free of secrets, and the same thing that was stored?"""

from __future__ import annotations

import json
import time
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_tasks.display import (
    MASK,
    call_text,
    clock_text,
    distance,
    free_text,
    past_attempts,
    pretty,
    redacted,
    short_id,
    span,
    value_tree,
)
from django_tasks.serializers import dumps

CANARY = "canary9"


class Colour(Enum):
    RED = "#f00"


def shown(value):
    return value_tree(dumps(value).decode())


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"a": [1, None, True, 2.5, "x"]}, {"a": [1, None, True, 2.5, "x"]}),
        ((1, {2, 3}), [1, [2, 3]]),
        (datetime(2026, 1, 2, 3, tzinfo=UTC), "2026-01-02T03:00:00+00:00"),
        (date(2026, 1, 2), "2026-01-02"),
        (timedelta(hours=25, seconds=1), "25:00:01"),
        (timedelta(seconds=-90), "-0:01:30"),
        (timedelta(microseconds=-1), "-0:00:00.000001"),
        (Decimal("1.50"), "1.50"),
        (UUID(int=0), "00000000000000000000000000000000"),
        (b"bytes", "bytes"),
        (10**700, str(10**700)),
        (float("inf"), "inf"),
        ({1: "a", 2: "b"}, {"1": "a", "2": "b"}),
        ({(1, 2): "a"}, [[[1, 2], "a"]]),
        ({"__type__": "datetime", "__value__": "not one"}, {"__type__": "datetime", "__value__": "not one"}),
        (Colour.RED, "RED"),
    ],
)
def test_values_are_told_in_plain_words(value, told):
    assert shown(value) == told
    json.dumps(shown(value))


@pytest.mark.parametrize(
    "text",
    [
        '{"__type__": "dataclass", "__value__": {"class": "os:system", "fields": 1}}',
        '{"__type__": "timedelta", "__value__": "x"}',
        '{"__type__": "int", "__value__": "zz"}',
        '{"__type__": "dict", "__value__": 5}',
        '{"__type__": "nobody", "__value__": 5}',
        '{"__type__": ["list"], "__value__": 5}',
        "[" * 100_000,
        "not json",
        "",
    ],
)
def test_forged_values_are_told_too(text):
    pretty(value_tree(text))


@pytest.mark.parametrize(
    "text",
    [
        f"password={CANARY}",
        f"PASSWORD: {CANARY}",
        f"{{'api_key': '{CANARY}', 'a': 1}}",
        f'{{"client_secret": "a\\"{CANARY}"}}',
        f"User(token=b'{CANARY}')",
        f"password='{CANARY}",
        f"passwords: ['a', '{CANARY}']",
        f"pwd=['{MASK}', '{CANARY}']",
        f"Authorization: Bearer {CANARY}",
        f"bearer token used: Bearer {CANARY}{CANARY}",
        f"amqp://user:{CANARY}@host:5672//",
        f"redis://:{CANARY}@host/0 refused",
        f"https://shop/x?order=1&token={CANARY}&y=2",
        f"-----BEGIN PRIVATE KEY-----\n{CANARY}\n-----END PRIVATE KEY-----",
        f"ValueError: pwd={CANARY}",
        f"note='password: {CANARY}'",
        f"cookie is eyJhbGciOiJI.{CANARY}{CANARY}.{CANARY}",
    ],
)
def test_secrets_in_free_text(text):
    assert CANARY not in free_text(text)
    assert MASK in free_text(text)


@pytest.mark.parametrize(
    "text",
    [
        "monkey: banana",
        "the password was wrong",
        "File 'x.py', line 3, in get",
        "http://host:8000/path",
        "author=Ann",
        "a == b",
        f"{{'password': '{MASK}', 'note': 'x'}}",
    ],
)
def test_what_is_no_secret_stays(text):
    assert free_text(text) == text


def test_secrets_in_trees():
    tree = {"a": [{"password": CANARY, "note": f"token={CANARY}"}], "api_key": [CANARY], f"pwd={CANARY}": 1}
    assert CANARY not in json.dumps(redacted(tree))
    assert CANARY not in json.dumps(shown({b"password": CANARY, ("x",): {"token": CANARY}}))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


@given(JSON)
def test_any_value_can_be_shown(value):
    pretty(shown(value))


@given(st.text())
def test_any_text_can_be_shown(text):
    free_text(text)
    call_text(text)
    value_tree(text)
    past_attempts(text)
    short_id(text)


@pytest.mark.parametrize(
    "piece",
    ["a", "password=", "password='", "token: [", "x://", "x://a:", "eyJ", "Bearer ", "-----BEGIN ", "'\\", "a.b-c_"],
)
def test_long_hostile_text_takes_no_long_time(piece):
    text = piece * (1_000_000 // len(piece))
    began = time.process_time()
    free_text(text)
    call_text(text)
    assert time.process_time() - began < 2


def test_calls_are_told_in_lines():
    long = {f"name{number}": "x" * 20 for number in range(8)}
    assert call_text(repr(long)).count("\n") == 7
    assert call_text("(1, 'a')") == "(1, 'a')"
    assert call_text("(<object>, 1") == "(<object>, 1"


def test_ids_of_one_second_are_told_apart():
    assert short_id("0193a1b2-c3d4-7000-8000-00000000abcd") == "0193a1b2…00000000abcd"
    assert short_id("nightly") == "nightly"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, ""),
        (0, "0 ms"),
        (0.0346, "35 ms"),
        (2.54, "2.5 s"),
        (59.96, "60.0 s"),
        (90, "1:30 min"),
        (3723, "1:02:03"),
    ],
)
def test_spans(seconds, text):
    assert span(seconds) == text


def test_times_are_as_short_as_they_can_be(settings):
    settings.TIME_ZONE = "UTC"
    now = datetime.now(UTC)
    assert clock_text(None) == ""
    assert clock_text(now) == f"{now:%H:%M:%S}"
    assert clock_text(datetime(2001, 2, 3, 4, 5, tzinfo=UTC)) == "2001-02-03"
    assert clock_text(datetime(2001, 2, 3, 4, 5)) == "2001-02-03"  # noqa: DTZ001 - of a site without time zones


def test_history():
    good = {
        "attempt": 2,
        "state": "RETRY",
        "worker": "w",
        "started": "2026-01-01T00:00:00+00:00",
        "ended": None,
        "error": f"pwd={CANARY}",
    }
    odd = {"attempt": "x", "started": "never", "ended": 5, "error": None}
    found = past_attempts("\n".join([json.dumps(good), "not json", "[1]", json.dumps(odd)]))
    assert [entry["attempt"] for entry in found] == [2, None]
    assert found[0]["started"] == datetime(2026, 1, 1, tzinfo=UTC)
    assert found[0]["error"] == f"pwd={MASK}"
    assert (found[1]["started"], found[1]["ended"], found[1]["error"]) == (None, None, "")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (60, "1 min"),
        (7200, "2 h"),
        (7500, "2 h 5 min"),
        (86_400, "1 d"),
        (356_400, "4 d 3 h"),
    ],
)
def test_a_distance_is_told_as_people_do(seconds, text):
    assert distance(seconds) == distance(-seconds) == text
