"""The port to a lane: what the supervisor asks of one; :mod:`resilient_exec.lane` has the real one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from resilient_exec.core.messages import EndStart, EndStop, Kill, RaiseSoftTimeout, Send, TakeBack

__all__ = ["Lane", "Parcel"]


class Parcel:
    """What the shell needs of a task, beside what the core knows: its :attr:`Task.cargo`.

    Attributes:
        call: the pickled call (:func:`resilient_exec.wire.payload.pack_call`).
        future: the task's.
        packed_key: the user's key, pickled; ``None``: it is the task's number, or does not pickle.
        pids: of the workers in which earlier attempts have begun.
    """

    __slots__ = ("__weakref__", "call", "future", "packed_key", "pids")

    def __init__(self, call: Any, packed_key: bytes | None = None) -> None:
        self.call, self.packed_key = call, packed_key
        self.future: Any = None
        self.pids: tuple[int, ...] = ()


class Lane(Protocol):
    """A slot that runs attempts, one worker at a time.  All methods but ``join`` are for the loop, and never wait."""

    def start(self) -> None:
        """Start a worker; told by ``LaneReady`` or ``StartFailed``."""

    def send(self, send: Send) -> tuple[Any, int] | None:
        """Queue an attempt for the worker; told by ``AttemptEnded``, ``TakenBack`` or ``WorkerGone``.

        Returns where the attempt can be taken back, and its serial there; ``None``: the worker went meanwhile.
        Meanwhile told: ``MemoryExceeded`` where the task has a limit, ``Stalled`` where the pool asks for that.
        """

    def flush(self) -> None:
        """Write what is queued, as far as the worker's channel takes it."""

    def look(self) -> None:
        """Tell what the worker is at: ``AttemptEnded`` for what has ended, ``Begun`` for what runs."""

    def take_back(self, order: TakeBack) -> None:
        """Have those that have not begun never run here; told by ``TakenBack``."""

    def raise_soft_timeout(self, order: RaiseSoftTimeout) -> None:
        """Have ``SoftTimeout`` raised in that attempt; a late order does nothing."""

    def kill(self, kill: Kill) -> None:
        """End that attempt by killing the worker's whole process tree; one that comes late is only answered."""

    def end_start(self, order: EndStart) -> None:
        """End a start that takes too long."""

    def end_stop(self, order: EndStop) -> None:
        """Kill the worker that does not end in peace."""

    def stop(self) -> None:
        """End the idle worker in peace; told by ``WorkerGone``."""

    def close(self) -> None:
        """End the worker, then the lane; told by ``LaneClosed``."""

    def abandon(self) -> None:
        """The lane does not answer: whatever it holds is killed from outside, and it will not be heard again."""

    def forget(self) -> None:
        """The lane has told that it has ended: what it may still hold is given back."""

    def tend(self, now: float) -> None:
        """Look at the worker, if it is time to, on the clock of ``time.monotonic``."""

    def join(self, timeout: float) -> bool:
        """Wait for the lane's thread to end, at most ``timeout`` s; whether it has."""
