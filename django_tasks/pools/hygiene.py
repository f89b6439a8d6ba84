"""What may a task change in its process, and how is that put right before the next one?"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # signal.getsignal dresses each answer up as an enum, at twenty times the cost
import locale
import logging
import os
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from typing import Any

from django.core.cache import caches

_log = logging.getLogger("django_tasks.worker")

_environment: dict[Any, Any] = os.environ._data  # type: ignore[attr-defined]  # a comparison in C, not one of decoded copies


class Hygiene:
    """The state of a process as it was when this was made, for use between the tasks of its main thread.

    The working directory, the umask and signal handlers are always put back. What libraries also set when they are
    imported (environment, import path, locale, default socket timeout, recursion limit) is put back unless the
    task imported something: a library is imported once, and what it set then must stay. Context variables, and with
    them Django's active language, time zone and URLconf, need no care: each task runs in a context of its own.
    """

    def __init__(self, handlers: tuple[signal.Signals, ...]) -> None:
        self._directory = os.open(".", os.O_RDONLY | os.O_CLOEXEC)
        self._umask = os.umask(0)
        os.umask(self._umask)
        self._handlers = {number: _signal.getsignal(number) for number in handlers}
        self._threads = threading.active_count()
        self._processes = 0
        self._children = _open_children()
        self._told: set[tuple[str, str]] = set()
        self._adopt()

    def _adopt(self) -> None:
        self._modules = len(sys.modules)
        self._env = dict(_environment)
        self._path = list(sys.path)
        self._locale = locale.setlocale(locale.LC_ALL)
        self._socket_timeout = socket.getdefaulttimeout()
        self._recursion_limit = sys.getrecursionlimit()

    def restore(self, task: str) -> None:
        """Put right what the task of this name changed, and log what it left running."""
        os.umask(self._umask)
        os.fchdir(self._directory)
        for number, handler in self._handlers.items():
            if _signal.getsignal(number) is not handler:
                signal.signal(number, handler)
                self._tell(task, "signal handlers")
        if self._settings_changed():
            if len(sys.modules) != self._modules:
                self._adopt()
            else:
                self._restore_settings(task)
        self._modules = len(sys.modules)
        self._look_for_leftovers(task)

    def close(self) -> None:
        """Stop watching."""
        os.close(self._directory)
        if self._children is not None:
            os.close(self._children)

    def _settings_changed(self) -> bool:
        return (
            _environment != self._env
            or sys.path != self._path
            or locale.setlocale(locale.LC_ALL) != self._locale
            or socket.getdefaulttimeout() != self._socket_timeout
            or sys.getrecursionlimit() != self._recursion_limit
        )

    def _restore_settings(self, task: str) -> None:
        if _environment != self._env:
            for name in [name for name in _environment if name not in self._env]:
                del os.environ[os.fsdecode(name)]
            for name, value in self._env.items():
                os.environ[os.fsdecode(name)] = os.fsdecode(value)
            time.tzset()
        sys.path[:] = self._path
        locale.setlocale(locale.LC_ALL, self._locale)
        socket.setdefaulttimeout(self._socket_timeout)
        sys.setrecursionlimit(self._recursion_limit)
        self._tell(task, "environment, import path, locale, socket timeout or recursion limit")

    def _look_for_leftovers(self, task: str) -> None:
        threads = threading.active_count()
        if threads > self._threads:
            self._warn(task, "threads", "A task left threads running")
        self._threads = threads
        if self._children is not None:
            processes = os.pread(self._children, 4096, 0).count(b" ")
            if processes > self._processes:
                self._warn(task, "processes", "A task left child processes running")
            self._processes = processes

    def _tell(self, task: str, what: str) -> None:
        self._warn(task, what, "A task changed its process; that was undone")

    def _warn(self, task: str, what: str, message: str) -> None:
        if (task, what) not in self._told:
            self._told.add((task, what))
            _log.warning(message, extra={"task": task, "what": what})


def _open_children() -> int | None:
    """Open the kernel's list of the main thread's child processes, where there is one."""
    try:
        return os.open(f"/proc/self/task/{os.getpid()}/children", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None


def wake_caches() -> None:
    """Make Django's cache objects in this context: the contexts of all tasks then share them, and their connections."""
    for alias in caches:
        with suppress(Exception):  # whatever is wrong with a cache is told to the task that uses it
            caches[alias]
