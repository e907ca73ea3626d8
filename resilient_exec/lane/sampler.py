"""Measures one attempt from outside: what its worker's process tree holds over time, and whether anything moves in it.

How often to look follows from what is left to the limit, at an assumed 2 GiB/s: far below it twice a second is
enough, near it every 20 ms.  The resident set is the first look; where it is over the limit, the proportional set
(dear, and the truth for processes that share memory) decides.

An attempt is idle while it uses less than 1 % of one CPU and neither reads nor writes.  A task that waits for a lock,
a socket or a sleep is idle; one that prints a line now and then is not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from resilient_exec.process import memory

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Gauge"]

_SHORTEST = 0.02  # s between two looks
_LONGEST = 0.5  # s
_RATE = 2 << 30  # bytes/s, which a task is not expected to surpass
_MOST_SAMPLES = 48
_IDLE_SHARE = 0.01  # of one CPU
_MOST_COUNTED = 2  # times the longest pause between two looks: what one may add to idle time


class Gauge:
    """The figures of one attempt; times are seconds on any monotonic clock."""

    def __init__(self, memory_limit: int | None, stall_timeout: float | None, began: float) -> None:
        self.samples: list[tuple[float, int]] = []
        self.peak = 0
        self.due = began + _LONGEST if memory_limit is None else began  # when to look next
        self._limit = memory_limit
        self._stall_timeout = stall_timeout
        self._longest = _LONGEST if stall_timeout is None else min(_LONGEST, stall_timeout / 4)  # s between two looks
        self._began = began
        self._keep_every = 0.0  # s between two samples that are kept
        self._idle_for = 0.0  # s
        self._looked_at = began
        self._seen = memory.Activity(0.0, 0)
        self._told_idle = False
        self._close = (0, 0, 0.0)  # when it last looked closely: bytes resident, bytes held, and the time

    def suspects(self, pids: Sequence[int], now: float) -> bool:
        """Whether it may be over its limit: then :meth:`look` looks closely, and takes its time.  Else it is noted."""
        if self._limit is None:
            return False
        resident = memory.resident_of(pids)
        if resident <= self._limit:
            return False
        before, held, when = self._close
        return not (before and held + resident - before <= self._limit and now - when < _LONGEST)

    def look(self, pids: Sequence[int], now: float) -> int | None:
        """Measure; the bytes held, if that is more than the limit."""
        held = memory.resident_of(pids)
        if self._limit is not None and held > self._limit:
            held = self._look_closely(pids, held, self._limit, now)
        self._note(held, now)
        self.due = now + self._interval(held)
        return held if self._limit is not None and held > self._limit else None

    def _look_closely(self, pids: Sequence[int], resident: int, limit: int, now: float) -> int:
        """What is really held, or, where it cannot be over the limit by now, at most.

        The kernel stops a process while it counts its shares: once they were within the limit it is asked again when
        as much has come on top as was left, and at least twice a second, since sharing can also end.
        """
        before, held, when = self._close
        estimate = held + resident - before
        if before and estimate <= limit and now - when < _LONGEST:
            return estimate
        held = memory.proportional_of(pids)
        self._close = (resident, held, now)
        return held

    def _interval(self, held: int) -> float:
        if self._limit is None:
            return self._longest
        return max(_SHORTEST, min(self._longest, (self._limit - held) / _RATE))

    def _note(self, held: int, now: float) -> None:
        self.peak = max(self.peak, held)
        at = now - self._began
        if self.samples and at - self.samples[-1][0] < self._keep_every:
            return
        self.samples.append((at, held))
        if len(self.samples) > _MOST_SAMPLES:  # half as dense from now on, so that hours fit, too
            del self.samples[1::2]
            self._keep_every = max(2 * self._keep_every, at / _MOST_SAMPLES * 2)

    def idle_for(self, pids: Sequence[int], now: float) -> float | None:
        """For how long (s) nothing has moved, once that is longer than the limit and has not been :meth:`told`."""
        if self._stall_timeout is None:
            return None
        activity = memory.activity(pids)
        used = activity.cpu - self._seen.cpu
        # While this process was stopped (Ctrl-Z) its workers perhaps were, too: time counts only as far as it looks.
        self._idle_for += min(now - self._looked_at, _MOST_COUNTED * self._longest)
        self._looked_at = now
        if activity.io != self._seen.io or not 0 <= used < _IDLE_SHARE * self._stall_timeout:
            self._seen, self._idle_for, self._told_idle = activity, 0.0, False
        if self._told_idle or self._idle_for < self._stall_timeout:
            return None
        return self._idle_for

    def told(self) -> None:
        """That it is idle has been told: once is enough, until something has moved."""
        self._told_idle = True
