"""The wire between a lane and its worker: framed messages over a socket pair of their own.

One channel joins one lane with one worker, nobody else has an end of it, and only the parent reads its side:
so a worker that is killed in the middle of a message harms no other (a queue or a lock that several workers
share is what most pools hang on when one of them dies).

A frame is a header, ``<BBQQ``: a magic byte, the kind, the serial number of the attempt in this worker, and the
length of the body, which follows.  Small frames travel many at a time: one read takes what has come, one write what
there is to say.  The parent's side never blocks: :class:`Framer` takes what has come and gives the whole frames in it,
:class:`Outbox` writes what there is room for.  The worker's side, :class:`WorkerChannel`, blocks: it has nothing else
to do.  It sends each outcome at once, before it begins anything else: what is done is never lost with what comes next.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import socket
import struct
import sys
from collections import deque, namedtuple
from enum import IntEnum

from resilient_exec.wire.buffers import Pieces, views

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, NamedTuple

__all__ = ["ChannelLost", "Frame", "Framer", "Kind", "Outbox", "WorkerChannel", "header"]

_HEADER = struct.Struct("<BBQQ")
_MAGIC = 0xA7
_CHUNK = 1 << 16  # bytes, read at once; and a shorter body is joined to its header, a longer one goes by itself
_LARGEST = 1 << 40  # a length beyond this is not a length
_LAZY = 1 << 20  # bytes: a body longer than this has memory of its own
CALL = struct.Struct("<IQIddq")
"""In front of an attempt's call: length of what else is said of it, number, attempt, limits (s), memory limit (bytes).

A limit that is not set is 0, a memory limit -1.
"""
_CALL_FRAME = struct.Struct(f"{_HEADER.format}{CALL.format[1:]}")
CHUNK = struct.Struct("<IQI?")
"""Behind the CALL of a chunk: length of the pickled function, position of the first call in what was submitted, how
many they are, whether they are a bundle.

Then come what else is said of it, the function, the arguments of all calls.
"""
END = struct.Struct("<ddI")
"""In front of an outcome: when the attempt began and ended, by the system's monotonic clock (s); length of notes."""
ITEMS = struct.Struct("<ddII??")
"""In front of results of a chunk: when the first of these calls began and the last ended (s); how many they are; length
of what was found amiss in the process; whether they are one pickle, and the times at which each began come first."""


class Kind(IntEnum):
    """What a frame says."""

    # to the worker
    ATTEMPT = 1  # CALL, what else is said of it, the pickled call
    QUIT = 2
    GO_ON = 3  # what the attempt had started is ended: the next one may begin
    CHUNK = 4  # CALL, CHUNK, what else is said of it, the function, the arguments of its calls; a bundle, too
    # from the worker
    HELLO = 10  # our code runs, the initializer is next; the serial is the number of the stacks descriptor
    READY = 11
    START_FAILED = 12  # text
    RETURNED = 14  # END, notes, pickled value
    RAISED = 15  # END, notes, packed exception
    NOT_SENDABLE = 16  # END, notes, text
    SKIPPED = 17  # was not begun: taken back, or the process is unfit; of a chunk: nor are the next, but of a bundle
    ITEMS = 19  # ITEMS, what is amiss, times, results of calls of a chunk that have returned
    CROWDED = 18  # it was not begun: the worker still holds too much of earlier tasks; text: how many bytes


_KINDS = {int(kind): kind for kind in Kind}
_ATTEMPT = int(Kind.ATTEMPT)

if TYPE_CHECKING:

    class Frame(NamedTuple):
        """One message."""

        kind: Kind
        serial: int
        body: memoryview | bytes

else:  # the same, without `typing`
    Frame = namedtuple("Frame", ("kind", "serial", "body"))  # noqa: PYI024  the other one is above

_new = tuple.__new__  # for named tuples: their own is written in Python


class ChannelLost(Exception):
    """The channel is closed, is no longer ours, or carries what is not a frame."""


def header(kind: Kind, serial: int, length: int) -> bytes:
    """The bytes that go before a body of ``length`` bytes."""
    return _HEADER.pack(_MAGIC, kind, serial, length)


def _parse(data: bytes | bytearray, at: int = 0) -> tuple[Kind, int, int]:
    magic, number, serial, length = _HEADER.unpack_from(data, at)
    kind = _KINDS.get(number)
    if magic != _MAGIC or kind is None or length > _LARGEST:
        start = bytes(data[at : at + 8])
        raise ChannelLost(f"what came over the channel is not a message (it starts with {start!r})")
    return kind, serial, length


