"""The standard streams of a worker: where they lead, and that each task finds them as they were.

A task may close or replace descriptors 0 to 2 and the objects in ``sys``.  The next one's ``open()`` would then be
given number 1, and its ``print`` would go into its own data file.  So before each attempt whatever is no longer
what it was is put back, from duplicates with high numbers.

Redirected output is not buffered, neither by Python nor (but for half a line) by C: a worker that is killed does not
take its last words with it, and they do not come out under the next task.
"""

from __future__ import annotations

import contextlib
import io
import os
import select
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["Streams", "flush"]

_NAMES = ("stdin", "stdout", "stderr")
_LINE_BUFFERED = 1  # _IOLBF of stdio.h


def flush() -> None:
    """What the task printed is out before its outcome is: a later kill must not take it along."""
    for name in ("stdout", "stderr"):
        try:  # noqa: SIM105  several times as fast, and done for each attempt
            getattr(sys, name).flush()
        except BaseException:
            pass


class Streams:
    """Descriptors 0 to 2 and ``sys.stdin``, ``sys.stdout``, ``sys.stderr``.

    Attributes:
        is_captured: what they lead to is a file that keeps the output of one attempt at a time.
    """

    def __init__(self) -> None:
        self._kept: dict[int, tuple[int, tuple[int, int]]] = {}  # by number: the duplicate, and what it is
        self._objects: dict[str, Any] = {}
        self.is_captured = False
        self._looked_for: Any = None

    def redirect(self, out: int, err: int) -> None:
        """Have the process print into these descriptors, which are closed."""
        flush()
        for number, fd in ((1, out), (2, err)):
            os.dup2(fd, number)
            os.close(fd)
            self._open(_NAMES[number], number)
        with contextlib.suppress(Exception):  # another C library
            import ctypes

            libc = ctypes.CDLL(None)
            libc.setvbuf(ctypes.c_void_p.in_dll(libc, "stdout"), None, _LINE_BUFFERED, 0)

    def _open(self, name: str, number: int) -> None:
        raw = open(number, "wb", buffering=0, closefd=False)  # noqa: SIM115  as long as the process
        text = io.TextIOWrapper(raw, errors="backslashreplace", write_through=True)
        setattr(sys, name, text)
        setattr(sys, f"__{name}__", text)

    def keep(self, raise_high: Callable[[int], int]) -> None:
        """Note how they are now; ``raise_high`` gives a duplicate out of the tasks' reach."""
        for number, name in enumerate(_NAMES):
            with contextlib.suppress(OSError):  # this one is closed, as it was in the parent
                self._kept[number] = (raise_high(number), _identity(number))
            self._objects[name] = getattr(sys, name)

    def capture(self) -> None:
        """What they lead to is a file that keeps the output of one attempt at a time."""
        self.is_captured = True

    def begin(self) -> None:
        """An attempt begins: what earlier ones have printed is not its own."""
        if self.is_captured:
            for number in (1, 2):
                try:
                    if os.lseek(number, 0, os.SEEK_END):
                        os.ftruncate(number, 0)
                except OSError:  # closed: it is mended where the process is put in order
                    continue

    def tails(self, size: int) -> tuple[bytes, bytes]:
        """The last bytes that the attempt has printed, where that is kept."""
        found = [b"", b""]
        for number in (1, 2) if self.is_captured else ():
            with contextlib.suppress(OSError):
                end = os.lseek(number, 0, os.SEEK_END)
                found[number - 1] = os.pread(number, size, max(0, end - size))
        return found[0], found[1]

    def seem_well(self) -> bool:
        """Whether none of them is closed, and the objects are what they were: one system call."""
        if self._looked_for is None:
            if not hasattr(select, "poll"):
                return False
            self._looked_for = select.poll()
            for number in self._kept:
                self._looked_for.register(number, 0)
        for name, stream in self._objects.items():
            if getattr(sys, name, self) is not stream or not _is_usable(stream):
                return False
        found = self._looked_for.poll(0)
        return not found or not any(what & select.POLLNVAL for _, what in found)

    def mend(self) -> None:
        """Put back what is no longer as it was; made to be quick where nothing is amiss."""
        for number, (duplicate, identity) in self._kept.items():
            if not _is(number, identity) and _is(duplicate, identity):
                with contextlib.suppress(OSError):
                    os.dup2(duplicate, number)
        for number, (name, stream) in enumerate(self._objects.items()):
            if getattr(sys, name, self) is not stream or not _is_usable(stream):
                with contextlib.suppress(Exception):  # nothing here may end the worker
                    self._mend_object(number, name)

    def _mend_object(self, number: int, name: str) -> None:
        # Putting it back may be the end of what wrapped its buffer, and closes it: so whether it is usable comes next.
        setattr(sys, name, self._objects[name])
        if number and number in self._kept and not _is_usable(self._objects[name]):
            self._open(name, number)
            self._objects[name] = getattr(sys, name)


def _is_usable(stream: Any) -> bool:
    """Whether it can be written to: one that was detached says so by raising."""
    try:
        return stream is None or not stream.closed
    except Exception:
        return False


def _identity(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def _is(fd: int, identity: tuple[int, int]) -> bool:
    try:
        return _identity(fd) == identity
    except OSError:
        return False
