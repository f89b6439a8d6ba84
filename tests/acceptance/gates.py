"""How does a test let go of tasks that wait at a gate, when it cannot know which of them are there yet?"""

from __future__ import annotations

import os
from typing import Any

from django_tasks import AsyncResult
from tests.acceptance.conftest import Gate, Site


def release(site: Site, gate: Gate, *handles: AsyncResult[Any]) -> None:
    """Let all tasks at a gate go on, and those that come to it a moment later, until these have ended."""

    def all_ended() -> bool:
        # A pipe that is opened for reading too opens at once, and its readers see the end when it is closed.
        os.close(os.open(gate.path, os.O_RDWR))
        return all(handle.ready() for handle in handles)

    site.until(all_ended, "all have ended")
