"""The wire between a lane and its worker: framed messages over a socket pair of their own.

One channel joins one lane with one worker, nobody else has an end of it, and only the parent reads its side:
so a worker that is killed in the middle of a message harms no other (a queue or a lock that several workers
share is what most pools hang on when one of them dies).

A frame is a header, ``<BBIQ``: a magic byte, the kind, the serial number of the attempt in this worker, and the
length of the body, which follows.  The parent's side never blocks: :class:`Framer` takes what has come and gives
the whole frames in it, :class:`Outbox` writes what there is room for.  The worker's side, :class:`WorkerChannel`,
blocks: it has nothing else to do.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ChannelLost", "Frame", "Framer", "Kind", "Outbox", "WorkerChannel", "header"]

_HEADER = struct.Struct("<BBIQ")
_MAGIC = 0xA7
_CHUNK = 1 << 16  # bytes, read at once; and a shorter body is joined to its header, a longer one goes by itself
_LARGEST = 1 << 40  # a length beyond this is not a length


class Kind(IntEnum):
    """What a frame says."""

    # to the worker
    ATTEMPT = 1  # context, then call
    QUIT = 2
    # from the worker
    HELLO = 10  # our code runs, the initializer is next; the serial is the number of the stacks descriptor
    READY = 11
    START_FAILED = 12  # text
    BEGUN = 13
    RETURNED = 14  # pickled value
    RAISED = 15  # packed exception
    NOT_SENDABLE = 16  # text


class Frame(NamedTuple):
    """One message."""

    kind: Kind
    serial: int
    body: memoryview


class ChannelLost(Exception):
    """The channel is closed, is no longer ours, or carries what is not a frame."""


def header(kind: Kind, serial: int, length: int) -> bytes:
    """The bytes that go before a body of ``length`` bytes."""
    return _HEADER.pack(_MAGIC, kind, serial, length)


def _parse(data: bytes | bytearray) -> tuple[Kind, int, int]:
    magic, kind, serial, length = _HEADER.unpack_from(data)
    try:
        if magic == _MAGIC and length <= _LARGEST:
            return Kind(kind), serial, length
    except ValueError:
        pass
    raise ChannelLost(f"what came over the channel is not a message (it starts with {bytes(data[:8])!r})")


class Framer:
    """Puts frames together from a non-blocking socket, copying each body once."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._buffer = bytearray()
        self._body: bytearray | None = None  # of the frame whose header has been taken
        self._filled = 0
        self._frame = (Kind.HELLO, 0)
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
                if not self._read_body(self._body):
                    return
                body, self._body = memoryview(self._body), None
                yield Frame(*self._frame, body)
            elif len(self._buffer) >= _HEADER.size:
                self._take_header()
            elif drained:
                return
            else:
                data = self._receive(_CHUNK)
                drained = len(data) < _CHUNK  # saves asking once more, only to hear that there is nothing
                self._buffer += data

    def _take_header(self) -> None:
        kind, serial, length = _parse(self._buffer)
        self._frame = (kind, serial)
        try:
            body = bytearray(length)
        except MemoryError as error:
            raise ChannelLost(f"a message of {length} bytes does not fit in the parent's memory") from error
        end = min(_HEADER.size + length, len(self._buffer))
        self._filled = end - _HEADER.size
        body[: self._filled] = self._buffer[_HEADER.size : end]
        del self._buffer[:end]
        self._body = body

    def _read_body(self, body: bytearray) -> bool:
        while self._filled < len(body):
            with memoryview(body) as view:
                try:
                    got = self._sock.recv_into(view[self._filled :])
                except (BlockingIOError, InterruptedError):
                    return False
                except OSError:  # reset: the process says what happened
                    got = 0
            if not got:
                self.hung_up = True
                return False
            self._filled += got
        return True

    def _receive(self, size: int) -> bytes:
        try:
            data = self._sock.recv(size)
        except (BlockingIOError, InterruptedError):
            return b""
        except OSError:  # reset: the process says what happened
            data = b""
        self.hung_up = self.hung_up or not data
        return data


class Outbox:
    """Writes frames to a non-blocking socket, as fast as it takes them; a body is not copied."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._pieces: list[memoryview] = []

    def __bool__(self) -> bool:
        return bool(self._pieces)

    def put(self, kind: Kind, serial: int, *parts: bytes) -> None:
        """Queue a frame whose body is the parts, the last of which may be large."""
        body = b"".join(parts[:-1])
        last = parts[-1] if parts else b""
        self._pieces.append(memoryview(header(kind, serial, len(body) + len(last)) + body))
        if last:
            self._pieces.append(memoryview(last))

    def pump(self) -> int:
        """Write as much as the socket takes now; how many bytes that was."""
        written = 0
        while self._pieces:
            try:
                sent = self._sock.sendmsg(self._pieces[:16]) if sys.platform != "win32" else self._send_one()
            except (BlockingIOError, InterruptedError):
                break
            except OSError:  # the worker is gone: its process says so
                self._pieces.clear()
                break
            written += sent
            self._drop(sent)
        return written

    def _send_one(self) -> int:
        return self._sock.send(self._pieces[0])

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
        self._pieces.clear()


class WorkerChannel:
    """The worker's end.  The task may close or replace descriptors: so it is looked at before each use."""

    def __init__(self, fd: int) -> None:
        self._socket = socket.socket(fileno=fd)
        self._socket.setblocking(True)
        self._identity = self._identify()

    def _identify(self) -> tuple[int, int]:
        status = os.fstat(self._socket.fileno())
        return status.st_dev, status.st_ino

    def _check(self) -> None:
        # A task that closes descriptors may get our number for a file of its own: never write into that.
        try:
            if self._identify() == self._identity:
                return
        except OSError:
            pass
        raise ChannelLost("the task closed descriptors that belong to the pool")

    def send(self, kind: Kind, serial: int = 0, body: bytes | memoryview = b"") -> None:
        """Send one frame, however long it takes."""
        self._check()
        try:
            if len(body) < _CHUNK:
                self._socket.sendall(header(kind, serial, len(body)) + bytes(body))
            else:
                self._socket.sendall(header(kind, serial, len(body)))
                self._socket.sendall(body)
        except OSError as error:
            raise ChannelLost("the parent has closed the channel") from error

    def receive(self) -> Frame:
        """Wait for one frame."""
        self._check()
        kind, serial, length = _parse(self._exactly(_HEADER.size))
        return Frame(kind, serial, memoryview(self._exactly(length)))

    def _exactly(self, size: int) -> bytearray:
        data = bytearray(size)
        view = memoryview(data)
        filled = 0
        while filled < size:
            try:
                got = self._socket.recv_into(view[filled:])
            except OSError as error:
                raise ChannelLost("the channel was closed") from error
            if not got:
                raise ChannelLost("the parent has closed the channel")
            filled += got
        return data
