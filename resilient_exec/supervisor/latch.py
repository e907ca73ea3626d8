"""What the main thread may wait for: Ctrl-C always ends the wait, and never harms what others need.

``threading.Event`` and ``threading.Condition`` do not promise that, as CPython runs a signal's Python handler between
two instructions of the main thread:

* A signal that comes in the moment before a wait begins, where the system call would fall asleep, interrupts nothing:
  the handler is run when the wait is over, and so perhaps never.  (On a busy machine that moment is long: the thread
  has just given the interpreter to another.)
* The exception may be raised where ``Condition.__enter__`` has taken the lock and has not returned yet.  Nobody gives
  it back then, and whoever has something to tell afterwards hangs.

So each waiter here has a lock of its own, which nobody else waits for, and looks up from it twice a second; and a lock
that is shared is entered and left by C functions, between which and the ``with`` statement no handler is run.

That does not help where the standard library takes the locks of many futures one after the other
(``concurrent.futures.wait`` and ``as_completed``): an exception there leaves those that it had taken to nobody.  Who
must not hang takes such a lock from its owner, when that is seen to be elsewhere (:meth:`Monitor.acquire`).
"""

from __future__ import annotations

import contextlib
import math
import re
import sys
import threading
import time
from typing import Any

__all__ = ["Flag", "Latch", "Monitor", "Waiters", "deadline_after", "is_supervising", "mark_as_supervising", "take"]

_LOOK_UP = 0.5  # s: the longest wait for a handler to be run
_BRIEF = 0.001  # s: who holds a monitor for longer is looked at
_RLock: Any = type(threading.RLock())
take = _RLock.acquire
"""``take(monitor, False)``: take it if nobody has it, and say whether that was so; in C, several times as fast."""


def mark_as_supervising(thread: threading.Thread) -> None:
    """It must never wait for the end of a pool: the collector may run a finalizer of the user's in it that wants to."""
    thread.__dict__["_resilient_supervising"] = True


def is_supervising() -> bool:
    """Whether this thread is one of those."""
    return "_resilient_supervising" in threading.current_thread().__dict__


def deadline_after(timeout: Any) -> float | None:
    """When so many seconds are over, on the clock of ``time.monotonic``; ``None``: never.

    Any kind of number will do; it is made a float first, since a sum with one of numpy's small floats is one of them.
    NaN seconds are over at once, as for the standard library's futures.

    Raises:
        TypeError: it is no number.
    """
    if timeout is None:
        return None
    try:
        seconds = timeout if type(timeout) is float else float(timeout + 0)  # a text is no number
    except OverflowError:
        seconds = math.inf if timeout > 0 else -math.inf
    except (TypeError, ArithmeticError):
        raise TypeError(f"timeout must be a number of seconds or None; got {timeout!r}") from None
    return time.monotonic() + (0.0 if math.isnan(seconds) else seconds)


class Waiters:
    """Those who wait for the same; none of its methods needs a lock."""

    __slots__ = ("_locks",)

    def __init__(self) -> None:
        self._locks: list[threading.Lock] = []  # each is held by one who waits, and is released once

    def __len__(self) -> int:
        return len(self._locks)

    def join(self) -> threading.Lock:
        """Be woken by whoever calls :meth:`wake` from now on."""
        lock = threading.Lock()
        lock.acquire()
        self._locks.append(lock)
        return lock

    def sleep(self, lock: threading.Lock, timeout: float | None) -> bool:
        """Wait, at most ``timeout`` s, to be woken; whether that was so."""
        try:
            return self._look_up(lock, deadline_after(timeout))
        finally:
            with contextlib.suppress(ValueError):  # it has been woken
                self._locks.remove(lock)

    # Not inside that `try`: on Python 3.14 what a signal's handler raises where a loop jumps back skips the `finally`.
    @staticmethod
    def _look_up(lock: threading.Lock, deadline: float | None) -> bool:
        while True:
            left = _LOOK_UP if deadline is None else min(_LOOK_UP, deadline - time.monotonic())
            if lock.acquire(timeout=max(0.0, left)):
                return True
            if left <= 0:
                return False

    def wake(self) -> None:
        """Wake all."""
        locks = self._locks
        while locks:
            try:
                locks.pop().release()
            except IndexError:  # another thread was quicker
                return


# The functions of these hold a monitor, for moments; but not while they are asleep.
_HOLDERS = {"concurrent.futures._base", "resilient_exec.supervisor.future", __name__}
_ASLEEP = {Waiters.sleep.__code__, Waiters._look_up.__code__, threading.Condition.wait.__code__}
_OWNER = re.compile(r"owner=(\d+)")


class Latch:
    """In place of ``threading.Event``: is set once, and stays so."""

    def __init__(self) -> None:
        self._is_set = False
        self._waiters = Waiters()

    def is_set(self) -> bool:
        """Whether it is set."""
        return self._is_set

    def set(self) -> None:
        """Set it, and wake all who wait; never waits itself."""
        self._is_set = True
        self._waiters.wake()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set, at most ``timeout`` s; whether it is."""
        if not self._is_set:
            lock = self._waiters.join()  # before the next look: whoever sets it behind that look finds it there
            if not self._is_set:
                self._waiters.sleep(lock, timeout)
        return self._is_set


class Flag(Latch):
    """A latch that can be opened again, by whoever holds the lock without which nobody sets it."""

    def clear(self) -> None:
        """Make it as one that was never set."""
        self._is_set = False


class Monitor(_RLock):  # type: ignore[misc]
    """In place of the ``threading.Condition`` of a ``concurrent.futures.Future``, as far as that is used."""

    __slots__ = ("_waiters",)

    def __init__(self) -> None:
        self._waiters = Waiters()

    def wait(self, timeout: float | None = None) -> bool:
        """Give the lock away (it is held once), wait to be notified, at most ``timeout`` s, and take it again."""
        lock = self._waiters.join()
        try:
            self.release()
            return self._waiters.sleep(lock, timeout)
        finally:
            if not self._is_owned():
                self._acquire_restore((1, threading.get_ident()))  # which, unlike `acquire`, no signal interrupts

    def notify_all(self) -> None:
        """Wake all who wait; the lock is held."""
        if self._waiters._locks:
            self._waiters.wake()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:  # noqa: FBT001, FBT002  as an RLock's
        """As that of an ``RLock``, but the main thread loses it if it does not know any more that it holds it.

        ``with`` does not use this, so as to stay in C: who must not hang acquires first.
        """
        if not blocking or timeout != -1:
            return bool(super().acquire(blocking, timeout))
        if super().acquire(False):
            return True
        while not super().acquire(timeout=_BRIEF):
            if self._is_forsaken():
                self._take_away()
        return True

    def _is_forsaken(self) -> bool:
        owner = int(_OWNER.findall(repr(self))[0])  # nothing else tells it; 0: just given back
        if owner != threading.main_thread().ident:  # no other is interrupted by signals
            return False
        frame = sys._current_frames().get(owner)
        while frame is not None and frame.f_code not in _ASLEEP:
            if frame.f_globals.get("__name__") in _HOLDERS:
                return False
            frame = frame.f_back
        return True

    def _take_away(self) -> None:
        try:
            self._release_save()  # asks for no owner
        except RuntimeError:  # given back just now, or a later Python, where it does ask
            if self._is_forsaken():
                self._at_fork_reinit()
