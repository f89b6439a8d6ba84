"""Whose certificate vouches for a body? The settings say which key signs, and which certificates are trusted."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from functools import lru_cache
from typing import Protocol

from django.utils.module_loading import import_string

from django_tasks import conf
from django_tasks.exceptions import ConfigurationError, DecodeError
from django_tasks.message import Clock
from django_tasks.serializers import Serializer
from django_tasks.serializers.signed import Signed, pack, unpack

_SIGNER = "django_tasks.certificates.Signer"
_STORE = "django_tasks.certificates.CertificateStore"


class Signer(Protocol):
    name: str
    ends: datetime

    def sign(self, body: bytes) -> bytes: ...


class Store(Protocol):
    def ends(self) -> Iterator[tuple[str, datetime]]: ...

    def verify(self, signer: str, signature: bytes, body: bytes, clock: Clock) -> None: ...


def certified(body: bytes, inside: Serializer) -> bytes:
    """Return a body signed with the site's key; raises ConfigurationError without one."""
    found = signer()
    return pack(Signed(found.name, found.sign(body), inside.content_type, inside.content_encoding, body))


def verified(data: bytes, clock: Clock = time.time) -> Signed:
    """Return what was signed; raises SignatureError unless a trusted certificate vouches for it, DecodeError for what
    is nothing signed."""
    signed = unpack(data)
    try:
        trusted = store()
    except ConfigurationError as error:
        raise DecodeError(f"its signature cannot be verified here: {error}") from error
    trusted.verify(signed.signer, signed.signature, signed.body, clock)
    return signed


def signer() -> Signer:
    """Return what signs, by SECURITY_KEY and SECURITY_CERTIFICATE; raises ConfigurationError."""
    keys = conf.get()
    if keys.security_key is None or keys.security_certificate is None:
        raise ConfigurationError(
            "Nothing can be signed without DJANGO_TASKS['SECURITY_KEY'] and DJANGO_TASKS['SECURITY_CERTIFICATE']."
        )
    paths = os.fspath(keys.security_key), os.fspath(keys.security_certificate)
    return _signer(paths[0], keys.security_key_password, paths[1], keys.security_digest)


def store() -> Store:
    """Return the certificates that are trusted, those of SECURITY_CERT_STORE; raises ConfigurationError."""
    keys = conf.get()
    if keys.security_cert_store is None:
        raise ConfigurationError("No certificate is trusted without DJANGO_TASKS['SECURITY_CERT_STORE'].")
    return _store(os.fspath(keys.security_cert_store), keys.security_digest)


def certificate_faults() -> Iterator[str]:
    """Say what of the keys and certificates that the settings name cannot be used."""
    keys = conf.get()
    makers: list[Callable[[], object]] = [store] if keys.security_cert_store else []
    if keys.security_key or keys.security_certificate:
        makers.append(signer)
    for make in makers:
        try:
            make()
        except ConfigurationError as error:
            yield str(error)


def certificates_ending(before: datetime) -> Iterator[tuple[str, datetime]]:
    """Give the certificates that end before a time, the site's own first, and when they do."""
    keys = conf.get()
    with suppress(ConfigurationError):  # said by the checks
        if keys.security_certificate and signer().ends < before:
            yield signer().name, signer().ends
        if keys.security_cert_store:
            yield from ((name, ends) for name, ends in store().ends() if ends < before)


@lru_cache(maxsize=8)
def _signer(key: str, password: str | bytes | None, certificate: str, digest: str) -> Signer:
    found: Signer = import_string(_SIGNER)(key, password, certificate, digest)
    return found


@lru_cache(maxsize=8)
def _store(place: str, digest: str) -> Store:
    found: Store = import_string(_STORE)(place, digest)
    return found
