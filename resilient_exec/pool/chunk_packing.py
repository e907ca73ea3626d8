"""The calls of a chunk as they travel: what is plain as it is, all else pickled call by call, what they share once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from resilient_exec.core.chunks import Group, Pace, part_of
from resilient_exec.model.summary import summary
from resilient_exec.model.task import NotSent, Task
from resilient_exec.pool.mapping import Calls
from resilient_exec.wire import items
from resilient_exec.wire.payload import Unsendable, pack_call

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["PackedCalls"]

_MOST_BYTES = 1 << 20  # of arguments that are sent at once, where the pool chooses how many


class PackedCalls:
    """Calls of ``fn``, pickled now; ``rules`` are those of :func:`resilient_exec.wire.payload.pack_call`.

    Attributes:
        head: the function, with the arguments that all calls share, which have these ``places``.
        calls: the other arguments of each.
    """

    def __init__(self, fn: Callable[..., Any], calls: list[tuple[Any, ...]], **rules: Any) -> None:
        self._fn, self._rules = fn, rules
        self._pace = calls.pace if isinstance(calls, Calls) else Pace()
        self._is_elastic = isinstance(calls, Calls) and calls.elastic
        self._texts: list[str] | None = None
        self._problems: dict[int, Unsendable] = {}
        self._size = 1  # bytes, of the arguments of one call
        self.head: Any = b""
        self.places: tuple[int, ...] = ()
        self.calls: list[Any] = list(calls)
        kinds = items.kinds_of(calls)
        if not items.PLAIN.issuperset(kinds):
            self._texts = [summary(args, {}) for args in calls]
            self.places = items.shared_columns(calls)
        try:
            shared = tuple(calls[0][place] for place in self.places)
            self.head = items.head_of(fn, shared, rules)
        except Unsendable as problem:
            self._problems = dict.fromkeys(range(len(calls)), problem)
            return
        if self._texts is not None:
            self.calls = [self._sealed(position, args) for position, args in enumerate(calls)]
        if self._texts is not None or str in kinds or bytes in kinds:
            self._size = max(1, sum(map(items.size_of, self.calls)) // len(self.calls))

    def _sealed(self, position: int, args: tuple[Any, ...]) -> Any:
        own = tuple(arg for place, arg in enumerate(args) if place not in self.places) if self.places else args
        try:
            return items.seal_call(self._fn, own, self._rules)
        except Unsendable as problem:
            self._problems[position] = problem
            try:
                pack_call(self._fn, args, {}, **self._rules)  # whose words count all arguments
            except Unsendable as better:
                self._problems[position] = better
        return ()

    def arguments(self, position: int) -> str:
        """What that call was called with, as a text."""
        return summary(self.calls[position], {}) if self._texts is None else self._texts[position]

    def group(self, first: int, *, numbered: bool) -> Group:
        """What these calls have in common, the first of which has that number."""
        most = max(1, _MOST_BYTES // self._size)
        return Group(first, self._pace, len(self.calls), most=most if self._is_elastic else 0, numbered=numbered)

    def parts(self, whole: Task, where: Callable[[], str]) -> Iterator[tuple[Task, NotSent | None]]:
        """The chunk, in parts where some of its calls cannot be sent; with what is to be said of these.

        ``where()`` tells where they were submitted.
        """
        start, first = 0, whole.group.first
        for position, problem in sorted(self._problems.items()):
            if start < position:
                yield part_of(whole, first + start, position - start), None
            text = f"cannot be sent to a worker: {problem}; it was submitted in {where()}"
            yield part_of(whole, first + position, 0), NotSent(text, problem.__cause__)
            start = position + 1
        if start < len(self.calls):
            yield (part_of(whole, first + start, len(self.calls) - start) if start else whole), None
