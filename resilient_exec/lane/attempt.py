"""The attempt that runs in a lane's worker, as the lane sees it: its measurements, and the evidence about it.

Most attempts are over before anybody looks at them; one of these is made when one is looked at, or is to be killed.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from resilient_exec.core.messages import MemoryExceeded, Stalled
from resilient_exec.lane.sampler import Gauge
from resilient_exec.model.evidence import Evidence
from resilient_exec.process.tree import Identity
from resilient_exec.process.tree import state as process_state

if TYPE_CHECKING:
    from resilient_exec.lane.held import Held
    from resilient_exec.lane.lease import Lease

__all__ = ["Attempt"]

_MATTERS = 0.1  # of a limit: what earlier attempts may have left before it counts as more than a cache or two
_REMEMBER_INTERVAL = 0.5  # s, between two looks at who descends from the worker, for when it has died
_STACKS_TIMEOUT = 0.5  # s, for the stacks to be written
_STACKS_TIMEOUT_OVER_MEMORY = 0.05  # s: the worker runs on meanwhile, and takes more


class Attempt:
    """One attempt that has begun, from the first look at it to its end."""

    def __init__(self, lane: int, held: Held, began: float, stall_timeout: float | None, strangers: Any) -> None:
        limit = held.task.memory_limit
        self.serial = held.serial
        self.over_memory = False
        self.is_looked_at = False  # by the lane's thread: nobody else is to
        self._held = held
        self._lane = lane
        self._limit = limit
        self._gauge = Gauge(limit, stall_timeout, began)
        self._strangers: frozenset[Identity] = strangers  # processes that earlier attempts had left
        self._remember_due = began

    @property
    def due(self) -> float:
        """When it wants to be looked at next, on the clock of ``time.monotonic``."""
        return self._gauge.due

    def look(self, lease: Lease, *, closely: bool) -> tuple[list[MemoryExceeded | Stalled], bool]:
        """Note its tree, measure: what is worth telling, and whether a close look is needed, which takes its time."""
        now = time.monotonic()
        if lease.pid is None:
            return [], False
        if now >= self._remember_due:
            self._remember_due = now + _REMEMBER_INTERVAL
            lease.remember_tree()
        pids = lease.pids(self._strangers)
        found: list[MemoryExceeded | Stalled] = []
        if self._gauge.suspects(pids, now) and not closely:
            return found, True
        number, attempt, limit = self._held.number, self._held.attempt, self._limit
        used = self._gauge.look(pids, now)
        if used is not None and limit is not None:  # told each time: it may not have been heard to begin yet
            self.over_memory = True
            left = lease.view.held()
            inherited = left if left > limit * _MATTERS and used - left <= limit else 0
            found.append(MemoryExceeded(self._lane, number, attempt, used, inherited))
        idle = self._gauge.idle_for(pids, now)
        if idle is not None:
            if not closely:
                return found, True
            self._gauge.told()
            found.append(Stalled(self._lane, number, attempt, idle, self._evidence_of_a_stall(lease, lease.pid)))
        return found, False

    def _evidence_of_a_stall(self, lease: Lease, pid: int) -> Evidence:
        if process_state(pid) in ("T", "t"):
            return self.evidence(lease, remark="its worker is stopped (SIGSTOP): SIGCONT would let it run on")
        return self.evidence(lease, stacks=lease.take_stacks(_STACKS_TIMEOUT, stop=False))

    def last_look(self, lease: Lease) -> str:
        """Before it is killed: measure once more, and take the stacks of the stopped worker."""
        self._gauge.look(lease.pids(self._strangers), time.monotonic())
        return lease.take_stacks(_STACKS_TIMEOUT_OVER_MEMORY if self.over_memory else _STACKS_TIMEOUT)

    def evidence(self, lease: Lease, *, stacks: str = "", remark: str = "") -> Evidence:
        """What is known about it by now."""
        if not self._gauge.samples and not lease.is_gone():  # it was quicker than the first look
            self._gauge.look(lease.pids(self._strangers), time.monotonic())
        out, err = lease.capture.tails(self.serial) if lease.capture is not None else ("", "")
        samples, peak = self.measured()
        return Evidence(stacks, out, err, samples, peak, "", remark, lease.view.note())

    def measured(self) -> tuple[tuple[tuple[float, int], ...], int]:
        """The samples of what it held, and the most (bytes)."""
        return tuple(self._gauge.samples), self._gauge.peak