def _memory() -> int:
    """Bytes that this machine has."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return _LARGEST


class _Body:
    """A long body on its way: it takes memory as its bytes arrive, not as its header says."""

    def __init__(self, kind: Kind, serial: int, length: int, start: bytes | bytearray) -> None:
        self.kind, self.serial, self.length = kind, serial, length
        self.filled = len(start)
        if length > _memory():
            raise ChannelLost(f"a message of {length} bytes does not fit in this machine's memory")
        try:
            self._data = memoryview(_lazy(length) if length > _LAZY else bytearray(length))
        except (MemoryError, OSError) as error:
            raise ChannelLost(f"a message of {length} bytes does not fit in the memory") from error
        self._data[: len(start)] = start

    def room(self) -> memoryview:
        """Where the next bytes go; empty once it is whole."""
        return self._data[self.filled :]

    def frame(self) -> Frame:
        return Frame(self.kind, self.serial, self._data)


def _lazy(length: int) -> mmap.mmap:
    """Memory of this process's own, which the kernel gives page by page as it is written: by large pages where it can.

    A page costs some microseconds when it is first written, whatever its size.
    """
    if not hasattr(mmap, "MAP_ANONYMOUS"):
        return mmap.mmap(-1, length)
    memory = mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without them
            memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


class Framer:
    """Puts frames together from a non-blocking socket, copying each body once."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._data = b""  # what has been read ...
        self._at = 0  # ... and how much of it has been taken
        self._body: _Body | None = None  # a long one, whose header has been taken
        self.hung_up = False  # nothing more will come

    def frames(self) -> Iterator[Frame]:
        """The frames that are complete by now.

        Raises:
            ChannelLost: what came is not a frame.  (A closed far end only ends the frames: who is dead is
                for the process to say.)
        """
        drained = False
        while True:
            if self._body is not None:
                if not self._fill(self._body):
                    return
                frame, self._body = self._body.frame(), None
            else:
                taken = self._take()
                if taken is None:
                    if self._body is None:
                        if drained:
                            return
                        drained = self._receive()
                    continue
                frame = taken
            yield frame
            del frame

    def _take(self) -> Frame | None:
        """The next frame of what has been read; ``None``: it is not whole, or a long one, whose body comes apart."""
        data, at = self._data, self._at
        if len(data) - at < _HEADER.size:
            return None
        kind, serial, length = _parse(data, at)
        start = at + _HEADER.size
        end = start + length
        if end > len(data):
            if length >= _CHUNK:
                self._body = _Body(kind, serial, length, data[start:])
                self._data, self._at = b"", 0
            return None
        self._at = end
        return _new(Frame, (kind, serial, data[start:end]))

    def _fill(self, body: _Body) -> bool:
        while room := body.room():
            try:
                got = self._sock.recv_into(room)
            except (BlockingIOError, InterruptedError):
                return False
            except OSError:  # reset: the process says what happened
                got = 0
            finally:
                room.release()
            if not got:
                self.hung_up = True
                return False
            body.filled += got
        return True

    def _receive(self) -> bool:
        """Read more; whether that was all there is, which saves asking once more, only to hear of nothing."""
        try:
            data = self._sock.recv(_CHUNK)
        except (BlockingIOError, InterruptedError):
            return True
        except OSError:  # reset: the process says what happened
            data = b""
        self.hung_up = self.hung_up or not data
        self._data = self._data[self._at :] + data if self._at < len(self._data) else data
        self._at = 0
        return len(data) < _CHUNK


