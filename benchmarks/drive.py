"""What does a system do when it is asked? `python -m benchmarks.drive FUNCTION [ARGUMENTS]`, in its environment.

Calls a function of its module, or one at a dotted path, and prints `{"seconds": ..., "value": ...}` as the last line.
"""

from __future__ import annotations

import json
import os
import sys
import time
from importlib import import_module

import django
from django.db import connection


def main(function: str, *values: str) -> None:
    django.setup()
    module, _, name = function.rpartition(".")
    called = getattr(import_module(module or os.environ["BENCHMARKS_SYSTEM"]), name)
    arguments = [json.loads(value) for value in values]
    connection.ensure_connection()
    began = time.perf_counter()
    value = called(*arguments)
    print(json.dumps({"seconds": time.perf_counter() - began, "value": value}))


if __name__ == "__main__":
    main(*sys.argv[1:])
