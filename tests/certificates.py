"""How do tests get keys, and certificates that their owner signed?"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)

DAY = timedelta(days=1)


@dataclass(frozen=True)
class Owner:
    """Who has a key and a certificate, as files."""

    key: Path
    certificate: Path
    name: str
    """By which Celery knows the certificate."""

    def settings(self, trusted: Path) -> dict[str, Any]:
        """Return the keys of DJANGO_TASKS with which this owner signs, and trusts the certificates of a folder."""
        return {
            "ACCEPT": ["auth"],
            "SERIALIZER": "auth",
            "SECURITY_KEY": self.key,
            "SECURITY_CERTIFICATE": self.certificate,
            "SECURITY_CERT_STORE": trusted,
        }


def owner(
    folder: Path, name: str, *, trusted: Path | None = None, days: tuple[float, float] = (-1, 2), password: str = ""
) -> Owner:
    """Make a key and a certificate that is valid so many days from now, also among those that are trusted."""
    key, now = private_key(name), datetime.now(UTC)
    subject = x509.Name(
        [
            x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "Tests of tasks"),
            x509.NameAttribute(x509.NameOID.COMMON_NAME, name),
        ]
    )
    number = x509.random_serial_number()
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(number)
        .not_valid_before(now + days[0] * DAY)
        .not_valid_after(now + days[1] * DAY)
        .sign(key, hashes.SHA256())
    )
    found = Owner(folder / f"{name}.key", folder / f"{name}.pem", f"Tests of tasks {name} {number}")
    hidden: KeySerializationEncryption = BestAvailableEncryption(password.encode()) if password else NoEncryption()
    found.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, hidden))
    found.certificate.write_bytes(made.public_bytes(Encoding.PEM))
    if trusted is not None:
        trusted.mkdir(exist_ok=True)
        (trusted / found.certificate.name).write_bytes(found.certificate.read_bytes())
    return found


@cache
def private_key(name: str) -> rsa.RSAPrivateKey:
    """Return the key of that name; to make one takes a while."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def elliptic(folder: Path) -> tuple[Path, Path]:
    """Return the files of a key and of a certificate that are not RSA."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "elliptic")])
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - DAY)
        .not_valid_after(now + DAY)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "elliptic.key", folder / "elliptic.pem"
    paths[0].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    paths[1].write_bytes(made.public_bytes(Encoding.PEM))
    return paths
