"""The port to a lane: what the supervisor asks of one; :mod:`resilient_exec.lane` has the real one."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from resilient_exec.core.messages import Kill, RaiseSoftTimeout, Send

__all__ = ["Lane", "Parcel"]


class Parcel(NamedTuple):
    """What a lane is given with the order to send an attempt.

    Attributes:
        call: the pickled call.
        previous_pids: of the workers in which earlier attempts began.
        timeout, soft_timeout: seconds, for the task to know of.
        memory_limit: bytes, for the lane to watch.
    """

    call: bytes
    previous_pids: tuple[int, ...] = ()
    timeout: float | None = None
    soft_timeout: float | None = None
    memory_limit: int | None = None


class Lane(Protocol):
    """A slot that runs attempts, one worker at a time.

    No method but ``join`` blocks: each only posts to the lane's own thread.
    """

    def start(self) -> None:
        """Start a worker; told by ``LaneReady`` or ``StartFailed``."""

    def send(self, send: Send, parcel: Parcel) -> None:
        """Have the worker run an attempt; told by ``Begun``, then ``AttemptEnded`` or ``WorkerGone``.

        Meanwhile told: ``MemoryExceeded`` where the parcel has a limit, ``Stalled`` where the pool asks for that.
        """

    def raise_soft_timeout(self, order: RaiseSoftTimeout) -> None:
        """Have ``SoftTimeout`` raised in that attempt; a late order does nothing."""

    def kill(self, kill: Kill) -> None:
        """End that attempt, or the start, by killing the worker's whole process tree; a late one does nothing."""

    def stop(self) -> None:
        """End the idle worker in peace; told by ``WorkerGone``."""

    def close(self) -> None:
        """End the worker, then the lane; told by ``LaneClosed``."""

    def abandon(self) -> None:
        """The lane does not answer: whatever it holds is killed from outside, and it will not be heard again."""

    def join(self, timeout: float) -> bool:
        """Wait for the lane's thread to end, at most ``timeout`` s; whether it has."""
