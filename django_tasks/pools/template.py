"""Where do the child processes of a prefork pool come from?

From the template: a fork of the worker, made before that had threads or connections. It does nothing but fork children
when asked and tell how they ended, so a new child is as clean and as small as the first one.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import socket
import struct
import sys
import warnings
from collections.abc import Callable, Sequence
from types import FrameType
from typing import NoReturn

from django.db import connections

from django_tasks.pools.parentage import die_with_parent

COMMAND = struct.Struct(">I")
"""A seat; the child's ends of its channels travel along."""
REPORT = struct.Struct(">BIIi")
"""One of the kinds below, seat, process id, and wait status or error number."""
FORKED, ENDED, FAILED = range(3)

CHANNELS = 4
"""Work, tokens, strikes and results: the order in which a child's ends travel."""

COORDINATED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
"""What the worker sees to: a terminal sends these to its children too."""

_abandoned: list[object] = []

Child = Callable[[tuple[int, ...]], NoReturn]


class Template:
    """The worker's view of the template: its process, and the socket to it."""

    def __init__(self) -> None:
        self.pid = 0
        self.control, self._far = socket.socketpair()
        self._rest = b""

    def start(self, child: Child) -> None:
        """Fork the template; `child` is what each of its forks is to do, given its ends of the channels."""
        parent = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        with warnings.catch_warnings():
            # Threads that run already are told of by the pool, in words that help.
            warnings.simplefilter("ignore", DeprecationWarning)
            self.pid = os.fork()
        if not self.pid:
            code = 1
            try:
                self.control.close()
                code = serve(self._far, parent, child)
            finally:
                os._exit(code)
        self._far.close()
        self.control.setblocking(False)

    def ask(self, seat: int, far_ends: Sequence[int]) -> None:
        """Ask for a child; raises OSError when that cannot even be asked now."""
        socket.send_fds(self.control, [COMMAND.pack(seat)], far_ends)

    def reports(self) -> list[tuple[int, int, int, int]]:
        """Return what the template has told: kind, seat, process id, and wait status or error number.

        Raises EOFError when the template is gone.
        """
        try:
            data = self.control.recv(REPORT.size * 256)
        except BlockingIOError:
            return []
        except ConnectionResetError:
            data = b""
        if not data:
            raise EOFError
        data = self._rest + data
        whole = len(data) - len(data) % REPORT.size
        self._rest = data[whole:]
        return list(REPORT.iter_unpack(data[:whole]))

    def close(self) -> None:
        """End the template, and with it the children that are left, and wait until it is gone."""
        self.control.close()
        self._far.close()
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):  # somebody else in this process waited for it
                os.waitpid(self.pid, 0)


def serve(control: socket.socket, parent: int, child: Child) -> int:
    """Be the template: fork a child for each command, until the worker goes away or closes the control socket."""
    die_with_parent(parent)
    forsake_connections()
    _silence_stdin()
    for number in (*COORDINATED, signal.SIGUSR1, signal.SIGUSR2):
        # Not SIG_IGN: programs that a task starts would inherit it, and could not be terminated.
        signal.signal(number, ignore)
    wakeup, alarm = os.pipe()
    os.set_blocking(wakeup, False)
    os.set_blocking(alarm, False)
    signal.signal(signal.SIGCHLD, ignore)
    signal.set_wakeup_fd(alarm, warn_on_full_buffer=False)
    gc.collect()
    gc.freeze()
    seats: dict[int, int] = {}
    inherited = (wakeup, alarm, control.fileno())
    poll = select.poll()
    poll.register(control, select.POLLIN)
    poll.register(wakeup, select.POLLIN)
    while True:
        ready = [fd for fd, _ in poll.poll()]
        if wakeup in ready:
            _drain(wakeup)
        if control.fileno() in ready:
            data, fds, _, _ = socket.recv_fds(control, COMMAND.size, CHANNELS, getattr(socket, "MSG_CMSG_CLOEXEC", 0))
            if len(data) < COMMAND.size:
                return 0
            _fork(control, COMMAND.unpack(data)[0], tuple(fds), seats, lambda: _leave(inherited), child)
        _report_ended(control, seats)


def _fork(
    control: socket.socket,
    seat: int,
    channels: tuple[int, ...],
    seats: dict[int, int],
    leave: Callable[[], None],
    child: Child,
) -> None:
    template = os.getpid()
    try:
        pid = os.fork()
    except OSError as error:
        report = (FAILED, seat, 0, error.errno or 0)
    else:
        if pid == 0:
            leave()
            die_with_parent(template)
            child(channels)
        seats[pid] = seat
        report = (FORKED, seat, pid, 0)
    for fd in channels:
        os.close(fd)
    _send(control, *report)


def _leave(inherited: tuple[int, ...]) -> None:
    """Stop being the template, in a process that was just forked from it."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for fd in inherited:
        os.close(fd)


def _report_ended(control: socket.socket, seats: dict[int, int]) -> None:
    while seats:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        if pid in seats:
            _send(control, ENDED, seats.pop(pid), pid, status)


def _send(control: socket.socket, kind: int, seat: int, pid: int, status: int) -> None:
    try:
        control.sendall(REPORT.pack(kind, seat, pid, status))
    except (BrokenPipeError, ConnectionResetError):  # the worker is gone
        os._exit(0)


def _drain(fd: int) -> None:
    try:
        while os.read(fd, 512):
            pass
    except BlockingIOError:
        return


def ignore(number: int, where: FrameType | None) -> None:
    """Do nothing about a signal."""


def forsake_connections() -> None:
    """Forget inherited database connections without a word on the wire, which would end them for their owner."""
    for connection in connections.all(initialized_only=True):
        if connection.connection is not None:
            _abandoned.append(connection.connection)
            connection.connection = None


def _silence_stdin() -> None:
    """Read nothing from the terminal."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
