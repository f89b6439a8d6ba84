"""Is what a trusted certificate signed read, and nothing else?"""

from __future__ import annotations

import time
from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from celery.security.certificate import Certificate, FSCertStore
from celery.security.key import PrivateKey
from celery.security.serialization import SecureSerializer
from django.core.checks import run_checks

from django_tasks import Task, states
from django_tasks.auth import certified, verified
from django_tasks.checks import check_keys
from django_tasks.deployment import settings_wrong
from django_tasks.exceptions import ConfigurationError, DecodeError, SignatureError
from django_tasks.serializers import JSON
from django_tasks.serializers.pickled import PICKLE
from django_tasks.serializers.signed import AUTH, Signed, pack, unpack
from tests.calls import declare, next_of, outcome_of, sent
from tests.certificates import Owner, elliptic, owner
from tests.integration.rig import text, value

Configure = Callable[..., None]
Trust = Callable[..., Owner]


@pytest.fixture
def trusted(tmp_path: Path) -> Path:
    return tmp_path / "trusted"


@pytest.fixture
def site(tmp_path: Path, trusted: Path, configure: Configure) -> Owner:
    """Be an owner whose certificate everybody trusts."""
    found = owner(tmp_path, "site", trusted=trusted)
    configure(**found.settings(trusted))
    return found


def echo(x: Any) -> Any:
    return x


def test_a_signed_call_runs(site: Owner) -> None:
    message = sent(declare(echo), {"a": (1, 2)})
    assert (message.content_type, message.content_encoding) == ("application/data", "utf-8")
    signed = unpack(message.body)
    assert (signed.signer, signed.content_type, signed.content_encoding) == (site.name, "application/json", "utf-8")
    assert value(outcome_of(message)) == {"a": (1, 2)}


@pytest.mark.parametrize("digest", ["sha256", "sha384", "sha512"])
def test_celerys_serializer_reads_what_we_write_and_we_what_it_writes(
    site: Owner, trusted: Path, configure: Configure, digest: str
) -> None:
    configure(**site.settings(trusted), SECURITY_DIGEST=digest)
    theirs = SecureSerializer(
        key=PrivateKey(site.key.read_text()),
        cert=Certificate(site.certificate.read_text()),
        cert_store=FSCertStore(str(trusted)),
        digest=digest,
        serializer="json",
    )
    message = sent(declare(echo), 7)
    assert theirs.deserialize(message.body) == [[7], {}, {}]
    written = theirs.serialize([["theirs"], {}, None])
    assert value(outcome_of(replace(message, body=written.encode()))) == "theirs"


def test_a_changed_byte_of_what_was_signed_is_refused(site: Owner) -> None:
    message = sent(declare(echo), 1)
    signed = unpack(message.body)
    for place in range(len(signed.body)):
        body = bytearray(signed.body)
        body[place] ^= 1
        outcome = outcome_of(replace(message, body=pack(replace(signed, body=bytes(body)))))
        assert text(outcome).startswith(f"SignatureError: the body is not what {site.name!r} signed")
    for place in (0, 100, len(signed.signature) - 1):
        signature = bytearray(signed.signature)
        signature[place] ^= 1
        with pytest.raises(SignatureError):
            verified(pack(replace(signed, signature=bytes(signature))))
    with pytest.raises(SignatureError, match="or was signed with another digest than sha256"):
        verified(pack(replace(signed, signature=b"")))


@pytest.mark.parametrize(
    "body",
    [b"", b"[[1], {}, {}]", b"\xff", b64encode(b"a\x00\x01b"), b64encode(b"\x00\x01".join([b"!"] * 5))],
    ids=["nothing", "JSON", "bytes", "too few parts", "parts in no base64"],
)
def test_what_nobody_signed_is_refused(site: Owner, body: bytes) -> None:
    outcome = outcome_of(replace(sent(declare(echo), 1), body=body))
    assert text(outcome).startswith("DecodeError: not a body that was signed as Celery's `auth` does")


