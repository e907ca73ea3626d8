"""One timer for everything that waits: a heap of ``(due, serial, owner)``, cleared lazily."""

from __future__ import annotations

import heapq
from typing import Protocol

__all__ = ["HasTimer", "Timers"]

_SMALLEST_SWEEP = 256


class HasTimer(Protocol):
    """An owner of at most one timer at a time; ``timer`` is the serial of the one that counts, 0 for none."""

    timer: int


class Timers:
    """Who wants to be woken when.  An entry counts only while its serial is still its owner's."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, HasTimer]] = []
        self._serial = 0
        self._sweep_at = _SMALLEST_SWEEP

    def set(self, owner: HasTimer, due: float) -> None:
        """Wake ``owner`` at ``due`` (s), instead of when it was to be woken before."""
        self._serial += 1
        owner.timer = self._serial
        heapq.heappush(self._heap, (due, self._serial, owner))
        if len(self._heap) >= self._sweep_at:
            self._sweep()

    def due_of(self, owner: HasTimer) -> float:
        """When the timer of ``owner``, which has one, is due (s).  It is searched for: this is not for each task."""
        return next(due for due, serial, other in self._heap if other is owner and serial == owner.timer)

    def _sweep(self) -> None:
        """Drop the entries that no longer count: most tasks end long before their timer, and must not be kept by it."""
        self._heap = [entry for entry in self._heap if entry[2].timer == entry[1]]
        heapq.heapify(self._heap)
        self._sweep_at = max(_SMALLEST_SWEEP, 2 * len(self._heap))

    def next_due(self) -> float | None:
        """When the next timer is due (s), or ``None``."""
        heap = self._heap
        while heap and heap[0][2].timer != heap[0][1]:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def pop_due(self, now: float) -> HasTimer | None:
        """The next owner whose time has come, its timer cleared; ``None`` when all others are still to come."""
        due = self.next_due()
        if due is None or due > now:
            return None
        owner = heapq.heappop(self._heap)[2]
        owner.timer = 0
        return owner
