"""Which modules is Python's standard library made of, and which words stand in them?"""

from __future__ import annotations

import re
import sysconfig
from collections import Counter
from pathlib import Path

FOLDER = Path(sysconfig.get_path("stdlib")).resolve()
# Packages that others installed.
_FOREIGN = {"site-packages", "dist-packages"}
_WORD = re.compile(rb"[a-z]{2,}")


def modules() -> list[str]:
    """Return the files of all modules, relative to the library's folder."""
    found = (path.relative_to(FOLDER) for path in FOLDER.rglob("*.py"))
    return sorted(str(path) for path in found if _FOREIGN.isdisjoint(path.parts))


def words(module: str) -> Counter[str]:
    """Count the words of one module; raises ValueError for a file that is not part of the library.

    Letters alone make a word, so that `get_or_create` is three. Bytes are read as they are: some of the library's own
    tests are in encodings of their own.
    """
    path = (FOLDER / module).resolve()
    if not path.is_relative_to(FOLDER) or path.suffix != ".py":
        raise ValueError(f"{module!r} is no module of the standard library.")
    return Counter({word.decode(): times for word, times in Counter(_WORD.findall(path.read_bytes().lower())).items()})