def test_an_unknown_certificate_is_refused(site: Owner, trusted: Path, tmp_path: Path, configure: Configure) -> None:
    stranger = owner(tmp_path, "stranger")
    configure(**stranger.settings(trusted))
    message = sent(declare(echo), 1)
    outcome = outcome_of(message)
    assert outcome.state == states.FAILURE
    assert text(outcome) == f"SignatureError: its certificate is not known here: {stranger.name!r}"
    signed = unpack(message.body)
    assert f"not what {site.name!r} signed" in text(
        outcome_of(replace(message, body=pack(replace(signed, signer=site.name))))
    )


@pytest.mark.parametrize(
    ("days", "said"), [((-9, -1), "expired at"), ((1, 9), "is not valid before")], ids=["expired", "not yet valid"]
)
def test_a_certificate_out_of_its_time_is_refused(
    trusted: Path, tmp_path: Path, configure: Configure, days: tuple[float, float], said: str
) -> None:
    former = owner(tmp_path, "former", trusted=trusted, days=days)
    configure(**former.settings(trusted))
    outcome = outcome_of(sent(declare(echo), 1))
    assert text(outcome).startswith(f"SignatureError: its certificate {former.name!r} {said} ")


def test_a_worker_that_accepts_nothing_else_refuses_plain_bodies(site: Owner) -> None:
    plain = replace(sent(declare(echo), 1), content_type="application/json", body=b"[[1], {}, {}]")
    assert "the content type 'application/json' (json) is not among DJANGO_TASKS['ACCEPT']" in text(outcome_of(plain))


def test_no_more_may_stand_inside_than_alone(site: Owner, trusted: Path, configure: Configure) -> None:
    message = sent(declare(echo), 1)
    pickled = certified(PICKLE.dumps([[1], {}, {}]), PICKLE)
    nested = certified(message.body, AUTH)
    for body, said in ((pickled, "(pickle) is not among"), (nested, "what is signed is opened after")):
        assert said in text(outcome_of(replace(message, body=body)))
    configure(**{**site.settings(trusted), "ACCEPT": ["auth", "pickle"]}, REQUIRE_SIGNATURE=True)
    # Celery opens it for whoever has a certificate; here that also takes the site's own signature.
    assert text(outcome_of(replace(message, body=pickled))).startswith("SignatureError: the message is not signed")
    odd = pack(Signed(site.name, unpack(pickled).signature, "application/x-odd", "binary", PICKLE.dumps([[1], {}, {}])))
    assert "'application/x-odd' is not read here" in text(outcome_of(replace(message, body=odd)))


def test_a_signed_bomb_ends_its_task(site: Owner) -> None:
    large = certified(JSON.dumps([["x" * 900_000], {}, {}]), JSON)
    task = declare(len)
    fine = replace(sent(task, ""), body=large)
    assert value(outcome_of(fine)) == 900_000
    squeezed = replace(sent(task, "x" * 900_000, compression="zlib"))
    assert value(outcome_of(squeezed)) == 900_000


def test_a_retry_is_signed_by_whoever_makes_it(site: Owner, trusted: Path, configure: Configure) -> None:
    def again(self: Task[..., Any], x: int) -> int:
        if self.request.retries == 0:
            self.retry(args=(x + 1,), countdown=0)
        return x

    first = sent(declare(again, bind=True), 1)
    assert value(outcome_of(next_of(outcome_of(first)))) == 2
    configure(ACCEPT=["json", "auth"], SECURITY_CERT_STORE=trusted)
    assert text(outcome_of(first)).startswith(
        "ConfigurationError: Nothing can be signed without DJANGO_TASKS['SECURITY_KEY']"
    )


def test_a_key_may_have_a_password(trusted: Path, tmp_path: Path, configure: Configure) -> None:
    careful = owner(tmp_path, "careful", trusted=trusted, password="open sesame")
    for secret in ("open sesame", b"open sesame"):
        configure(**careful.settings(trusted), SECURITY_KEY_PASSWORD=secret)
        assert check_keys(None) == []
        assert value(outcome_of(sent(declare(echo), 1))) == 1
    configure(**careful.settings(trusted), SECURITY_KEY_PASSWORD="close sesame")
    [error] = check_keys(None)
    assert "holds no private key that can be read" in error.msg
    assert "sesame" not in error.msg


