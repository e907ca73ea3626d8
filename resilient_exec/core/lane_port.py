"""The port to a lane: what the supervisor asks of one; :mod:`resilient_exec.lane` has the real one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from resilient_exec.core.messages import EndStart, EndStop, Kill, RaiseSoftTimeout, Send, Settle, TakeBack
    from resilient_exec.model.task import Task

__all__ = ["ChunkParcel", "Lane", "Parcel"]


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

    def call_of(self, task: Task) -> Any:
        """The pickled call of that task."""
        del task
        return self.call

    def future_of(self, number: Any) -> Any:
        """The future of that task."""
        del number
        return self.future

    def give(self, send: Callable[[Any], tuple[Any, int] | None], order: Send) -> bool:
        """Have an attempt sent by ``send(order)``; ``False``: nobody wants it any more."""
        # The future is the judge between cancel() and running, under its lock.
        return bool(self.future._give_to(send, order))

    def note_taken_back(self, number: Any, calls: int) -> None:
        """It will not run where it was sent to."""
        del number, calls
        self.future._note_taken_back()

    def pids_before(self, task: Task) -> tuple[int, ...]:
        """Of the workers in which earlier attempts of that task have begun."""
        del task
        return self.pids

    def note_pids(self, task: Task, pids: tuple[int, ...]) -> None:
        """In these workers earlier attempts of that task have begun."""
        del task
        self.pids = pids

    def settle(self, command: Settle) -> None:
        """The task is over: hand that on to its future, and let go of that."""
        future, self.future = self.future, None
        future._settle(command)


class ChunkParcel:
    """The same for all calls of a chunk.

    Attributes:
        call: the pickled function, with the arguments that all calls share, which have these ``places``.
        calls: the other arguments of each call, as they are, or pickled by themselves.
        future: of the chunk.
        packed_key: the key that was given to them, or the number that is the key of the first, pickled.
    """

    __slots__ = ("__weakref__", "_pids", "call", "calls", "future", "packed_key", "places")

    def __init__(self, call: Any, places: tuple[int, ...], calls: list[Any], packed_key: bytes | None = None) -> None:
        self.call, self.places, self.calls, self.packed_key = call, places, calls, packed_key
        self.future: Any = None
        self._pids: dict[Any, tuple[int, ...]] = {}

    def future_of(self, number: Any) -> Any:
        """The future of the chunk."""
        del number
        return self.future

    def give(self, send: Callable[[Any], tuple[Any, int] | None], order: Send) -> bool:
        """See :class:`Parcel`; whether calls begin is judged by whoever takes them back."""
        send(order)
        return True

    def note_taken_back(self, number: Any, calls: int) -> None:
        """See :class:`Parcel`; the future does not know where its calls are."""

    def pids_before(self, task: Task) -> tuple[int, ...]:
        """See :class:`Parcel`."""
        return self._pids.get(task.number, ())

    def note_pids(self, task: Task, pids: tuple[int, ...]) -> None:
        """See :class:`Parcel`."""
        self._pids[task.number] = pids

    def settle(self, command: Settle) -> None:
        """Hand on what has become of some of the calls; the last of them ends the chunk."""
        future = self.future
        if future._settle_calls(command):
            self.future, self.calls, self.call = None, [], b""


class Lane(Protocol):
    """A slot that runs attempts, one worker at a time.  All methods but ``join`` are for the loop, and never wait."""

    def start(self) -> None:
        """Start a worker; told by ``LaneReady`` or ``StartFailed``."""

    def send(self, send: Send) -> tuple[Any, int] | None:
        """Queue an attempt for the worker; told by ``AttemptEnded``, ``TakenBack`` or ``WorkerGone``.

        Returns where the attempt can be taken back, and by how much its serial there is more than its number, which
        holds for all calls of a bundle; ``None``: the worker went meanwhile.
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
