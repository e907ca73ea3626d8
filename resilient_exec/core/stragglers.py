"""How long attempts of tasks with one label take, and which of those that run take far longer.

Book-keeping for :mod:`resilient_exec.core.speculation` and for costs that are learned, as pure as the core itself.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable

    from resilient_exec.core.states import Limits, Record

__all__ = ["Peers"]

_REMEMBERED = 100  # the last ones that have returned
_QUANTILE = 0.9


class Peers:
    """Attempts of tasks with one label.

    Attributes:
        running: those that run and have no twin, by number, in the order in which their begin was told.
        timer: of when the first of them will have run for too long; ``due`` is that time (s).
    """

    __slots__ = ("_last", "_limits", "_sorted", "due", "running", "timer")

    def __init__(self, limits: Limits) -> None:
        self.running: dict[Hashable, Record] = {}
        self.timer = 0
        self.due = 0.0
        self._limits = limits
        self._last: deque[float] = deque()
        self._sorted: list[float] = []

    def learn(self, took: float) -> None:
        """One has returned after so many seconds."""
        self._last.append(took)
        insort(self._sorted, took)
        if len(self._last) > _REMEMBERED:
            del self._sorted[bisect_left(self._sorted, self._last.popleft())]

    def usual(self) -> float:
        """How long one takes, in seconds, to a factor of two (a half have taken less); infinite: none is known."""
        known = self._sorted
        return (1 << int(1e6 * known[len(known) // 2]).bit_length()) / 2e6 if known else float("inf")

    def longest(self) -> float | None:
        """After how many seconds one takes far longer than the others; ``None``: too few have returned.

        That is a multiple of what nine of ten have taken at most.
        """
        known, limits = len(self._sorted), self._limits
        if known < limits.straggler_peers:
            return None
        return max(limits.straggler_floor, limits.straggler_factor * self._sorted[int(_QUANTILE * known)])
