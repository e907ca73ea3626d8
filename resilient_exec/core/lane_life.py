"""The life of a lane: its worker starts, or fails to; it dies, is replaced or given up; and it is looked at meanwhile.

**Only what had begun is charged.**  Whatever else a worker held goes back to the queue at its old place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from resilient_exec.core.attempts import Attempts
from resilient_exec.core.messages import (
    Abandon,
    Answered,
    Begun,
    EndStart,
    EndStop,
    LaneClosed,
    LaneReady,
    Look,
    Progress,
    StartFailed,
    WorkerGone,
)
from resilient_exec.core.states import LaneRecord, LaneState, LookTimer, Record, State
from resilient_exec.model.errors import PoolBroken
from resilient_exec.model.events import Event
from resilient_exec.model.task import Died, Lost

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["LaneLife"]

_LONGEST_PAUSE = 0.5  # s, between two looks at a lane


def _follows(record: Record, head: Record) -> bool:
    """Whether these calls come next in the chunk that the head is a call of: they go where it goes, unless they are
    wanted elsewhere.
    """
    group = record.task.group
    return group is not None and group is head.task.group and not group.bundled


class LaneLife(Attempts):
    """The stimuli about lanes and their workers."""

    # -- starts --------------------------------------------------------------------------------------------------------

    def _lane_ready(self, s: LaneReady) -> None:
        lane = self._lanes.get(s.lane)
        # `killing`: it became ready just when its start was given up; such a kill spares a worker that is ready.
        if lane is None or lane.closing or lane.holds or lane.state not in (LaneState.STARTING, LaneState.KILLING):
            return
        self._starts.succeeded()
        lane.pid = s.pid
        lane.begun = lane.memory = 0
        lane.unfit = ""
        self._lanes.renew(lane)
        self._tell_lane("lane_ready", lane, {"pid": s.pid})
        self._advance(lane)

    def _progress(self, s: Progress) -> None:
        lane = self._lanes.get(s.lane)
        if lane is not None:
            lane.since = self._now

    def _start_failed(self, s: StartFailed) -> None:
        lane = self._lanes.get(s.lane)
        if lane is None or lane.closing or lane.state not in (LaneState.STARTING, LaneState.KILLING):
            return
        self._lanes.set(lane, LaneState.DOWN)
        self._tell_lane("lane_failed", lane, {"why": s.words})
        self._count_failed_start(s.words, lasting=s.lasting)

    def _count_failed_start(self, words: str, *, lasting: bool = False) -> None:
        hopeless = bool(self._records) and not self._lanes.alive()
        broken = self._starts.failed(self._now, words, hopeless=hopeless, lasting=lasting)
        if broken is None:
            self._wake(self._starts, self._starts.wait())
            return
        self.broken = broken
        self._out.append(Event(self._now, "pool_broken", detail={"why": words}))
        for record in list(self._records.values()):
            self._settle(record, PoolBroken(broken))

    # -- ends ----------------------------------------------------------------------------------------------------------

    def _worker_gone(self, s: WorkerGone) -> None:
        lane = self._lanes.get(s.lane)
        if lane is None or lane.state in (LaneState.DOWN, LaneState.STARTING):
            return
        if s.outcome is not None:  # what ended had begun, even where the worker died before it could say so
            self._attempt_begun(Begun(s.lane, s.number, s.attempt, lane.pid or 0, s.at))
        self._tell_lane("lane_lost", lane, {"pid": lane.pid, "why": s.why})
        held = self._empty(lane)
        if held and s.outcome is not None and held[0].task.number == s.number and held[0].attempt == s.attempt:
            self._conclude(held.pop(0), s.outcome)
        self._release(held, lane, s.why)
        if lane.closing:
            self._lanes.set(lane, LaneState.CLOSING, self._now + self.limits.stop_timeout)
        else:
            self._lanes.set(lane, LaneState.DOWN)

    def _lane_closed(self, s: LaneClosed) -> None:
        lane = self._lanes.get(s.lane)
        if lane is None:
            return
        was_starting = lane.pid is None and not lane.closing and lane.state is not LaneState.DOWN
        self._tell_lane("lane_closed", lane)
        self._lanes.remove(lane)
        self._release(self._empty(lane), lane, "its lane has ended")
        if was_starting:  # a lane that ends by itself on every start must not be replaced for ever
            self._count_failed_start("its lane ended while it was starting")

    @staticmethod
    def _empty(lane: LaneRecord) -> list[Record]:
        held, lane.holds = lane.holds, []
        return held

    def _release(self, held: Iterable[Record], lane: LaneRecord, why: str) -> None:
        """The worker that held these is gone: conclude the one that had begun, queue the others again, uncharged."""
        for record in held:
            if record.has_begun or record.state is State.DOOMED:
                self._conclude(record, Died(None, lane.pid, why=why))
                continue
            record.lost += 1
            self._tell("lost", record, {"why": why})
            record.lane = None
            if self._is_left_to_twin(record):
                continue
            if record.lost >= self.limits.uncharged:
                self._settle(record, Lost(f"{record.lost} times in a row; {why}"))
            else:
                self._enqueue_again(record)

    def _enqueue_again(self, record: Record) -> None:
        """It was sent, and has not begun: back to the queue; calls that nobody wants any more end here."""
        if record.task.calls and (self._no_retries or not record.task.group.is_wanted):
            self._settle(record, None)
        else:
            self._enqueue(record)

    # -- answers and deadlines -----------------------------------------------------------------------------------------

    def _answered(self, s: Answered) -> None:
        """The kill was late: its lane goes on; what it had found was told before."""
        lane = self._lanes.get(s.lane)
        if lane is None or lane.state is not LaneState.KILLING or lane.order != s.order or lane.closing:
            return
        victim = lane.victim
        if victim is None:
            return  # a start or a stop that has ended of itself: the word of that is on its way
        held = lane.holds[:1] == [victim]  # else it was cancelled
        if held and (victim.state is State.DOOMED or not victim.has_begun):  # the lane does not have it
            del lane.holds[0]
            self._release([victim], lane, "its worker did not have it")
        self._advance(lane)

    def _lane_due(self, lane: LaneRecord) -> None:
        if lane.state is LaneState.KILLING:
            self._abandon(lane)
        else:
            self._tell_lane("lane_overdue", lane, {"pid": lane.pid, "what": str(lane.state)})
            end = EndStart if lane.state is LaneState.STARTING else EndStop
            self._out.append(end(lane.number, self._await_answer(lane)))

    def _abandon(self, lane: LaneRecord) -> None:
        """The lane has not answered a kill: give it up, whatever it holds, and go on without it."""
        was_starting = lane.pid is None and not lane.closing
        self._tell_lane("lane_abandoned", lane, {"pid": lane.pid})
        self._lanes.remove(lane)
        self._out.append(Abandon(lane.number))
        self._release(self._empty(lane), lane, "its lane did not answer")
        if was_starting:
            self._count_failed_start(f"nothing within {self.limits.start_timeout:g} s, nor could the start be ended")

    def _look_due(self, look: LookTimer) -> None:
        lane = look.lane
        if lane.state is not LaneState.BUSY:
            return
        head, limits = lane.holds[0], self.limits
        if head.state is State.SENT and self._now >= lane.since + limits.begin_timeout:
            # The worker has not begun what it was sent: frozen, most likely. The task is not to blame.
            self._tell("frozen", head)
            self._kill(lane, head, unless_begun=True)
            return
        if head.has_begun and len(lane.holds) == 1:
            return  # it runs, and nobody is kept waiting
        self._out.append(Look(lane.number))
        if head.has_begun and self._now >= head.begun_at + limits.patience:
            lane.slow = True
            self._take_back(lane, [one for one in lane.holds[1:] if not _follows(one, head)])
        look.pause = min(2 * look.pause, _LONGEST_PAUSE)
        self._timers.set(look, self._now + look.pause)
