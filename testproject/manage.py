#!/usr/bin/env python
"""How is the site managed? `python testproject/manage.py` from anywhere, or `python -m testproject.manage`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from django.core.management import execute_from_command_line

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    # Started by its path, Python puts this folder first, where `shop` is a package of its own.
    sys.path[:] = [str(ROOT), *(entry for entry in sys.path if entry not in (str(ROOT), str(ROOT / "testproject")))]
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "testproject.settings")
    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
