"""The calls of chunks: they end, are cut, taken back and shared out among the lanes.

How calls are told apart is in :mod:`resilient_exec.core.chunks`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from resilient_exec.core.chunks import Group, covers, overloaded, part_of
from resilient_exec.core.lane_life import LaneLife
from resilient_exec.core.messages import ItemsEnded, Look, TakeBack, TakenBack
from resilient_exec.core.states import LaneRecord, LaneState, Record, State
from resilient_exec.model.memory_level import MemoryLevel
from resilient_exec.model.packed import Slice
from resilient_exec.model.task import Died, Returned

if TYPE_CHECKING:
    from collections.abc import Hashable

__all__ = ["ChunkMoves"]

_WORTH_BUNDLING = 4  # tasks that are sent at once, at least
_ASKED_AGAIN = 0.005  # s, until a lane is asked again to give calls of a chunk away
# To look a member up in its class takes 0.2 us on Python 3.11: what each task does several times has these.
_SENT, _RUNNING = State.SENT, State.RUNNING


class ChunkMoves(LaneLife):
    """What is done with several calls of a chunk at once."""

    # -- calls that have returned --------------------------------------------------------------------------------------

    def _items_ended(self, s: ItemsEnded) -> None:
        lane = self._lanes.get(s.lane)
        if lane is None or not lane.holds:
            return
        head, taken = lane.holds[0], 0
        lane.memory, lane.unfit = s.memory, lane.unfit or s.unfit
        while taken < s.count and lane.holds:
            record, values = lane.holds[0], Slice(s.batch, s.skip + taken, s.count - taken)
            if record.task.number != s.number + taken or record.attempt != s.attempt:
                break  # a late word
            if record.task.calls:
                taken += self._settle_calls(record, lane, values, s.began)
            else:
                taken += self._settle_one(record, lane, values, s.began)
        if taken and s.began is not None and s.ended is not None and head.task.group is not None:
            head.task.group.pace.learn(s.skip + s.count, s.ended - s.began)
            if head.task.timed:
                self._learn(head.task, (s.ended - s.began) / (s.skip + s.count))
        if not lane.holds or lane.holds[0] is not head:
            self._advance(lane)
        elif taken and lane.state is LaneState.BUSY:
            lane.since = self._now
            self._stay_busy(lane, anew=True)
        if taken and self._lanes.is_overweight(lane):
            self._take_back(lane, lane.holds)

    def _settle_one(self, record: Record, lane: LaneRecord, values: Slice, began: float | None) -> int:
        """A call of a chunk that has a record of its own, at the head of a lane, has returned."""
        values.count = 1
        if not record.has_begun:
            self._begin(record, lane, lane.pid, began)
            if record.state is _SENT:
                self._move(record, _RUNNING)
        if record.soft_told == record.attempt:
            lane.unfit = lane.unfit or "SoftTimeout was raised in it"
        del lane.holds[0]
        self._conclude(record, Returned(values))
        return 1

    def _settle_calls(self, record: Record, lane: LaneRecord, values: Slice, began: float | None) -> int:
        """The first calls of a chunk at the head of a lane have returned; how many of them are in it."""
        count = values.count = min(values.count, record.task.calls)
        done = self._split(record, count) if count < record.task.calls else record
        if done is record:
            del lane.holds[0]
        record.lost = 0  # they had begun
        lane.begun += count
        done.begun = done.attempt
        if done.task.group.bundled:
            done.first_begun_at = self._now if began is None else began
            self._tell("begun", done, {"pid": lane.pid}, at=done.first_begun_at)
            self._tell("returned", done)
        self._settle(done, Returned(values))
        return count

    # -- calls that are taken back -------------------------------------------------------------------------------------

    def _taken_back(self, s: TakenBack) -> None:
        lane = self._lanes.get(s.lane)
        if lane is None or not lane.holds:
            return
        head = lane.holds[0]
        named = [self._part_held(lane, *call) for call in s.calls]
        back = [part for record in named if record is not None for part in self._halves(record, lane.shared_from)]
        for record in back:
            if record in lane.holds:
                lane.holds.remove(record)
            if record.state is State.DOOMED:
                self._conclude(record, Died(None, lane.pid))
            else:
                self._tell("taken_back", record)
                record.lane = None
                if not self._is_left_to_twin(record):
                    self._enqueue_again(record)
        if back and lane.state is LaneState.BUSY:  # else the answer to its kill, which found nothing, is on its way
            if lane.holds and lane.holds[0] is head:
                self._stay_busy(lane)  # it has room again
            else:
                self._advance(lane)

    @staticmethod
    def _is_named(record: Record, number: Hashable, attempt: int) -> bool:
        task = record.task
        return record.attempt == attempt and not record.has_begun and (task.number == number or covers(task, number))

    def _part_held(self, lane: LaneRecord, number: Hashable, attempt: int, calls: int) -> Record | None:
        """What the lane holds of that number and has not begun: of a chunk or bundle, so many ``calls`` from it on."""
        record = next((r for r in lane.holds if self._is_named(r, number, attempt)), None)
        if record is None or not record.task.calls:
            return record
        before = number - record.task.number  # type: ignore[operator]
        if before:
            self._put_in_front(self._split(record, before), record)
        if calls >= record.task.calls:
            return record
        named = self._split(record, calls)
        self._put_in_front(named, record)
        return named

    def _halves(self, record: Record, middle: int) -> list[Record]:
        """What was to be shared out and comes back whole, as it had not begun, goes on in two parts."""
        if not covers(record.task, middle) or record.task.number == middle:
            return [record]
        return [self._split(record, middle - record.task.number), record]  # type: ignore[operator]

    # -- cut and shared out --------------------------------------------------------------------------------------------

    def _cut(self, chunk: Record, lane: LaneRecord) -> Record:
        """Those calls of a queued chunk, which has been taken off the queue, that the lane is sent now."""
        task, group = chunk.task, chunk.task.group
        size = self._lanes.allowance(lane, task.calls)
        if group.most:
            size = min(size, group.most, group.pace.size(self._elastic + 1, self.limits.lanes))
        if group.bundled:
            size = min(size, self._lanes.room_for_bundled(lane))
            if size < _WORTH_BUNDLING:
                size = 1
        first = chunk
        if size < task.calls:
            first = self._split(chunk, size)
            self._backlog.add(chunk, comes_back=True)
        if group.bundled and size == 1:  # as any other task, from here on
            self._narrow(first, part_of(first.task, first.task.number, 0))  # type: ignore[arg-type]
        return first

    def _share_out(self) -> None:
        """Let a lane that has nothing to do take calls of a chunk from one that has too many."""
        if not self._lanes.has_idle() or self._admission.level is not MemoryLevel.OK:
            return
        found = overloaded(self._lanes, self._now, self.limits.patience)
        if found is not None:
            lane, number = found
            lane.shared_at, lane.shared_from = self._now + _ASKED_AGAIN, number
            last = lane.holds[-1]
            left: int = last.task.number + last.task.calls - number  # type: ignore[operator]
            self._out.append(TakeBack(lane.number, ((number, last.attempt, left),)))

    def _slow_down_chunks(self) -> None:
        """Have each worker do no more of a chunk than the call that it is at, and tell of that."""
        for lane in self._lanes:
            if any(record.task.calls for record in lane.holds):
                self._take_back(lane, lane.holds)
                self._out.append(Look(lane.number))

    def _cancel_chunk(self, group: Group) -> None:
        """Those of its calls that have not begun are not wanted any more."""
        group.is_wanted = False
        for part in list(group.parts.values()):
            if part.task.calls and part.state is State.QUEUED:
                self._settle(part, None)
            elif part.task.calls and part.state is State.SENT and part.lane is not None:
                self._take_back(part.lane, [part])
