"""The ledger of a pool: its unsettled tasks, their states and stories, its lanes and timers, and what is told of them.

All state of the core is here.  A record moves, is split, queued and settled by the methods of this class only, so that
whatever is counted stays right; what follows from a move is decided by the classes above (see
:mod:`resilient_exec.core.machine`).
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from resilient_exec.core.admission import Admission
from resilient_exec.core.backlog import Backlog
from resilient_exec.core.chunks import Groups, covers, key_of_call, part_of, spare_record
from resilient_exec.core.lane_table import Roster
from resilient_exec.core.messages import Command, Settle
from resilient_exec.core.restart_budget import Starts
from resilient_exec.core.states import LaneRecord, Limits, Record, State
from resilient_exec.core.timers import Timers
from resilient_exec.model.events import DONE, Event, Row, Story, event_of
from resilient_exec.model.evidence import NO_EVIDENCE, Evidence
from resilient_exec.model.task import Outcome, Returned, Task

if TYPE_CHECKING:
    from collections.abc import Hashable

    from resilient_exec.core.stragglers import Peers
    from resilient_exec.model.errors import ResilientError

__all__ = ["Ledger"]

_OF_EACH = ("queued", "settled")
# To look a member up in its class takes 0.2 us on Python 3.11: what each task does several times has these.
_NEW, _QUEUED, _SETTLED = State.NEW, State.QUEUED, State.SETTLED


class Ledger:
    """The state of one pool, and the moves that keep its counts right."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.counts = dict.fromkeys(State, 0)  # unsettled tasks by state
        self.ended: Counter[str] = Counter()  # settled tasks: done, failed, cancelled
        self.broken: str | None = None  # why, once no worker can be started
        self.finished = False  # Finish has been given
        self._now = 0.0
        self._out: list[Command] = []
        self._records: dict[Hashable, Record] = {}
        self._backlog = Backlog(self._usual)
        self._groups = Groups()
        self._surplus = dict.fromkeys(State, 0)  # calls of chunks, beyond the one for which the record counts
        self._elastic = 0  # of those that are queued, how many other lanes could be sent
        self._timers = Timers()
        self._lanes = Roster(limits, self._timers)
        self._starts = Starts(limits)
        self._admission = Admission()
        self._orders = 0
        self._serial = 0  # of the last order that is to be answered
        self._tells = limits.tell
        self._stopped = (0.0, float("-inf"))  # for how long this process was stopped last, and when it ran again
        self._peers: dict[str, Peers] = {}  # of tasks that may run twice, by label
        self._late: dict[Hashable, Record] = {}  # of those, attempts that take too long and have no twin, by number
        self._pairs = 0  # twins that run
        self._closing = False
        self._no_retries = False

    # -- what is asked of it -------------------------------------------------------------------------------------------

    def next_due(self) -> float | None:
        """When ``TimePassed`` is wanted next (s), or ``None``: nothing waits for the clock."""
        return self._timers.next_due()

    def story(self, number: Hashable) -> tuple[Event, ...]:
        """The events so far of an unsettled task; empty for one that is not known."""
        record = self._part(number)
        if record is None:
            return ()
        task, rows = record.task, list(record.story)
        key = key_of_call(task, number - task.number) if task.calls else task.key  # type: ignore[operator]
        return tuple(Story(key, rows))

    def task(self, number: Hashable) -> Task | None:
        """An unsettled task, or the chunk that the call of that number is in; ``None``: there is none."""
        record = self._part(number)
        return record.task if record is not None else None

    def _part(self, number: Hashable) -> Record | None:
        """The record of an unsettled task, or that of the calls among which the one of that number is."""
        record = self._records.get(number)
        if record is None and (group := self._groups.find(number)) is not None:
            record = next((part for part in list(group.parts.values()) if covers(part.task, number)), None)
        return record

    @property
    def is_busy(self) -> bool:
        """Whether any task has not settled."""
        return bool(self._records)

    def counted(self) -> dict[str, int]:
        """Tasks that are ``pending`` (queued, or sent ahead to a worker that is at another), ``running``, and so on."""
        counts, ahead, surplus = self.counts, self._lanes.sent_ahead(), self._surplus
        return {
            "pending": counts[State.QUEUED] + ahead + sum(surplus.values()),
            "running": counts[State.SENT] + counts[State.RUNNING] + counts[State.DOOMED] - ahead - self._pairs,
            "backing_off": counts[State.BACKING_OFF],
        }

    def give_up(self) -> list[tuple[Task, list[Row]]]:
        """All unsettled tasks with the rows of their stories, which are forgotten: the shell has failed."""
        left = [(record.task, record.story) for record in self._records.values()]
        self._records.clear()
        return left

    def unsettled(self) -> tuple[Hashable, ...]:
        """Numbers of all tasks that have not settled."""
        return tuple(self._records)

    def lanes(self, now: float) -> list[dict[str, Any]]:
        """For each lane: its number, state and pid, the key it runs, which attempt, and for how long (s)."""
        return self._lanes.describe(now)

    # -- records and their parts ---------------------------------------------------------------------------------------

    def _add(self, record: Record) -> None:
        task = record.task
        self._records[task.number] = record
        if task.group is not None:
            task.group.parts[task.number] = record
            self._weigh(record, 1)

    def _weigh(self, record: Record, sign: int) -> None:
        """Count the calls of a chunk in, or out, that a record has more than others."""
        more = record.task.calls - 1
        if more > 0:
            self._surplus[record.state] += sign * more
            if record.state is State.QUEUED and record.task.group.most:
                self._elastic += sign * more

    def _narrow(self, record: Record, task: Task) -> None:
        """Let a record of a chunk stand for some of its calls only."""
        parts = task.group.parts
        self._weigh(record, -1)
        del self._records[record.task.number], parts[record.task.number]
        record.task = task
        self._records[task.number] = parts[task.number] = record
        self._weigh(record, 1)

    def _split(self, record: Record, count: int) -> Record:
        """Take the first calls off a chunk: a record of theirs, in the same state and lane."""
        task = record.task
        first = spare_record(record, part_of(task, task.number, count))  # type: ignore[arg-type]
        self._narrow(record, part_of(task, task.number + count, task.calls - count))  # type: ignore[operator]
        if first.state is not State.NEW:
            self.counts[first.state] += 1
        self._add(first)
        return first

    def _single_out(self, chunk: Record, number: int) -> Record:
        """Make a record of its own of a call in a chunk that is at the head of a lane; it is there, then."""
        lane = chunk.lane
        skipped = number - chunk.task.number  # type: ignore[operator]
        if skipped and lane is not None:  # nobody has heard of these, which were before it: they have not begun
            lane.holds.insert(1, self._split(chunk, skipped))
        one = chunk
        if chunk.task.calls > 1:
            one = self._split(chunk, 1)
            if lane is not None:
                lane.holds.insert(0, one)
            chunk.lost = 0
        self._narrow(one, part_of(one.task, number, 0))
        return one

    def _isolate(self, part: Record, number: int) -> Record:
        """Make a record of its own of a task in a bundle; what is before it and behind it stays where it is."""
        if not part.task.calls:
            return part
        before = number - part.task.number  # type: ignore[operator]
        if before:
            self._put_in_front(self._split(part, before), part)
        one = part
        if part.task.calls > 1:
            one = self._split(part, 1)
            self._put_in_front(one, part)
        self._narrow(one, part_of(one.task, number, 0))
        return one

    def _put_in_front(self, first: Record, rest: Record) -> None:
        """What was split off is where it was: in the queue, or in a lane."""
        if rest.lane is not None:
            rest.lane.holds.insert(rest.lane.holds.index(rest), first)
        elif rest.state is _QUEUED:
            self._backlog.add(first, comes_back=True)

    def _usual(self, label: str) -> float:
        """How long a task with that label takes (s), as far as it is known; infinite: it may be long."""
        peers = self._peers.get(label)
        return peers.usual() if peers is not None else float("inf")

    # -- moves ---------------------------------------------------------------------------------------------------------

    def _move(self, record: Record, state: State) -> None:
        before = record.state
        if record.task.calls:
            self._weigh(record, -1)
            record.move(state)
            self._weigh(record, 1 if state is not _SETTLED else 0)
        else:
            record.move(state)
        if before is not _NEW:
            self.counts[before] -= 1
        if state is not _SETTLED:
            self.counts[state] += 1

    def _wake(self, owner: Record | Starts, delay: float) -> None:
        self._timers.set(owner, self._now + delay)

    def _enqueue(self, record: Record) -> None:
        self._move(record, _QUEUED)
        record.timer = 0
        self._backlog.add(record)

    def _settle(self, record: Record, outcome: Outcome | ResilientError | None) -> None:
        self._move(record, _SETTLED)
        record.timer = 0
        task = record.task
        del self._records[task.number]
        if task.group is not None:
            self._forget(task)
        detail = DONE if type(outcome) is Returned else {"how": "cancelled" if outcome is None else "failed"}
        self.ended[detail["how"]] += task.calls or 1
        self._tell("settled", record, detail)
        elapsed = self._now - record.first_begun_at if record.begun else 0.0
        story = Story(task.key, record.story)
        self._out.append(Settle(task.number, outcome, record.begun, elapsed, story, task))

    def _forget(self, task: Task) -> None:
        group = task.group
        del group.parts[task.number]
        if not group.parts:
            self._groups.discard(group)

    # -- telling -------------------------------------------------------------------------------------------------------

    def _tell(
        self,
        kind: str,
        record: Record,
        detail: dict[str, Any] | None = None,
        evidence: Evidence = NO_EVIDENCE,
        at: float | None = None,
    ) -> None:
        lane = record.lane.number if record.lane is not None else None
        row: Row
        if detail:
            row = (self._now if at is None else at, kind, record.attempt, lane, detail, evidence)
        else:
            row = (self._now if at is None else at, kind, record.attempt, lane)
        record.story.append(row)
        if self._tells:
            if record.task.calls:
                self._tell_calls(record.task, row)
            else:
                self._out.append(event_of(record.task.key, row))

    def _tell_calls(self, task: Task, row: Row) -> None:
        """Of a chunk: each call is queued and settled for itself; the rest is told of the first, with their number."""
        if row[1] in _OF_EACH:
            numbers = range(task.calls)
            self._out += [event_of(key_of_call(task, number), row) for number in numbers]
        else:
            event = event_of(task.key, row)
            event.detail = {**event.detail, "calls": task.calls}
            self._out.append(event)

    def _tell_lane(self, kind: str, lane: LaneRecord, detail: dict[str, Any] | None = None) -> None:
        if self._tells:
            self._out.append(Event(self._now, kind, lane=lane.number, detail=detail or {}))
