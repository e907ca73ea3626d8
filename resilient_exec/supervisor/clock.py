"""Notices that this process did not run for a while, and whether it was stopped or only busy."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["LagWatch"]

_LAG = 0.25  # s: what its reader may be late before that matters
_BUSY = 0.5  # of the lag: with as much CPU time used, the process was busy (a held GIL) and not stopped
_CPU_INTERVAL = 0.05  # s, between two looks at that: one takes as long as ten at the time


class LagWatch:
    """Compares how long its reader meant to wait with how long that took."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, cpu: Callable[[], float] = time.process_time
    ) -> None:
        self._clock, self._cpu = clock, cpu
        self._seen, self._used = clock(), cpu()
        self._used_at = self._seen

    def look(self, meant_to_wait: float | None) -> tuple[float, bool] | None:
        """For how long (s) the process did not run, at most, and whether it was stopped; ``None``: it was in time.

        ``meant_to_wait``: seconds since the last look; ``None``: for ever.  All of it counts: nobody knows when in it
        the stop began.
        """
        now = self._clock()
        passed, self._seen = now - self._seen, now
        if now - self._used_at <= _CPU_INTERVAL:
            return None
        used_before, self._used, self._used_at = self._used, self._cpu(), now
        if meant_to_wait is None or passed - meant_to_wait <= _LAG:
            return None
        return passed, self._used - used_before < _BUSY * (passed - meant_to_wait)
