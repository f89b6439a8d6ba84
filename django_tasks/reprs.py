"""How is a value shown to people, in a log, a table or a message, without harm?

A value of a task may come from anywhere, and its `__repr__` may raise, be a gigabyte long, never end, or tell a
password. So none is called but those of plain builtin types: `writer` tells every other value from its parts. An
application's own repr is never seen, since Python offers no way to bound its time.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import lru_cache
from inspect import Parameter, Signature
from typing import Any

from django_tasks.redaction import looks_secret
from django_tasks.writer import NAME_LENGTH, key_name, told

__all__ = ["looks_secret", "redacted_call", "safe_repr", "storable_text"]

_FEW = 16
_SMALL = 1 << 64


def safe_repr(value: object, *, limit: int = 1024, depth: int = 3) -> str:
    """Return a printable text of at most `limit` characters for any value; never raises.

    Containers are opened `depth` levels deep. The work is bounded by the limit, not by the size of the value, and no
    code of the value's class runs.
    """
    return told(lambda writer: writer.value(value, depth), limit, redact=False)


def redacted_call(
    signature: Signature | None, args: tuple[Any, ...], kwargs: dict[str, Any], *, limit: int = 1024
) -> tuple[str, str]:
    """Return the texts of a call's positional and named arguments, with secrets left out.

    What looks secret is told by the name of the parameter, the key of a dict or the field of a dataclass, at any level.
    """
    if signature is None:
        hidden: Collection[int] = ()
    else:
        names = tuple(signature.parameters)
        hidden = _hidden_positions(signature, len(args)) if len(args) > len(names) or _any_secret(names) else ()
    shown = None if hidden else _quick(args, args, limit)
    if shown is None:
        closing = ",)" if len(args) == 1 else ")"
        shown = told(lambda writer: writer.items("(", args, closing, 3, hidden), limit, redact=True)
    if not kwargs:
        return shown, "{}"
    shown_kwargs = None if _any_secret(tuple(kwargs)) else _quick(kwargs, kwargs.values(), limit)
    if shown_kwargs is None:
        shown_kwargs = told(lambda writer: writer.value(kwargs, 3), limit, redact=True)
    return shown, shown_kwargs


_UNSTORABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


def storable_text(text: str, limit: int, *, tail: int = 0) -> str:
    """Return text of at most `limit` characters that every database takes and no terminal obeys.

    NUL, lone surrogates and control characters but tab and line ends become visible escapes. What is too long keeps its
    beginning and its last `tail` characters, with a mark between them that tells the whole length.
    """
    size = str.__len__(text)
    if size <= limit:
        whole = _escaped(str.__str__(text))
        if len(whole) <= limit:
            return whole
    mark = f"... [cut: {size:,} characters in all] ..."
    room = limit - len(mark)
    if room < tail:
        return _escaped(str.__getitem__(text, slice(limit)))[:limit]
    end = _escaped(str.__getitem__(text, slice(max(0, size - tail), size)))[-tail:] if tail else ""
    head = _escaped(str.__getitem__(text, slice(room - len(end))))[: room - len(end)]
    return f"{head}{mark}{end}"


def _escaped(text: str) -> str:
    return _UNSTORABLE.sub(_escape, text) if _UNSTORABLE.search(text) else text


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\u{code:04x}" if code > 0xFF else f"\\x{code:02x}"


@lru_cache(maxsize=4096)
def _any_secret(names: tuple[str, ...]) -> bool:
    return any(looks_secret(key_name(name)) for name in names)


def _hidden_positions(signature: Signature, count: int) -> set[int]:
    """Return which of a function's first `count` positional arguments go by the name of a secret."""
    names: list[str] = []
    for name, parameter in signature.parameters.items():
        if parameter.kind is Parameter.VAR_POSITIONAL:
            names += [name] * (count - len(names))
        elif parameter.kind in {Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD}:
            names.append(name)
    return {index for index, name in enumerate(names) if looks_secret(name)}


def _quick(container: object, values: Collection[Any], limit: int) -> str | None:
    """Return the repr of a few small plain values, as most calls have them; None for anything else."""
    if len(values) > _FEW:
        return None
    for value in values:
        kind = type(value)
        if kind is int:
            if not -_SMALL < value < _SMALL:
                return None
        elif kind is str:
            if len(value) > NAME_LENGTH:
                return None
        elif kind is not bool and kind is not float and value is not None:
            return None
    text = repr(container)
    return text if len(text) <= limit else None
