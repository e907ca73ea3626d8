"""The lanes as the core sees them: which are up, which can take an attempt, which may be started.

Book-keeping for :mod:`resilient_exec.core.machine`, as pure as the core itself: no lane is touched here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from resilient_exec.core.chunks import MOST_BUNDLED
from resilient_exec.core.states import LaneRecord, LaneState, Limits, Record, State

if TYPE_CHECKING:
    from collections.abc import Iterator

    from resilient_exec.core.timers import Timers

__all__ = ["Roster"]

# To look a member up in its class takes longer than all that is done with it here.
_DOWN, _STARTING, _IDLE, _BUSY = LaneState.DOWN, LaneState.STARTING, LaneState.IDLE, LaneState.BUSY
_SENT = State.SENT
_ENOUGH = 0.03  # s of work in calls of a chunk, behind which nothing is sent ahead


class Roster:
    """All lanes of a pool, by number and by what can be done with them."""

    def __init__(self, limits: Limits, timers: Timers) -> None:
        self.starting = 0
        self._limits = limits
        self._timers = timers
        self._lanes: dict[int, LaneRecord] = {}
        self._next_number = 0
        self._idle: dict[int, LaneRecord] = {}
        self._ahead: dict[int, LaneRecord] = {}  # busy, with room to send ahead
        self._down: dict[int, LaneRecord] = {}
        self._wears_out = limits.max_tasks_per_worker is not None or limits.max_memory_per_worker is not None

    def __iter__(self) -> Iterator[LaneRecord]:
        return iter(self._lanes.values())

    def __len__(self) -> int:
        return len(self._lanes)

    def get(self, number: int) -> LaneRecord | None:
        """The lane of that number; ``None`` for one that was closed or given up."""
        return self._lanes.get(number)

    def can_take(self) -> bool:
        """Whether another attempt can be sent, or a lane started for it."""
        return bool(self._idle or self._ahead) or self.can_start()

    def can_start(self) -> bool:
        """Whether there is a lane without a worker, or may be another lane."""
        return bool(self._down) or len(self._lanes) < self._limits.lanes

    def pick(self, now: float) -> LaneRecord | None:
        """A lane that can take an attempt now: an idle one (the last used: it is warm), else one with room ahead.

        Those with room take turns, so that no lane is filled before another has some; one whose attempt has run for
        too long already has none.
        """
        if self._idle:
            return next(reversed(self._idle.values()))
        while self._ahead:
            lane = next(iter(self._ahead.values()))
            head = lane.holds[0]
            if not head.has_begun or now < head.begun_at + self._limits.patience:
                return lane
            lane.slow = True
            del self._ahead[lane.number]
            lane.listed = None
        return None

    def pick_down(self) -> LaneRecord | None:
        """A lane that may be started: one without a worker, else a new one while there may be more."""
        if self._down:
            return next(reversed(self._down.values()))
        lane = None
        if len(self._lanes) < self._limits.lanes:
            lane = self._lanes[self._next_number] = LaneRecord(self._next_number)
            self.renew(lane)
            self._next_number += 1
        return lane

    def sent_ahead(self) -> int:
        """How many attempts wait in workers that are at another."""
        return sum(len(lane.holds) - 1 for lane in list(self._lanes.values()) if lane.holds)

    def alive(self) -> bool:
        """Whether any lane has a worker, or one on its way."""
        return any(lane.state not in (LaneState.DOWN, LaneState.CLOSING) for lane in self._lanes.values())

    def set(self, lane: LaneRecord, state: LaneState, due: float | None = None) -> None:
        """The only place where a lane's state changes; it is to be looked at again at ``due`` (s)."""
        if lane.listed is not None:
            del lane.listed[lane.number]
        if state is not lane.state:
            self.starting += (state is _STARTING) - (lane.state is _STARTING)
            lane.state = state
        if state is _BUSY:
            listed = self._ahead if self._has_room(lane) else None
        else:
            listed = self._idle if state is _IDLE else self._down if state is _DOWN and not lane.closing else None
        lane.listed = listed
        if listed is not None:
            listed[lane.number] = lane
        if due is None:
            lane.timer = 0
        else:
            self._timers.set(lane, due)

    def has_idle(self) -> bool:
        """Whether a lane with a worker has nothing to do."""
        return bool(self._idle)

    def allowance(self, lane: LaneRecord, calls: int) -> int:
        """How many of so many calls its worker may still run, at least one."""
        most = self._limits.max_tasks_per_worker
        return calls if most is None else max(1, min(calls, most - lane.begun - _to_come(lane)))

    @staticmethod
    def room_for_bundled(lane: LaneRecord) -> int:
        """How many tasks of a bundle its worker may still be sent, beside those of others that it holds."""
        bundles = [one.task for one in lane.holds if one.task.calls and one.task.group.bundled]
        return MOST_BUNDLED - sum(task.calls for task in bundles)

    def is_overweight(self, lane: LaneRecord) -> bool:
        """Whether its worker holds so much that it is to be replaced."""
        limit = self._limits.max_memory_per_worker
        return limit is not None and lane.memory > limit

    def _has_room(self, lane: LaneRecord) -> bool:
        holds = lane.holds
        last = holds[-1].task
        is_full = len(holds) >= lane.depth if not last.calls else _is_chunk_enough(holds)
        if lane.slow or is_full or lane.unfit or last.soft_timeout is not None:
            return False  # behind a soft timeout, the worker may have to be replaced
        return not self._wears_out or self._wears_later(lane)

    def can_hold_more(self, lane: LaneRecord) -> bool:
        """Whether a busy lane, one of whose attempts is over, may be sent another at once."""
        if lane.state is not _BUSY or lane.unfit or self._wears_out:
            return False
        return not lane.holds or (lane.holds[0].state is _SENT and self._has_room(lane))

    def _wears_later(self, lane: LaneRecord) -> bool:
        limits = self._limits
        if limits.max_memory_per_worker is not None:
            return False  # the worker may have to be replaced behind each attempt
        if limits.max_tasks_per_worker is None:
            return True
        return lane.begun + _to_come(lane) < limits.max_tasks_per_worker

    def worn_out(self, lane: LaneRecord) -> bool:
        """Whether the lane's worker is to be replaced: it has run as many attempts as it may, or is unfit for more."""
        limit = self._limits.max_tasks_per_worker
        return (limit is not None and lane.begun >= limit) or self._is_unfit(lane)

    def _is_unfit(self, lane: LaneRecord) -> bool:
        return bool(lane.unfit) or self.is_overweight(lane)

    def renew(self, lane: LaneRecord) -> None:
        """It has another worker, of which nothing is known yet."""
        limits = self._limits
        lane.depth = limits.depth if limits.first_depth is None else limits.first_depth

    def learn(self, lane: LaneRecord, took: float) -> None:
        """Its worker took so long (s) for an attempt: how many it may hold follows from that."""
        limits = self._limits
        if limits.first_depth is not None and (lane.depth < limits.depth or took * limits.depth > limits.ahead):
            fits = limits.depth if took * limits.depth <= limits.ahead else int(limits.ahead / took)
            lane.depth = max(1, min(fits, 2 * lane.depth))

    def remove(self, lane: LaneRecord) -> None:
        """Forget the lane: it has ended, or was given up."""
        lane.closing = True
        self.set(lane, _DOWN)
        del self._lanes[lane.number]

    def describe(self, now: float) -> list[dict[str, Any]]:
        """For each lane: its number, state and pid, the key it runs, which attempt, and for how long (s)."""
        return [_describe(lane, now) for lane in list(self._lanes.values())]


def _is_chunk_enough(holds: list[Record]) -> bool:
    """Whether a worker that holds a chunk needs none behind it: it has one, or the work of it will last."""
    last = holds[-1].task
    mean = last.group.pace.mean
    return mean is None or mean * last.calls > _ENOUGH or sum(one.task.calls > 0 for one in holds) > 1


def _to_come(lane: LaneRecord) -> int:
    """Calls in its worker that have not begun."""
    return sum(record.task.calls or 1 for record in lane.holds if not record.has_begun)


def _describe(lane: LaneRecord, now: float) -> dict[str, Any]:
    head: Record | None = lane.holds[0] if lane.holds else None
    return {
        "lane": lane.number,
        "state": str(lane.state),
        "pid": lane.pid if lane.state is not LaneState.DOWN else None,  # of the dead one, until another is started
        "key": head.task.key if head is not None else None,
        "attempt": head.attempt if head is not None else 0,
        "elapsed": now - (head.begun_at if head.has_begun else lane.since) if head is not None else None,
    }
