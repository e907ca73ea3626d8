"""An event for which the main thread may wait: Ctrl-C always ends the wait, and never harms the event.

``threading.Event`` does not promise that, as CPython runs a signal's Python handler between two instructions of the
main thread:

* A signal that comes in the moment before a wait begins, where the system call would fall asleep, interrupts nothing:
  the handler is run when the wait is over, and so perhaps never.  (On a busy machine that moment is long: the thread
  has just given the interpreter to another.)
* The exception may be raised where ``Condition.__enter__`` has taken the lock and has not returned yet.  Nobody gives
  it back then, and whoever sets the event afterwards hangs.

So each waiter here has a lock of its own, which nobody else waits for, and looks up from it twice a second.
"""

from __future__ import annotations

import contextlib
import threading
import time

__all__ = ["Latch"]

_LOOK_UP = 0.5  # s: the longest wait for a handler to be run


class Latch:
    """Is set once, and stays so."""

    def __init__(self) -> None:
        self._is_set = False
        self._waiters: list[threading.Lock] = []  # held by those who wait; each is released once

    def is_set(self) -> bool:
        """Whether it is set."""
        return self._is_set

    def set(self) -> None:
        """Set it, and wake all who wait; never waits itself."""
        self._is_set = True
        with contextlib.suppress(IndexError):
            while True:
                self._waiters.pop().release()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set, at most ``timeout`` s; whether it is."""
        deadline = None if timeout is None else time.monotonic() + timeout
        waiter = threading.Lock()
        waiter.acquire()
        self._waiters.append(waiter)  # before the look: whoever sets it behind that look finds the waiter here
        try:
            while not self._is_set:
                left = _LOOK_UP if deadline is None else min(_LOOK_UP, deadline - time.monotonic())
                if left <= 0 or waiter.acquire(timeout=left):
                    break
        finally:
            with contextlib.suppress(ValueError):
                self._waiters.remove(waiter)
        return self._is_set
