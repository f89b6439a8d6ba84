"""Does a plug-in keep its contract? Test classes to inherit from, for brokers, result stores, pools and schedules.

    from django_tasks.testing.contracts.brokers import BrokerContract

    class TestSQS(BrokerContract):
        @pytest.fixture
        def broker(self):
            ...

A claim that a plug-in's `features` make is proven; one that they do not make is skipped, and the skip says which.
"""

from __future__ import annotations

import pytest

# So that a failing assert in the suites shows its values, as one in the user's own tests does.
pytest.register_assert_rewrite(
    *(
        f"{__name__}.{module}"
        for module in (
            "broker_leases",
            "broker_queues",
            "broker_views",
            "harness",
            "pool_crashes",
            "pool_limits",
            "pool_runs",
            "schedules",
            "stage",
            "stores",
        )
    )
)
