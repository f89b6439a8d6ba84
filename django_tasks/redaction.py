"""Which values should nobody see, by the names that they go by?"""

from __future__ import annotations

import re
from functools import lru_cache

HIDDEN = "'********'"
"""Stands where a secret was."""

_CACHED_LENGTH = 200

_SECRET = re.compile(
    r"""
    password | passwd | passphrase | passcode | credential | signature | cookie | secret(?!ar)
    | authoriz | authoris | authenticat
    | (?: api | access | auth | encryption | private | secret | session | signing | ssh ) key
    | session_?id
    | (?: token | csrf | jwt )s? (?![a-z])
    | (?<![a-z]) (?: o?auth | api | bearer | cvc | cvv | key | otp | pass | pwd )s? (?![a-z])
    """,
    re.VERBOSE,
)
_WORD_STARTS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def looks_secret(name: str) -> bool:
    """Tell whether what goes by this name should not be shown: `api_key`, `userPassword`, but not `monkey`."""
    return _looks_secret(name) if len(name) <= _CACHED_LENGTH else _SECRET.search(name.lower()) is not None


@lru_cache(maxsize=4096)
def _looks_secret(name: str) -> bool:
    return _SECRET.search(_WORD_STARTS.sub("_", name).lower()) is not None
