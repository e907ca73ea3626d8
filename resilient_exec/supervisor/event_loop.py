"""Waits for everything at once: descriptors, what is posted from any thread, and the time.

One thread calls :meth:`EventLoop.wait`; everybody else only posts.  A post costs an append, and a system call only
where that thread is asleep.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import time
from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["EventLoop"]

_LONGEST = 3600.0  # s: no selector takes for ever


class EventLoop:
    """What a supervisor, and the lanes that it runs, wait with."""

    def __init__(self) -> None:
        self.zero = time.monotonic()  # where the clock of the core begins
        self.inbox: deque[Any] = deque()
        self._asleep = False
        self._selector = selectors.DefaultSelector()
        self._near, self._far = socket.socketpair()
        for end in (self._near, self._far):
            end.setblocking(False)
        self._selector.register(self._near, selectors.EVENT_READ, self._hush)
        self._ring = self._far.send
        self._tend_at = float("inf")

    # -- from any thread ---------------------------------------------------------------------------------------------

    def post(self, item: Any) -> None:
        """Have the thread that waits take ``item`` out of the inbox; never waits."""
        self.inbox.append(item)
        if self._asleep:
            try:
                # No handler of signals is run between these two: a Ctrl-C there would leave it asleep for ever.
                self._asleep = False
                self._ring(b"\0")
            except OSError:  # full: it is awake; closed: nobody is left to wake
                pass

    def wake(self) -> None:
        """Let it come back from its wait, or from the next one."""
        with contextlib.suppress(OSError):
            self._ring(b"\0")

    # -- from the thread that waits ----------------------------------------------------------------------------------

    def watch(self, fd: int, ready: Callable[[], object], *, write: bool = False) -> None:
        """Have ``ready()`` called whenever the descriptor can be read (or, with ``write``, written to)."""
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if write else 0)
        try:
            self._selector.register(fd, events, ready)
        except KeyError:
            self._selector.modify(fd, events, ready)

    def unwatch(self, fd: int) -> None:
        """Undo that; before the descriptor is closed."""
        with contextlib.suppress(KeyError, ValueError, OSError):
            self._selector.unregister(fd)

    def tend_at(self, when: float) -> None:
        """Come back from a wait at that time at the latest, on the clock of ``time.monotonic``."""
        self._tend_at = min(self._tend_at, when)

    def is_time_to_tend(self) -> bool:
        """Whether such a time has come; those who want another say so again."""
        if time.monotonic() < self._tend_at:
            return False
        self._tend_at = float("inf")
        return True

    def wait(self, timeout: float | None) -> None:
        """Wait, at most ``timeout`` s, for a post or a descriptor; call those that are ready."""
        self._asleep = True  # before the look into the inbox: whoever posts behind that look wakes us
        longest = _LONGEST if timeout is None else timeout
        if self.inbox:
            longest = 0.0
        elif self._tend_at != float("inf"):
            longest = max(0.0, min(longest, self._tend_at - time.monotonic()))
        ready = self._selector.select(longest)
        self._asleep = False
        for key, _ in ready:
            key.data()

    def _hush(self) -> None:
        with contextlib.suppress(OSError):
            self._near.recv(4096)

    def close(self) -> None:
        """Give the descriptors back; what is posted afterwards stays in the inbox."""
        self._selector.close()
        self._near.close()
        self._far.close()
