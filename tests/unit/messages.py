"""Which messages do tests of their forms send? The least that there can be, and one that says everything."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

from django_tasks.message import Message

BARE = Message(id="id-1", task="shop.tasks.add", body=b"[[2, 2], {}, {}]")
FULL = Message(
    id="id-2",
    task="shop.tasks.bill",
    body=bytes(range(256)),
    queue="mail",
    priority=-7,
    content_type="application/x-msgpack",
    content_encoding="binary",
    compression="application/zstd",
    eta=datetime(2030, 2, 28, 23, 59, 59, 123456, tzinfo=timezone(timedelta(hours=5, minutes=45))),
    expires=datetime(2090, 1, 1, tzinfo=UTC),
    retries=2,
    attempts=5,
    time_limit=30.5,
    soft_time_limit=20,
    ignore_result=False,
    root_id="root",
    parent_id="parent",
    group_id="group",
    group_index=0,
    shadow="",
    args_repr="(1, 'zwei')",
    kwargs_repr="{'drei': 3}",
    origin="gen1@here",
    created_at=datetime(2029, 1, 1, 0, 0, 0, 1, tzinfo=UTC),
    headers={"tenant": "blue", "": None, "nested": {"list": [1, 2.5, True]}},
)
