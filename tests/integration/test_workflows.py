"""Do workflows run on workers, whatever keeps their messages and results?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.test import override_settings

from django_tasks import GroupResult, bulk, chain, chord, group, revoke_by_stamped_headers, states
from django_tasks.canvas.signature import Signature
from django_tasks.connections import brokers, groups_of, results
from django_tasks.exceptions import ChordError
from django_tasks.worker import maintenance
from tests import waits
from tests.canvas_tasks import add, become, fail, grow, ids, mul, note, on_error, on_error_id, same, send, told, tsum
from tests.integration.stage import FAULTY, PATIENCE, Meanwhile, build, burst, hold, stage, until
from tests.rabbit import Rabbit
from tests.settings import REDIS_PREFIX, REDIS_URL

MEMORY = {"default": {"BACKEND": "memory"}}


def database(alias: str) -> dict[str, Any]:
    entry = {"default": {"BACKEND": "database", "OPTIONS": {"USING": alias}}}
    return {"BROKERS": entry, "RESULTS": entry}


def redis(**results: Any) -> dict[str, Any]:
    entry = {"default": {"BACKEND": "redis", "LOCATION": REDIS_URL, "OPTIONS": {"KEY_PREFIX": REDIS_PREFIX}}}
    return {"BROKERS": entry, "RESULTS": results or entry}


SITES: dict[str, tuple[Callable[[], dict[str, Any]], list[str]]] = {
    "memory": (lambda: FAULTY, ["default"]),
    "sqlite": (lambda: database("default"), ["default"]),
    "postgres": (lambda: database("postgres"), ["default", "postgres"]),
    "mariadb": (lambda: database("mariadb"), ["default", "mariadb"]),
    "redis": (redis, ["default"]),
    "redis-database": (lambda: redis(default={"BACKEND": "database"}), ["default"]),
    "amqp": (dict, ["default"]),
}


@pytest.fixture(
    params=[
        pytest.param(name, marks=pytest.mark.django_db(transaction=True, databases=aliases))
        for name, (_, aliases) in SITES.items()
    ],
    autouse=True,
)
def site(request: Any, db: None) -> Iterator[str]:
    stage.clear()
    told.clear()
    rabbit = Rabbit() if request.param == "amqp" else None
    found = SITES[request.param][0]()
    if rabbit is not None:
        rabbit.uses("default")
        found = {"BROKERS": {"default": rabbit.entry}, "RESULTS": {"default": {"BACKEND": "database"}}}
    with override_settings(DJANGO_TASKS=found):
        yield request.param
        brokers["default"].purge("default")
        brokers.close()
    told.clear()
    if rabbit is not None:
        rabbit.close()


WORKFLOWS: list[tuple[Signature, Any]] = [
    (add.s(4, 16) | mul.s(2) | (add.s(4) | mul.s(8)), 352),
    (group(add.s(i, i) for i in range(10)), [i * 2 for i in range(10)]),
    (chord((add.s(i, i) for i in range(100)), tsum.s()), 9900),
    (chain(add.s(1, 1), group(add.s(1), add.s(2)), tsum.s(), group(same.s(), mul.s(2))), [7, 14]),
    (chord([chord([add.s(1, 1), add.s(2, 2)], tsum.s()), chain(add.s(1, 2), mul.s(3))], tsum.s()), 15),
    (chord((chain(add.s(i, 1), group(same.s(), add.s(1))) for i in (0, 1)), same.s()), [[1, 2], [2, 3]]),
    (chain(become.s(chord([add.s(1, 1), add.s(2, 2)], tsum.s())), add.s(100)), 106),
    (chain(add.s(0, 1), *(add.s(1) for _ in range(124))), 125),
    (add.chunks([(i, i) for i in range(10)], 5), [[0, 2, 4, 6, 8], [10, 12, 14, 16, 18]]),
]


def test_workflows_end_as_they_do_in_celery():
    handles = [node.apply_async() for node, _ in WORKFLOWS]
    burst()
    assert [handle.get(0.1) for handle in handles] == [value for _, value in WORKFLOWS]


def test_callbacks_and_errbacks_are_sent():
    good, bad = add.s(2, 2), fail.s()
    good.link(note.s("beside"))
    bad.on_error(on_error.s()).on_error(on_error_id.s())
    handles = bulk([good, bad])
    burst()
    assert told.count([4, "beside"]) == 1
    assert told.count(handles[1].id) == 1
    assert told.count([handles[1].id, "ValueError", "on purpose", True]) == 1


def test_a_failed_member_fails_all_that_waits():
    whole = chord([add.s(1, 1), fail.s(), chain(add.s(1, 1), fail.s(), same.s())], chain(tsum.s(), same.s()))
    whole.link_error(on_error_id.s())
    result = whole.apply_async()
    burst()
    with pytest.raises(ChordError, match="ValueError"):
        result.get(0.1)
    header = result.parent.parent
    assert [each.state for each in header] == [states.SUCCESS, states.FAILURE, states.FAILURE]
    assert (result.parent.state, result.state) == (states.FAILURE, states.FAILURE)
    assert told == [result.parent.id]


def test_a_group_is_found_again_by_its_id():
    sent = group(add.s(i, i) for i in range(3)).apply_async()
    assert not sent.ready()
    burst()
    found = GroupResult.restore(sent.id)
    assert found == sent
    assert found.ready()
    assert found.get(0.1) == [0, 2, 4]
    assert found.completed_count() == 3
    known = found.progress()
    assert known is not None
    assert (known.done, known.size, known.failed) == (3, 3, None)


def test_a_group_whose_time_is_over_fails_all_that_waits_and_once(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(maintenance, "PRESSING", 0.05)
    whole = chord([add.s(1, 1), hold.s(), chain(add.s(1, 1), same.s())], note.s() | same.s(), timeout=3600)
    whole.link_error(on_error_id.s())
    result = whole.apply_async()
    header = result.parent.parent
    worker = build()

    def story() -> None:
        until(lambda: header.progress().done == 2)
        assert not header.ready()
        waits.elapse(groups_of(), 3601)
        until(lambda: told == [result.parent.id])
        assert header.ready()
        with pytest.raises(ChordError, match="^Member 1 of 3 had not ended when"):
            header.get(0.1, disable_sync_subtasks=False)
        values = header.get(0.1, propagate=False, disable_sync_subtasks=False)
        assert (values[0], type(values[1]), values[2]) == (2, ChordError, 2)
        stage.gate.set()
        until(lambda: header.progress().done == 3)
        worker.stop()

    Meanwhile(worker, story)
    burst()
    assert stage.ended == [header[1].id]
    assert told == [result.parent.id], "the body never ran, and its errback did once"
    assert header.get(0.1) == [2, 1, 2]
    for handle in (result, result.parent):
        with pytest.raises(ChordError, match="^Member 1 of 3 had not ended when"):
            handle.get(0.1)


def test_a_revoked_and_an_expired_member_fail_the_body():
    for member in (same.s(1).set(task_id="revoked"), same.s(1).set(expires=-1)):
        result = chord([add.s(1, 1), member], tsum.s()).apply_async()
        if member.id == "revoked":
            result.parent[1].revoke()
        burst()
        with pytest.raises(ChordError, match="Revoked|Expired"):
            result.get(0.1)


def test_a_revoked_group_ends_what_follows_it_once():
    whole = chord([same.s(number) for number in range(20)], tsum.s())
    whole.link_error(on_error_id.s())
    result = whole.apply_async()
    result.parent.revoke()
    burst()
    assert {each.state for each in result.parent} == {states.REVOKED}
    with pytest.raises(ChordError, match="Revoked"):
        result.get(0.1)
    assert told == [result.id]


def test_a_revoked_step_ends_the_steps_after_it():
    result = chain(add.s(1, 1).set(countdown=3600), add.s(1), add.s(1)).apply_async()
    result.parent.parent.revoke()
    burst()
    assert [result.state, result.parent.state, result.parent.parent.state] == ["FAILURE", "FAILURE", "REVOKED"]


def test_nothing_is_left_of_a_group_that_is_forgotten():
    result = chord([add.s(1, 1)], tsum.s()).apply_async()
    burst()
    assert result.get(0.1) == 2
    header = result.parent
    header.forget()
    assert groups_of().progress([header.id]) == {}
    assert groups_of().parts(header.id) == []


def test_who_is_who():
    last = chain(ids.s(), group(ids.s(), ids.s()), ids.s()).apply_async()
    burst()
    members, first = last.parent, last.parent.parent
    assert last.get(0.1) == {"id": last.id, "root": first.id, "parent": members.id, "group": None}
    assert [each["parent"] for each in members.get(0.1)] == [first.id, first.id]


def test_what_tasks_sent_is_told_with_their_results():
    first = send.s([add.s(1, 1), chord([add.s(1, 1), add.s(2, 2)], tsum.s())])
    last = chain(first, add.s(100)).apply_async()
    burst()
    one, members, body, after = last.parent.children
    assert (one.get(0.1), members.get(0.1), body.get(0.1)) == (2, [2, 4], 6)
    assert after == last
    values = [value for _, value in last.parent.collect(timeout=0.1) if isinstance(value, int)]
    assert sorted(values) == [2, 2, 2, 4, 6, 102]


def test_a_revoked_stamp_stops_what_waits_and_what_is_sent_later():
    waiting = chord([add.s(1, 1), same.s(2)], tsum.s()).stamp(tenant="blue").apply_async()
    delayed = same.s(3).stamp(tenant="blue").set(countdown=0.1).apply_async()
    other = same.s(4).stamp(tenant="green").apply_async()
    revoke_by_stamped_headers({"tenant": "blue"})
    later = same.s(5).stamp(tenant=["red", "blue"]).apply_async()
    burst()
    # Another worker, after a restart of all.
    worker = build()

    def story() -> None:
        results["default"].wait([delayed.id], PATIENCE)
        worker.stop()

    Meanwhile(worker, story)
    assert [each.state for each in (*waiting.parent, delayed, later)] == [states.REVOKED] * 4
    assert (waiting.state, other.get(0.1)) == (states.FAILURE, 4)


def test_a_chord_waits_for_what_its_members_add():
    added = [same.s(0), chain(add.s(1, 1), add.s(1))]
    result = chord([grow.s(added, 1), same.s(9)], same.s()).apply_async()
    burst()
    assert result.get(0.1) == ["grown", 9, 0, 3]
    known = result.parent.progress()
    assert (known.size, known.done) == (4, 4)
