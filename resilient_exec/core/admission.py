"""Whether the machine's memory lets another attempt start, and whose attempt goes when it runs out.

When the kernel has no memory left its OOM killer takes whatever is largest, the parent included.  So the pool stops
earlier: while memory is *low* no attempt is started, except that one may always run (or nothing would ever move);
while it is *critical* the youngest attempt, which loses the least work, is evicted, but never the only one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from resilient_exec.core.states import Record, State
from resilient_exec.model.memory_level import MemoryLevel

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["Admission"]

_FIRST_WAIT = 0.5  # s, for an evicted task
_LONGEST_WAIT = 30.0  # s


class Admission:
    """The level of memory as it was last told, and what follows from it."""

    def __init__(self) -> None:
        self.level = MemoryLevel.OK

    @property
    def is_open(self) -> bool:
        """Whether as many may be started as there is room for."""
        return self.level is MemoryLevel.OK

    def room(self, counts: Mapping[State, int]) -> int:
        """How many of the queued attempts may be started now."""
        if self.level is MemoryLevel.OK:
            return counts[State.QUEUED]
        return int(not counts[State.SENT] + counts[State.RUNNING] + counts[State.DOOMED])

    def victim(self, attempts: Iterable[Record]) -> Record | None:
        """The attempt to evict among those in the workers: the youngest that runs; ``None``: none has to go."""
        if self.level is not MemoryLevel.CRITICAL:
            return None
        held = list(attempts)
        running = [record for record in held if record.state is State.RUNNING]
        if len(running) < 2 or len(running) < len(held):  # somebody is being killed or is not yet measured: wait
            return None
        return max(running, key=lambda record: record.begun_at)

    @staticmethod
    def delay(evictions: int) -> float:
        """Seconds that a task waits after having been evicted so often."""
        return float(min(_FIRST_WAIT * 2 ** min(evictions - 1, 20), _LONGEST_WAIT))