class Outbox:
    """Writes frames to a non-blocking socket, as fast as it takes them; a long body is not copied."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._small: list[bytes | memoryview] = []  # behind the pieces
        self._pieces: list[memoryview] = []

    def __bool__(self) -> bool:
        return bool(self._pieces or self._small)

    def put(self, kind: Kind, serial: int, *parts: bytes | Pieces) -> None:
        """Queue a frame whose body is the parts, the last of which may be large."""
        length = sum(map(len, parts))
        small = self._small
        small.append(_HEADER.pack(_MAGIC, kind, serial, length))
        if length < _CHUNK:
            small += views(parts)
            return
        self._pieces += [memoryview(b"".join(small)), *(memoryview(view) for view in views(parts))]
        small.clear()

    def put_call(self, serial: int, numbers: tuple[Any, ...], about: bytes, call: bytes | Pieces) -> None:
        """Queue an attempt: what is in :data:`CALL`, what else is said of it, the pickled call."""
        length = CALL.size + len(about) + len(call)
        if length >= _CHUNK or type(call) is not bytes:
            self.put(Kind.ATTEMPT, serial, CALL.pack(*numbers), about, call)
            return
        self._small.append(_CALL_FRAME.pack(_MAGIC, _ATTEMPT, serial, length, *numbers))
        self._small.append(about + call if about else call)

    def pump(self) -> int:
        """Write as much as the socket takes now; how many bytes that was."""
        written = 0
        if self._small:
            self._pieces.append(memoryview(b"".join(self._small)))
            self._small.clear()
        while self._pieces:
            try:
                if len(self._pieces) == 1 or sys.platform == "win32":
                    sent = self._sock.send(self._pieces[0])
                else:
                    sent = self._sock.sendmsg(self._pieces[:16])
            except (BlockingIOError, InterruptedError):
                break
            except OSError:  # the worker is gone: its process says so
                self._pieces.clear()
                break
            written += sent
            self._drop(sent)
        return written

    def _drop(self, sent: int) -> None:
        while sent and self._pieces:
            first = self._pieces[0]
            if sent < len(first):
                self._pieces[0] = first[sent:]
                return
            sent -= len(first)
            del self._pieces[0]

    def clear(self) -> None:
        """Forget what is still to be written."""
        self._small.clear()
        self._pieces.clear()


class WorkerChannel:
    """The worker's end.  The task may close or replace descriptors: so it is looked at before each use."""

    def __init__(self, fd: int) -> None:
        self._socket = socket.socket(fileno=fd)
        self._socket.setblocking(True)
        self._fd = fd
        self._identity = self._identify()
        self._buffer = b""  # what has been read ...
        self._at = 0  # ... and how much of it has been taken
        self._waiting: deque[Frame] = deque()  # taken out of their turn

    def _identify(self) -> tuple[int, int]:
        status = os.fstat(self._fd)
        return status.st_dev, status.st_ino

    def _check(self) -> None:
        # A task that closes descriptors may get our number for a file of its own: never write into that.
        try:
            if self._identify() == self._identity:
                return
        except OSError:
            pass
        raise ChannelLost("the task closed descriptors that belong to the pool")

    def leave_open(self) -> None:
        """Leave it to the end of the process to close it: no use from here on, no warning of a socket left open."""
        self._socket.detach()

    def send(self, kind: Kind, serial: int = 0, *parts: bytes | memoryview | Pieces) -> None:
        """Send one frame, whose body is the parts, however long it takes."""
        self._check()
        length = sum(map(len, parts))
        head = _HEADER.pack(_MAGIC, kind, serial, length)
        try:
            if length < _CHUNK:
                self._socket.sendall(b"".join((head, *views(parts))))
                return
            self._socket.sendall(head)
            for view in views(parts):
                self._socket.sendall(view)
        except OSError as error:
            raise ChannelLost("the parent has closed the channel") from error

    @property
    def is_idle(self) -> bool:
        """Whether nothing that was read waits to be taken."""
        return self._at == len(self._buffer) and not self._waiting

    def receive(self) -> Frame:
        """Wait for one frame."""
        return self._waiting.popleft() if self._waiting else self._receive()

    def await_kind(self, kind: Kind) -> None:
        """Wait for a frame of that kind; those that come before it are received afterwards."""
        while (frame := self._receive()).kind is not kind:
            self._waiting.append(frame)

    def _receive(self) -> Frame:
        while (left := len(self._buffer) - self._at) < _HEADER.size:
            self._read(left)
        kind, serial, length = _parse(self._buffer, self._at)
        start = self._at + _HEADER.size
        if length < _CHUNK:
            while len(self._buffer) - self._at < _HEADER.size + length:
                self._read(len(self._buffer) - self._at)
            start = self._at + _HEADER.size
            self._at = start + length
            return _new(Frame, (kind, serial, self._buffer[start : self._at]))
        body = _Body(kind, serial, length, self._buffer[start : start + length])
        self._at = min(start + length, len(self._buffer))
        while room := body.room():
            body.filled += self._receive_into(room)
            room.release()
        return body.frame()

    def _read(self, left: int) -> None:
        self._check()
        try:
            data = self._socket.recv(_CHUNK)
        except OSError as error:
            raise ChannelLost("the channel was closed") from error
        if not data:
            raise ChannelLost("the parent has closed the channel")
        self._buffer = self._buffer[self._at :] + data if left else data
        self._at = 0

    def _receive_into(self, room: memoryview) -> int:
        try:
            got = self._socket.recv_into(room)
        except OSError as error:
            raise ChannelLost("the channel was closed") from error
        if not got:
            raise ChannelLost("the parent has closed the channel")
        return got
