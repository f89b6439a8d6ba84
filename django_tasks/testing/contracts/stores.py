"""Does a result store keep its contract?

    class TestMongo(StoreContract):
        @pytest.fixture
        def store(self):
            store = MongoStore("default", {"LOCATION": "mongodb://...", "OPTIONS": {}})
            yield store
            store.close()

The fixture gives an empty store to each test; `peer` tells how another process would have it. Of a store that is not
`shared` there is one peer: the fixture gives each result its `reply_to`, and returns from `save` when it has come.
"""
# Long because: what a store promises reads best in one piece.

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from threading import Event
from typing import Any, ClassVar

import pytest
from django.core.checks import CheckMessage
from django.db import connections

from django_tasks import states
from django_tasks.exceptions import ResultTooLarge, StoreUnavailable
from django_tasks.failure import Failure
from django_tasks.message import Message, new_id
from django_tasks.plan import Result
from django_tasks.results.base import ResultStore
from django_tasks.testing.contracts.harness import ALIKE, TEXTS, content, together

NOW = datetime(2026, 10, 25, 2, 30, 0, 123456, tzinfo=UTC)
FINAL = sorted(states.FINAL)
OPEN = [states.PENDING, states.RECEIVED, states.STARTED, states.RETRY, "PROGRESS", "正在进行"]

FAILURE = Failure(
    type="Outer.Inner",
    module="shop.errors",
    message="it broke: \N{PILE OF POO}",
    args='["it broke", 42]',
    traceback="Traceback (most recent call last):\n  ...\n",
    notes=("first", "second\nline"),
)
KEPT = Message(
    id="kept",
    task="shop.tasks.bill",
    body=bytes(range(256)),
    queue="mail",
    priority=-7,
    expires=NOW + timedelta(days=1),
    retries=2,
    attempts=3,
    time_limit=2.5,
    ignore_result=False,
    args_repr="(1,)",
    headers={"tenant": ["blue", {"x": None}]},
)
FULL = Result(
    id="every-field",
    state=states.FAILURE,
    value=b'{"partial": [1, 2.5, null, "\\u0000"]}',
    failure=FAILURE,
    task="shop.tasks.bill",
    queue="mail",
    worker="worker@here",
    args_repr="(1, 'zwei')",
    kwargs_repr="{'drei': 3}",
    retries=2,
    attempts=5,
    runtime=1.0625,
    created_at=NOW - timedelta(seconds=5),
    started_at=NOW - timedelta(seconds=3),
    ended_at=NOW,
    root_id="root",
    parent_id="parent",
    group_id="group",
    children='[[["child",null],null],[["group",null],[[["member",null],null]]]]',
    message=KEPT,
)


def ended(state: str = states.SUCCESS, value: bytes | None = b"1") -> Result:
    """Return a result of a fresh id in a final state."""
    failure = FAILURE if state in states.FAILED else None
    return Result(id=new_id(), state=state, value=value, failure=failure, task="t", ended_at=NOW)


def said(result: Result) -> dict[str, Any]:
    """Return all that a result says, in a form that can be compared."""
    values = {field.name: getattr(result, field.name) for field in fields(Result)}
    return values | {"message": content(result.message) if result.message else None}


