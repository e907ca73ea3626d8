"""The attempt that a lane's worker holds, as the lane sees it: its names, its measurements, the evidence about it."""

from __future__ import annotations

import logging
import pickle
import time
from typing import TYPE_CHECKING

from resilient_exec.core.messages import MemoryExceeded, Stalled
from resilient_exec.lane.sampler import Gauge
from resilient_exec.model.evidence import Evidence
from resilient_exec.model.summary import named
from resilient_exec.model.task import NotSent, Outcome, Raised, Returned
from resilient_exec.process import memory
from resilient_exec.process.tree import Identity, moment, tree
from resilient_exec.process.tree import state as process_state
from resilient_exec.wire import payload
from resilient_exec.wire.channel import Kind

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

    from resilient_exec.core.lane_port import Parcel
    from resilient_exec.core.messages import Send
    from resilient_exec.lane.lease import Lease

__all__ = ["Attempt"]

_logger = logging.getLogger(__name__)

PROGRESS_INTERVAL = 1.0  # s, between two words about a large call on its way
_MATTERS = 0.1  # of a limit: what earlier attempts may have left before it counts as more than a cache or two
_REMEMBER_INTERVAL = 0.5  # s, between two looks at who descends from the worker, for when it has died
_STACKS_TIMEOUT = 0.5  # s, for the stacks to be written
_STACKS_TIMEOUT_OVER_MEMORY = 0.05  # s: the worker runs on meanwhile, and takes more


class Attempt:
    """One attempt in one lane, from its being sent to its outcome.  Only the lane's thread touches it."""

    def __init__(self, send: Send, parcel: Parcel, serial: int, stall_timeout: float | None) -> None:
        now = time.monotonic()
        self.key = send.key
        self.attempt = send.attempt
        self.serial = serial  # in this worker
        self.sent_at = moment()
        self.progress_at = now + PROGRESS_INTERVAL
        self.over_memory = False
        self._remember_due = now
        self._parcel = parcel
        self._lane = send.lane
        self._gauge = Gauge(parcel.memory_limit, stall_timeout, now)
        self.found = 0  # bytes that earlier attempts had left in its worker
        self._strangers: frozenset[Identity] = frozenset()  # processes that they had left
        self._looks_close = parcel.memory_limit is not None or stall_timeout is not None

    def is_called(self, key: Hashable, attempt: int) -> bool:
        """Whether that is its name."""
        return (self.key, self.attempt) == (key, attempt)

    def frame(self) -> tuple[bytes, bytes]:
        """What the worker is sent: the context with its length, and the call."""
        about = self._context()
        return len(about).to_bytes(4, "little") + about, self._parcel.call

    def _context(self) -> bytes:
        parcel = self._parcel
        limits = tuple(limit for limit in (parcel.soft_timeout, parcel.timeout) if limit is not None)
        rest = (self.attempt, parcel.previous_pids, limits)
        try:
            data = pickle.dumps(((self.key, *rest), parcel.memory_limit))
            if b"__main__" not in data:
                return data
        except BaseException:  # a SystemExit in its __reduce__ is no reason to exit
            _logger.debug("the key %s does not pickle; the task sees its text", named(self.key))
        return pickle.dumps(((named(self.key), *rest), parcel.memory_limit))

    def look_around(self, lease: Lease) -> None:
        """Before it is sent: note what earlier attempts have left in its worker, which is not its own doing."""
        if not self._looks_close or lease.pid is None:
            return
        held = memory.resident(lease.pid)
        if self.serial == 1:
            lease.fresh = held
        else:
            self.found = max(0, held - lease.fresh)
            self._strangers = frozenset(tree(lease.pid))

    @property
    def is_crowded(self) -> bool:
        """Whether they have left so much (half of what it may hold) that it had better have another worker."""
        limit = self._parcel.memory_limit
        return limit is not None and self.found > limit / 2

    # -- looking at it while it runs -------------------------------------------------------------------------------

    @property
    def due(self) -> float:
        """When it wants to be looked at next, on the clock of ``time.monotonic``."""
        return self._gauge.due

    def look(self, lease: Lease) -> Iterator[MemoryExceeded | Stalled]:
        """Note its tree, measure; what is worth telling."""
        now = time.monotonic()
        if lease.pid is None:
            return
        if now >= self._remember_due:
            self._remember_due = now + _REMEMBER_INTERVAL
            lease.remember_tree()
        pids = lease.pids(self._strangers)
        used = self._gauge.look(pids, now)
        if used is not None and self._parcel.memory_limit is not None:  # told each time: it may not have begun yet
            self.over_memory = True
            limit = self._parcel.memory_limit
            matters = self.found > limit * _MATTERS and used - self.found <= limit
            inherited = self.found if matters else 0
            yield MemoryExceeded(self._lane, self.key, self.attempt, used, inherited)
        idle = self._gauge.idle(pids, now)
        if idle is not None:
            yield Stalled(self._lane, self.key, self.attempt, idle, self._evidence_of_a_stall(lease, lease.pid))

    def _evidence_of_a_stall(self, lease: Lease, pid: int) -> Evidence:
        if process_state(pid) in ("T", "t"):
            return self.evidence(lease, remark="its worker is stopped (SIGSTOP): SIGCONT would let it run on")
        return self.evidence(lease, stacks=lease.take_stacks(_STACKS_TIMEOUT, stop=False))

    # -- its end ---------------------------------------------------------------------------------------------------

    def last_look(self, lease: Lease) -> str:
        """Before it is killed: measure once more, and take the stacks of the stopped worker."""
        self._gauge.look(lease.pids(self._strangers), time.monotonic())
        return lease.take_stacks(_STACKS_TIMEOUT_OVER_MEMORY if self.over_memory else _STACKS_TIMEOUT)

    def evidence(self, lease: Lease, *, stacks: str = "", traceback: str = "", remark: str = "") -> Evidence:
        """What is known about it by now."""
        if not self._gauge.samples and not lease.is_gone():  # it was quicker than the first look
            self._gauge.look(lease.pids(self._strangers), time.monotonic())
        out, err = lease.capture.tails() if lease.capture is not None else ("", "")
        samples, peak = tuple(self._gauge.samples), self._gauge.peak
        return Evidence(stacks, out, err, samples, peak, traceback, remark, lease.note())

    def outcome(self, lease: Lease, kind: Kind, body: memoryview) -> Outcome:
        """Its outcome, unpickled in the lane's own thread: what hangs here hangs one lane, which is then given up."""
        try:
            if kind is Kind.RETURNED:
                return Returned(payload.unpack_value(body))
            if kind is Kind.RAISED:
                error = payload.unpack_exception(body)
                cause = error.__cause__
                trace = cause.text if isinstance(cause, payload.RemoteTraceback) else ""
                return Raised(error, self.evidence(lease, traceback=trace))
        except BaseException as error:
            text = f"the outcome cannot be unpickled in the parent: {payload.text_of(error)}"
            return NotSent(text, error, self.evidence(lease))
        return NotSent(bytes(body).decode(errors="replace"), None, self.evidence(lease))

    def memory(self, lease: Lease) -> int:
        """Bytes that its worker holds now that it is over."""
        return memory.resident(lease.pid) if lease.pid is not None else 0
