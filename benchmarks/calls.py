"""How long does a call take that waits for its result?"""

from __future__ import annotations

import random
import time
from collections.abc import Callable


def timed(call: Callable[[], object], number: int, warm: int, pause: float) -> list[float]:
    """Return the seconds that so many calls take, each after about `pause` idle ones; those before, to warm up, do not
    count."""
    taken = []
    for _ in range(warm + number):
        time.sleep(random.uniform(0.5, 1.5) * pause)
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    return taken[warm:]
