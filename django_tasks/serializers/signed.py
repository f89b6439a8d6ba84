"""How does a body look that was signed with an X.509 certificate? As Celery's serializer `auth` writes it.

In base64, with a separator between them: who signed, the signature, the content type and encoding of what is inside,
and that itself, as bytes. The signature is over these last bytes alone. `auth` makes and verifies it.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from django_tasks.encoding import LIMITS, Limits
from django_tasks.exceptions import DecodeError
from django_tasks.serializers.form import Serializer, missing
from django_tasks.serializers.json_text import JSON

_SEPARATOR = b"\x00\x01"


@dataclass(frozen=True, slots=True)
class Signed:
    """A body, and who vouches for it."""

    signer: str
    signature: bytes
    content_type: str
    content_encoding: str
    body: bytes


def pack(signed: Signed) -> bytes:
    """Return a signed body as it travels."""
    fields = (
        b64encode(signed.signer.encode()),
        b64encode(signed.signature),
        signed.content_type.encode(),
        signed.content_encoding.encode(),
        signed.body,
    )
    return b64encode(_SEPARATOR.join(fields))


def unpack(data: bytes) -> Signed:
    """Return the signed body that travelled so; raises DecodeError for anything else. Nothing of it is verified."""
    try:
        signer, signature, content_type, content_encoding, body = b64decode(data, validate=True).split(_SEPARATOR, 4)
        return Signed(
            b64decode(signer, validate=True).decode(),
            b64decode(signature, validate=True),
            content_type.decode("ascii"),
            content_encoding.decode("ascii"),
            body,
        )
    except ValueError as error:
        raise DecodeError(f"not a body that was signed as Celery's `auth` does: {error}") from error


def _loads(data: bytes, limits: Limits = LIMITS) -> Any:
    raise DecodeError("what is signed is opened after its signature was verified, and not before")


AUTH = Serializer(
    "auth",
    "application/data",
    "utf-8",
    JSON.dumps,
    _loads,
    missing(find_spec("cryptography"), "auth"),
    wraps=True,
)
