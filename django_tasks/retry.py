"""How often, how long after, and for which errors is a task run again?"""

from __future__ import annotations

import random
from dataclasses import dataclass

ErrorTypes = tuple[type[BaseException], ...]

BACKOFF_MAX = 600.0


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When a task that failed is run again."""

    max_retries: int | None = 3
    """None for no end."""
    delay: float = 180.0
    """Seconds before a retry that names none."""
    backoff: float | None = None
    """Seconds before the first retry; each further one waits twice as long. None: always `delay`."""
    backoff_max: float = BACKOFF_MAX
    jitter: bool = True
    """Wait a random time up to the one computed ("full jitter",
    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/), so that tasks that failed together do
    not come back together."""
    errors: ErrorTypes = ()
    """Errors after which the task is run again by itself."""
    except_for: ErrorTypes = ()
    """Errors among those for which it is not."""

    def covers(self, error: BaseException) -> bool:
        """Tell whether a task that raised this error is run again by itself."""
        return isinstance(error, self.errors) and not isinstance(error, self.except_for)

    def exhausted(self, retries: int) -> bool:
        """Tell whether a task that was retried this often may not be retried again."""
        return self.max_retries is not None and retries >= self.max_retries

    def countdown(self, retries: int, rng: random.Random) -> float:
        """Return the seconds to wait before the retry after `retries` earlier ones."""
        if self.backoff is None:
            return self.delay
        # The exponent is bounded: 2 ** retries is a huge integer for a task that is retried for ever.
        wait = min(self.backoff_max, self.backoff * 2 ** min(retries, 64))
        return rng.uniform(0.0, wait) if self.jitter else wait
