"""The calls of a chunk or a bundle: how they are told apart, cut, and shared out among the lanes.

A chunk is **one** record with a range of calls, numbered one after the other, until something happens to one of them.
It runs in order, so what has returned is taken off its front.  A call that raises, dies, runs into a limit, or is only
seen to run, is *singled out*: it becomes a record of its own, at the head of its lane, and is treated as any other
attempt from then on.  What is left is a range behind it, which has not begun and is charged with nothing.

A **bundle** is the same of tasks that were submitted one by one, one after the other, with the same function and
options: each has a future of its own, and can be cancelled and killed by itself.  While such tasks take long they are
sent one by one, as all others; several are sent at once when they have proved to be quick.

Book-keeping for :mod:`resilient_exec.core.machine`, as pure as the core itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from resilient_exec.core.states import LaneState, Record, State
from resilient_exec.model.task import Task

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    from resilient_exec.core.states import LaneRecord

__all__ = [
    "MOST_BUNDLED",
    "Group",
    "Groups",
    "Pace",
    "covers",
    "has_default_key",
    "key_of_call",
    "overloaded",
    "part_of",
]
__all__ += ["spare_record"]

_AIM = 0.03  # s of work in what is cut at once
MOST_BUNDLED = 192  # tasks of bundles in one worker, each of which needs a mark in its register
_BLOCK = 6  # bits: numbers that agree in all others are looked up together
_LEAST = 0.002  # s: smaller parts than this are not worth a message, towards the end
_MOST_GROWTH = 8  # times as many calls as the last time, at most
_WORTH = 0.002  # s of work that is worth taking from one lane for another
_SHARES = 2  # what is left is cut into so many parts for each lane


class Pace:
    """How long the calls of one ``map`` take, and how many of them are therefore sent at once.

    One call at first; more and more while they are quick, ``aim`` seconds of work at most; one again behind a long one.
    """

    __slots__ = ("_aim", "fit", "mean")

    def __init__(self, aim: float = _AIM) -> None:
        self._aim = aim
        self.fit = 1
        self.mean: float | None = None  # s, of the last calls

    def learn(self, count: int, took: float) -> None:
        """So many calls took so long (s) together, in one worker."""
        each = max(took, 1e-9) / count
        self.mean = each if self.mean is None else (self.mean + each) / 2
        fits = max(1, int(self._aim / max(each, self.mean)))
        self.fit = min(fits, max(self.fit, count) * _MOST_GROWTH)

    def size(self, left: int, lanes: int) -> int:
        """How many of the calls that are ``left`` one lane is sent now: fewer towards the end."""
        least = int(_LEAST / self.mean) if self.mean else 1
        return max(1, min(self.fit, max(least, -(-left // (_SHARES * lanes)))))


class Group:
    """What the calls of one chunk have in common, wherever they are.

    Attributes:
        first: the number of the first call.
        size: how many calls there were.
        most: how many are sent at once at most, where the pool chooses that; 0: all are, and only a lane that has
            nothing else to do is given some of them.
        pace: of the ``map`` that it belongs to.
        numbered: whether the key of each call is its number, and not one that was given to all of them.
        bundled: they are tasks with a future each.
        is_wanted: it has not been cancelled.
        parts: the records of its calls that have not settled, by number.
    """

    __slots__ = ("bundled", "first", "is_wanted", "most", "numbered", "pace", "parts", "size")

    def __init__(
        self, first: int, pace: Pace, size: int = 0, *, most: int = 0, numbered: bool = True, bundled: bool = False
    ) -> None:
        self.first, self.pace, self.size, self.most, self.numbered = first, pace, size, most, numbered
        self.bundled = bundled
        self.is_wanted = True
        self.parts: dict[int, Record] = {}


class Groups:
    """All groups of a pool, of which each is found by the number of any of its calls."""

    def __init__(self) -> None:
        self._blocks: dict[int, list[Group]] = {}
        self._chunks: dict[int, Group] = {}  # by the number of their first call; bundles are none

    def add(self, group: Group) -> None:
        """Take one in, unless it is there: its parts may be submitted one by one."""
        if not group.bundled:
            self._chunks[group.first] = group
        for block in self._blocks_of(group):
            there = self._blocks.setdefault(block, [])
            if group not in there:
                there.append(group)

    def discard(self, group: Group) -> None:
        """Forget one, if it is there."""
        if not group.bundled:
            self._chunks.pop(group.first, None)
        for block in self._blocks_of(group):
            there = self._blocks.get(block, [])
            if group in there:
                there.remove(group)
                if not there:
                    del self._blocks[block]

    @staticmethod
    def _blocks_of(group: Group) -> range:
        return range(group.first >> _BLOCK, (group.first + max(group.size, 1) - 1 >> _BLOCK) + 1)

    def find(self, number: object) -> Group | None:
        """The group of the call of that number."""
        if not isinstance(number, int):
            return None
        for group in list(self._blocks.get(number >> _BLOCK, ())):
            if group.first <= number < group.first + max(group.size, 1):
                return group
        return None

    def chunk(self, number: Hashable) -> Group | None:
        """The chunk whose first call has that number; a bundle is none, since its tasks go by themselves."""
        return self._chunks.get(number)  # type: ignore[call-overload, no-any-return]

    def chunks(self) -> list[Group]:
        """All chunks."""
        return list(self._chunks.values())


def part_of(task: Task, number: int, calls: int) -> Task:
    """Some of the calls of a chunk: so many, from that number on; with 0 that call by itself."""
    key = key_of_call(task, number - task.number)  # type: ignore[operator]
    return Task(
        number,
        task.retry,
        task.timeout,
        task.priority,
        task.label,
        task.soft_timeout,
        task.memory_limit,
        key,
        task.name,
        task.cost,
        task.cargo,
        calls,
        task.group,
        task.speculate,
        task.timed,
    )


def key_of_call(task: Task, position: int) -> Hashable:
    """The key of a call in a chunk."""
    key: Hashable = task.key + position if task.group.numbered else task.key  # type: ignore[operator]
    return key


def covers(task: Task, number: object) -> bool:
    """Whether the chunk has a call of that number."""
    if not task.calls or not isinstance(number, int):
        return False
    first: int = task.number  # type: ignore[assignment]
    return first <= number < first + task.calls


def has_default_key(task: Task, number: object) -> bool:
    """Whether the task, or one of the calls of a chunk, was given no key, and has that number."""
    if task.group is None:
        return task.number == number and task.key is task.number
    return bool(task.group.numbered) and (task.number == number or covers(task, number))


def spare_record(record: Record, task: Task) -> Record:
    """A record of some calls of a chunk, that stand where the chunk stands."""
    twin = Record(task, record.order, record.state, record.lane, record.attempt)
    twin.doom, twin.lost = record.doom, record.lost
    twin.rows = list(record.story)
    return twin


def _loose_calls(lane: LaneRecord) -> tuple[Record, int] | None:
    """The last range of calls that the lane's worker holds, and how many of them have surely not begun."""
    if lane.state is not LaneState.BUSY:
        return None
    last = lane.holds[-1]
    if not last.task.calls or last.state is not State.SENT:
        return None
    loose = last.task.calls - (len(lane.holds) == 1)  # of a head, one may be running
    return (last, loose) if loose > 0 else None


def overloaded(lanes: Iterable[LaneRecord], now: float, patience: float) -> tuple[LaneRecord, int] | None:
    """The lane that holds the most work which another could do, and the first call that it is to give away.

    ``None``: there is none for which it would be worth it.
    """
    best: tuple[float, LaneRecord, int] | None = None
    for lane in lanes:
        found = _loose_calls(lane)
        if found is None or now < lane.shared_at:
            continue
        record, loose = found
        head, mean = lane.holds[0], record.task.group.pace.mean
        ran = now - head.begun_at if head.has_begun and head is not record else 0.0
        work = loose * max(mean or 0.0, ran if ran >= patience else 0.0)
        if work < _WORTH or (best is not None and work <= best[0]):
            continue
        # Behind a call that takes long, all would wait for that; else the lane keeps its half.
        kept = 0 if ran >= patience else loose // 2
        best = work, lane, record.task.number + record.task.calls - (loose - kept)  # type: ignore[operator]
    return best[1:] if best is not None else None
