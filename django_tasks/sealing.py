"""How is a call made into what travels, and what arrived into a call again?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django_tasks import conf
from django_tasks.compression import COMPRESSIONS, compressed, expanded
from django_tasks.exceptions import ConfigurationError, DecodeError
from django_tasks.message import Message
from django_tasks.options import PLAIN
from django_tasks.serializers import SERIALIZERS, Serializer, decode_body, encode_body, serializer
from django_tasks.signing import verify

Call = tuple[tuple[Any, ...], dict[str, Any], dict[str, Any]]
"""Arguments, keyword arguments, and what follows."""


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


def written(args: tuple[Any, ...], kwargs: dict[str, Any], name: str | None, compression: str | None) -> Body:
    """Return a call as bytes, by the serializer and the compression of these names, or else those of the settings.

    Raises SerializationError, and ConfigurationError for what no worker with these settings would read.
    """
    settings = conf.get()
    form = _sendable(name or settings.serializer)
    body, way = encode_body(args, kwargs, {}, form), compression or settings.compression
    if way is None or way == PLAIN:
        return Body(body, form.content_type, form.content_encoding, None)
    if COMPRESSIONS[way].missing:
        raise ConfigurationError(f"The compression {way!r} needs a library: {COMPRESSIONS[way].missing}")
    less, told = compressed(body, way)
    return Body(less, form.content_type, form.content_encoding, told)


def _sendable(name: str) -> Serializer:
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
    form = serializer(message.content_type)
    if not _accepted(form):
        raise DecodeError(
            f"the content type {form.content_type!r} ({form.name}) is not among DJANGO_TASKS['ACCEPT'] of this worker"
        )
    if form.missing:
        raise DecodeError(f"the content type {form.content_type!r} needs a library: {form.missing}")
    if form.signed_only:
        # The worker has seen to that; here no other way leads to it either.
        verify(message)
    body = message.body if message.compression is None else expanded(message.body, message.compression)
    return decode_body(body, form.content_type, verified=form.signed_only)
