"""How does a value become bytes, and bytes a value again?

Several ways, of which JSON is the one that results and all else are kept in. Whatever the way, the same types come
back: what a format cannot say itself is tagged, and `encoding` tells how. Pickle alone brings back what it was given.
`auth` writes JSON, and a signature around it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django_tasks.encoding import LIMITS, Limits
from django_tasks.exceptions import DecodeError, SerializationError
from django_tasks.serializers.form import Serializer
from django_tasks.serializers.json_text import JSON, dumps, loads
from django_tasks.serializers.msgpack_bytes import MSGPACK
from django_tasks.serializers.pickled import PICKLE
from django_tasks.serializers.signed import AUTH
from django_tasks.serializers.yaml_text import YAML

__all__ = [
    "JSON",
    "LIMITS",
    "SERIALIZERS",
    "Limits",
    "Serializer",
    "decode_body",
    "dumps",
    "encode_body",
    "loads",
    "serializer",
]

SERIALIZERS = {key: each for each in (JSON, MSGPACK, YAML, PICKLE, AUTH) for key in (each.name, each.content_type)}
"""By name and by content type. Adding one is one more entry here."""


def serializer(name: str) -> Serializer:
    """Return the serializer of that name or content type; DecodeError when there is none."""
    try:
        return SERIALIZERS[name]
    except KeyError:
        known = ", ".join(f"{each.name} ({each.content_type})" for each in dict.fromkeys(SERIALIZERS.values()))
        raise DecodeError(f"the content type {name[:200]!r} is not read here; known: {known}") from None


def encode_body(
    args: tuple[Any, ...], kwargs: Mapping[str, Any], embed: Mapping[str, Any], form: Serializer = JSON
) -> bytes:
    """Return the body of a message in Celery's layout, `[args, kwargs, embed]`.

    Raises SerializationError, whose path begins with `args[0]` or `kwargs['name']`.
    """
    try:
        return form.dumps([[*args], kwargs, embed], root="body")
    except SerializationError as error:
        for place, part in _BODY_PARTS.items():
            if error.path.startswith(place):
                raise SerializationError(part + error.path.removeprefix(place), error.reason) from error.__cause__
        raise


_BODY_PARTS = {"body[0]": "args", "body[1]": "kwargs", "body[2]": "embed"}


def decode_body(
    data: bytes, content_type: str = JSON.content_type, *, verified: bool = False
) -> tuple[tuple[Any, ...], dict[str, Any], dict[str, Any]]:
    """Return (args, kwargs, embed) from the body of a message; DecodeError when it is anything else.

    `verified` tells that its signature holds, without which some are not opened.
    """
    form = serializer(content_type)
    if form.signed_only and not verified:
        raise DecodeError(f"the content type {form.content_type!r} ({form.name}) is only read with a signature")
    body = form.loads(data)
    if type(body) is not list or len(body) != 3:
        raise DecodeError("the body is not [args, kwargs, embed], as Celery's message protocol 2 has it")
    args, kwargs, embed = body
    if type(args) is not list:
        raise DecodeError(f"the body's args are not a list but {type(args).__name__}")
    if type(kwargs) is not dict or not all(type(key) is str for key in kwargs):
        raise DecodeError(f"the body's kwargs are not an object with text for keys but {type(kwargs).__name__}")
    if type(embed) is not dict and embed is not None:
        raise DecodeError(f"the body's third part is not an object but {type(embed).__name__}")
    return tuple(args), kwargs, embed or {}
