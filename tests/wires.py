"""How does a test break a connection at a byte of its choice, leave it half open, or make it slow?"""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Slowness:
    """What a bad link does to each piece that passes, in either direction."""

    latency: float = 0.0
    """Seconds."""
    rate: float = 1e9
    """Bytes a second."""
    loss: float = 0.0
    """How many of a hundred pieces, as a part of 1, come only when they have been sent again."""
    repeat: float = 0.2
    """Seconds until they are: what the system waits for an answer, at least."""
    rng: random.Random = random.Random(14)  # noqa: RUF009  # which ones is the same each time


class Wire:
    """A port that leads to another; connections through it can be cut, or fall silent."""

    def __init__(self, target: tuple[str, int], port: int = 0) -> None:
        self.target = target
        self.asked = 0
        """Bytes that went through so far."""
        self.answered = 0
        """Bytes that came back so far."""
        self.cuts = 0
        self.connections = 0
        self.moments: list[float] = []
        """When somebody came, let in or not, in monotonic seconds."""
        self._barred = False
        self.slowness = Slowness()
        self._left: dict[bool, int | None] = {False: None, True: None}
        """Bytes that still pass, by whether they come back."""
        self._last = False
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._deaf: set[socket.socket] = set()
        """Servers whose words are dropped."""
        self._server = socket.create_server(("127.0.0.1", port))
        self.port: int = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut_after(self, answered: int) -> None:
        """Close the connection on which so many more bytes have come back; those on it have gone through."""
        with self._lock:
            self._left[True] = answered

    def cut_after_asking(self, asked: int, *, last: bool = False) -> None:
        """Close the connection on which so many more bytes have gone through; no more than these arrive. With `last`
        nobody is let in any more."""
        with self._lock:
            self._left[False] = asked
            self._last = last

    def reopen(self) -> None:
        """Let them in again, at the same port."""
        self._barred = self._last = False
        if self._server.fileno() < 0:
            self._server = socket.create_server(("127.0.0.1", self.port))
            threading.Thread(target=self._accept, daemon=True).start()

    def hush(self) -> None:
        """Let nothing come back any more on the connections that there are: they are half open from now on."""
        with self._lock:
            self._deaf |= self._open

    def bar(self) -> None:
        """Hang up on everybody, and let nobody in any more."""
        self._barred = True
        for end in list(self._open):
            self._hang_up(end)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for end in list(self._open):
            self._hang_up(end)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
                self.moments.append(time.monotonic())
                if self._barred:
                    near.close()
                    continue
                far = socket.create_connection(self.target)
            except OSError:
                return
            self.connections += 1
            self._open |= {near, far}
            threading.Thread(target=self._pump, args=(near, far, False), daemon=True).start()
            threading.Thread(target=self._pump, args=(far, near, True), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, back: bool) -> None:
        try:
            while data := source.recv(16384):
                self._delay(len(data))
                passed = self._passed(data, back)
                if back and source in self._deaf:
                    continue
                sink.sendall(passed)
                if len(passed) < len(data) or self._left[back] == 0:
                    with self._lock:
                        self._left[back] = None
                        self.cuts += 1
                    if self._last:
                        self.close()
                    break
        except OSError:
            pass
        for end in (source, sink):
            self._hang_up(end)

    def _delay(self, size: int) -> None:
        slow = self.slowness
        again = slow.repeat if slow.rng.random() < slow.loss else 0.0
        if seconds := slow.latency + size / slow.rate + again:
            threading.Event().wait(seconds)

    def _passed(self, data: bytes, back: bool) -> bytes:
        with self._lock:
            left = self._left[back]
            if left is not None:
                data = data[:left]
                self._left[back] = left - len(data)
            if back:
                self.answered += len(data)
            else:
                self.asked += len(data)
            return data

    def _hang_up(self, end: socket.socket) -> None:
        self._open.discard(end)
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()


@contextlib.contextmanager
def wire_to(host: str, port: int) -> Iterator[Wire]:
    wire = Wire((host, port))
    try:
        yield wire
    finally:
        wire.close()


def cut_everywhere(
    wire: Wire, prepare: Callable[[], Any], verb: Callable[[Any], Any], *, step: int = 1
) -> Iterator[Any]:
    """Run a verb again and again, each time with the connection cut one byte later in its answer, or more of them. Give
    what it was prepared with and what it returned."""
    # Once for the server to know the script, once to see how long the answer is.
    verb(prepare())
    prepared = prepare()
    before = wire.answered
    verb(prepared)
    length = wire.answered - before
    for place in range(0, length, step):
        prepared = prepare()
        cuts = wire.cuts
        wire.cut_after(place)
        yield prepared, verb(prepared)
        assert wire.cuts == cuts + 1
