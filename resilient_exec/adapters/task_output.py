"""What one task prints, in a file of its own: written by the worker for the time of the task, capped by the parent."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["TaskFile", "flush_output", "printing_to", "without_escapes"]

_HIGH = 512  # descriptors from here on are not those that tasks are known to close
_PATIENCE = 1.0  # s for what is left to be forwarded when a task has ended
_LEFT_OUT = b"\n[resilient_exec: here something was left out]\n"
_ESCAPES = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b\n]*(?:\x07|\x1b\\)?|.)?")
_CONTROLS = bytes(code for code in (*range(32), 127) if code not in b"\t\n")


# -- in the worker


@contextmanager
def printing_to(path: Path | None) -> Iterator[Callable[[], int]]:
    """Have what is printed in the block, by C code and child processes too, go into that file, made anew.

    Yields a function that returns how many bytes the file has.  A file in which there is nothing is removed.

    Args:
        path: of the file; its folder is made.  ``None``: what is printed goes nowhere.
    """
    flush_output()
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
    opened = os.open(os.devnull if path is None else path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o644)
    before = {fd: _copy(fd) for fd in (1, 2)}
    for fd in before:
        os.dup2(opened, fd)
    os.close(opened)
    try:
        yield lambda: _size(path)
    finally:
        size = _size(path)
        for fd, copy in before.items():
            with contextlib.suppress(OSError):  # the task may have closed anything
                if copy is not None:
                    os.dup2(copy, fd)
                    os.close(copy)
        if path is not None and not size:
            path.unlink(missing_ok=True)


def _copy(fd: int) -> int | None:
    with contextlib.suppress(OSError):  # a former task may have closed it
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _HIGH)
    return None


def _size(path: Path | None) -> int:
    flush_output()
    with contextlib.suppress(OSError):  # the task may have removed it
        return path.stat().st_size if path is not None else 0
    return 0


def flush_output() -> None:
    """Have this process write what it has printed so far."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # a task may have left anything there
            stream.flush()


# -- in the parent


def without_escapes(data: bytes) -> bytes:
    """What a terminal would obey taken out: escape sequences and control characters, but for tabs and line ends."""
    return _ESCAPES.sub(b"", data).translate(None, _CONTROLS)


class Tail(Protocol):
    """The reading end of a file that grows."""

    offset: int

    def is_read(self) -> bool:
        """Whether nothing new is in the file."""

    def forward(self, *, last: bool) -> bool:
        """Hand what is new to whoever reads it; whether anything moved."""


@dataclass
class TaskFile:
    """The file of one task: of what is too much for it the first half stays, and the end.

    Attributes:
        path: of the file, which may not be there yet.
        tail: what forwards it; ``None``: nothing does.
        dropped: bytes that were left out.
    """

    path: Path
    tail: Tail | None = None
    dropped: int = 0

    def look(self, limit: int) -> bool:
        """Forward what is new, and cut what is over the limit; whether anything moved."""
        try:
            moved = self.tail.forward(last=False) if self.tail is not None else False
            self._cut(limit)
        except FileNotFoundError:  # it has not begun, or has printed nothing
            return False
        return moved

    def finish(self, limit: int) -> int:
        """The task has ended: say at the end of the file what is not in it; the bytes that were left out."""
        try:
            until = time.monotonic() + _PATIENCE
            while self.tail is not None and not self.tail.is_read() and time.monotonic() < until:
                self.tail.forward(last=True)
            self._cut(limit)
            if not self.path.stat().st_size:
                self.path.unlink()  # its worker was killed before it could
            elif self.dropped:
                with self.path.open("ab") as file:
                    file.write(f"\n[resilient_exec: {self.dropped / 2**20:.1f} MiB were left out above]\n".encode())
        except OSError:  # there is no such file, or no room for another line
            pass
        return self.dropped

    def _cut(self, limit: int) -> None:
        size = self.path.stat().st_size
        if size <= limit:
            return
        head = limit // 2
        # What is written in the very instant of the cut is lost uncounted.
        os.truncate(self.path, head)
        self.dropped += size - head - (len(_LEFT_OUT) if self.dropped else 0)
        with self.path.open("ab") as file:
            file.write(_LEFT_OUT)
        if self.tail is not None:
            self.tail.offset = min(self.tail.offset, head + len(_LEFT_OUT))
