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
(``concurrent.futures.wait`` and ``as_completed``): an exception there leaves those that it had taken to nobody.  On
Python 3.14 one may do so in any ``with`` statement.  So the lock of a future knows who has taken it, and is free when
that function has ended (:class:`Monitor`).
"""

from __future__ import annotations

import contextlib
import math
import sys
import threading
import time
from concurrent.futures import _base

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any

__all__ = ["Flag", "Latch", "Monitor", "Waiters", "deadline_after", "is_supervising", "mark_as_supervising"]

_LOOK_UP = 0.5  # s: the longest wait for a handler to be run
_BRIEF, _LONGEST_PAUSE = 0.001, 0.02  # s, between two looks at who has a monitor
_SURELY = 0.25  # s: who has just taken a monitor has said so


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


_several: Any = getattr(_base, "_AcquireFutures", None)
_TAKES_SEVERAL = getattr(getattr(_several, "__enter__", None), "__code__", None)
_MAIN = threading.main_thread()
_freeing = threading.Lock()


class Monitor:
    """In place of the ``threading.Condition`` of a ``concurrent.futures.Future``, as far as that is used.

    It knows which frame has taken it: the function with the ``with`` statement, or the call of ``wait`` and the like.
    When that function has ended without giving it back, which only an interrupt brings about, it is free.
    """

    __slots__ = ("_again", "_holder", "_lock", "_tried", "_waiters")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holder: tuple[int, FrameType | None] | None = None  # its frame: ``None`` if it never loses it
        self._again = 0  # how many times its holder has taken it once more
        self._tried: FrameType | None = None  # which frame of the main thread has taken it last, or was about to
        self._waiters = Waiters()

    def __enter__(self) -> bool:
        return self._take(sys._getframe(1), sys._getframe(1))

    def __exit__(self, *_: object) -> None:
        if self._is_owned():  # else an interrupt has kept it from being taken again behind a wait
            self.give_back()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:  # noqa: FBT001, FBT002  as an RLock's
        """As that of an ``RLock``."""
        caller = sys._getframe(1)
        frame = caller.f_back if caller.f_code is _TAKES_SEVERAL else None
        return self._take(frame, frame or caller, 0 if not blocking else math.inf if timeout < 0 else timeout)

    def release(self) -> None:
        """As that of an ``RLock``."""
        if not self._is_owned():
            raise RuntimeError("cannot release un-acquired lock")
        self.give_back()

    def take(self, patience: float) -> bool:
        """Take it, by a thread that no signal interrupts; whether it was to be had within ``patience`` s."""
        if self._lock.acquire(False):
            self._holder = (threading.get_ident(), None)
            return True
        return self._take(None, None, patience)

    def _take(self, frame: FrameType | None, tries: FrameType | None, patience: float = math.inf) -> bool:
        me, holder = threading.get_ident(), self._holder
        if holder is not None and holder[0] == me:
            if holder[1] is None or _is_in(holder[1], sys._getframe(1)):
                self._again += 1
            else:  # it had lost it
                self._again, self._holder = 0, (me, frame)
            return True
        if tries is not None and self._tried is None and me == _MAIN.ident:
            # Before the lock: who is interrupted before it is the holder is to be found.  One that is found here was.
            self._tried = tries
        if not self._lock.acquire(False) and not self._await_lock(patience):
            if tries is self._tried:
                self._tried = None
            return False
        self._holder = (me, frame)
        return True

    def _await_lock(self, patience: float) -> bool:
        now = time.monotonic()
        deadline, pause, lost_since = now + patience, _BRIEF, math.inf
        while not self._lock.acquire(timeout=max(0.0, min(pause, deadline - now))):
            pause, now = min(2 * pause, _LONGEST_PAUSE), time.monotonic()
            holder = self._holder
            if not self._is_lost(holder):
                lost_since = math.inf
            elif holder is None and now - lost_since < _SURELY:  # perhaps it is just being taken
                lost_since = min(lost_since, now)
            else:
                self._free()
                continue
            if now >= deadline:
                return False
        return True

    def _free(self) -> None:
        """Give it back for a function that has ended."""
        is_alone = _freeing.acquire(timeout=_SURELY)  # who was interrupted in here may have kept that
        try:
            if self._is_lost(self._holder):  # else another thread was quicker
                self._again, self._holder, self._tried = 0, None, None
                with contextlib.suppress(RuntimeError):  # it was given back just now
                    self._lock.release()
        finally:
            if is_alone:
                _freeing.release()

    def _is_lost(self, holder: tuple[int, FrameType | None] | None) -> bool:
        """Whether the function that has taken it has ended."""
        thread, frame = (_MAIN.ident or 0, self._tried) if holder is None else holder
        return frame is not None and not _is_in(frame, sys._current_frames().get(thread))

    def give_back(self) -> None:
        """Undo the last taking; by its holder."""
        if self._again:
            self._again -= 1
            return
        self._holder = None
        self._lock.release()
        if self._tried is not None and threading.get_ident() == _MAIN.ident:
            self._tried = None  # or the future would lead back to itself, by this frame

    def _is_owned(self) -> bool:
        holder = self._holder
        return holder is not None and holder[0] == threading.get_ident()

    def wait(self, timeout: float | None = None) -> bool:
        """Give the lock away (it is held once), wait to be notified, at most ``timeout`` s, and take it again."""
        lock, caller = self._waiters.join(), sys._getframe(1)
        try:
            self.give_back()
            return self._waiters.sleep(lock, timeout)
        finally:
            if not self._is_owned():
                self._take(caller, caller)

    def notify_all(self) -> None:
        """Wake all who wait; the lock is held."""
        if self._waiters._locks:
            self._waiters.wake()


def _is_in(frame: FrameType, stack: FrameType | None) -> bool:
    while stack is not None and stack is not frame:
        stack = stack.f_back
    return stack is not None
