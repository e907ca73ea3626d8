"""The future of a chunk: takes what comes of its calls as it comes, and gives it in their order.

One object for all of them: a future for each would cost more than most calls of a chunk take.
"""

from __future__ import annotations

import time
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any, TypeVar

from resilient_exec.core.chunks import part_of
from resilient_exec.core.messages import Settle
from resilient_exec.model.dossier import Dossier
from resilient_exec.model.events import Story, TaskStory
from resilient_exec.model.packed import Packed, Slice
from resilient_exec.model.task import Returned
from resilient_exec.supervisor.future import ResilientFuture, made_of
from resilient_exec.supervisor.latch import Waiters

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator

    from resilient_exec.supervisor.future import Overseer

__all__ = ["ChunkFuture"]

T = TypeVar("T")


class ChunkFuture(ResilientFuture[list[T]]):
    """Of ``size`` calls; ``arguments(position)`` says in a text what one of them was called with.

    ``numbered``: the key of each is its number, of which the future has that of the first.

    Its result is the list of their values, unless these were given one by one (:meth:`batches`).
    """

    def __init__(  # noqa: PLR0917  as a future's
        self,
        key: Hashable,
        label: str,
        arguments: Callable[[int], str],
        overseer: Overseer,
        number: int,
        size: int,
        *,
        numbered: bool,
    ) -> None:
        super().__init__(key, label, f"{size} calls", overseer, number)
        self.size, self.numbered = size, numbered
        self._arguments_of = arguments
        self._came: dict[int, Settle] = {}  # by the position of the first call
        self._missing = size
        self._arrivals = Waiters()
        self._is_read = False

    def batches(self, deadline: float | None) -> Iterator[tuple[int, Iterable[T]]]:
        """The values in order, as many at a time as have come together, and how many; each is given once, and not kept.

        Args:
            deadline: on the clock of ``time.monotonic``.

        Raises:
            TimeoutError: a value did not come in time.
            BaseException: what a call raised, or what became of it, in its place.
        """
        self._is_read = True
        position = 0
        while position < self.size:
            settled = self._await(position, deadline)
            count = settled.task.calls or 1
            yield count, self._values(settled, position)
            del settled
            position += count

    def _await(self, position: int, deadline: float | None) -> Settle:
        came = self._came
        while position not in came:
            lock = self._arrivals.join()  # before the next look: what comes behind that look finds it there
            if position in came:
                break
            left = None if deadline is None else deadline - time.monotonic()
            if not self._arrivals.sleep(lock, left) and position not in came:
                raise TimeoutError
        return came.pop(position)

    def _values(self, settled: Settle, position: int) -> Iterable[T]:
        outcome = settled.outcome
        if isinstance(outcome, Returned) and type(outcome.value) is Slice:
            values = outcome.value.values()
            if Packed not in set(map(type, values)):
                return values
            values.reverse()
            return self._unpacked(values, settled, position)
        return [self._value(settled, position + ahead, outcome) for ahead in range(settled.task.calls or 1)]

    def _unpacked(self, values: list[Any], settled: Settle, position: int) -> Iterator[T]:
        """Each is unpacked when it is asked for, so that what fails in one concerns no other."""
        while values:
            yield self._next(values, settled, position)  # not held here while the reader looks at it
            position += 1

    def _next(self, values: list[Any], settled: Settle, position: int) -> Any:
        value = values.pop()
        return self._value(settled, position, Returned(value)) if type(value) is Packed else value

    def _value(self, settled: Settle, position: int, outcome: Any) -> Any:
        """The value of a call, or what it raises."""
        value, error = self._made_of_one(self._of_one(settled, position, outcome), position)
        try:
            if error is not None:
                raise error
            return value
        finally:
            del error, value  # else the traceback of the exception would lead back here

    def _made_of_one(self, one: Settle, position: int) -> tuple[Any, BaseException | None]:
        if one.outcome is None:
            return None, CancelledError()
        return made_of(one, lambda: self._dossier_of(one, position))

    def _of_one(self, settled: Settle, position: int, outcome: Any) -> Settle:
        task = settled.task
        if task.calls:
            task = part_of(task, self.number + position, 0)
        story = Story(task.key, settled.story.rows)
        return Settle(task.number, outcome, settled.attempts, settled.elapsed, story, task)

    def _dossier_of(self, one: Settle, position: int) -> Dossier:
        return Dossier.of(one.task.key, self.label, self._arguments_of(position), TaskStory(one.story))

    def _made_of(self, settled: Settle) -> tuple[Any, BaseException | None]:
        del settled  # its calls say what has become of them
        if self._is_read:
            return None, RuntimeError("the values of this chunk have been given one by one already")
        try:
            return [value for _, batch in self.batches(None) for value in batch], None
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            return None, error

    def cancel(self) -> bool:
        """Have those calls that have not begun not run at all.  Returns ``False``: others may have begun."""
        if not self.done():
            self._overseer.cancelled(self)
        return False

    # -- for the supervisor --------------------------------------------------------------------------------------------

    def _settle_calls(self, settled: Settle) -> bool:
        """So many calls are over; whether these were the last."""
        self._came[settled.number - self.number] = settled  # type: ignore[operator]
        self._arrivals.wake()
        self._missing -= settled.task.calls or 1
        if self._missing:
            return False
        self._settle(Settle(self.number, Returned(None), 1, 0.0, Story(self.key, []), settled.task))
        return True
