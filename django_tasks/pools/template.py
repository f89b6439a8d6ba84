"""Where do the child processes of a prefork pool come from?

From the template: a fork of the worker, made before that had threads or connections. It does nothing but fork children
when asked and tell how they ended, so a new child is as clean and as small as the first one.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import select
import signal
import socket
import struct
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from types import FrameType
from typing import NoReturn

from django.db.backends.base.base import BaseDatabaseWrapper

from django_tasks.pools.parentage import die_with_parent

COMMAND = struct.Struct(">I")
"""A seat; the child's ends of its channels travel along."""
REPORT = struct.Struct(">BIIi")
"""One of the kinds below, seat, process id, and wait status or error number."""
FORKED, ENDED, FAILED = range(3)

HANDLER_PATIENCE = 1.0
"""Seconds to wait for a thread that is writing to a log before the template is forked all the same."""

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
        flush_output()
        # Beside the main thread of the autoreloader, listing all objects would break a tuple that it just makes.
        alone = threading.current_thread() is threading.main_thread()
        inherited = database_wrappers() if alone else []
        held = hold_log_handlers()
        with warnings.catch_warnings():
            # Threads that run already are told of by the pool, in words that help.
            warnings.simplefilter("ignore", DeprecationWarning)
            self.pid = os.fork()
        if not self.pid:
            code = 1
            try:
                self.control.close()
                forsake(inherited)
                code = serve(self._far, parent, child)
            finally:
                os._exit(code)
        for handler in held:
            handler.release()
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
            for fd in fds:
                os.set_inheritable(fd, False)
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


def database_wrappers() -> list[BaseDatabaseWrapper]:
    """Return Django's database connections of all threads of this process."""
    # By type(): a lazy object would be evaluated if it were asked for its class.
    return [each for each in gc.get_objects() if issubclass(type(each), BaseDatabaseWrapper)]


def forsake(inherited: Sequence[BaseDatabaseWrapper]) -> None:
    """Forget connections that belong to the parent, in a fork of it, without a word on the wire that would end them.

    They are kept for ever: the drivers' destructors say goodbye to the server. For the same reason the list must be
    made before the fork, which destroys what other threads held.
    """
    for wrapper in inherited:
        _abandoned.append((wrapper, wrapper.connection))
        wrapper.connection = None


def hold_log_handlers() -> list[logging.Handler]:
    """Keep every thread from writing to a log, and return what must be released in this process, not in a fork of it.

    A fork finds the handlers' own locks free, logging sees to that; but the lock within a stream that another thread is
    writing to at that moment would stay locked in the fork for ever.
    """
    handlers = [handler for reference in logging._handlerList if (handler := reference()) is not None]  # type: ignore[attr-defined]
    return [handler for handler in handlers if handler.lock is None or handler.lock.acquire(timeout=HANDLER_PATIENCE)]


def flush_output() -> None:
    """Write out what is buffered, before this process is copied or ends."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with contextlib.suppress(OSError, ValueError):
                stream.flush()


def _silence_stdin() -> None:
    """Read nothing from the terminal."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)


def how_it_ended(status: int) -> str:
    """Say how a process ended, from its wait status."""
    if not os.WIFSIGNALED(status):
        return f"exit code {os.waitstatus_to_exitcode(status)}"
    number = os.WTERMSIG(status)
    try:
        return f"signal {number} ({signal.Signals(number).name})"
    except ValueError:  # a real-time signal
        return f"signal {number}"
