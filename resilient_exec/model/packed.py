"""What came from a worker and has not been unpickled yet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Packed"]


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
