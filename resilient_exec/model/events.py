"""Events: the public facts that observers are told and that stories consist of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, overload

from resilient_exec.model.evidence import NO_EVIDENCE, Evidence

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping

__all__ = ["DONE", "ENDS", "Brief", "Event", "Row", "Story", "TaskStory"]
__all__ += ["ending", "event_of", "pids_of_ended", "render"]

ENDS = frozenset(
    ("returned", "raised", "died", "timed_out", "out_of_memory", "evicted", "killed", "outrun", "not_sent", "lost")
)
"""The kinds of events with which attempts end."""
_MOST_KINDS = 10  # of the last events, in the repr of a story


@dataclass(slots=True)
class Event:
    """One fact about a task, a lane or the pool.

    Attributes:
        at: seconds since the pool was made, on a monotonic clock that stands still while the parent is stopped.
        kind: of a task: ``queued sent frozen begun soft_timeout stalled speculated doomed returned raised died
            timed_out out_of_memory evicted killed outrun differed not_sent lost backing_off settled``; of a lane:
            ``lane_starting lane_ready lane_failed lane_lost lane_overdue lane_stopping lane_abandoned lane_closed``; of
            the pool: ``pool_closing pool_broken memory_low memory_critical memory_ok``.
        key: the task's key; ``None`` where no task is concerned.
        attempt: the number of the attempt, from 1; 0 where none is concerned.
        lane: the lane's number, or ``None``.
        detail: further facts, by kind: ``pid``, ``exitcode``, ``limit``, ``delay``, ``why``, …
        evidence: of a failed or stalled attempt: stacks, last output, memory.
    """

    at: float
    kind: str
    key: Hashable = None
    attempt: int = 0
    lane: int | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)
    evidence: Evidence = NO_EVIDENCE

    def __str__(self) -> str:
        where = f" on lane {self.lane}" if self.lane is not None else ""
        attempt = f" (attempt {self.attempt}{where})" if self.attempt else where
        detail = "".join(f" {name}={value!r}" for name, value in self.detail.items())
        return f"{self.at:10.3f} s  {self.kind}{attempt}{detail}"


Event.__module__ = "resilient_exec"  # pickles name the public package and not this module, so that it may move


Row = tuple[Any, ...]
"""An event as the core keeps it: ``(at, kind, attempt, lane)``, then ``detail`` and ``evidence`` if there are any."""


def event_of(key: Hashable, row: Row) -> Event:
    """The event of a task that a row stands for."""
    if len(row) == 4:
        return Event(row[0], row[1], key, row[2], row[3])
    return Event(row[0], row[1], key, row[2], row[3], dict(row[4]), row[5])  # an observer may write into it


DONE: dict[str, Any] = {"how": "done"}
"""The detail of a task that has settled with a value."""


def ending(began: float, now: float, attempt: int, lane: int, pid: int | None) -> tuple[Row, ...]:
    """The last rows of a task that has returned, of which nobody had heard meanwhile."""
    return (
        (began, "begun", attempt, lane, {"pid": pid}, NO_EVIDENCE),
        (now, "returned", attempt, lane),
        (now, "settled", attempt, None, DONE, NO_EVIDENCE),
    )


Brief = tuple[float, float, float, float, int, "int | None"]
"""All that there is to say of a task that has returned in its first attempt: when it was queued, sent, had begun, had
returned; the lane, the pid."""


def _rows_of(brief: Brief) -> list[Row]:
    queued_at, sent_at, began, now, lane, pid = brief
    return [(queued_at, "queued", 0, None), (sent_at, "sent", 1, lane), *ending(began, now, 1, lane, pid)]


class Story(Sequence[Event]):
    """The events of one task, made of their rows when they are read: most stories never are."""

    __slots__ = ("_rows", "key")

    def __init__(self, key: Hashable, rows: list[Row] | Brief) -> None:
        self.key, self._rows = key, rows

    @property
    def rows(self) -> list[Row]:
        """The events as the core keeps them."""
        rows = self._rows
        if isinstance(rows, tuple):
            rows = self._rows = _rows_of(rows)
        return rows

    def __len__(self) -> int:
        return len(self.rows)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Story) and (self.key, self.rows) == (other.key, other.rows)

    __hash__ = None  # type: ignore[assignment]  # its rows grow

    @overload
    def __getitem__(self, index: int) -> Event: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Event, ...]: ...
    def __getitem__(self, index: int | slice) -> Event | tuple[Event, ...]:
        if isinstance(index, slice):
            return tuple(event_of(self.key, row) for row in self.rows[index])
        return event_of(self.key, self.rows[index])


class TaskStory(tuple[Event, ...]):
    """The events of one task, in order: a tuple, which prints as one line for each."""

    __slots__ = ()

    def __str__(self) -> str:
        return render(self)

    def __repr__(self) -> str:
        kinds = [event.kind for event in self[-_MOST_KINDS:]]
        earlier = [f"{len(self) - _MOST_KINDS} earlier"] if len(self) > _MOST_KINDS else []
        return f"<TaskStory of {len(self)} events: {', '.join([*earlier, *kinds])}>"


TaskStory.__module__ = "resilient_exec"  # as Event's


def render(story: Iterable[Event]) -> str:
    """The story as text, one event per line."""
    return "\n".join(map(str, story))


def pids_of_ended(story: Iterable[Event]) -> tuple[int, ...]:
    """Process ids of the workers of those attempts that have begun and ended, in the order of their begin."""
    events = tuple(story)
    ended = {event.attempt for event in events if event.kind in ENDS}
    return tuple(event.detail["pid"] for event in events if event.kind == "begun" and event.attempt in ended)
