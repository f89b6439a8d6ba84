"""Is a message that was signed here run once, and told from its replay?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from django_tasks import states
from django_tasks.message import Delivery
from django_tasks.plan import Result
from django_tasks.results.memory import MemoryStore
from django_tasks.signing import sign
from django_tasks.testing.contracts.harness import ids, sample
from django_tasks.worker.seals import Seals

Configure = Callable[..., None]


def test_what_has_ended_or_was_retried_since_is_dropped(configure: Configure) -> None:
    configure(REQUIRE_SIGNATURE=True)
    store = MemoryStore("default", {})
    known = {
        "over": (states.FAILURE, 1),
        "later": (states.RETRY, 2),
        "same": (states.RETRY, 1),
        "runs": (states.STARTED, 1),
    }
    store.save([Result(id=name, state=state, retries=retries) for name, (state, retries) in known.items()])
    sent = [Delivery(sign(replace(sample(), id=name, retries=1)), "r") for name in [*known, "new"]]
    fresh, ended = Seals(store).sift(sent)
    assert ids(fresh) == ["same", "runs", "new"]
    assert [(pair[0].message.id, pair[1].state, pair[1].keep) for pair in ended] == [
        ("over", states.IGNORED, False),
        ("later", states.IGNORED, False),
    ]


def test_nothing_is_asked_where_signatures_are_not_required(configure: Configure) -> None:
    configure(SIGN=True)
    store = MemoryStore("default", {})
    message = sample()
    store.save([Result(id=message.id, state=states.SUCCESS)])
    assert Seals(store).sift([Delivery(message, "r")])[1] == []
