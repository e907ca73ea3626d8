"""Measures one attempt from outside: what its worker's process tree holds over time, and whether anything moves in it.

How often to look follows from what is left to the limit, at an assumed 2 GiB/s: far below it twice a second is
enough, near it every 20 ms.  The resident set is the first look; where it is over the limit, the proportional set
(dear, and the truth for processes that share memory) decides.

An attempt is idle while it uses less than 1 % of one CPU and neither reads nor writes.  A task that waits for a lock,
a socket or a sleep is idle; one that prints a line now and then is not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from resilient_exec import memory

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Gauge"]

_SHORTEST = 0.02  # s between two looks
_LONGEST = 0.5  # s
_RATE = 2 << 30  # bytes/s, which a task is not expected to surpass
_MOST_SAMPLES = 48
_IDLE_SHARE = 0.01  # of one CPU


class Gauge:
    """The figures of one attempt; times are seconds on any monotonic clock."""

    def __init__(self, memory_limit: int | None, stall_timeout: float | None, began: float) -> None:
        self.samples: list[tuple[float, int]] = []
        self.peak = 0
        self.due = began + _LONGEST if memory_limit is None else began  # when to look next
        self._limit = memory_limit
        self._stall_timeout = stall_timeout
        self._began = began
        self._keep_every = 0.0  # s between two samples that are kept
        self._moved_at = began
        self._seen = memory.Activity(0.0, 0)
        self._told_idle = False

    def look(self, pids: Sequence[int], now: float) -> int | None:
        """Measure; the bytes held, if that is more than the limit."""
        held = memory.resident_of(pids)
        if self._limit is not None and held > self._limit:
            held = memory.proportional_of(pids)
        self._note(held, now)
        self.due = now + self._interval(held)
        return held if self._limit is not None and held > self._limit else None

    def _interval(self, held: int) -> float:
        longest = _LONGEST if self._stall_timeout is None else min(_LONGEST, self._stall_timeout / 4)
        if self._limit is None:
            return longest
        return max(_SHORTEST, min(longest, (self._limit - held) / _RATE))

    def _note(self, held: int, now: float) -> None:
        self.peak = max(self.peak, held)
        at = now - self._began
        if self.samples and at - self.samples[-1][0] < self._keep_every:
            return
        self.samples.append((at, held))
        if len(self.samples) > _MOST_SAMPLES:  # half as dense from now on, so that hours fit, too
            del self.samples[1::2]
            self._keep_every = max(2 * self._keep_every, at / _MOST_SAMPLES * 2)

    def idle(self, pids: Sequence[int], now: float) -> float | None:
        """For how long (s) nothing has moved, once that is longer than the limit; told once for each such time."""
        if self._stall_timeout is None:
            return None
        activity = memory.activity(pids)
        used = activity.cpu - self._seen.cpu
        if activity.io != self._seen.io or not 0 <= used < _IDLE_SHARE * self._stall_timeout:
            self._seen, self._moved_at, self._told_idle = activity, now, False
        if self._told_idle or now - self._moved_at < self._stall_timeout:
            return None
        self._told_idle = True
        return now - self._moved_at
