"""What state can a task be in?

    PENDING --> STARTED --> SUCCESS | FAILURE | REVOKED | REJECTED | IGNORED
       ^           |
       +-- RETRY <-+     (custom states, such as PROGRESS, stand beside STARTED)

PENDING also means "not known": nothing is written when a task is published. RECEIVED and STARTED are seen
only where they are asked for (`track_started`). A final state never changes.
"""

from __future__ import annotations

PENDING = "PENDING"
RECEIVED = "RECEIVED"
STARTED = "STARTED"
RETRY = "RETRY"
SUCCESS = "SUCCESS"
FAILURE = "FAILURE"
REVOKED = "REVOKED"
REJECTED = "REJECTED"
IGNORED = "IGNORED"

FINAL = frozenset({SUCCESS, FAILURE, REVOKED, REJECTED, IGNORED})
FAILED = frozenset({FAILURE, REVOKED, REJECTED})
"""Final states for which `AsyncResult.get()` raises."""
EXCEPTION = frozenset({FAILURE, REVOKED, REJECTED, RETRY})
"""States whose result is an error."""
ALL = frozenset({PENDING, RECEIVED, STARTED, RETRY}) | FINAL

_BEST_FIRST = (SUCCESS, FAILURE, IGNORED, None, REVOKED, STARTED, RECEIVED, REJECTED, RETRY, PENDING)
_CUSTOM = _BEST_FIRST.index(None)


def precedence(state: str) -> int:
    """Return how much a state counts when two are compared; lower is further along. Custom states stand after
    the outcomes of a run."""
    return _BEST_FIRST.index(state) if state in ALL else _CUSTOM


def is_custom(state: str) -> bool:
    """Tell whether a state is one that only the task itself gives a meaning."""
    return state not in ALL
