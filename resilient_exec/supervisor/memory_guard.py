"""Looks at the machine's memory now and then, and tells the core when it runs low."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from resilient_exec.core.messages import MachineMemory
from resilient_exec.model.memory_level import MemoryLevel
from resilient_exec.process import memory

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Pressure", "default_reserve"]

_INTERVAL = 0.25  # s between two looks
_INTERVAL_IN_PLENTY = 0.5  # s: each look wakes a thread whose code is in no cache by then
_PLENTY = 4 << 30  # bytes beyond the reserve, which are not taken within that time
_SHARE = 0.04  # of all memory
_MOST = 512 << 20  # bytes
_BACK = 1.25  # times the reserve must be free again before it counts as enough: else it would flutter


def default_reserve(total: int) -> int:
    """4 % of the machine's memory, or of its cgroup's; at most 512 MiB."""
    return min(int(total * _SHARE), _MOST)


class Pressure:
    """Below ``reserve`` bytes memory is low, below half of that critical.  ``None``: the default reserve.

    Attributes:
        interval: seconds until it is to look again.
    """

    def __init__(
        self, reserve: int | None = None, machine: Callable[[], memory.Machine | None] = memory.machine
    ) -> None:
        self._machine = machine
        self._reserve = reserve
        self._level = MemoryLevel.OK
        self._due = 0.0
        self.interval = _INTERVAL

    def look(self) -> MachineMemory | None:
        """Look, if it is time to; what is worth telling: a change of the level, and each look at a critical one."""
        now = time.monotonic()
        if now < self._due:
            return None
        self._due = now + self.interval
        found = self._machine()
        if found is None:
            return None
        reserve = default_reserve(found.total) if self._reserve is None else self._reserve
        self.interval = _INTERVAL_IN_PLENTY if found.available > reserve + _PLENTY else _INTERVAL
        self._due = now + self.interval
        before, self._level = self._level, self._judge(found.available, reserve)
        if self._level is before and before is not MemoryLevel.CRITICAL:
            return None
        return MachineMemory(self._level, found.available)

    def _judge(self, available: int, reserve: int) -> MemoryLevel:
        if available < reserve / 2:
            return MemoryLevel.CRITICAL
        if available < reserve or (self._level is not MemoryLevel.OK and available < reserve * _BACK):
            return MemoryLevel.LOW
        return MemoryLevel.OK
