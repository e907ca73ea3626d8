"""The states of a task and of a lane, the table of a task's moves, and the core's record of each.

A task moves by ``TRANSITIONS``::

    queued ──> sent ──> running ──> settled
      ^ ^       │ │        │ │
      │ └─lost──┘ └─> doomed <┘     a kill is under way; what it ends as is decided by what comes back:
      │                │            a result that beats the kill is kept
      └── backing_off <┴── running  the attempt failed and the task's policy granted another

(and from each of them to ``settled``, where the record of an attempt goes, too, whose twin decides).  A move that is
not in the table raises ``IllegalTransition`` with the task's story, and changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from resilient_exec.model.errors import IllegalTransition
from resilient_exec.model.events import Story, render

if TYPE_CHECKING:
    from collections import Counter

    from resilient_exec.model.events import Row
    from resilient_exec.model.task import Outcome, Task

__all__ = ["TRANSITIONS", "LaneRecord", "LaneState", "Limits", "LookTimer", "Record", "State", "Twins"]


class State(StrEnum):
    """Where a task stands."""

    NEW = "new"
    QUEUED = "queued"
    SENT = "sent"
    RUNNING = "running"
    DOOMED = "doomed"
    BACKING_OFF = "backing_off"
    SETTLED = "settled"

    __hash__ = str.__hash__  # an enum's own is written in Python, and each task is looked up and counted by it often


TRANSITIONS: dict[State, frozenset[State]] = {
    State.NEW: frozenset({State.QUEUED, State.SETTLED}),
    State.QUEUED: frozenset({State.SENT, State.SETTLED}),
    State.SENT: frozenset({State.RUNNING, State.QUEUED, State.DOOMED, State.SETTLED}),
    State.RUNNING: frozenset({State.SETTLED, State.BACKING_OFF, State.DOOMED}),
    State.DOOMED: frozenset({State.SETTLED, State.BACKING_OFF}),
    State.BACKING_OFF: frozenset({State.QUEUED, State.SETTLED}),
    State.SETTLED: frozenset(),
}


class LaneState(StrEnum):
    """Where a lane stands."""

    DOWN = "down"  # has no worker
    STARTING = "starting"
    IDLE = "idle"
    BUSY = "busy"
    KILLING = "killing"  # a kill has been ordered and not yet answered
    STOPPING = "stopping"  # its worker is to end in peace
    CLOSING = "closing"  # the lane itself is to end


@dataclass(frozen=True)
class Limits:
    """What the core is to respect; times in seconds.

    Attributes:
        lanes: how many lanes at most.
        depth: attempts in one worker at most: the one that runs and those sent ahead.
        first_depth: the same for a worker of which nothing is known yet; its quick attempts let it grow to ``depth``.
        ahead: seconds of work that a worker may hold, by how long its attempts have taken.
        patience: an attempt that runs for longer than this keeps nobody waiting: what was sent behind it is taken back.
        look_interval: from a send until the lane is asked whether it has begun.
        policy_timeout: for a policy with strategies of the user's to say whether there is another attempt.
        tell: whether events are among the commands; they are in the stories in any case.
        max_tasks_per_worker: attempts after which a worker is replaced; ``None``: never.
        start_timeout: from ordering a worker to its being ready.
        begin_timeout: for a sent attempt to begin, since the last byte of its call was accepted.
        kill_timeout: for a lane to answer a kill, before the lane is given up.
        stop_timeout: for a worker to end in peace, before it is killed.
        start_failures: in a row, with no other worker alive or on its way: the pool is broken (see start_patience).
        uncharged: attempts of one task in a row that were lost before they began, or evicted in all.
        first_start_wait, longest_start_wait: back-off between failed starts.
        max_memory_per_worker: bytes; a worker that holds more between two attempts is replaced; ``None``: never.
        kill_stalled: whether an attempt that has stalled is killed.
        start_patience: failed starts that may pass must be spread over so long before they break the pool.
        straggler_peers: attempts of one label that must have returned before another one can be a straggler.
        straggler_floor: which an attempt must have run for at least,
        straggler_factor: and so many times as long as nine of ten of its label, to be one.
    """

    lanes: int = 1
    depth: int = 1
    max_tasks_per_worker: int | None = None
    start_timeout: float = 120.0
    begin_timeout: float = 10.0
    kill_timeout: float = 10.0
    stop_timeout: float = 5.0
    start_failures: int = 3
    uncharged: int = 10
    first_start_wait: float = 0.1
    longest_start_wait: float = 10.0
    max_memory_per_worker: int | None = None
    kill_stalled: bool = False
    first_depth: int | None = None  # as depth
    ahead: float = 0.004
    patience: float = 0.01
    look_interval: float = 0.005
    policy_timeout: float = 10.0
    tell: bool = True
    start_patience: float = 0.0
    straggler_peers: int = 5
    straggler_floor: float = 0.25
    straggler_factor: float = 2.0


@dataclass(slots=True, eq=False)
class Record:
    """What is known of one unsettled task."""

    task: Task
    order: int
    state: State = State.NEW
    lane: LaneRecord | None = None
    attempt: int = 0  # the number of the attempt last sent
    begun: int = 0  # attempts that began
    first_begun_at: float = 0.0
    begun_at: float = 0.0  # the attempt last begun
    pardon: float = 0.0  # s, by which the deadlines of that attempt are put off: this process was stopped
    soft_told: int = 0  # the attempt in which SoftTimeout was last raised
    doom: Outcome | None = None  # while doomed: what its death will be called
    failures: Counter[str] | None = None  # made at the first failure: most tasks have none
    asked: Outcome | None = None  # while its policy is asked, elsewhere, whether that is the end
    lost: int = 0  # in a row
    evictions: int = 0
    twins: Twins | None = None  # where a second attempt was made beside the first one
    timer: int = 0
    queued_at: float = 0.0  # these two stand for the first rows of its story, until somebody wants to see it
    sent_at: float | None = None
    rows: list[Row] | None = None

    @property
    def story(self) -> list[Row]:
        """What has happened to it so far; written down only when there is more than that it was queued and sent."""
        rows = self.rows
        if rows is None:
            rows = self.rows = [(self.queued_at, "queued", 0, None)]
            if self.sent_at is not None:
                rows.append((self.sent_at, "sent", self.attempt, self.lane.number if self.lane is not None else None))
        return rows

    @property
    def has_begun(self) -> bool:
        """Whether the attempt last sent has begun."""
        return self.begun == self.attempt

    def move(self, state: State) -> None:
        """The only place where a task's state changes.

        Raises:
            IllegalTransition: the move is not in the table; nothing was changed.
        """
        if state not in TRANSITIONS[self.state]:
            raise IllegalTransition(
                f"task {self.task.number!r} cannot go from {self.state} to {state}. This is a bug in resilient_exec: "
                f"please report it with this story:\n{render(Story(self.task.key, self.story))}"
            )
        self.state = state


class Twins:
    """Two attempts of one task at once, each with a record of its own: one that has run for long, and its twin.

    Attributes:
        live: the records of those that have not ended; that of the task is among them.
        begun: how many attempts of the task have begun by now, in all.
        uncharged: how many of these ended while the other lived, and are charged to nobody.
        winner: the attempt that has ended by itself while the other lived; 0: none has.
        outcome: what that one came to, which the task comes to when the other has ended, too.
        is_over: the task may have a twin again: it has been charged since it had one.
    """

    __slots__ = ("begun", "is_over", "live", "outcome", "uncharged", "winner")

    def __init__(self) -> None:
        self.live: list[Record] = []
        self.begun = self.uncharged = self.winner = 0
        self.outcome: Outcome | None = None
        self.is_over = True

    def other(self, record: Record) -> Record | None:
        """The other one, if it has not ended."""
        return next((one for one in self.live if one is not record), None)


@dataclass(slots=True, eq=False)
class LaneRecord:
    """What is known of one lane.

    ``holds`` are the attempts in its worker: the head runs or is next, the others were sent ahead.
    """

    number: int
    state: LaneState = LaneState.DOWN
    holds: list[Record] = field(default_factory=list)
    begun: int = 0  # attempts begun in the present worker
    memory: int = 0  # bytes that it held after the last one, where that is asked for
    unfit: str = ""  # why it is not to run another: the last one was interrupted, or has left what fails others
    pid: int | None = None
    closing: bool = False  # CloseLane has been given
    timer: int = 0
    depth: int = 1  # attempts that it may hold by now
    slow: bool = False  # the one that runs takes so long that nothing is to be sent behind it
    since: float = 0.0  # its head is waited for to begin
    order: int = 0  # the serial of the last one that is to be answered
    shared_at: float = 0.0  # until then it is not asked again to give calls of a chunk away
    shared_from: int = 0  # the first call that it was asked to give away
    victim: Record | None = None  # of which attempt that is the kill; None: it ends a start or a stop
    look: LookTimer = field(init=False)
    listed: dict[int, LaneRecord] | None = None  # by the roster, among those of which something can be asked

    def __post_init__(self) -> None:
        self.look = LookTimer(self)


class LookTimer:
    """When a lane is to be asked what its worker is at; ``pause`` (s) is what is waited for the next time."""

    __slots__ = ("lane", "pause", "timer")

    def __init__(self, lane: LaneRecord) -> None:
        self.lane, self.pause, self.timer = lane, 0.0, 0
