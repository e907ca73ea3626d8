"""The attempt that a lane's worker holds, as the lane sees it: its names, its measurements, the evidence about it."""

from __future__ import annotations

import logging
import pickle
import time
from typing import TYPE_CHECKING

from resilient_exec import memory, payload
from resilient_exec.capture import LOOK_INTERVAL
from resilient_exec.channel import Kind
from resilient_exec.gauge import Gauge
from resilient_exec.messages import MemoryExceeded, Stalled
from resilient_exec.process import moment
from resilient_exec.process import state as process_state
from resilient_exec.task import Evidence, NotSent, Outcome, Raised, Returned

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

    from resilient_exec.lease import Lease
    from resilient_exec.messages import Send
    from resilient_exec.ports import Parcel

__all__ = ["Attempt"]

_logger = logging.getLogger(__name__)

PROGRESS_INTERVAL = 1.0  # s, between two words about a large call on its way
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
        self._parcel = parcel
        self._lane = send.lane
        self._gauge = Gauge(parcel.memory_limit, stall_timeout, now)
        self._output_due = now + LOOK_INTERVAL

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
        except Exception:
            _logger.debug("the key %r does not pickle; the task sees its text", self.key)
        return pickle.dumps(((repr(self.key), *rest), parcel.memory_limit))

    # -- looking at it while it runs -------------------------------------------------------------------------------

    def due(self, *, captures: bool) -> float:
        """When it wants to be looked at next, on the clock of ``time.monotonic``."""
        return min(self._gauge.due, self._output_due) if captures else self._gauge.due

    def look(self, lease: Lease) -> Iterator[MemoryExceeded | Stalled]:
        """Cut its output, note its tree, measure; what is worth telling."""
        now = time.monotonic()
        if lease.capture is not None:
            lease.capture.cut()
            self._output_due = now + LOOK_INTERVAL
        if now < self._gauge.due or lease.pid is None:
            return
        lease.remember_tree()
        pids = lease.pids()
        used = self._gauge.look(pids, now)
        if used is not None and not self.over_memory:
            self.over_memory = True
            yield MemoryExceeded(self._lane, self.key, self.attempt, used)
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
        self._gauge.look(lease.pids(), time.monotonic())
        return lease.take_stacks(_STACKS_TIMEOUT_OVER_MEMORY if self.over_memory else _STACKS_TIMEOUT)

    def evidence(self, lease: Lease, *, stacks: str = "", traceback: str = "", remark: str = "") -> Evidence:
        """What is known about it by now."""
        if not self._gauge.samples and not lease.is_gone():  # it was quicker than the first look
            self._gauge.look(lease.pids(), time.monotonic())
        out, err = lease.capture.tails() if lease.capture is not None else ("", "")
        return Evidence(stacks, out, err, tuple(self._gauge.samples), self._gauge.peak, traceback, remark)

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
            text = f"the outcome cannot be unpickled in the parent: {type(error).__name__}: {error}"
            return NotSent(text, error, self.evidence(lease))
        return NotSent(bytes(body).decode(errors="replace"), None, self.evidence(lease))

    def memory(self, lease: Lease) -> int:
        """Bytes that its worker holds now that it is over."""
        return memory.resident(lease.pid) if lease.pid is not None else 0
