"""Which process ticks while it is traced? A child of this one: `python -m tests.acceptance.ticker ALIAS`.

For each line of its input, seconds after noon, it makes a child that has a connection and says its number; a line more
lets that child tick. Then it says how the child ended: its exit code, or minus the signal.
"""

from __future__ import annotations

import os
import sys

import django
from django.db import connections
from django.utils.module_loading import import_string


def main() -> None:
    django.setup()
    # It imports models, which cannot be before Django's apps are ready.
    look = import_string("tests.periodic.look")
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            with connections["default"].cursor() as cursor:
                cursor.execute("SELECT 1")
            os.write(1, f"{os.getpid()}\n".encode())
            os.read(0, 3)
            look("default", float(line))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        os.write(1, f"{os.waitstatus_to_exitcode(status)}\n".encode())


if __name__ == "__main__":
    main()
