"""What came from a worker and has not been unpickled yet."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["Batch", "Packed", "Slice"]


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


class Batch:
    """Values of calls of a chunk as they came from a worker, pickled: plain ones, and :class:`Packed` ones.

    It is unpickled by whoever asks for the values; nothing of the user's runs for that.
    """

    __slots__ = ("_load", "data")

    def __init__(self, data: bytes, load: Callable[[bytes, int], list[Any]]) -> None:
        self.data, self._load = data, load

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
