"""What does a system under test say of itself? The `script` block at the top of its file, as PEP 723 has it.

Its table `tool.benchmarks`:
    name         for the tables
    places       those it can keep its queue in: see `place.py`
    program      the module that Python runs for a worker, "django" unless given
    worker       its arguments, a management command first where it is Django; `processes` of such workers give two
                 processes that run tasks
    bulk         whether it can enqueue many at once
    tasks        how many tasks to measure with: enough for some seconds
    unfinished   SQL that counts the tasks that are not done, where the queue is in a database
    answers      whether it can measure round trips
    settings     Django settings, beside the database; `{broker}` stands for the URL of the server
    PLACE        a table of more settings for one of the places
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_BEGIN, _END, _PREFIX = "# /// script", "# ///", "# "


@dataclass(frozen=True, slots=True)
class Header:
    """A system under test, as its file describes it."""

    module: str
    name: str
    requires_python: tuple[int, ...]
    dependencies: tuple[str, ...]
    places: tuple[str, ...]
    program: str
    worker: tuple[str, ...]
    processes: int
    bulk: bool
    tasks: int
    unfinished: str
    answers: bool
    settings: Mapping[str, Any]
    settings_of: Mapping[str, Mapping[str, Any]]
    """More settings, by place."""


def read(module: str) -> Header:
    """Read the header of a module, such as `benchmarks.peers.django_q2`, without importing it."""
    path = Path(__file__).resolve().parent.parent.joinpath(*module.split(".")).with_suffix(".py")
    lines = path.read_text().splitlines()
    begin = lines.index(_BEGIN) + 1
    block = lines[begin : lines.index(_END, begin)]
    script = tomllib.loads("\n".join(line.removeprefix(_PREFIX).removeprefix("#") for line in block))
    said = script["tool"]["benchmarks"]
    return Header(
        module=module,
        name=said["name"],
        requires_python=tuple(map(int, script["requires-python"].removeprefix(">=").split("."))),
        dependencies=tuple(script["dependencies"]),
        places=tuple(said["places"]),
        program=said.get("program", "django"),
        worker=tuple(said["worker"]),
        processes=said["processes"],
        bulk=said["bulk"],
        tasks=said["tasks"],
        unfinished=said.get("unfinished", ""),
        answers=said.get("answers", False),
        settings=said["settings"],
        settings_of={place: said[place] for place in said["places"] if place in said},
    )