class StoreContract:
    """Everything that `ResultStore` promises; inherit from it under a name that starts with Test."""

    patience: ClassVar[float] = 20.0
    """Seconds within which what must happen does."""
    rounds: ClassVar[int] = 20
    """How often each race is run."""
    many: ClassVar[int] = 5_000
    """How many results are saved and found at once, among fourteen times as many ids that are not known."""

    @pytest.fixture
    def store(self) -> ResultStore:
        raise NotImplementedError(f"{type(self).__name__} must give a fixture `store` that returns an empty store.")

    def peer(self, store: ResultStore) -> ResultStore:
        """Return the store as another process has it: connections of its own, the same results. One that is not shared
        is its own peer."""
        return store

    def unreachable(self) -> ResultStore | None:
        """Return a store of this kind whose server does not answer; None if there is no server."""
        return None

    def only(self, store: ResultStore, task_id: str) -> Result:
        return store.get([task_id])[task_id]

    def test_every_field_of_a_result_is_kept(self, store: ResultStore) -> None:
        store.save([FULL])
        assert said(self.only(self.peer(store), FULL.id)) == said(FULL)

    @pytest.mark.parametrize("state", [*FINAL, *OPEN])
    def test_what_a_result_leaves_out_is_not_made_up(self, store: ResultStore, state: str) -> None:
        bare = Result(id="bare", state=state)
        store.save([bare])
        assert said(self.only(store, bare.id)) == said(bare)

    @pytest.mark.parametrize("text", TEXTS)
    def test_any_text_can_be_kept(self, store: ResultStore, text: str) -> None:
        """Some databases refuse some characters; a store escapes them, and never fails for them."""
        failure = replace(FAILURE, message=text, traceback=text, args='["' + "x" * 10 + '"]', notes=(text,))
        hard = replace(
            FULL, failure=failure, worker=text, args_repr=text, kwargs_repr=text, message=replace(KEPT, args_repr=text)
        )
        store.save([hard])
        found = self.only(store, FULL.id)
        assert found.state == states.FAILURE
        if "\x00" not in text and text.isascii() | text.startswith("中"):
            assert said(found) == said(hard)

    @pytest.mark.parametrize("value", [b"null", b'""', b"0", b"[]", b'"\\u0000\\ud800"', '"中文"'.encode(), None])
    def test_any_value_comes_back(self, store: ResultStore, value: bytes | None) -> None:
        result = ended(value=value)
        store.save([result])
        assert self.only(store, result.id).value == value

    def test_a_large_value_comes_back_or_is_refused_as_such(self, store: ResultStore) -> None:
        small, result = ended(), ended(value=b'"' + b"x" * 5_000_000 + b'"')
        if not store.features.large:
            with pytest.raises(ResultTooLarge):
                store.save([result, small])
            assert store.get([result.id]) == {}
            # What a worker then writes in its place.
            store.save([replace(result, state=states.FAILURE, value=None)])
            assert self.only(store, result.id).state == states.FAILURE
            return
        store.save([result])
        assert self.only(store, result.id).value == result.value

    @pytest.mark.parametrize("letter", ["x", "é", "中", "\N{GRINNING FACE}"])
    def test_names_may_be_as_long_as_they_may_be(self, store: ResultStore, letter: str) -> None:
        long = replace(
            ended(), id=letter * 255, task=letter * 255, queue=letter * 128, worker=letter * 255, root_id=letter * 255
        )
        store.save([long])
        assert said(self.only(store, long.id)) == said(long)

    def test_names_that_look_alike_are_kept_apart(self, store: ResultStore) -> None:
        for name in ALIKE:
            store.save([Result(id=name, state=states.SUCCESS, task=name)])
        assert {task_id: found.task for task_id, found in store.get(ALIKE).items()} == {name: name for name in ALIKE}
        for name in ALIKE:
            assert store.forget([name]) == 1

    def test_what_is_not_known_is_left_out(self, store: ResultStore) -> None:
        known = ended()
        store.save([known])
        assert store.get(["unknown"]) == {}
        assert set(store.get([known.id, "unknown", known.id])) == {known.id}

    def test_empty_sequences_cost_nothing(self, store: ResultStore) -> None:
        store.save([])
        assert store.get([]) == {}
        assert store.wait([], self.patience * 10) == {}
        assert store.forget([]) == 0

    def test_thousands_are_saved_and_found_at_once(self, store: ResultStore) -> None:
        results = [ended(value=b"%d" % n) for n in range(self.many)]
        store.save(results)
        ids = [result.id for result in results]
        unknown = [f"unknown-{n}" for n in range(14 * self.many)]
        found = store.get([*ids, *unknown])
        assert [found[task_id].value for task_id in ids] == [result.value for result in results]
        assert len(found) == self.many
        assert len(store.wait(ids, 0)) == self.many
        assert store.forget([*ids, *unknown]) == self.many

    @pytest.mark.parametrize("first", FINAL)
    def test_the_first_final_state_stays(self, store: ResultStore, first: str) -> None:
        winner = ended(first, b'"first"')
        store.save([winner])
        for later in [*FINAL, *OPEN]:
            loser = replace(FULL, id=winner.id, state=later, value=b'"later"')
            store.save([loser])
            self.peer(store).save([loser, loser])
            assert said(self.only(store, winner.id)) == said(winner)

    @pytest.mark.parametrize("first", [states.STARTED, states.RETRY, "PROGRESS"])
    def test_a_state_that_is_not_final_makes_way(self, store: ResultStore, first: str) -> None:
        for later in [*FINAL, *OPEN]:
            task_id = new_id()
            store.save([Result(id=task_id, state=first, value=b'"first"', failure=FAILURE)])
            store.save([Result(id=task_id, state=later, value=b'"later"')])
            found = self.only(store, task_id)
            assert (found.state, found.value, found.failure) == (later, b'"later"', None)

    @pytest.mark.parametrize(
        ("batch", "wins"),
        [
            ([states.STARTED, "PROGRESS", "PROGRESS"], 2),
            ([states.STARTED, "PROGRESS", states.SUCCESS], 2),
            ([states.STARTED, states.SUCCESS, states.FAILURE], 1),
            ([states.FAILURE, states.SUCCESS, "PROGRESS"], 0),
            ([states.RETRY, states.STARTED, states.RETRY], 2),
        ],
    )
    def test_of_one_id_in_a_batch_the_last_that_counts_wins(
        self, store: ResultStore, batch: list[str], wins: int
    ) -> None:
        task_id, other = new_id(), ended()
        results = [Result(id=task_id, state=state, value=b"%d" % n) for n, state in enumerate(batch)]
        store.save([results[0], other, *results[1:]])
        found = self.only(store, task_id)
        assert (found.state, found.value) == (batch[wins], b"%d" % wins)
        assert self.only(store, other.id).final

    def test_what_a_later_state_does_not_say_again_is_kept(self, store: ResultStore) -> None:
        kept: dict[str, Any] = {"args_repr": "(1,)", "kwargs_repr": "{'a': 1}", "created_at": NOW, "started_at": NOW}
        for apart in (True, False):
            task_id = new_id()
            first = replace(Result(id=task_id, state=states.STARTED), **kept)
            last = Result(id=task_id, state=states.SUCCESS, value=b"1", ended_at=NOW)
            for batch in [[first], [last]] if apart else [[first, last]]:
                store.save(batch)
            found = self.only(store, task_id)
            assert {name: getattr(found, name) for name in kept} == kept
            assert (found.state, found.ended_at) == (states.SUCCESS, NOW)

    def test_what_a_later_state_says_again_is_replaced(self, store: ResultStore) -> None:
        task_id, later = new_id(), NOW + timedelta(hours=1)
        store.save([Result(id=task_id, state=states.RETRY, worker="w1", retries=0, attempts=1, started_at=NOW)])
        store.save([Result(id=task_id, state=states.STARTED, worker="w2", retries=1, attempts=2, started_at=later)])
        found = self.only(store, task_id)
        assert (found.worker, found.retries, found.attempts, found.started_at) == ("w2", 1, 2, later)

    def test_waiting_returns_at_once_what_is_final(self, store: ResultStore) -> None:
        done, running = ended(), Result(id=new_id(), state="PROGRESS")
        store.save([done, running])
        assert set(store.wait([running.id, done.id, "unknown"], None)) == {done.id}

    @pytest.mark.parametrize("state", [None, *OPEN])
    def test_waiting_for_what_does_not_end_ends_with_the_timeout(self, store: ResultStore, state: str | None) -> None:
        task_id = new_id()
        if state is not None:
            store.save([Result(id=task_id, state=state)])
        assert store.wait([task_id], 0) == {}
        began = time.monotonic()
        assert store.wait([task_id], 0.15) == {}
        assert 0.15 <= time.monotonic() - began < self.patience

    @pytest.mark.parametrize("timeout", [None, 60.0])
    @pytest.mark.parametrize("state", FINAL)
    def test_waiting_ends_when_a_task_does(self, store: ResultStore, state: str, timeout: float | None) -> None:
        first, second = ended(state), Result(id=new_id(), state=states.STARTED)
        found = self._while_waiting(
            lambda mine: mine.wait([second.id, first.id], timeout),
            lambda: store.save([second, replace(second, state="PROGRESS")]),
            lambda: store.save([first]),
            store,
        )
        assert set(found) == {first.id}
        assert said(found[first.id]) == said(first)

    def _while_waiting(
        self,
        wait: Callable[[ResultStore], dict[str, Result]],
        idle: Callable[[], object],
        event: Callable[[], object],
        store: ResultStore,
    ) -> dict[str, Result]:
        begun = Event()

        def listen() -> dict[str, Result]:
            mine = self.peer(store)
            begun.set()
            try:
                return wait(mine)
            finally:
                mine.close()
                connections.close_all()

        with ThreadPoolExecutor(1) as executor:
            listening = executor.submit(listen)
            assert begun.wait(self.patience)
            idle()
            event()
            return listening.result(self.patience)

    def test_many_may_wait_for_one_task(self, store: ResultStore) -> None:
        result = ended()

        def wait() -> set[str]:
            mine = self.peer(store)
            return set(mine.wait([result.id], self.patience))

        def end() -> set[str]:
            store.save([result])
            return {result.id}

        assert together(*[wait] * 7, end) == [{result.id}] * 8

    def test_what_is_forgotten_is_gone_and_may_be_known_anew(self, store: ResultStore) -> None:
        done, running, other = ended(), Result(id=new_id(), state=states.STARTED), ended()
        store.save([done, running, other])
        assert store.forget([done.id, running.id, "unknown"]) == 2
        assert set(store.get([done.id, running.id, other.id])) == {other.id}
        assert store.forget([done.id]) == 0
        store.save([replace(done, state=states.FAILURE)])
        assert self.only(store, done.id).state == states.FAILURE

    def test_what_ended_before_a_time_is_removed_in_pieces(self, store: ResultStore) -> None:
        if not store.features.expires:
            done = replace(ended(), ended_at=NOW - timedelta(days=1))
            store.save([done])
            assert store.expire(NOW) == 0
            assert self.only(store, done.id).final
            return
        old = [replace(ended(), ended_at=NOW - timedelta(seconds=n + 1)) for n in range(5)]
        kept = [ended(), replace(ended(), ended_at=NOW + timedelta(days=1)), Result(id=new_id(), state=states.STARTED)]
        kept += [Result(id=new_id(), state=states.RETRY, created_at=NOW - timedelta(days=99), started_at=NOW)]
        store.save([*old, *kept])
        assert [store.expire(NOW, 2) for _ in range(4)] == [2, 2, 1, 0]
        assert store.get([result.id for result in old]) == {}
        assert len(store.get([result.id for result in kept])) == len(kept)
        assert store.expire(NOW + timedelta(microseconds=1)) == 1
        assert store.expire(NOW + timedelta(days=2)) == 1

    def test_expiry_takes_no_more_than_its_limit_of_many(self, store: ResultStore) -> None:
        if not store.features.expires:
            pytest.skip(f"{type(store).__name__} lets results go by themselves")
        store.save([ended() for _ in range(1_500)])
        assert [store.expire(NOW + timedelta(seconds=1)) for _ in range(3)] == [1_000, 500, 0]
        assert store.expire(NOW, 0) == 0

    def test_of_two_that_end_one_task_in_the_same_instant_one_stays(self, store: ResultStore) -> None:
        for _ in range(self.rounds):
            rivals = [ended(states.FAILURE, b'"a"'), ended(states.SUCCESS, b'"b"'), ended(states.REVOKED, b'"c"')]
            task_id = rivals[0].id
            seen = together(*[partial(self._end, store, replace(rival, id=task_id)) for rival in rivals])
            assert len(set(seen)) == 1
            assert seen[0] in {(rival.state, rival.value) for rival in rivals}

    def _end(self, store: ResultStore, result: Result) -> tuple[str, bytes | None]:
        mine = self.peer(store)
        mine.save([replace(result, state="PROGRESS")])
        mine.save([result])
        found = self.only(mine, result.id)
        return found.state, found.value

    def test_threads_that_save_the_same_results_in_opposite_order_do_not_block_each_other(
        self, store: ResultStore
    ) -> None:
        for _ in range(self.rounds):
            batch = [replace(ended(), state=states.STARTED) for _ in range(50)]
            finals = [replace(result, state=states.SUCCESS) for result in batch]
            saves = [partial(self._save, store, one) for one in (batch, batch[::-1], finals, finals[::-1])]
            together(*saves)
            assert {found.state for found in store.get([result.id for result in batch]).values()} == {states.SUCCESS}

    def _save(self, store: ResultStore, results: list[Result]) -> None:
        self.peer(store).save(results)

    def test_a_closed_store_opens_again_and_has_lost_nothing(self, store: ResultStore) -> None:
        done = ended()
        store.save([done])
        for _ in range(2):
            store.close()
        assert self.only(store, done.id).final
        store.close()
        assert set(store.wait([done.id], None)) == {done.id}
        store.close()
        store.save([replace(done, id="another")])
        store.close()
        assert store.forget([done.id, "another"]) == 2

    def test_checks_say_something_or_nothing(self, store: ResultStore) -> None:
        assert all(isinstance(one, CheckMessage) for one in (*store.check(), *store.diagnose().found))
        assert store.diagnose().what

    def test_a_server_that_does_not_answer_is_told_as_such(self, store: ResultStore) -> None:
        cut = self.unreachable()
        if cut is None:
            pytest.skip(f"{type(store).__name__} has no server, or the suite was not told how to cut it off")
        attempts: list[Callable[[], object]] = [
            lambda: cut.save([ended()]),
            lambda: cut.get(["x"]),
            lambda: cut.wait(["x"], 0),
        ]
        if cut.features.shared:
            # What is here alone is forgotten here.
            attempts.append(lambda: cut.forget(["x"]))
        if cut.features.expires:
            attempts.append(lambda: cut.expire(NOW))
        for attempt in attempts:
            with pytest.raises(StoreUnavailable):
                attempt()
        cut.close()
