"""Which keys and certificates can the settings name, and which of them belong together?"""

from __future__ import annotations

import os
from base64 import b64decode
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any

from django_tasks.serializers.signed import AUTH

Path = str | os.PathLike[str]

BYTES = 32
MADE = 'Make one: python -c "import base64, os; print(base64.urlsafe_b64encode(os.urandom(32)).decode())"'
"""How a key is made."""

_LIBRARY = "cryptography"


def path(value: Any) -> str:
    """Return what should have named a file, or an empty string when it does."""
    return "" if value is None or (isinstance(value, str | os.PathLike) and os.fspath(value)) else "a path, or None"


def password(value: Any) -> str:
    """Return what should have been a password, or an empty string when it is one."""
    return "" if value is None or isinstance(value, str | bytes) else "text, bytes or None"


def encryption_keys(value: Any) -> str:
    """Return what should have been a list of keys, or an empty string when it is one."""
    fine = isinstance(value, list | tuple) and all(map(_is_encryption_key, value))
    return "" if fine else f"a list of keys, each {BYTES} random bytes in URL-safe base64"


def _is_encryption_key(value: Any) -> bool:
    try:
        return isinstance(value, str) and len(secret_of(value)) == BYTES
    except ValueError:
        return False


def secret_of(key: str) -> bytes:
    """Return the bytes that a key of ENCRYPTION_KEYS stands for; raises ValueError."""
    return b64decode(key, altchars=b"-_", validate=True)


def unfit(given: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Give what can be neither encrypted nor signed as the settings have it, and what to do."""
    if given.get("ENCRYPT") is True and not given.get("ENCRYPTION_KEYS"):
        yield "['ENCRYPT'] is True, and there is no key in ['ENCRYPTION_KEYS'].", MADE
    if given.get("ENCRYPTION_KEYS") and find_spec(_LIBRARY) is None:
        yield (
            "['ENCRYPTION_KEYS'] needs a library that is not installed.",
            "pip install 'django-tasks-queue[encryption]'",
        )
    accept = given.get("ACCEPT", ())
    named = [*accept] if isinstance(accept, list | tuple | set | frozenset) else []
    if (AUTH.name in named or AUTH.content_type in named) and not given.get("SECURITY_CERT_STORE"):
        yield (
            "['ACCEPT'] names 'auth', and there is no ['SECURITY_CERT_STORE'].",
            "Name the folder with the certificates of those who may send.",
        )
    if given.get("SERIALIZER") == AUTH.name and not (given.get("SECURITY_KEY") and given.get("SECURITY_CERTIFICATE")):
        yield (
            "['SERIALIZER'] is 'auth', which needs ['SECURITY_KEY'] and ['SECURITY_CERTIFICATE'].",
            "Name the files of this site's private key and of its certificate.",
        )
