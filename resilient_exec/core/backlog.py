"""The queued tasks, in the order in which they are to be sent.

The largest priority goes first, of equal priority the dearest, of equal cost whoever came first.  Most tasks of a pool
have the same priority and cost: so there is a line for each pair of these, to which one is added, and from which one is
taken, at the same cost however long it is.  (One heap of all tasks took 3 us for each of a million.)  What comes back,
to be tried again, gets its old place in its line.

Tasks whose cost is *learned* have a line for each label and priority, which moves when more becomes known of its label.
A label of which nothing is known goes first, to find out.

A task that leaves the state *queued* otherwise (it is cancelled, or killed) stays in its line until its turn comes.
"""

from __future__ import annotations

import heapq
from collections import deque
from typing import TYPE_CHECKING

from resilient_exec.core.states import State

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator

    from resilient_exec.core.states import Record

__all__ = ["Backlog"]

_QUEUED = State.QUEUED
Rank = tuple[float, float] | tuple[float, float, float, str]  # the smallest goes first


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


class _LearnedLine(_Line):
    """Tasks of the same priority and label, whose cost is learned; ``rank`` is where the line stands."""

    __slots__ = ("label", "priority", "rank")

    def __init__(self, priority: float, label: str) -> None:
        super().__init__()
        self.priority, self.label = priority, label
        self.rank: Rank | None = None

    def first(self) -> int:
        """The place of the first of them among all tasks; 0: the line is empty."""
        if self.again and not (self.fresh and self.fresh[0].order < self.again[0][0]):
            return self.again[0][0]
        return self.fresh[0].order if self.fresh else 0


class Backlog:
    """All lines, and their ranks; ``size`` is how many stand in them, those that are queued no more among them."""

    def __init__(self, usual: Callable[[str], float] = lambda _: 0.0) -> None:
        """``usual(label)``: how long tasks with that label take (s), as far as it is known, else infinite."""
        self.size = 0
        self._usual = usual
        self._lines: dict[Rank, _Line] = {}
        self._learned: dict[str, dict[float, _LearnedLine]] = {}  # by label and priority
        self._ranks: list[Rank] = []  # a heap: of each line, its rank; and ranks at which no line stands any more

    def __iter__(self) -> Iterator[Record]:
        for line in self._lines.values():
            yield from line.fresh
            for *_, record in line.again:
                yield record

    def add(self, record: Record, *, comes_back: bool = False) -> None:
        """Take in one that is queued; one that has been in the line before gets its place there again."""
        task = record.task
        self.size += 1
        if task.cost is None:
            self._add_learned(record, comes_back=comes_back)
            return
        rank = (-task.priority, -task.cost)
        line = self._lines.get(rank)
        if line is None:
            line = self._lines[rank] = _Line()
            heapq.heappush(self._ranks, rank)
        if record.attempt or comes_back:
            line.add_again(record)
        else:
            line.fresh.append(record)

    def _add_learned(self, record: Record, *, comes_back: bool) -> None:
        priority, label = record.task.priority, record.task.label
        lines = self._learned.setdefault(label, {})
        line = lines.get(priority)
        if line is None:
            line = lines[priority] = _LearnedLine(priority, label)
        if record.attempt or comes_back:
            line.add_again(record)
        else:
            line.fresh.append(record)
        self._rank(line)

    def _rank(self, line: _LearnedLine) -> bool:
        """Have the line stand where it belongs by what is known now; whether it stood elsewhere."""
        rank: Rank = (-line.priority, -self._usual(line.label), line.first(), line.label)
        if rank == line.rank:
            return False
        if line.rank is not None:
            self._lines.pop(line.rank, None)  # in the heap that rank stays, until it is come upon
        line.rank = rank
        self._lines[rank] = line
        heapq.heappush(self._ranks, rank)
        return True

    def rank_again(self, label: str) -> None:
        """More has become known of that label."""
        for line in self._learned.get(label, {}).values():
            self._rank(line)

    def pop(self) -> Record:
        """Take out the first that is still queued; there is one."""
        while True:
            line = self._lines.get(self._ranks[0])
            if line is None:
                heapq.heappop(self._ranks)
                continue
            if isinstance(line, _LearnedLine) and self._rank(line):
                continue
            record = line.pop()
            if record is None:
                self._forget(heapq.heappop(self._ranks), line)
                continue
            self.size -= 1
            if record.state is _QUEUED:
                return record

    def _forget(self, rank: Rank, line: _Line) -> None:
        del self._lines[rank]
        if isinstance(line, _LearnedLine):
            lines = self._learned[line.label]
            del lines[line.priority]
            if not lines:
                del self._learned[line.label]

    def clear(self) -> None:
        """Forget what is left: it is queued no more."""
        if self.size or len(self._ranks) > 1:
            self.size = 0
            self._lines.clear()
            self._learned.clear()
            self._ranks.clear()
