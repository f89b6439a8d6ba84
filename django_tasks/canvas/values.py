"""What did the members of a group return?"""

from __future__ import annotations

from django_tasks.encryption import conceal_value, is_concealed, reveal_value
from django_tasks.results.groups import Groups


def values_of(groups: Groups, group_id: str) -> list[bytes] | None:
    """Return the encoded value of each member, in order; None when not all are kept, or not all ended well.

    Raises DecryptionError.
    """
    values = groups.values(group_id)
    if values is None or not any(map(is_concealed, values)):
        return values
    parts = groups.parts(group_id)
    return [b"null" if part.value is None else reveal_value(part.value, part.task_id) for part in parts]


def listed(groups: Groups, group_id: str) -> bytes:
    """Return all values in a list, encoded, and encrypted if any of them is; raises DecryptionError."""
    hidden = any(map(is_concealed, groups.values(group_id) or ()))
    # Each is JSON already.
    together = b"[" + b",".join(values_of(groups, group_id) or ()) + b"]"
    return conceal_value(together, group_id) if hidden else together
