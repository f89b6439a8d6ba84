"""Is it known what is this machine, and how far clocks may be apart?"""

from __future__ import annotations

import pytest

from django_tasks.diagnosis import clock_off, is_local

HERE = ["localhost", "LOCALHOST", "redis.localhost", "127.0.0.1", "127.1.2.3", "::1", "[::1]", "", "/run/redis.sock"]
ELSEWHERE = ["redis", "redis.example.com", "10.0.0.7", "192.168.1.2", "::", "0.0.0.0", "localhost.example.com", "*"]


@pytest.mark.parametrize("host", HERE)
def test_this_machine_is_known_by_its_names(host: str) -> None:
    assert is_local(host)


@pytest.mark.parametrize("host", ELSEWHERE)
def test_every_other_name_may_lead_through_a_network(host: str) -> None:
    assert not is_local(host)


@pytest.mark.parametrize(
    ("server", "before", "after", "way"),
    [
        pytest.param(1003.0, 1000.0, 1000.0, "3.0 s behind the server's", id="behind"),
        pytest.param(1000.0, 1003.0, 1003.0, "3.0 s ahead of the server's", id="ahead"),
        pytest.param(1002.0, 1000.0, 1000.0, None, id="just tolerated"),
        pytest.param(1004.0, 1000.0, 1004.0, None, id="a slow answer explains it"),
        pytest.param(1005.0, 1000.0, 1004.0, None, id="half the way deducted"),
        pytest.param(1006.5, 1000.0, 1004.0, "4.5 s behind the server's", id="more than the way explains"),
    ],
)
def test_a_clock_is_off_by_what_the_way_of_the_answer_does_not_explain(
    server: float, before: float, after: float, way: str | None
) -> None:
    found = clock_off("It", server, before, after)
    assert [message.id for message in found] == (["django_tasks.W154"] if way else [])
    assert all(way and way in message.msg for message in found)
