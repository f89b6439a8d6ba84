"""How are arguments and results kept from those who can read a broker or a store?

By the first of ENCRYPTION_KEYS; each of them opens. What is encrypted of a message is its body, after it was compressed
and before the message is signed, together with what tells how to read it. It is bound to the id and the task of its
message, and is no body of another one; a result is bound to its id. What is encrypted begins with a version and the
name of the key, of which a nonce and the text follow.
"""

from __future__ import annotations

import hmac
import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Protocol

from django.utils.module_loading import import_string

from django_tasks import conf
from django_tasks.encoding import TYPE, VALUE
from django_tasks.exceptions import ConfigurationError, DecryptionError
from django_tasks.keys import secret_of
from django_tasks.message import Message

ENCRYPTED = "application/x-django-tasks-encrypted"
"""The content type of a body that is encrypted; what is inside has one of its own."""
HIDDEN = "<encrypted>"
"""Stands where arguments and results were shown."""

_CIPHER = "django_tasks.cipher.Xaes"
_VERSION = b"\x01"
_NAME = 4
_TAG = 8
_KEPT = json.dumps({TYPE: "encrypted", VALUE: ""}).removesuffix('"}').encode()
"""Begins a value that is encrypted: JSON, which every store keeps, with a tag that no encoder of values writes."""


class Cipher(Protocol):
    """One way to encrypt, under one key."""

    def encrypt(self, text: bytes, bound: bytes) -> bytes: ...

    def decrypt(self, data: bytes, bound: bytes) -> bytes | None: ...


@dataclass(frozen=True, slots=True)
class Key:
    """One of ENCRYPTION_KEYS, made ready."""

    name: bytes
    cipher: Cipher
    seal: bytes
    """What digests are made with."""


def prepare() -> None:
    """Load what encrypts, if anything is to be."""
    _ring()


def conceal(message: Message) -> Message:
    """Return a message whose body nobody can read, and that shows nothing of its arguments.

    In their place stands a digest under the key and for this id, by which two calls with one id can be told apart.
    """
    key = _first()
    inside = json.dumps([message.content_type, message.content_encoding, message.compression]).encode()
    bound = _bound("body", message.id, message.task)
    digest = hmac.digest(key.seal, bound + message.body, "sha256").hex()[:_TAG]
    return replace(
        message,
        body=_closed(key, inside + b"\0" + message.body, bound),
        content_type=ENCRYPTED,
        content_encoding="binary",
        compression=None,
        args_repr=f"{HIDDEN[:-1]} {digest}>",
        kwargs_repr=HIDDEN,
    )


def reveal(message: Message) -> Message:
    """Return a message with the body that was encrypted, or as it is where none was; raises DecryptionError."""
    if message.content_type != ENCRYPTED:
        return message
    inside = _opened("body", message.body, _bound("body", message.id, message.task))
    told, _, body = inside.partition(b"\0")
    content_type, content_encoding, compression = json.loads(told)
    return replace(
        message,
        body=body,
        content_type=content_type,
        content_encoding=content_encoding,
        compression=compression,
    )


def conceal_value(value: bytes, task_id: str) -> bytes:
    """Return an encoded value that nobody can read: JSON again, as every store keeps it."""
    closed = _closed(_first(), value, _bound("result", task_id))
    return _KEPT + b64encode(closed) + b'"}'


def reveal_value(value: bytes, task_id: str) -> bytes:
    """Return the encoded value that was encrypted, or as it is where none was; raises DecryptionError."""
    if not is_concealed(value):
        return value
    try:
        data = b64decode(value[len(_KEPT) : -2], validate=True)
    except ValueError as error:
        raise DecryptionError(f"the result is no encrypted one: {error}") from error
    return _opened("result", data, _bound("result", task_id))


def is_concealed(value: bytes) -> bool:
    """Tell whether an encoded value is encrypted."""
    return value.startswith(_KEPT)


def _bound(*words: str) -> bytes:
    # JSON tells apart what mere joining would not.
    return json.dumps(words).encode()


def _closed(key: Key, text: bytes, bound: bytes) -> bytes:
    return _VERSION + key.name + key.cipher.encrypt(text, bound)


def _opened(what: str, data: bytes, bound: bytes) -> bytes:
    keys = _ring()
    if not keys:
        raise DecryptionError(f"the {what} is encrypted, and this process has no DJANGO_TASKS['ENCRYPTION_KEYS']")
    name, closed = data[1 : 1 + _NAME], data[1 + _NAME :]
    if data[:1] != _VERSION:
        raise DecryptionError(f"the {what} is encrypted in a way that is not known here")
    fitting = [key for key in keys if key.name == name]
    if not fitting:
        raise DecryptionError(
            f"the {what} is encrypted with a key that is not among DJANGO_TASKS['ENCRYPTION_KEYS'] of this process"
        )
    for key in fitting:
        if (text := key.cipher.decrypt(closed, bound)) is not None:
            return text
    raise DecryptionError(
        f"the encrypted {what} is not that of this task: it was changed on its way, or taken from another one"
    )


def _first() -> Key:
    for key in _ring():
        return key
    raise ConfigurationError("Nothing can be encrypted without a key in DJANGO_TASKS['ENCRYPTION_KEYS'].")


def _ring() -> Sequence[Key]:
    return _ready(tuple(conf.get().encryption_keys))


@lru_cache(maxsize=8)
def _ready(texts: tuple[str, ...]) -> Sequence[Key]:
    cipher: Callable[[bytes], Any] = import_string(_CIPHER) if texts else _no_cipher
    keys = []
    for text in texts:
        secret = secret_of(text)
        # A key for each use, so that none of them says anything of another.
        name, sealing, body = (
            hmac.digest(secret, f"django_tasks.encryption.{use}".encode(), "sha256") for use in ("name", "seal", "body")
        )
        keys.append(Key(name[:_NAME], cipher(body), sealing))
    return keys


def _no_cipher(key: bytes) -> Any:
    raise AssertionError("there is no key")
