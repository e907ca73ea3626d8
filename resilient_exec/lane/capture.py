"""What a worker prints, kept in two anonymous files: nothing that it writes can ever block it, or fill a disk.

A pipe that nobody reads stands still when it is full, and the task with it.  A file takes everything at once; and
because the worker appends, the parent may cut the file to nothing at any moment.  It does so at every look, several
times a second, once there is more than the cap; the last lines are kept.  (Between two looks a worker that floods
writes what the memory's speed allows: some tens of MB.  What it writes in the very instant of the cut is lost.)

The worker takes away what earlier attempts have printed when one begins, so that a tail is always of one attempt.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING

from resilient_exec.wire.register import anonymous_file

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Capture"]

_BUSY = 0.05  # s between two looks while an attempt runs
_IDLE = 0.5  # s between two looks otherwise: what a task has left behind may still print
_CAP = 1 << 20  # bytes in a file, beyond which it is cut
_TAIL = 16 << 10  # bytes of it that are kept


class Capture:
    """The files for stdout and stderr of one worker."""

    def __init__(self) -> None:
        with contextlib.ExitStack() as undo:  # should descriptors run out half-way
            self.fds: list[int] = []
            for name in ("stdout", "stderr"):
                self.fds.append(_appended(f"resilient-{name}"))
                undo.callback(os.close, self.fds[-1])
            undo.pop_all()
        self._kept = [b"", b""]
        self._serial = 0  # of the attempt to which that belongs
        self.due = 0.0  # when to look next, on the clock of `time.monotonic`

    def look(self, now: float, serial: int, *, busy: bool) -> None:
        """Cut what is too long, if it is time to; ``serial`` is that of the attempt last begun."""
        if now >= self.due:
            self.due = now + (_BUSY if self.cut(serial) or busy else _IDLE)

    def cut(self, serial: int) -> bool:
        """Keep the end of what is too long, and cut it; whether anything was."""
        was_cut = False
        if serial != self._serial:  # what the one before had printed, the worker has taken away when this one began
            self._serial, self._kept = serial, [b"", b""]
        for number, fd in enumerate(self.fds):
            if os.fstat(fd).st_size > _CAP:
                self._kept[number] = self._tail(number)
                os.ftruncate(fd, 0)
                was_cut = True
        return was_cut

    def _tail(self, number: int) -> bytes:
        fd = self.fds[number]
        size = os.fstat(fd).st_size
        new = os.pread(fd, _TAIL, max(0, size - _TAIL))
        return (self._kept[number] + new)[-_TAIL:]

    def tails(self, serial: int) -> tuple[str, str]:
        """The last lines of stdout and of stderr, of that attempt, which was the last one to begin."""
        if serial != self._serial:
            self._serial, self._kept = serial, [b"", b""]
        out, err = (_text(self._tail(number)) for number in (0, 1))
        return out, err

    def joined(self, serial: int, tails: Sequence[bytes]) -> tuple[str, str]:
        """The same of an attempt that has told its last lines itself; what was cut before comes from here."""
        kept = self._kept if serial == self._serial else [b"", b""]
        out, err = (_text((before + tail)[-_TAIL:]) for before, tail in zip(kept, tails, strict=True))
        return out, err

    def close(self) -> None:
        """Give the descriptors back."""
        for fd in self.fds:
            os.close(fd)
        self.fds = []


def _text(tail: bytes) -> str:
    if len(tail) == _TAIL:  # cut somewhere in a line: begin with a whole one, if there is one
        tail = tail[tail.find(b"\n") + 1 :] or tail
    return tail.decode(errors="replace").replace("\0", "")  # a hole where a writer did not append


def _appended(name: str) -> int:
    fd = anonymous_file(name)
    if sys.platform != "win32":
        import fcntl

        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_APPEND)
    return fd
