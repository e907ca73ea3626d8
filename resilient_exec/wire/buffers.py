"""A pickle in pieces: the large buffers that it refers to stay where they are until they are sent.

pickle's protocol 5 gives numpy's arrays, and what is made of them, as buffers apart from the pickle.  Here they are
neither copied into it nor out of it again: a message is written from the memory of the caller's array, and the array at
the other end lies in the memory that the message was received into.

A message with buffers begins with a zero, which no pickle does; then come the length of the gap before the first
buffer, how many there are, and how long the pickle and each of them is; then the pickle, then the buffers.  The gaps
between them put each at a multiple of 64 bytes in the frame, wherever in it the message begins.
"""

from __future__ import annotations

import pickle
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

__all__ = ["Pieces", "loads", "loads_readonly", "pieces", "views"]

_HEAD = struct.Struct("<BB2xIQ")  # zero, first gap, count, length of the pickle
_ALIGNED = 64  # bytes
_SMALL = 1 << 20  # bytes: what is copied out of a larger message, or who keeps it would keep all of that


class Pieces:
    """A message that is not in one piece; its length is that of all of them together, in bytes."""

    __slots__ = ("_length", "buffers", "pickled")

    def __init__(self, pickled: bytes, buffers: Sequence[memoryview]) -> None:
        self.pickled, self.buffers = pickled, buffers
        head = _HEAD.size + 8 * len(buffers) + len(pickled)
        # The first gap and what stands behind the last buffer are one less than the alignment together.
        self._length = head + _ALIGNED - 1 + sum(_padded(buffer.nbytes) for buffer in buffers)

    def __len__(self) -> int:
        return self._length

    def views(self, offset: int = 0) -> list[memoryview]:
        """The pieces, for a frame in which so many bytes are before them."""
        sizes = [buffer.nbytes for buffer in self.buffers]
        table = struct.pack(f"<{len(sizes)}Q", *sizes)
        gap = -(offset + _HEAD.size + len(table) + len(self.pickled)) % _ALIGNED
        head = _HEAD.pack(0, gap, len(sizes), len(self.pickled))
        found = [memoryview(b"".join((head, table, self.pickled, bytes(gap))))]
        for buffer in self.buffers:
            found += [buffer, memoryview(bytes(_padded(buffer.nbytes) - buffer.nbytes))]
        found.append(memoryview(bytes(_ALIGNED - 1 - gap)))
        return [view for view in found if view.nbytes]

    def joined(self) -> bytearray:
        """Return all bytes in one piece."""
        return bytearray().join(self.views())


def _padded(size: int) -> int:
    return size + -size % _ALIGNED


def pieces(pickled: bytes, buffers: Sequence[memoryview]) -> bytes | Pieces:
    """A message of a pickle and the large buffers that it refers to."""
    return Pieces(pickled, buffers) if buffers else pickled


def views(parts: Sequence[bytes | memoryview | Pieces]) -> list[bytes | memoryview]:
    """The parts of a frame's body, in order and in pieces, none of them empty."""
    found: list[bytes | memoryview] = []
    offset = 0
    for part in parts:
        if isinstance(part, Pieces):
            found += part.views(offset)
        elif part:
            found.append(part)
        offset += len(part)
    return found


def loads_readonly(message: Pieces) -> Any:
    """Unpickle a message where it lies; raises if anything is written into its buffers."""
    return pickle.loads(message.pickled, buffers=[buffer.toreadonly() for buffer in message.buffers])


def loads(data: bytes | bytearray | memoryview | Pieces) -> Any:
    """Unpickle a message; its buffers are used where they are."""
    if isinstance(data, Pieces):
        data = data.joined()
    if data[0] != 0:
        return pickle.loads(data)
    view = memoryview(data)
    _, gap, count, length = _HEAD.unpack_from(view)
    sizes = struct.unpack_from(f"<{count}Q", view, _HEAD.size)
    start = _HEAD.size + 8 * count
    at = start + length + gap
    buffers: list[Any] = []
    for size in sizes:
        buffer = view[at : at + size]
        is_one_of_many = size < _SMALL < len(view)
        buffers.append(bytearray(buffer) if is_one_of_many else buffer)
        at += _padded(size)
    return pickle.loads(view[start : start + length], buffers=buffers)