def test_what_cannot_be_read_is_an_error_of_the_checks(
    site: Owner, trusted: Path, tmp_path: Path, configure: Any
) -> None:
    other = owner(tmp_path, "other")
    key, certificate = elliptic(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "odd.pem").write_text("nothing")
    for keys, said in (
        ({"SECURITY_KEY": tmp_path / "none"}, "none cannot be read: No such file or directory"),
        ({"SECURITY_KEY": site.certificate}, "site.pem holds no private key that can be read"),
        ({"SECURITY_KEY": key}, "elliptic.key holds a key that is not RSA"),
        ({"SECURITY_KEY": other.key}, "is not that of the key"),
        ({"SECURITY_CERTIFICATE": site.key}, "site.key holds no certificate that can be read"),
        ({"SECURITY_CERTIFICATE": certificate}, "elliptic.pem holds a certificate whose key is not RSA"),
        ({"SECURITY_CERTIFICATE": None, "SERIALIZER": "json", "ACCEPT": ["json"]}, "Nothing can be signed without"),
        ({"SECURITY_CERT_STORE": tmp_path / "empty"}, "There is no certificate in"),
        ({"SECURITY_CERT_STORE": tmp_path / "odd.pem"}, "odd.pem holds no certificate that can be read"),
    ):
        configure(**{**site.settings(trusted), **keys})
        [error] = [found for found in run_checks(tags=["django_tasks"]) if found.id == "django_tasks.E005"]
        assert said in error.msg
    configure(**{**site.settings(trusted), "SECURITY_CERT_STORE": str(tmp_path / "trusted" / "s*.pem")})
    assert check_keys(None) == []


def test_a_store_that_cannot_be_read_fails_the_task_and_not_the_worker(
    site: Owner, tmp_path: Path, configure: Any
) -> None:
    message = sent(declare(echo), 1)
    configure(ACCEPT=["json", "auth"], SECURITY_CERT_STORE=tmp_path / "gone")
    assert text(outcome_of(message)).startswith(
        "DecodeError: its signature cannot be verified here: There is no certificate in"
    )


def test_certificates_that_end_soon_are_told_before_a_site_goes_live(
    tmp_path: Path, trusted: Path, configure: Configure, settings: Any
) -> None:
    settings.DEBUG = False
    signer = owner(tmp_path, "signer", trusted=trusted, days=(-9, 9))
    former = owner(tmp_path, "former", trusted=trusted, days=(-9, -1))
    owner(tmp_path, "fresh", trusted=trusted, days=(-9, 99))
    configure(**signer.settings(trusted))
    warnings = [found.msg for found in settings_wrong() if found.id == "django_tasks.W159"]
    assert [message.partition(" at ")[0] for message in warnings] == [
        f"The certificate {signer.name!r} expires",
        f"The certificate {former.name!r} expired",
    ]


def test_its_age_is_told_by_the_clock_it_is_given(site: Owner) -> None:
    body = sent(declare(echo), 1).body
    later = timedelta(days=3).total_seconds()
    assert verified(body).signer == site.name
    with pytest.raises(SignatureError, match="expired at"):
        verified(body, clock=lambda: time.time() + later)


def test_what_is_signed_is_opened_by_nobody_who_does_not_verify() -> None:
    with pytest.raises(DecodeError, match="opened after its signature was verified"):
        AUTH.loads(b64encode(b64decode("")))


def test_without_certificates_nothing_is_signed_or_read(configure: Configure) -> None:
    with pytest.raises(ConfigurationError, match="'auth' is not among DJANGO_TASKS\\['ACCEPT'\\]"):
        sent(declare(echo), 1, serializer="auth")
    with pytest.raises(DecodeError, match="No certificate is trusted without DJANGO_TASKS\\['SECURITY_CERT_STORE'\\]"):
        verified(pack(Signed("x", b"", "application/json", "utf-8", b"")))
