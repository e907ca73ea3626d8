"""What came from a worker and has not been unpickled yet."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

__all__ = ["Batch", "CallTimes", "Packed", "Slice", "is_same_pickle"]


class Packed:
    """A value or an exception as it came from a worker, still pickled.

    It is unpickled by whoever asks for it: what hangs, raises or takes its time there concerns nobody else.
    """

    __slots__ = ("_load", "data")

    def __init__(self, data: bytes | bytearray | memoryview, load: Callable[[Any], Any]) -> None:
        self.data, self._load = data, load

    def unpack(self) -> Any:
        """What it holds, made anew at each call; raises whatever the unpickling raises."""
        return self._load(self.data)


class CallTimes:
    """When calls began, one after the other, and the last one ended, on a clock; the pool's begins at ``zero``."""

    __slots__ = ("_begins", "_ended", "_zero")

    def __init__(self, begins: Sequence[float], ended: float, zero: float) -> None:
        self._begins, self._ended, self._zero = begins, ended, zero

    def of(self, index: int) -> tuple[float, float] | None:
        """When that call began and ended, on the pool's clock (s); ``None``: that is not known."""
        begins = self._begins
        if index >= len(begins):
            return None
        ended = begins[index + 1] if index + 1 < len(begins) else self._ended
        return begins[index] - self._zero, ended - self._zero


_UNKNOWN = CallTimes((), 0.0, 0.0)


class Batch:
    """Values of calls of a chunk as they came from a worker, pickled: plain ones, and :class:`Packed` ones.

    It is unpickled by whoever asks for the values; nothing of the user's runs for that.

    Attributes:
        plain: whether they are one pickle, of values that nobody can change.
        times: of the calls.
    """

    __slots__ = ("_load", "data", "plain", "times")

    def __init__(
        self,
        data: bytes,
        load: Callable[[bytes, int], list[Any]],
        times: CallTimes | None = None,
        *,
        plain: bool = False,
    ) -> None:
        self.data, self._load, self.plain = data, load, plain
        self.times = _UNKNOWN if times is None else times

    def values(self, start: int, count: int) -> list[Any]:
        """So many of them; those that are :class:`Packed` are still to be unpacked, each by itself."""
        found = self._load(self.data, start + count)
        return found[start:] if start else found


class Slice:
    """A part of a batch."""

    __slots__ = ("batch", "count", "start")

    def __init__(self, batch: Batch, start: int, count: int) -> None:
        self.batch, self.start, self.count = batch, start, count

    def values(self) -> list[Any]:
        """See :meth:`Batch.values`."""
        return self.batch.values(self.start, self.count)

    def unpack(self) -> Any:
        """The first value."""
        (value,) = self.batch.values(self.start, 1)
        return value.unpack() if type(value) is Packed else value


def is_same_pickle(first: Any, second: Any) -> bool:
    """Whether two results came as the same bytes, or, of calls of a chunk, as plain values that read the same.

    Nothing of the user's runs for that.  Equal values may have different pickles (those of sets, for one).
    """
    first, second = _one_of(first), _one_of(second)
    if type(first) is Packed and type(second) is Packed:
        return bool(first.data == second.data)
    return Packed not in (type(first), type(second)) and repr(first) == repr(second)


def _one_of(value: Any) -> Any:
    return value.batch.values(value.start, 1)[0] if type(value) is Slice else value
