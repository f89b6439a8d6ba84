"""Does a process beside the worker hold its leases, and end with it?"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]

# In a process of its own, as in a worker: this one has threads, with which a fork is not safe.
HEAD = """
import json, os, signal, sys
from django_tasks.backends.memory import MemoryBroker
from django_tasks.exceptions import BrokerUnavailable
from django_tasks.message import Delivery, Message
from django_tasks.worker.keeper import Keeper

ears, mouth = os.pipe()
heard = os.fdopen(ears)

class Telling(MemoryBroker):
    def extend(self, deliveries, lease):
        told = [[delivery.message.id, delivery.receipt, lease, os.getpid()] for delivery in deliveries]
        os.write(mouth, (json.dumps(told[:5]) + "\\n").encode())
        return []

def lease(task_id, receipt):
    return Delivery(Message(id=task_id, task="t", body=b"x" * 1000), receipt)

def until(test):
    for line in heard:
        if test(told := json.loads(line)):
            return told

keeper = Keeper(Telling("default", {}), lease=30.0, interval=0.005)
keeper.start()
"""

TAIL = """
keeper.stop()
try:
    os.waitpid(-1, os.WNOHANG)
except ChildProcessError:
    print("ended")
"""


def run(code: str, *, code_of: int = 0) -> list[Any]:
    """Run a program and return what it prints, line by line; nobody may be left who holds its output open."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", HEAD + code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == code_of, done.stderr
    return done.stdout.splitlines()


def test_it_renews_what_it_was_told_of_from_a_process_of_its_own() -> None:
    found = run(
        """
keeper.tell([lease("1", (17, 4)), lease("2", 99)])
told = until(lambda told: told)
print(json.dumps([entry[:3] for entry in told]))
print(told[0][3] == keeper.pid != os.getpid())
"""
        + TAIL
    )
    assert json.loads(found[0]) == [["1", [17, 4], 30.0], ["2", 99, 30.0]]
    assert found[1:] == ["True", "ended"]


def test_what_it_was_told_before_is_forgotten() -> None:
    code = """
keeper.tell([lease("1", 1)])
until(lambda told: told)
keeper.tell([lease("2", 1)])
print(until(lambda told: told[0][0] == "2")[0][0])
keeper.tell([])
print(until(lambda told: not told))
"""
    assert run(code + TAIL) == ["2", "[]", "ended"]


def test_it_may_be_told_of_more_than_a_pipe_holds() -> None:
    code = """
keeper.tell([lease(f"task-{number}", number) for number in range(100_000)])
print(until(lambda told: told)[4][0])
"""
    assert run(code + TAIL) == ["task-4", "ended"]


def test_signals_that_are_meant_for_the_worker_do_not_end_it() -> None:
    code = """
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1):
    os.kill(keeper.pid, number)
keeper.tell([lease("1", 1)])
print(until(lambda told: told)[0][0])
"""
    assert run(code + TAIL) == ["1", "ended"]


def test_a_broker_that_does_not_answer_is_asked_again() -> None:
    code = """
Telling.answers = Telling.extend
def extend(self, deliveries, lease):
    self.asked = getattr(self, "asked", 0) + 1
    if self.asked < 3:
        raise BrokerUnavailable("no answer")
    return self.answers(deliveries, lease)
Telling.extend = extend
keeper.stop()
keeper.start()
keeper.tell([lease("1", 1)])
print(until(lambda told: told)[0][0])
"""
    assert run(code + TAIL) == ["1", "ended"]


def test_it_ends_with_a_worker_that_is_killed() -> None:
    assert run("print(keeper.pid, flush=True)\nos.kill(os.getpid(), signal.SIGKILL)", code_of=-9)


def test_a_worker_whose_keeper_died_goes_on() -> None:
    code = """
os.kill(keeper.pid, signal.SIGKILL)
os.waitid(os.P_PID, keeper.pid, os.WEXITED | os.WNOWAIT)
keeper.tell([lease("1", 1)])
"""
    assert run(code + TAIL) == ["ended"]


def test_one_that_never_started_may_be_stopped() -> None:
    assert run(TAIL + "Keeper(Telling('default', {}), lease=30, interval=5).stop()\nprint('well')") == ["ended", "well"]
