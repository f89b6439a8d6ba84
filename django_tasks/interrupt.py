"""How does a limit reach a running function without striking anything else?"""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, TypeVar

T = TypeVar("T")

_raise_in_thread = ctypes.pythonapi.PyThreadState_SetAsyncExc
_raise_in_thread.argtypes = (ctypes.c_ulong, ctypes.py_object)
_raise_in_thread.restype = ctypes.c_int

_NO_EXCEPTION = ctypes.py_object()
_NOT_RETURNED = object()


class Interruptible:
    """The gate of one thread: open while a task's own function runs in it, shut at all other times.

    A strike comes from a signal handler in the same thread or from another thread. It raises inside the function that
    `call` was given for the same token, or not at all: once `call` is left, no strike is under way any more. Inside
    a blocking call of a C library an exception waits until that call returns.
    """

    __slots__ = ("_late", "_lock", "_sent", "_shields", "_thread", "_token", "shield")

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self._lock = threading.Lock()
        self._token: object = None
        self._sent: tuple[type[BaseException], ...] = ()
        self._late: tuple[type[BaseException], ...] = ()
        self._shields = 0
        self.shield = Shield(self)

    @property
    def struck(self) -> bool:
        """Tell whether a strike reached the latest call: what it was doing may have stopped half-way."""
        return bool(self._sent)

    def call(self, token: object, function: Callable[..., T], args: Sequence[Any], kwargs: Mapping[str, Any]) -> T:
        """Call the function with the gate open for this token, and return or raise what it does.

        A call within a call belongs to the outer one: a task that another task runs on the spot is part of it.
        """
        if self._token is not None:
            return function(*args, **kwargs)
        self._sent = self._late = ()
        self._shields = 0
        value: Any = _NOT_RETURNED
        # A strike sent just before the gate shuts may arrive while it is being shut and spoil that. There are two kinds
        # of strike, each sent once for a token: the third attempt at the latest is left in peace.
        try:
            try:
                try:
                    self._token = token
                    value = function(*args, **kwargs)
                finally:
                    self._shut()
            finally:
                self._shut()
        except BaseException as error:
            self._shut()
            if value is _NOT_RETURNED or type(error) not in self._sent:
                raise
        return value  # type: ignore[no-any-return]

    def strike(self, token: object, error: type[BaseException]) -> bool:
        """Raise `error` in the function that runs for this token; return whether it runs and was not struck so before.

        From the thread's own signal handler this raises and does not return. A strike may be lost in a destructor: send
        it again until the function has ended; it is raised once.
        """
        if threading.get_ident() == self._thread:  # the lock may be held by the very code that was interrupted
            if not self._accepts(token, error):
                return False
            self._sent += (error,)
            if not self._shields:
                raise error
            self._late += (error,)
            return True
        with self._lock:
            if not self._accepts(token, error):
                return False
            self._sent += (error,)
            if self._shields:
                self._late += (error,)
            else:
                _raise_in_thread(self._thread, error)
        return True

    def forgive(self, error: type[BaseException] | None) -> bool:
        """Count a strike that Python printed and ignored, as it does in destructors, as not sent."""
        if self._token is None or error not in self._sent:
            return False
        self._sent = tuple(kind for kind in self._sent if kind is not error)
        return True

    def _accepts(self, token: object, error: type[BaseException]) -> bool:
        return self._token is not None and self._token is token and error not in self._sent and len(self._sent) < 2

    def _shut(self) -> None:
        with self._lock:
            self._token = None
            if self._sent:
                _raise_in_thread(self._thread, _NO_EXCEPTION)


class Shield:
    """A section of framework code within a task's function; strikes wait until it is left."""

    __slots__ = ("_gate",)

    def __init__(self, gate: Interruptible) -> None:
        self._gate = gate

    def __enter__(self) -> None:
        gate = self._gate
        before = gate._shields
        try:
            with gate._lock:
                gate._shields = before + 1
            _let_strike()
        except BaseException:
            gate._shields = before
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        gate = self._gate
        late: tuple[type[BaseException], ...] = ()
        with gate._lock:
            gate._shields -= 1
            if not gate._shields:
                late, gate._late = gate._late, ()
        if late and gate._token is not None:
            raise late[-1]


def _let_strike() -> None:
    """Be called: CPython raises an exception that another thread sent when a function is entered."""


_local = threading.local()
_hook_before = sys.unraisablehook


def here() -> Interruptible:
    """Return the gate of the calling thread."""
    try:
        gate: Interruptible = _local.gate
    except AttributeError:
        gate = _local.gate = Interruptible()
        _notice_ignored()
    return gate


def _notice_ignored() -> None:
    global _hook_before
    if sys.unraisablehook is not _unraisable:
        _hook_before, sys.unraisablehook = sys.unraisablehook, _unraisable


def _unraisable(what: sys.UnraisableHookArgs) -> None:
    """Be `sys.unraisablehook`: of the strikes at a task that makes model instances, one in a hundred lands in their
    destructor."""
    if not here().forgive(what.exc_type):
        _hook_before(what)
