"""What a worker of ours shows of itself to whoever may look: its last note, its last lines, its stacks.

They lie in anonymous files of the worker's (see wire/register.py), which are opened through /proc.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from resilient_exec.diagnosis.proc import environment
from resilient_exec.diagnosis.stacks import from_text
from resilient_exec.lane.stacks import Stacks
from resilient_exec.process.tree import Watch
from resilient_exec.wire.register import read_note
from resilient_exec.worker.seat import STACKS_SIGNAL

if TYPE_CHECKING:
    from resilient_exec.diagnosis.facts import Thread

__all__ = ["is_worker", "last_lines", "note", "stacks"]

_TAIL = 4096  # bytes


def _find(pid: int, name: str) -> int | None:
    """The number of the worker's descriptor of that file; the last, should it have several."""
    found = None
    with contextlib.suppress(OSError):
        for number in sorted(map(int, os.listdir(f"/proc/{pid}/fd"))):
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{pid}/fd/{number}").startswith(f"/memfd:{name}"):
                    found = number
    return found


def is_worker(pid: int) -> bool:
    """Whether it is a worker of a ResilientPool: it bears a mark, and has a file for its stacks (as its parent has)."""
    is_marked = any(word.startswith("RESILIENT_EXEC_WORKER_") for word in environment(pid))
    return is_marked and _find(pid, "resilient-stacks") is not None


def note(pid: int) -> str:
    """Return what the worker's attempt noted last; ``""``: nothing, or reading it is not allowed."""
    number = _find(pid, "resilient-register")
    with contextlib.suppress(OSError):
        if number is not None:
            fd = os.open(f"/proc/{pid}/fd/{number}", os.O_RDONLY)
            try:
                return read_note(fd)
            finally:
                os.close(fd)
    return ""


def last_lines(pid: int, count: int = 3) -> list[str]:
    """The last lines that its attempt has printed, where the pool captures them."""
    lines: list[str] = []
    for fd in (1, 2):
        with contextlib.suppress(OSError):
            path = f"/proc/{pid}/fd/{fd}"
            if os.readlink(path).startswith("/memfd:resilient-std"):
                with open(path, "rb") as file:
                    file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL))
                    lines += file.read().decode(errors="replace").splitlines()[-count:]
    return [line for line in lines if line.strip()]


def stacks(pid: int, timeout: float = 1.0) -> tuple[dict[int, Thread], str]:
    """By the handler that our workers have for it; what went wrong (``""``: nothing)."""
    there = _find(pid, "resilient-stacks")
    if there is None or STACKS_SIGNAL is None:
        return {}, "it is no worker of ours"
    with contextlib.suppress(OSError):
        file = os.open(f"/proc/{pid}/fd/{there}", os.O_RDWR)
        watch = Watch(pid)
        try:
            text = Stacks(watch, STACKS_SIGNAL, file=file, there=there).take(timeout)
        finally:
            watch.close()
            os.close(file)
        return from_text(text, pid), "" if text else "it did not answer"
    return {}, "its file for stacks cannot be opened"
