"""Under which name is a stamp revoked?

Beside the ids of tasks, in the same table. An id has no white space in it and these names have, so none is taken for
the other.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from hashlib import sha256
from itertools import islice
from typing import Any

from django_tasks.message import ID_LENGTH, STAMPS, Message


def names_of(message: Message) -> list[str]:
    """Return all that a message's task may be revoked under: its id, and its stamps."""
    if not message.headers:
        return [message.id]
    # Anybody may have written it: one that carries more than can be sent is not looked up at any length.
    found = (_name(stamp, value) for stamp, value in islice(_pairs(message.stamps), STAMPS))
    return [message.id, *(name for name in found if name is not None)]


def stamp_names(headers: Mapping[str, Any]) -> list[str]:
    """Return the names of stamps, each given with a value or a list of values; raises TypeError for what is none."""
    if not isinstance(headers, Mapping):
        raise TypeError(f"Stamps are given as a dictionary, a value or a list of values each, not as {headers!r:.80}.")
    names: dict[str, None] = {}
    for stamp, value in _pairs(headers):
        name = _name(stamp, value) if isinstance(stamp, str) else None
        if name is None:
            raise TypeError(f"{stamp!r:.80}: {value!r:.80} is no stamp: give a text, and a value that JSON can hold.")
        names[name] = None
    return list(names)


def _pairs(headers: Mapping[str, Any]) -> Iterator[tuple[Any, Any]]:
    """Give each name with each of its values."""
    for stamp, value in headers.items():
        if isinstance(value, list | tuple | set | frozenset):
            yield from ((stamp, each) for each in value)
        else:
            yield stamp, value


def _name(stamp: Any, value: Any) -> str | None:
    """Return the name of a stamp with one value, in printable ASCII; None for a value that JSON cannot hold."""
    try:
        text = json.dumps({stamp: value}, sort_keys=True)
    except (TypeError, ValueError, RecursionError):
        return None
    name = f"stamp {text}"
    return name if len(name) <= ID_LENGTH else f"stamp sha256 {sha256(text.encode()).hexdigest()}"
