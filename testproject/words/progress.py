"""How far is the work? A bar on a terminal, a line for each tenth elsewhere."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from typing import TextIO

FULL, EMPTY = "█", "░"
WIDTH = 40
_CLEAR = "\r\x1b[K"


class Bar:
    """Draws progress on a stream; the rate counts from the first thing that was done."""

    def __init__(self, total: int, stream: TextIO, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.total = total
        self.stream = stream
        self.clock = clock
        self.live = stream.isatty()
        self._full, self._empty = marks(stream)
        self._first: tuple[float, int] | None = None
        self._tenth = 0

    def show(self, done: int) -> None:
        """Draw that so much is done."""
        if done and self._first is None:
            self._first = self.clock(), done
        line = self._line(done)
        if self.live:
            self.stream.write(f"{_CLEAR}{line[: shutil.get_terminal_size().columns - 1]}")
        elif done * 10 // self.total > self._tenth:
            self._tenth = done * 10 // self.total
            self.stream.write(f"{line}\n")
        self.stream.flush()

    def end(self) -> None:
        """Leave the line, so that what comes next has its own."""
        if self.live:
            self.stream.write("\n")

    def _line(self, done: int) -> str:
        share = done / self.total
        filled = round(share * WIDTH)
        bar = self._full * filled + self._empty * (WIDTH - filled)
        return f"  {bar} {share:4.0%}  {done:>{len(f'{self.total:,}')},} of {self.total:,}{self._rate(done)}"

    def _rate(self, done: int) -> str:
        if self._first is None:
            return ""
        since, already = self._first
        seconds = self.clock() - since
        return f"  {(done - already) / seconds:,.0f} a second" if seconds > 0 and done > already else ""


def marks(stream: TextIO) -> tuple[str, str]:
    """Return what a bar is drawn with, in signs that the stream can write."""
    try:
        (FULL + EMPTY).encode(stream.encoding or "ascii")
    except UnicodeEncodeError:
        return "#", "."
    return FULL, EMPTY
