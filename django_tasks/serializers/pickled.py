"""How are values pickled?

Reading a pickle runs whatever its writer put into it. This is the one file that does so; the settings refuse it unless
messages must be signed, and `sealing` hands over nothing whose signature it has not verified.
"""

from __future__ import annotations

import pickle
from typing import Any

from django_tasks.encoding import LIMITS, Limits
from django_tasks.exceptions import DecodeError, SerializationError
from django_tasks.serializers.form import Serializer, too_large

_PROTOCOL = 4
"""What every Python that Celery runs on can read."""


def _dumps(value: object, *, root: str = "value", limits: Limits = LIMITS) -> bytes:
    try:
        data = pickle.dumps(value, protocol=_PROTOCOL)
    except Exception as error:  # the code of any class ran
        raise SerializationError(root, f"cannot be pickled: {type(error).__name__}: {str(error)[:200]}") from error
    if (excess := too_large(len(data), limits)) is not None:
        raise SerializationError(root, f"{excess}; store the data and pass a reference to it")
    return data


def _loads(data: bytes, limits: Limits = LIMITS) -> Any:
    if (excess := too_large(len(data), limits)) is not None:
        raise DecodeError(excess)
    try:
        return pickle.loads(data)  # noqa: S301  # verified: see above
    except Exception as error:  # the code of any class ran
        raise DecodeError(f"not a valid pickle here: {type(error).__name__}: {str(error)[:200]}") from error


PICKLE = Serializer("pickle", "application/x-python-serialize", "binary", _dumps, _loads, signed_only=True)
