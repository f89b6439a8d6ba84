"""Is what happens told to all who asked, whatever one of them does?"""

from __future__ import annotations

import pytest
from django.dispatch import Signal

from django_tasks.signals import announce


def test_a_signal_tells_its_sender_and_what_happened() -> None:
    signal, told = Signal(), []

    def receiver(signal, sender, **named):
        told.append((sender, named))

    signal.connect(receiver)
    announce(signal, "sender", ids=["1"])
    assert told == [("sender", {"ids": ["1"]})]


def test_a_receiver_that_raises_is_logged_and_stops_nobody_else(caplog: pytest.LogCaptureFixture) -> None:
    signal, told = Signal(), []

    def broken(**named):
        raise ValueError("no")

    def sound(**named):
        told.append(1)

    signal.connect(broken)
    signal.connect(sound)
    announce(signal, "sender")
    assert told == [1]
    [record] = [record for record in caplog.records if record.name == "django_tasks.signals"]
    assert record.getMessage() == "A signal receiver raised"
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ValueError)
    assert "broken" in record.__dict__["receiver"]


def test_a_signal_that_nobody_listens_to_costs_nothing() -> None:
    class Unused(Signal):
        def send_robust(self, sender, **named):
            raise AssertionError

    announce(Unused(), "sender")
