"""Is what follows a step the same list, however often it is packed, taken from and added to?"""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from django_tasks.canvas.tail import WHOLE, Tail

STEPS = st.tuples(st.sampled_from(["take", "add"]), st.integers(1, 2 * WHOLE))


@settings(max_examples=60, deadline=None)
@given(st.lists(STEPS, max_size=8))
def test_it_is_a_list(changes: list[tuple[str, int]]):
    tail, expected, number = Tail(), list[Any](), 0
    for what, many in changes:
        if what == "add":
            fresh = [{"task": "x", "options": {"task_id": f"{number + i}"}} for i in range(many)]
            number += many
            tail, expected = tail.after(*fresh), fresh + expected
        for _ in range(many if what == "take" else 0):
            if not expected:
                assert not tail
                break
            step, tail = tail.parted()
            assert step == expected.pop(0)
        forms = json.loads(json.dumps(tail.chain()))
        assert len(forms) <= WHOLE + 1
        tail = Tail.of(forms)
        assert list(tail.every()) == expected
        assert (tail.steps, bool(tail)) == (len(expected), bool(expected))
