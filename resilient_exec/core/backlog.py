"""The queued tasks, in the order in which they are to be sent.

The largest priority goes first, of equal priority the dearest, of equal cost whoever came first.  Most tasks of a pool
have the same priority and cost: so there is a line for each pair of these, to which one is added, and from which one is
taken, at the same cost however long it is.  (One heap of all tasks took 3 us for each of a million.)  What comes back,
to be tried again, gets its old place in its line.

A task that leaves the state *queued* otherwise (it is cancelled, or killed) stays in its line until its turn comes.
"""

from __future__ import annotations

import heapq
from collections import deque
from typing import TYPE_CHECKING

from resilient_exec.core.states import State

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

    from resilient_exec.core.states import Record

__all__ = ["Backlog"]

_QUEUED = State.QUEUED
Rank = tuple[float, float]  # the smallest goes first


class _Line:
    """Tasks of the same priority and cost: those that came in, in this order, and a heap of those that came back."""

    __slots__ = ("_back", "again", "fresh")

    def __init__(self) -> None:
        self.fresh: deque[Record] = deque()
        self.again: list[tuple[int, Hashable, int, Record]] = []
        self._back = 0

    def add_again(self, record: Record) -> None:
        """Give it its old place."""
        # Parts of one chunk have the same order. Their numbers differ, but may have changed while they stand here: then
        # what has been split off last is the first of them.
        self._back -= 1
        heapq.heappush(self.again, (record.order, record.task.number, self._back, record))

    def pop(self) -> Record | None:
        """The first one; ``None``: the line is empty."""
        fresh, again = self.fresh, self.again
        if again and not (fresh and fresh[0].order < again[0][0]):
            return heapq.heappop(again)[-1]
        return fresh.popleft() if fresh else None


class Backlog:
    """All lines, and their ranks; ``size`` is how many stand in them, those that are queued no more among them."""

    def __init__(self) -> None:
        self.size = 0
        self._lines: dict[Rank, _Line] = {}
        self._ranks: list[Rank] = []  # a heap: of each line, its rank

    def __iter__(self) -> Iterator[Record]:
        for line in self._lines.values():
            yield from line.fresh
            for *_, record in line.again:
                yield record

    def add(self, record: Record, *, comes_back: bool = False) -> None:
        """Take in one that is queued; one that has been in the line before gets its place there again."""
        task = record.task
        rank = (-task.priority, -task.cost)
        line = self._lines.get(rank)
        if line is None:
            line = self._lines[rank] = _Line()
            heapq.heappush(self._ranks, rank)
        self.size += 1
        if record.attempt or comes_back:
            line.add_again(record)
        else:
            line.fresh.append(record)

    def pop(self) -> Record:
        """Take out the first that is still queued; there is one."""
        while True:
            record = self._lines[self._ranks[0]].pop()
            if record is None:
                del self._lines[heapq.heappop(self._ranks)]
                continue
            self.size -= 1
            if record.state is _QUEUED:
                return record

    def clear(self) -> None:
        """Forget what is left: it is queued no more."""
        if self.size or len(self._lines) > 1:
            self.size = 0
            self._lines.clear()
            self._ranks.clear()
