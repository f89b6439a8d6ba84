"""Does the log say what happened, in one line each, and to whom the project wants it said?"""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from django_tasks import logs, signals, states
from django_tasks.connections import brokers, results
from django_tasks.failure import capture
from django_tasks.losses import Loss
from django_tasks.message import Delivery, Message
from django_tasks.plan import Outcome, Requeue
from django_tasks.pools.base import PoolOptions
from django_tasks.pools.solo import SoloPool
from django_tasks.worker.bell import Bell
from django_tasks.worker.worker import Worker, WorkerOptions
from tests.calls import declare, deliver

pytestmark = pytest.mark.usefixtures("configure")


class Lines(logging.Handler):
    """Keeps each record as the line that it becomes."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self.formatter = logs.LineFormatter()

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    @property
    def words(self) -> list[str]:
        return [record.getMessage() for record in self.records]

    @property
    def levels(self) -> list[str]:
        return [record.levelname for record in self.records]


@pytest.fixture
def lines(own_log: logging.Logger) -> Lines:
    found = Lines()
    own_log.addHandler(found)
    own_log.setLevel("DEBUG")
    return found


@pytest.fixture
def connected() -> Iterator[None]:
    """Listen to the signals, as a worker does."""
    logs.connect()
    yield
    heard = ("received", "settled", "lease_lost", "messages_lost", "worker_ready", "worker_stopping", "worker_stopped")
    for signal in heard:
        assert getattr(signals, signal).disconnect(dispatch_uid="django_tasks.logs")


MESSAGE = Message(id="7", task="shop.pay", body=b"", attempts=1, root_id="1")
DELIVERY = Delivery(MESSAGE, "r", deliveries=2)


def settle(*outcomes: Outcome, delivery: Delivery = DELIVERY) -> None:
    logs.log_settled(done=[(delivery, outcome) for outcome in outcomes])


# What happened to tasks


def test_each_task_is_told_when_it_comes_and_when_it_ends(lines: Lines, connected: None) -> None:
    signals.announce(signals.received, None, deliveries=[DELIVERY])
    outcome = Outcome(states.SUCCESS, value=b'{"x":5}', started=1.0, ended=1.5)
    signals.announce(signals.settled, None, done=[(DELIVERY, outcome)])
    assert lines.words == ["Task shop.pay[7] received", "Task shop.pay[7] succeeded in 0.500000s: {'x': 5}"]
    assert lines.levels == ["INFO", "INFO"]
    assert {record.name for record in lines.records} == {"django_tasks.task"}


def test_what_a_server_has_lost_is_told_as_an_error(lines: Lines, connected: None) -> None:
    since, until = datetime(2031, 5, 4, 10, tzinfo=UTC), datetime(2031, 5, 4, 11, 30, tzinfo=UTC)
    losses = [Loss("fast", "q:mark in Redis", None, until), Loss("fast", "q:mark in Redis", since, until)]
    signals.announce(signals.messages_lost, None, losses=losses)
    assert lines.levels == ["ERROR", "ERROR"]
    assert lines.words == list(map(str, losses))
    all_gone, some_gone = lines.words
    assert "has lost messages: what was sent before 2031-05-04 11:30:00 UTC and had not ended is gone" in all_gone
    assert "it is as it was at 2031-05-04 10:00:00 UTC" in some_gone
    assert {record.name for record in lines.records} == {"django_tasks.broker"}
    assert vars(lines.records[1])["since"] == since


def test_connecting_twice_says_nothing_twice(lines: Lines, connected: None) -> None:
    logs.connect()
    signals.announce(signals.received, None, deliveries=[DELIVERY])
    assert len(lines.records) == 1


def test_the_data_of_a_task_come_with_its_record(lines: Lines) -> None:
    settle(Outcome(states.SUCCESS, started=1.0, ended=1.5))
    found = vars(lines.records[0])
    told = ("task", "task_id", "attempt", "root_id", "state", "runtime")
    assert [found[name] for name in told] == ["shop.pay", "7", 3, "1", "SUCCESS", 0.5]


@pytest.mark.parametrize(
    ("outcome", "level", "words"),
    [
        (Outcome(states.RETRY, failure=capture(OSError("down"))), "INFO", "is to be retried: OSError: down"),
        (
            Outcome(states.RETRY, failure=capture(OSError("signal 9")), requeue=Requeue(spent=True)),
            "WARNING",
            "was lost and goes back to its queue: OSError: signal 9",
        ),
        (Outcome(states.PENDING, requeue=Requeue()), "INFO", "goes back to its queue"),
        (Outcome(states.REVOKED, failure=capture(ValueError("by hand"))), "INFO", "revoked: ValueError: by hand"),
        (Outcome(states.REJECTED, failure=capture(ValueError("no"))), "INFO", "rejected: ValueError: no"),
        (Outcome(states.IGNORED), "INFO", "ignored: "),
    ],
)
def test_each_end_has_its_words_and_its_level(lines: Lines, outcome: Outcome, level: str, words: str) -> None:
    settle(outcome)
    assert (lines.words, lines.levels) == ([f"Task shop.pay[7] {words}"], [level])


def test_a_failure_is_an_error_with_its_traceback(lines: Lines) -> None:
    settle(Outcome(states.FAILURE, failure=capture(ValueError("x")), started=1.0, ended=3.0))
    assert lines.levels == ["ERROR"]
    assert lines.words[0].startswith("Task shop.pay[7] failed in 2.000000s: ValueError: x\n")
    assert lines.words[0].rstrip().endswith("ValueError: x")


class Refused(LookupError):
    pass


@pytest.mark.parametrize("error", [KeyError("x"), Refused("x")])
def test_an_error_that_is_expected_or_a_kind_of_one_is_no_error_and_has_no_traceback(
    lines: Lines, error: Exception
) -> None:
    known = declare(lambda: None, throws=(LookupError,))
    settle(Outcome(states.FAILURE, failure=capture(error)), delivery=deliver(known))
    assert lines.levels == ["INFO"]
    assert "\n" not in lines.words[0]


def test_an_expected_class_that_was_made_in_a_function_counts_too(lines: Lines) -> None:
    class Local(Exception):
        pass

    known = declare(lambda: None, throws=Local)
    settle(Outcome(states.FAILURE, failure=capture(Local("x"))), delivery=deliver(known))
    assert lines.levels == ["INFO"]


def test_other_errors_of_such_a_task_are_errors(lines: Lines) -> None:
    known = declare(lambda: None, throws=(LookupError,))
    settle(Outcome(states.FAILURE, failure=capture(ValueError("x"))), delivery=deliver(known))
    assert lines.levels == ["ERROR"]


def test_an_attempt_that_goes_on_is_not_told(lines: Lines) -> None:
    settle(Outcome(states.STARTED), Outcome("PROGRESS", value=b"1"))
    assert lines.records == []


def test_a_run_whose_lease_was_lost_counts_for_nothing(lines: Lines, connected: None) -> None:
    signals.announce(signals.lease_lost, None, deliveries=[DELIVERY])
    assert lines.levels == ["ERROR"]
    assert lines.words == ["Task shop.pay[7] is no longer held by this worker; its run is ended and counts for nothing"]


def test_a_shadow_stands_in_place_of_the_name(lines: Lines) -> None:
    settle(Outcome(states.SUCCESS), delivery=Delivery(Message(id="7", task="t", body=b"", shadow="pay order"), "r"))
    assert lines.words[0].startswith("Task pay order[7] succeeded")


def test_a_long_result_is_cut(lines: Lines) -> None:
    settle(Outcome(states.SUCCESS, value=b"5" * 10_000))
    assert len(lines.words[0]) < 300


def test_what_is_not_logged_is_not_put_together(lines: Lines, own_log: logging.Logger) -> None:
    own_log.setLevel("ERROR")
    logs.log_received(deliveries=[DELIVERY])
    settle(Outcome(states.SUCCESS))
    assert lines.records == []


@pytest.mark.parametrize(
    "text", ["x\n[2030-01-01: INFO/Main] Task bank.pay[8] succeeded", "x\r\ny", "x\u2028y", "\x1b[2J"]
)
def test_nothing_that_a_task_says_looks_like_another_record(lines: Lines, text: str) -> None:
    failure = capture(ValueError(text))
    shadowed = Delivery(Message(id="7", task="t", body=b"", shadow=text), "r")
    settle(Outcome(states.RETRY, failure=failure), Outcome(states.REVOKED, failure=failure), delivery=shadowed)
    logging.getLogger("django_tasks.worker").warning("It is gone", extra={"error": text})
    for record in lines.records:
        line = lines.format(record)
        assert len(line.splitlines()) == 1
        assert "\x1b" not in line
    assert len(lines.records) == 3


# What happens to the worker


def test_the_worker_tells_when_it_is_ready_stops_and_has_stopped(lines: Lines, connected: None) -> None:
    bell = Bell()
    pool = SoloPool(PoolOptions(), bell.ring)
    worker = Worker(brokers["default"], results["default"], pool, bell, WorkerOptions("w1", ["default"]))
    worker.holdings.add([DELIVERY, Delivery(Message(id="8", task="t", body=b""), "r")], 0.0)
    worker.processed, worker.failed = 9, 1
    signals.announce(signals.worker_ready, worker)
    signals.announce(signals.worker_stopping, worker, how="warm")
    signals.announce(signals.worker_stopped, worker)
    assert lines.words == ["w1 ready", "w1 stopping (warm): 2 tasks to end", "w1 stopped: 9 tasks done, 1 failed"]
    bell.close()
    assert {record.name for record in lines.records} == {"django_tasks.worker"}


# How a record looks


def record(raised: BaseException | None = None, **extra: Any) -> logging.LogRecord:
    info = (type(raised), raised, None) if raised else None
    found = logging.LogRecord("django_tasks.worker", logging.INFO, "", 0, "It is %s", ("so",), info)
    vars(found).update(extra)
    return found


def test_a_line_has_its_time_level_process_words_and_data() -> None:
    line = logs.LineFormatter().format(record(error="down", wait=1.5, task_id="7", state="SUCCESS"))
    stamp, _, rest = line.partition(": ")
    assert rest == "INFO/MainProcess] It is so (error=down, wait=1.5)"
    assert len(stamp) == len("[2030-01-01 00:00:00.000")


def test_a_line_without_data_has_no_brackets() -> None:
    assert logs.LineFormatter().format(record()).endswith("] It is so")


def test_a_json_record_is_one_line_with_all_there_is() -> None:
    text = logs.JsonFormatter().format(record(ValueError("x\ny"), task_id="7", odd=set))
    assert "\n" not in text
    found = json.loads(text)
    assert (found["level"], found["logger"], found["message"]) == ("INFO", "django_tasks.worker", "It is so")
    assert (found["task_id"], found["odd"]) == ("7", "<class 'set'>")
    assert "ValueError: x" in found["traceback"]
    assert found["time"][10] == "T"


# Where it goes


def test_without_a_configuration_of_the_project_records_go_to_standard_error(
    own_log: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure("warning")
    logging.getLogger("django_tasks.worker").info("quiet")
    logging.getLogger("django_tasks.worker").warning("loud")
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n"), said.err.rstrip()[-4:]) == ("", 1, "loud")
    assert own_log.propagate is False


def test_records_may_go_to_a_file_as_json(own_log: logging.Logger, tmp_path: Path) -> None:
    logs.configure("info", as_json=True, logfile=str(tmp_path / "log"))
    logging.getLogger("django_tasks.task").info("said")
    assert json.loads((tmp_path / "log").read_text())["message"] == "said"


def test_what_the_project_configured_stays_but_for_the_level(own_log: logging.Logger) -> None:
    stream = io.StringIO()
    own = logging.StreamHandler(stream)
    own_log.addHandler(own)
    logs.configure("error", as_json=True)
    assert own_log.handlers == [own]
    assert (own_log.level, own.formatter) == (logging.ERROR, None)
