"""Does a handle tell what its task sent, and what came of all of it?"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from io import StringIO
from typing import Any

import pytest

from django_tasks import AsyncResult, GroupResult, bulk, chain, chord, group, result_from_tuple, task
from django_tasks.backends.memory import MemoryBroker
from django_tasks.connections import results
from django_tasks.dependencies import CHILDREN, DependencyGraph, Trail, forms_from
from django_tasks.exceptions import IncompleteStream
from django_tasks.plan import Result
from django_tasks.results.celery_meta import dump_meta, load_meta
from django_tasks.results.memory import MemoryStore
from tests.canvas_tasks import add, fail, nothing, same, send, told, tsum

pytestmark = pytest.mark.usefixtures("eager")


@pytest.fixture
def eager(configure: Callable[..., None]) -> Iterator[None]:
    configure(BROKERS={"default": {"BACKEND": "immediate"}})
    told.clear()
    yield
    told.clear()


@task
def send_several(number: int) -> None:
    bulk(same.s(each) for each in range(number))


@task
def send_and_fail() -> None:
    same.delay(7)
    raise ValueError("on purpose")


def ids(handles: Any) -> list[str]:
    return [handle.id for handle in handles]


def values(handle: AsyncResult[Any]) -> list[Any]:
    return [value for _, value in handle.collect()]


def test_what_a_task_sent_are_its_children():
    result = send.delay([add.s(1, 1), add.s(2, 2)])
    assert [child.get() for child in result.children] == [2, 4]
    assert [[child.id, None] for child in result.children] == [form[0] for form in told[0]]
    assert values(result) == [2, 2, 4]
    assert asyncio.run(result.achildren()) == result.children


def test_what_followed_a_task_is_its_child_too():
    call = add.s(1, 1)
    call.link(add.s(10))
    last = chain(call, add.s(20), add.s(30)).apply_async()
    first = last.parent.parent
    assert values(first) == [2, 12, 22, 52]
    assert first.get_leaf() == 52
    assert ids(last.parent.children) == [last.id]
    assert last.children == []


def test_a_failed_task_tells_what_it_sent():
    failed = send_and_fail.delay()
    assert [child.get() for child in failed.children] == [7]
    with pytest.raises(ValueError, match="on purpose"):
        failed.get_leaf()
    assert [value if isinstance(value, int) else str(value) for _, value in failed.collect(propagate=False)] == [
        "on purpose",
        7,
    ]


def test_a_group_and_what_follows_it_are_both_children():
    body = chord([chain(add.s(1, 1), add.s(1)), same.s(5)], chain(tsum.s(), add.s(100)))
    result = send.delay([body])
    header, begun, total = result.children
    assert isinstance(header, GroupResult)
    assert (header.get(), begun.get(), total.get()) == ([3, 5], 2, 8)
    assert all(each in result.graph for each in (result, header, begun, total))
    assert ids(result.graph[begun]) == [header[0].id], "the second step of the first member"
    assert sorted(map(str, values(result))) == ["1", "108", "2", "3", "5", "8", "[3, 5]"]


def test_nothing_is_kept_where_nothing_was_sent(kept: MemoryStore):
    result = add.delay(1, 1)
    assert kept.get([result.id])[result.id].children == ""
    assert (result.children, AsyncResult[Any]("nobody").children) == ([], [])


def test_calls_whose_results_are_ignored_are_left_out():
    result = send.delay([add.s(1, 1).set(ignore_result=True), group(add.s(2, 2).set(ignore_result=True), add.s(3, 3))])
    assert result.children == []


def test_what_is_kept_is_bounded():
    result = send_several.delay(CHILDREN + 10)
    assert len(result.children) == CHILDREN
    trail = Trail()
    trail.add(group(same.s(each) for each in range(CHILDREN + 10)).frozen().handle())
    trail.add(same.s(1).frozen().handle())
    [form] = trail.forms
    assert len(form[1]) == CHILDREN - 1
    long = chain(*(same.si(each) for each in range(300)))
    trail = Trail()
    trail.add(long.frozen().handle())
    assert len(trail.text()) < 60, "of a chain the first step alone, however long it is"


def test_what_has_not_ended_is_not_passed_over(queue: MemoryBroker, configure: Callable[..., None]):
    configure()
    waiting = add.delay(1, 1)
    with pytest.raises(IncompleteStream, match="has not ended"):
        list(waiting.iterdeps())
    with pytest.raises(IncompleteStream):
        waiting.build_graph()
    assert list(waiting.iterdeps(intermediate=True)) == [(None, waiting)]
    assert len(waiting.build_graph(intermediate=True)) == 1


def test_a_graph_shows_what_led_to_what():
    last = chain(add.s(1, 1), add.s(2)).apply_async()
    first = last.parent
    graph = first.graph
    assert list(graph) == [first, last]
    assert (graph.edges(), graph[first], graph.topsort()) == ([first], [last], [last, first])
    assert (graph.valency_of(first), graph.valency_of(last)) == (1, 0)
    assert (first in graph, "other" in graph) == (True, False)
    assert repr(graph) == f"{first.id}(1)\n    {last.id}(0)\n{last.id}(0)"
    file = StringIO()
    graph.to_dot(file)
    assert file.getvalue() == (
        f'digraph "{first.id}" {{\n    "{first.id}";\n    "{last.id}";\n    "{first.id}" -> "{last.id}";\n}}\n'
    )


def test_a_graph_has_no_loops():
    graph = DependencyGraph()
    graph.add_edge("a", 'b"\\')
    graph.add_edge("a", 'b"\\')
    assert '"b\\"\\\\"' in graph.to_dot()
    assert dict(graph.items()) == {"a": ['b"\\'], 'b"\\': []}
    graph.add_edge('b"\\', "a")
    with pytest.raises(ValueError, match="cycle"):
        graph.topsort()


@pytest.mark.django_db
def test_a_tree_is_read_a_parent_at_a_time(configure: Callable[..., None], django_assert_num_queries: Any):
    configure(BROKERS={"default": {"BACKEND": "immediate"}}, RESULTS={"default": {"BACKEND": "database"}})
    handle = send_several.delay(100)
    with django_assert_num_queries(2):
        assert len(list(handle.iterdeps())) == 101


@pytest.mark.parametrize("text", ["", "no", "{}", "[1, [2]]", '[[["", null], null]]', '[["a b", null]]', "[" * 100_000])
def test_whatever_a_store_says_of_children_is_read(kept: MemoryStore, text: str):
    kept.save([Result(id="7", state="SUCCESS", value=b"1", children=text)])
    assert AsyncResult[Any]("7").children == []
    assert isinstance(forms_from(text), list)


def test_celery_and_we_read_each_others_children():
    form = [[["child", None], None], [["group", ["before", None]], [[["member", None], None]]]]
    ours = Result(id="7", state="SUCCESS", value=b"1", children=json.dumps(form))
    meta = json.loads(dump_meta(ours))
    assert meta["children"] == form
    theirs = load_meta("7", json.dumps({"status": "SUCCESS", "result": 1, "children": form}).encode())
    for each in (theirs, load_meta("7", dump_meta(ours))):
        assert each is not None
        assert forms_from(each.children) == form
    assert load_meta("7", b'{"status": "SUCCESS", "children": 7}') is not None


def test_a_handle_does_not_say_what_its_task_sent():
    result = send.delay([add.s(1, 1)])
    again = result_from_tuple(json.loads(json.dumps(result.as_tuple())))
    assert (again, again.children) == (result, result.children)
    with pytest.raises(ValueError, match="no id"):
        result_from_tuple([["a b", None], None])


def test_a_callback_is_called_once_the_task_has_ended():
    heard: list[Any] = []
    done = add.delay(1, 1)
    assert done.then(heard.append) is done
    assert heard == [done]
    failed = fail.delay()
    failed.then(lambda handle: heard.append("callback"), lambda error: heard.append(str(error)))
    failed.then(heard.append)
    assert heard == [done, "on purpose", failed]


def test_a_callback_is_called_when_the_handle_has_waited(configure: Callable[..., None]):
    configure()
    heard: list[Any] = []
    waiting = nothing.delay().then(heard.append)
    assert heard == []
    results["default"].save([Result(id=waiting.id, state="SUCCESS", value=b"null")])
    assert waiting.ready()
    assert heard == []
    waiting.get(1)
    waiting.get(1)
    assert heard == [waiting]


def test_a_tree_is_walked_without_blocking_an_event_loop():
    last = chain(add.s(1, 1), add.s(2)).apply_async()

    async def walk() -> list[Any]:
        assert await last.parent.aget_leaf() == 4
        return [value async for _, value in last.parent.acollect()]

    assert asyncio.run(walk()) == [2, 4]
