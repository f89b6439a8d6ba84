"""How is a call made into what travels, and what arrived into a call again?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from django_tasks import conf
from django_tasks.auth import certified, verified
from django_tasks.compression import COMPRESSIONS, compressed, expanded
from django_tasks.encryption import ENCRYPTED, conceal, conceal_value, reveal
from django_tasks.exceptions import ConfigurationError, DecodeError
from django_tasks.message import Message
from django_tasks.options import PLAIN
from django_tasks.serializers import (
    JSON,
    LIMITS,
    SERIALIZERS,
    Serializer,
    decode_body,
    dumps,
    encode_body,
    serializer,
)
from django_tasks.signing import verify

Call = tuple[tuple[Any, ...], dict[str, Any], dict[str, Any]]
"""Arguments, keyword arguments, and what follows."""

NOTHING: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True)
class Body:
    """A call as bytes, and what tells how to read them."""

    body: bytes
    content_type: str
    content_encoding: str
    compression: str | None

    def fields(self) -> dict[str, Any]:
        """Return the fields of a message."""
        return {
            "body": self.body,
            "content_type": self.content_type,
            "content_encoding": self.content_encoding,
            "compression": self.compression,
        }


def written(
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    name: str | None,
    compression: str | None,
    embed: Mapping[str, Any] = NOTHING,
) -> Body:
    """Return a call as bytes, by the serializer and the compression of these names, or else those of the settings;
    `embed` tells what follows it.

    Raises SerializationError, and ConfigurationError for what no worker with these settings would read.
    """
    settings = conf.get()
    form = sendable(name or settings.serializer)
    body, way = encode_body(args, kwargs, embed, form), compression or settings.compression
    if form.wraps:
        body = certified(body, JSON)
    if way is None or way == PLAIN:
        return Body(body, form.content_type, form.content_encoding, None)
    if COMPRESSIONS[way].missing:
        raise ConfigurationError(f"The compression {way!r} needs a library: {COMPRESSIONS[way].missing}")
    less, told = compressed(body, way)
    return Body(less, form.content_type, form.content_encoding, told)


def rewritten(
    before: Message, args: tuple[Any, ...], kwargs: dict[str, Any], embed: Mapping[str, Any] = NOTHING
) -> Message:
    """Return a message with other arguments, written, compressed and encrypted as it was."""
    inside = reveal(before)
    body = written(args, kwargs, serializer(inside.content_type).name, inside.compression or PLAIN, embed)
    after = replace(before, **body.fields())
    return after if inside is before else conceal(after)


def sendable(name: str) -> Serializer:
    """Return the serializer of that name; raises ConfigurationError when no worker would read what it writes."""
    form = SERIALIZERS[name]
    if not _accepted(form):
        raise ConfigurationError(
            f"The serializer {form.name!r} is not among DJANGO_TASKS['ACCEPT']: no worker with these settings would "
            "read what it writes. Add it there, on workers first."
        )
    return form


def _accepted(form: Serializer) -> bool:
    accept = conf.get().accept
    return form.name in accept or form.content_type in accept


def unsealed(message: Message) -> Call:
    """Return the call that a message carries; raises DecodeError.

    Not a byte of the body is decoded unless the settings accept its content type, and where that can run code, unless
    it was signed.
    """
    inside = reveal(message)
    form = _readable(inside.content_type, message)
    body = inside.body
    if inside.compression is not None:
        body = expanded(body, inside.compression, _SIGNED_LIMIT if form.wraps else LIMITS.bytes)
    if form.wraps:
        signed = verified(body)
        # What all write may stand inside, whether or not it may stand alone.
        form = JSON if signed.content_type == JSON.content_type else _readable(signed.content_type, message)
        body = signed.body
    return decode_body(body, form.content_type, verified=form.signed_only)


_SIGNED_LIMIT = 2 * LIMITS.bytes
"""Bytes of a signed body: the limit in base64, and room for the signature."""


def _readable(content_type: str, message: Message) -> Serializer:
    """Return the serializer of a content type, if a body of a message may be read by it; raises DecodeError."""
    form = serializer(content_type)
    if not _accepted(form):
        raise DecodeError(
            f"the content type {form.content_type!r} ({form.name}) is not among DJANGO_TASKS['ACCEPT'] of this worker"
        )
    if form.missing:
        raise DecodeError(f"the content type {form.content_type!r} needs a library: {form.missing}")
    if form.signed_only:
        # The worker has seen to that; here no other way leads to it either.
        verify(message)
    return form


def kept(value: Any, root: str, message: Message) -> bytes:
    """Return a value as it is kept, encrypted if the arguments of its call were; raises SerializationError."""
    encoded = dumps(value, root=root)
    return conceal_value(encoded, message.id) if message.content_type == ENCRYPTED else encoded
