"""What tasks have in common that may go in one bundle: what they are made with, and how they have returned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from resilient_exec.core.chunks import Pace
from resilient_exec.model.events import Story

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from resilient_exec.core.messages import Settle
    from resilient_exec.model.events import Row
    from resilient_exec.model.packed import Slice
    from resilient_exec.model.task import Task

__all__ = ["Alike", "Returns"]

_AIM = 0.004  # s of work that a worker is sent at once


class Alike:
    """What tasks have in common that may go in one bundle.

    Attributes:
        fn: the function, which goes by its name.
        head: a call of it without arguments, pickled.
        options: of the pool, or of a view.
        label: what events and errors call them.
        most: attempts of each, where there is such a limit.
        call: makes a call of the function with plain arguments, pickled; it never raises.
        pace: how long they take.
    """

    __slots__ = ("_make_task", "call", "fn", "head", "label", "most", "options", "pace")

    def __init__(  # noqa: PLR0917  each is one of the things that they have in common
        self,
        fn: Callable[..., Any],
        head: bytes,
        options: Any,
        label: str,
        most: int | None,
        call: Callable[[tuple[Any, ...]], bytes],
        make_task: Callable[[int, str, Hashable, str, Any], Task],
    ) -> None:
        self.fn, self.head, self.options, self.label, self.most = fn, head, options, label, most
        self.call, self._make_task = call, make_task
        self.pace = Pace(_AIM)

    def task(self, number: int, cargo: Any) -> Task:
        """The task of that number, or the first of a bundle."""
        return self._make_task(number, self.label, number, "", cargo)


class Returns:
    """How tasks of a bundle have returned: in each the same has happened, at another time."""

    __slots__ = ("_attempts", "_elapsed", "_first", "_rows", "_start", "_times")

    def __init__(self, command: Settle, values: Slice) -> None:
        self._first: Any = command.task.number
        self._rows, self._attempts, self._elapsed = command.story.rows, command.attempts, command.elapsed
        self._times, self._start = values.batch.times, values.start

    def of(self, number: int) -> tuple[Story, int, float]:
        """Of that one: its story, the number of its attempts, seconds from its begin to its end."""
        times = self._times.of(self._start + number - self._first)
        if times is None:
            return Story(number, list(self._rows)), self._attempts, self._elapsed
        began, ended = times
        at = {"begun": began, "returned": ended}
        rows: list[Row] = [(at.get(row[1], row[0]), *row[1:]) for row in self._rows]
        return Story(number, rows), self._attempts, ended - began
