"""What does a developer run? `python -m tools.suite`, `.servers`, `.environment`; standard library only."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - the one line that an older Python reaches
    sys.exit(
        f"Python 3.11 or newer is needed; {sys.executable} is {sys.version.split()[0]}.\n"
        "Say which one to use: make PYTHON=/path/to/python3 ..."
    )
