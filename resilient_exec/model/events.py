"""Events: the public facts that observers are told and that stories consist of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from resilient_exec.model.evidence import NO_EVIDENCE, Evidence

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping

__all__ = ["Event", "render"]

_NOTHING: dict[str, Any] = {}


@dataclass(slots=True)
class Event:
    """One fact about a task, a lane or the pool.

    Attributes:
        at: seconds since the pool was made, on a monotonic clock that stands still while the parent is stopped.
        kind: of a task: ``queued sent frozen begun soft_timeout stalled doomed returned raised died timed_out
            out_of_memory evicted killed not_sent lost backing_off settled``; of a lane: ``lane_starting lane_ready
            lane_failed lane_lost lane_overdue lane_stopping lane_abandoned lane_closed``; of the pool: ``pool_closing
            pool_broken memory_low memory_critical memory_ok``.
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
    detail: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)
    evidence: Evidence = NO_EVIDENCE

    def __str__(self) -> str:
        where = f" on lane {self.lane}" if self.lane is not None else ""
        attempt = f" (attempt {self.attempt}{where})" if self.attempt else where
        detail = "".join(f" {name}={value!r}" for name, value in self.detail.items())
        return f"{self.at:10.3f} s  {self.kind}{attempt}{detail}"


Event.__module__ = "resilient_exec"  # pickles name the public package and not this module, so that it may move


def render(story: Iterable[Event]) -> str:
    """The story as text, one event per line."""
    return "\n".join(map(str, story))
