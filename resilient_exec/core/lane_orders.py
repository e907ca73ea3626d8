"""What the core orders its lanes to do: start, run what they hold, take back, kill, end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resilient_exec.core.ledger import Ledger
from resilient_exec.core.messages import CloseLane, Finish, Kill, Look, StartWorker, StopWorker, TakeBack
from resilient_exec.core.states import LaneRecord, LaneState, Record, State

if TYPE_CHECKING:
    from collections.abc import Iterable

    from resilient_exec.model.task import Outcome

__all__ = ["LaneOrders"]

# To look a member up in its class takes 0.2 us on Python 3.11: what each task does several times has these.
_BUSY = LaneState.BUSY
_LOOKS_LATER = 4  # times as long, where calls of a chunk are heard of every few milliseconds as long as all goes well


class LaneOrders(Ledger):
    """The orders that lanes are given, each with the state and the deadline that go with it."""

    def _start_lane(self) -> bool:
        lane = self._lanes.pick_down()
        if lane is None:
            return False
        lane.pid = None
        self._lanes.set(lane, LaneState.STARTING, self._now + self.limits.start_timeout)
        self._tell_lane("lane_starting", lane)
        self._out.append(StartWorker(lane.number))
        return True

    def _advance(self, lane: LaneRecord) -> None:
        """The head of the lane is free for what comes next."""
        if lane.holds:
            head = lane.holds[0]
            lane.since, lane.slow = self._now, False
            self._stay_busy(lane)
            if head.state is State.DOOMED:
                self._kill(lane, head)
        elif self._lanes.worn_out(lane):
            self._lanes.set(lane, LaneState.STOPPING, self._now + self.limits.stop_timeout)
            why = {"why": lane.unfit} if lane.unfit else {}
            self._tell_lane("lane_stopping", lane, {"pid": lane.pid, **why})
            self._out.append(StopWorker(lane.number))
        else:
            self._lanes.set(lane, LaneState.IDLE)

    def _stay_busy(self, lane: LaneRecord, *, anew: bool = False) -> None:
        """Its worker holds something: the lane is looked at soon, and again until nothing is left to be found out.

        ``anew``: it has just been heard of, and needs not be looked at as soon as was meant.
        """
        self._lanes.set(lane, _BUSY)
        look, first, head = lane.look, self.limits.look_interval, lane.holds[0].task
        if head.calls and not head.group.bundled:
            first *= _LOOKS_LATER
        if anew or not look.timer or look.pause > first:
            look.pause = first
            self._timers.set(look, self._now + first)

    def _take_back(self, lane: LaneRecord, records: Iterable[Record]) -> None:
        """Have what has not begun of these not run there."""
        calls = tuple((one.task.number, one.attempt, one.task.calls or 1) for one in records if not one.has_begun)
        if calls:
            self._out.append(TakeBack(lane.number, calls))

    def _doom(self, record: Record, doom: Outcome, why: str) -> None:
        self._move(record, State.DOOMED)
        record.doom, record.timer = doom, 0
        self._tell("doomed", record, {"why": why})
        lane = record.lane
        if lane is not None and lane.holds[0] is record:  # one that was sent ahead is killed when it becomes the head
            self._kill(lane, record)
        elif lane is not None:  # unless it can be taken back before
            self._take_back(lane, [record])
            self._out.append(Look(lane.number))  # it may be the head by now

    def _kill(self, lane: LaneRecord, record: Record, *, unless_begun: bool = False) -> None:
        order = self._await_answer(lane, record)
        self._out.append(Kill(lane.number, record.task.number, record.attempt, order, unless_begun, record.task.calls))

    def _await_answer(self, lane: LaneRecord, victim: Record | None = None) -> int:
        """The serial of an order that the lane is to answer; of which attempt it is the kill, if it is one."""
        self._serial += 1
        lane.order, lane.victim = self._serial, victim
        self._lanes.set(lane, LaneState.KILLING, self._now + self.limits.kill_timeout)
        return self._serial

    def _close_lanes(self) -> None:
        for lane in self._lanes:
            if not lane.closing and lane.state is not LaneState.KILLING:
                lane.closing = True
                self._lanes.set(lane, LaneState.CLOSING, self._now + self.limits.stop_timeout)
                self._out.append(CloseLane(lane.number))
        if not len(self._lanes) and not self.finished:
            self.finished = True
            self._out.append(Finish())
