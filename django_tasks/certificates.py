"""Who signed these bytes, by an X.509 certificate? With RSA, PSS and MGF1, as Celery's `celery.security` has it.

This is loaded by name, once there is something to sign or verify: the library takes a fifth of a second and twenty
megabytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from glob import glob
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import Certificate, load_pem_x509_certificate

from django_tasks.exceptions import ConfigurationError, SignatureError
from django_tasks.message import Clock

DIGESTS: Mapping[str, type[hashes.HashAlgorithm]] = {
    "sha256": hashes.SHA256,
    "sha384": hashes.SHA384,
    "sha512": hashes.SHA512,
}


class Signer:
    """Signs with one private key; `name` is that of its certificate."""

    def __init__(self, key: str, password: str | bytes | None, certificate: str, digest: str) -> None:
        self._digest = DIGESTS[digest]()
        self._key = _private_key(key, password)
        found, public = _certificate(certificate)
        if public.public_numbers() != self._key.public_key().public_numbers():
            raise ConfigurationError(f"The certificate {certificate} is not that of the key {key}.")
        self.name = name_of(found)
        self.ends = found.not_valid_after_utc

    def sign(self, body: bytes) -> bytes:
        return self._key.sign(body, _padding(self._digest), self._digest)


class CertificateStore:
    """The certificates whose owners are trusted: the files in a folder, or those of a pattern."""

    def __init__(self, place: str, digest: str) -> None:
        self._digest = DIGESTS[digest]()
        self._known: dict[str, tuple[Certificate, RSAPublicKey]] = {}
        for path in _files(place):
            found, public = _certificate(path)
            self._known[name_of(found)] = found, public
        if not self._known:
            raise ConfigurationError(f"There is no certificate in {place}.")

    def ends(self) -> Iterator[tuple[str, datetime]]:
        """Give the name of each certificate and when it ends."""
        for name, (certificate, _) in self._known.items():
            yield name, certificate.not_valid_after_utc

    def verify(self, signer: str, signature: bytes, body: bytes, clock: Clock) -> None:
        """Raise SignatureError unless this is the signature of a certificate that is known here and in force."""
        if signer not in self._known:
            raise SignatureError(f"its certificate is not known here: {signer[:200]!r}")
        certificate, public = self._known[signer]
        now = datetime.fromtimestamp(clock(), UTC)
        if now >= certificate.not_valid_after_utc:
            raise SignatureError(f"its certificate {signer!r} expired at {certificate.not_valid_after_utc}")
        if now < certificate.not_valid_before_utc:
            raise SignatureError(f"its certificate {signer!r} is not valid before {certificate.not_valid_before_utc}")
        try:
            public.verify(signature, body, _padding(self._digest), self._digest)
        except InvalidSignature as error:
            raise SignatureError(
                f"the body is not what {signer!r} signed, or was signed with another digest than {self._digest.name}"
            ) from error


def name_of(certificate: Certificate) -> str:
    """Return the name by which Celery knows a certificate: its issuer and its number."""
    issuer = " ".join(_text(part.value) for part in certificate.issuer)
    return f"{issuer} {certificate.serial_number}"


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "replace")


def _padding(digest: hashes.HashAlgorithm) -> PSS:
    return PSS(mgf=MGF1(digest), salt_length=PSS.MAX_LENGTH)


def _files(place: str) -> list[str]:
    pattern = str(Path(place) / "*") if Path(place).is_dir() else place
    return sorted(path for path in glob(pattern) if Path(path).is_file())  # noqa: PTH207  # a pattern of any kind


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror or error}") from error


def _private_key(path: str, password: str | bytes | None) -> RSAPrivateKey:
    secret = password.encode() if isinstance(password, str) else password
    try:
        key = load_pem_private_key(_read(path), secret)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigurationError(f"{path} holds no private key that can be read: {error}") from error
    if not isinstance(key, RSAPrivateKey):
        raise ConfigurationError(f"{path} holds a key that is not RSA; Celery reads no others.")
    return key


def _certificate(path: str) -> tuple[Certificate, RSAPublicKey]:
    try:
        found = load_pem_x509_certificate(_read(path))
        public = found.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigurationError(f"{path} holds no certificate that can be read: {error}") from error
    if not isinstance(public, RSAPublicKey):
        raise ConfigurationError(f"{path} holds a certificate whose key is not RSA; Celery reads no others.")
    return found, public
