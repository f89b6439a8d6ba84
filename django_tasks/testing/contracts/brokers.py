"""Does a broker keep its contract?

    class TestSQS(BrokerContract):
        @pytest.fixture
        def broker(self):
            broker = SQSBroker("default", {"LOCATION": "sqs://...", "OPTIONS": {}})
            yield broker
            broker.close()

The fixture gives an empty broker to each test. `BrokerHarness` tells what else may be said: how to let time pass
without waiting for it (`elapse`), how another process would have the broker (`peer`), and how long leases are.
"""

from __future__ import annotations

from django_tasks.testing.contracts.broker_leases import LeaseContract
from django_tasks.testing.contracts.broker_queues import QueueContract
from django_tasks.testing.contracts.broker_views import ViewContract


class BrokerContract(QueueContract, LeaseContract, ViewContract):
    """Everything that `Broker` promises; inherit from it under a name that starts with Test."""
