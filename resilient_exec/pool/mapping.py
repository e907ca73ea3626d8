"""``map`` in chunks: how calls are put together, and how their values are given in order."""

from __future__ import annotations

import itertools
import operator
import sys
import time
from collections import deque
from typing import TYPE_CHECKING, Any, TypeVar

from resilient_exec.core.chunks import Pace
from resilient_exec.supervisor.chunk_future import ChunkFuture

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from resilient_exec.supervisor.future import ResilientFuture

__all__ = ["Calls", "checked_chunksize", "map_in_chunks", "run_chunk"]

T = TypeVar("T")
_FIRST_BLOCK = 64  # calls, taken from the input at once where the pool chooses ...
_LARGEST_BLOCK = 16384  # ... and at most
_GROWTH = 4


def run_chunk(fn: Callable[..., T], calls: list[tuple[Any, ...]]) -> list[T]:
    """What ``map`` submits: the pool sends each call by itself; anybody else who is given it runs them in order."""
    return [fn(*args) for args in calls]


class Calls(list[tuple[Any, ...]]):
    """Calls of one ``map``: how long they take, and whether the pool chooses how many are sent at once."""

    __slots__ = ("elastic", "pace")

    def __init__(self, calls: Iterable[tuple[Any, ...]], pace: Pace, *, elastic: bool) -> None:
        super().__init__(calls)
        self.pace, self.elastic = pace, elastic

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (list(self),)


def checked_chunksize(value: Any) -> int | None:
    """``value`` as a number of calls, 1 or more; ``None``: the pool is to choose."""
    if value is None:
        return None
    rule = "chunksize must be a whole number of calls per task, 1 or more, or None: the pool chooses"
    if isinstance(value, bool):
        raise TypeError(f"{rule}; got {value!r}")
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{rule}; got {value!r}") from None
    if number < 1:
        raise ValueError(f"chunksize must be >= 1, got {value!r}")
    return min(number, sys.maxsize)


def map_in_chunks(
    submit: Callable[[Calls], ResilientFuture[list[T]]],
    calls: Iterator[tuple[Any, ...]],
    chunksize: int | None,
    deadline: float | None,
    buffersize: int | None,
) -> Iterator[T]:
    """Submit all, or as many as ``buffersize`` says ahead of the reader; the values, in order."""
    kind = _Blocks if chunksize is None else _Chunks
    return _in_order(kind(submit, calls, chunksize or _FIRST_BLOCK, buffersize), deadline)


class _Chunks:
    """The input in chunks of one size: all are submitted at once, or ``buffersize`` ahead of the one that is read."""

    def __init__(
        self,
        submit: Callable[[Calls], ResilientFuture[list[Any]]],
        calls: Iterator[tuple[Any, ...]],
        size: int,
        buffersize: int | None,
    ) -> None:
        self.futures: deque[ResilientFuture[list[Any]]] = deque()  # the first is the one that is read
        self._submit, self._calls, self._size, self._buffersize = submit, calls, size, buffersize
        self._pace = Pace()
        self._fill()

    def _fill(self) -> None:
        while (self._buffersize is None or len(self.futures) < self._buffersize) and self._take(self._size):
            pass

    def _take(self, size: int, *, elastic: bool = False) -> int:
        """Submit the next calls of the input; how many there were."""
        calls = Calls(itertools.islice(self._calls, size), self._pace, elastic=elastic)
        if calls:
            self.futures.append(self._submit(calls))
        return len(calls)

    def turn_to_next(self) -> None:
        """The first is read now."""
        if self._buffersize is not None:
            self._take(self._size)

    def given(self, count: int) -> None:
        """So many values were given."""


class _Blocks(_Chunks):
    """Calls of the input in blocks, larger and larger ones, of which the pool sends as many at once as it chooses.

    With ``buffersize`` never more are submitted than so many ahead of what was given.
    """

    def _fill(self) -> None:
        self._ahead = 0  # calls that were submitted and not given
        self._is_exhausted = False
        self._submit_more()

    def _submit_more(self) -> None:
        while not self._is_exhausted:
            size = self._size
            if self._buffersize is not None:
                room = self._buffersize - self._ahead
                if room < max(1, self._buffersize // _GROWTH):
                    return  # later, more at once
                size = min(size, room)
            taken = self._take(size, elastic=True)
            self._ahead += taken
            self._is_exhausted = taken < size
            self._size = min(_LARGEST_BLOCK, self._size * _GROWTH)

    def turn_to_next(self) -> None:
        """Nothing depends on which is read."""

    def given(self, count: int) -> None:
        """So many values were given."""
        self._ahead -= count
        self._submit_more()


def _in_order(source: _Chunks, deadline: float | None) -> Iterator[Any]:
    try:
        yield from itertools.chain.from_iterable(_each_batch(source, deadline))
    finally:
        for future in source.futures:
            future.cancel()


# Not inside that `try`: on Python 3.14 a Ctrl-C where a loop jumps back skips the `finally`.
def _each_batch(source: _Chunks, deadline: float | None) -> Iterator[Iterable[Any]]:
    futures = source.futures
    while futures:
        source.turn_to_next()
        for count, batch in _batches(futures[0], deadline):
            yield batch
            del batch
            source.given(count)
        futures.popleft()


def _batches(future: ResilientFuture[list[T]], deadline: float | None) -> Iterator[tuple[int, Iterable[T]]]:
    if isinstance(future, ChunkFuture):
        return future.batches(deadline)
    values = future.result(None if deadline is None else deadline - time.monotonic())
    return iter([(len(values), _popped(values[::-1]))])  # another's, where `submit` has been replaced


def _popped(values: list[T]) -> Iterator[T]:
    while values:
        yield values.pop()
