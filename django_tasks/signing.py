"""Was a message sent by someone who knows the site's secret key, and is it as it was then?

The signature is `version:time:digest`: when it was signed, in microseconds since the epoch, and an HMAC-SHA256 under a
key that is derived from SECRET_KEY. What is signed is the time, all that decides what runs, and where its result is to
go, as JSON in pure ASCII with its names sorted, then a NUL, which no JSON holds, and the body as it travels.

Left out is what brokers fill in or use up on the way (`created_at`, `countdown`, `enqueue`, `exchange`, `routing_key`),
where it came from (`origin`), and headers that Celery's protocol lets come and go. A message that goes through an
exchange is signed for no queue, as its sender does not know where it leads to.
"""

from __future__ import annotations

import json
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hmac import compare_digest
from typing import Any

from django.conf import settings as django_settings
from django.utils.crypto import salted_hmac

from django_tasks import conf
from django_tasks.exceptions import SerializationError, SignatureError
from django_tasks.message import Clock, Message
from django_tasks.wire import is_fleeting

_SALT = "django_tasks.signing"
_BOUND, _UNBOUND = "1", "1x"
"""The versions of a signature: for one queue, and for whichever an exchange leads to."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

_PLAIN = (
    "id",
    "task",
    "priority",
    "content_type",
    "content_encoding",
    "compression",
    "retries",
    "attempts",
    "ignore_result",
    "parent_id",
    "group_id",
    "group_index",
    "shadow",
    "args_repr",
    "kwargs_repr",
)
"""Fields that every broker brings back as they were."""

_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode


def signed(message: Message) -> Message:
    """Return a message as it is to be sent: signed, if the settings say so and it is not yet."""
    return sign(message) if message.signature is None and conf.get().signs else message


def sign(message: Message, clock: Clock = time.time) -> Message:
    """Return a message with a signature; raises SerializationError for headers that cannot be sent."""
    version = _BOUND if message.exchange is None else _UNBOUND
    moment = int(clock() * 1_000_000)
    data = _canonical(message, version, moment)
    return replace(message, signature=f"{version}:{moment}:{_digest(data, django_settings.SECRET_KEY)}")


def verify(message: Message, max_age: timedelta | None = None, clock: Clock = time.time) -> None:
    """Raise SignatureError unless a message is signed, as it was when that was done, and no older than `max_age`.

    Its age counts from when it was signed or was to be run, whichever is later.
    """
    if message.signature is None:
        raise SignatureError(
            "the message is not signed. Let all who send set DJANGO_TASKS['SIGN'] before a worker requires it."
        )
    version, moment, digest = _parts(message.signature)
    try:
        data = _canonical(message, version, moment)
    except SerializationError as error:
        raise SignatureError(f"its headers cannot have been signed: {error}") from error
    keys = (django_settings.SECRET_KEY, *django_settings.SECRET_KEY_FALLBACKS)
    if not any(compare_digest(_digest(data, key).encode(), digest) for key in keys):
        raise SignatureError(
            "the signature is not that of this message: it was changed on its way, put into another queue, or signed "
            "with a key that is neither SECRET_KEY nor among SECRET_KEY_FALLBACKS"
        )
    since = moment if message.eta is None else max(moment, _microseconds(message.eta))
    if max_age is not None and clock() * 1_000_000 - since > max_age / _MICROSECOND:
        raise SignatureError(
            f"it was signed, or was to be run, more than {max_age} ago; see DJANGO_TASKS['SIGNATURE_MAX_AGE']"
        )


def resigned(before: Message, after: Message) -> Message:
    """Return what a message was changed into, signed anew if it was signed before: nobody vouches here for what nobody
    vouched for."""
    try:
        verify(before)
    except SignatureError:
        return after
    return sign(replace(after, signature=None))


def _parts(signature: str) -> tuple[str, int, bytes]:
    version, _, rest = signature.partition(":")
    moment, _, digest = rest.partition(":")
    # Digits of any script are digits to `int`, and thousands of them take it long.
    if version not in (_BOUND, _UNBOUND) or not (moment.isascii() and moment.isdigit() and len(moment) < 20):
        raise SignatureError("the signature has a form that is not known here")
    return version, int(moment), digest.encode(errors="replace")


def _digest(data: bytes, key: str | bytes) -> str:
    return salted_hmac(_SALT, data, secret=key, algorithm="sha256").hexdigest()


def _canonical(message: Message, version: str, moment: int) -> bytes:
    """Return what is signed: the same bytes for what was sent and for what comes out of any broker."""
    said: dict[str, Any] = {name: getattr(message, name) for name in _PLAIN}
    said["version"], said["signed"] = version, moment
    said["queue"] = message.queue if version == _BOUND else None
    # On AMQP the first of its line names itself.
    said["root_id"] = None if message.root_id == message.id else message.root_id
    # A property on AMQP, where nothing is an empty text.
    said["reply_to"] = message.reply_to
    said["eta"], said["expires"] = _moment(message.eta), _moment(message.expires)
    said["limits"] = [_seconds(message.time_limit), _seconds(message.soft_time_limit)]
    headers = {name: value for name, value in message.headers.items() if not is_fleeting(name)}
    try:
        # Twice: names that are numbers sort otherwise once they are text.
        said["headers"] = json.loads(_encode(headers)) if headers else {}
        if stamps := message.stamps:
            said["stamps"] = json.loads(_encode(stamps))
        return _encode(said).encode("ascii") + b"\0" + message.body
    except (TypeError, ValueError, RecursionError) as error:
        raise SerializationError("headers", f"cannot be signed: {error}") from error


def _moment(moment: datetime | None) -> int | None:
    return None if moment is None else _microseconds(moment)


def _microseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // _MICROSECOND


def _seconds(limit: float | None) -> float | None:
    return None if limit is None else float(limit)
