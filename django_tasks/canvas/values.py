"""What did the members of a group return?"""

from __future__ import annotations

from collections.abc import Sequence

from django_tasks.encryption import conceal_value, is_concealed, reveal_value
from django_tasks.results.groups import Groups


def values_of(groups: Groups, group_id: str) -> list[bytes] | None:
    """Return the encoded value of each member, in order; None when not all are kept, or not all ended well.

    Raises DecryptionError.
    """
    values = groups.values(group_id)
    return _opened(groups, group_id) if values is not None and any(map(is_concealed, values)) else values


def listed(groups: Groups, group_id: str) -> bytes:
    """Return all values in a list, encoded, and encrypted if any of them is; raises DecryptionError."""
    values = groups.values(group_id) or []
    if any(map(is_concealed, values)):
        return conceal_value(_list(_opened(groups, group_id)), group_id)
    return _list(values)


def _opened(groups: Groups, group_id: str) -> list[bytes]:
    parts = groups.parts(group_id)
    return [b"null" if part.value is None else reveal_value(part.value, part.task_id) for part in parts]


def _list(values: Sequence[bytes]) -> bytes:
    # Each is JSON already.
    return b"[" + b",".join(values) + b"]"
