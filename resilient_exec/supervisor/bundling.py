"""Bundles: tasks that were submitted one after the other, with the same function and options, and wait together.

Whoever submits such a task posts its future and nothing else; the loop takes as many of them as have come together, and
makes one task of the core's of them, with a range of calls (:mod:`resilient_exec.core.chunks`).  What a task is charged
with, its story, its limits and its future stay its own: what happens to one of them makes it a task by itself.

**Cancelled or sent.**  The future of a task by itself is sent under its lock.  The futures of a bundle are not locked
one by one: the loop first notes in each where it is sent to, then looks whether it is unwanted; who cancels it says
first that it is, then looks where it was sent to.  So one of them sees the other; and what both have seen is taken back
in the register, before the bundle is written, or as the register says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from resilient_exec.core.chunks import Group, part_of
from resilient_exec.core.lane_port import ChunkParcel, Parcel
from resilient_exec.core.messages import Settle
from resilient_exec.model.events import Story
from resilient_exec.model.packed import Packed, Slice
from resilient_exec.model.task import Returned
from resilient_exec.supervisor.alike import Returns

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable

    from resilient_exec.core.messages import Send
    from resilient_exec.model.task import Task
    from resilient_exec.supervisor.alike import Alike
    from resilient_exec.supervisor.future import ResilientFuture

__all__ = ["Bundle", "task_of"]

_MOST_SENT = 64  # tasks that a worker is sent at once
_MOST_TAKEN = 256  # tasks that are put into one bundle
_FEWEST = 4


def task_of(first: ResilientFuture[Any], inbox: deque[Any]) -> Task:
    """The task of a future that was taken out of the inbox; with those behind it that are alike, if these are some."""
    alike, number = first._alike, first.number
    assert alike is not None  # noqa: S101  such futures only are posted
    futures = [first]
    kind = type(first)
    while inbox and len(futures) < _MOST_TAKEN:
        item = inbox[0]
        if type(item) is not kind or item._alike is not alike or item.number != number + len(futures):
            break
        futures.append(inbox.popleft())
    if len(futures) >= _FEWEST:
        task = alike.task(number, Bundle(alike, futures))
        task.calls = len(futures)
        task.group = Group(number, alike.pace, len(futures), most=_MOST_SENT, bundled=True)
        return task
    inbox.extendleft(reversed(futures[1:]))
    parcel = Parcel(alike.call(_arguments_of(first)))
    parcel.future = first
    return alike.task(number, parcel)


def _arguments_of(future: ResilientFuture[Any]) -> tuple[Any, ...]:
    arguments: Any = future._arguments
    return arguments  # type: ignore[no-any-return]


class Bundle(ChunkParcel):
    """What the shell needs of tasks in a bundle: as of a chunk, but each has a future, and they share no arguments."""

    __slots__ = ("_alike", "_first", "_futures")

    def __init__(self, alike: Alike, futures: list[ResilientFuture[Any]]) -> None:
        super().__init__(alike.head, (), list(map(_arguments_of, futures)))
        self._alike, self._futures, self._first = alike, futures, futures[0].number

    def call_of(self, task: Task) -> bytes:
        """The pickled call of one of them."""
        return self._alike.call(self.calls[task.number - self._first])  # type: ignore[operator]

    def future_of(self, number: int) -> ResilientFuture[Any]:
        """The future of that one."""
        return self._futures[number - self._first]

    def _part(self, task: Task) -> slice:
        start: int = task.number - self._first  # type: ignore[operator]
        return slice(start, start + max(task.calls, 1))

    def give(self, send: Callable[[Any], tuple[Any, int] | None], order: Send) -> bool:
        """Have an attempt sent by ``send(order)``, unless nobody wants it any more; see the top of this module."""
        task = order.task
        if not task.calls:
            return self.future_of(task.number)._give_to(send, order)  # type: ignore[arg-type]
        sent = send(order)
        for future in self._futures[self._part(task)]:
            future._sent = sent
            if future._is_unwanted and not future._is_still_wanted() and sent is not None:
                sent[0].take_back_one(future.number + sent[1])
        return True

    def note_taken_back(self, number: int, calls: int) -> None:
        """So many of them, from that one on, will not run where they were sent to."""
        start = number - self._first
        for future in self._futures[start : start + calls]:
            if future is not None:
                future._note_taken_back()

    def settle(self, command: Settle) -> None:
        """Some of them are over, all in the same way: hand that on to their futures, and let go of these."""
        part = self._part(command.task)
        futures = self._futures[part]
        nothing: list[Any] = [None] * len(futures)
        self._futures[part] = self.calls[part] = nothing
        outcome = command.outcome
        values = outcome.value if type(outcome) is Returned and type(outcome.value) is Slice else None
        if values is not None and values.batch.plain and command.task.calls:
            returns = Returns(command, values)
            for position, (future, value) in enumerate(zip(futures, values.values(), strict=True)):
                if type(value) is Packed:
                    future._settle(self._of_one(command, position, values))
                else:
                    future._return(value, returns)
        elif not command.task.calls:
            futures[0]._settle(command)
        else:
            for position, future in enumerate(futures):
                future._settle(self._of_one(command, position, values))

    @staticmethod
    def _of_one(command: Settle, position: int, values: Slice | None) -> Settle:
        task = command.task
        one = part_of(task, task.number + position, 0)  # type: ignore[operator]
        if values is None:
            story = Story(one.key, list(command.story.rows))
            return Settle(one.number, command.outcome, command.attempts, command.elapsed, story, one)
        story, attempts, elapsed = Returns(command, values).of(one.number)  # type: ignore[arg-type]
        value = Returned(Slice(values.batch, values.start + position, 1))
        return Settle(one.number, value, attempts, elapsed, story, one)
