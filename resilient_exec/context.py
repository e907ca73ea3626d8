"""What a running task can learn about itself: which attempt it is, how long it may still run, where it may write."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import stat
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

__all__ = ["TaskContext", "remove_tree", "task_context"]


@dataclass(frozen=True)
class TaskContext:
    """The attempt under way in this process.

    Attributes:
        key: the task's key in its pool; ``None`` outside a pool.
        attempt: 1 for the first attempt, 2 for the second, …; 1 outside a pool.
        previous_pids: process ids of the workers in which earlier attempts of this task began.  All of them were
            dead, with what they had started, before this attempt was sent.
    """

    key: Hashable = None
    attempt: int = 1
    previous_pids: tuple[int, ...] = ()
    _limits: tuple[float, ...] = field(default=(), compare=False, repr=False)  # s, from the begin
    _began: float = field(default_factory=time.monotonic, compare=False, repr=False)

    def time_left(self) -> float:
        """Seconds until the next limit of this attempt strikes: ``soft_timeout``, then ``timeout``.

        ``inf`` where there is none, and outside a pool; 0 when the last one is over (the kill is on its way).
        """
        if not self._limits:
            return math.inf
        ran = time.monotonic() - self._began
        return max(0.0, min((limit for limit in self._limits if limit > ran), default=ran) - ran)

    @property
    def scratch_dir(self) -> Path:
        """A directory of this attempt's own, made when it is first asked for and removed with the attempt.

        However the attempt ends it is removed, by the pool if not by the worker.  Outside a pool it is removed when
        the interpreter exits.

        Raises:
            OSError: the folder for temporary files (``TMPDIR``) is missing, full or not writable.
        """
        return Path(_scratch.get())


class _Scratch:
    """The scratch directory of the attempt under way, or, outside a pool, of this process."""

    def __init__(self) -> None:
        self.prefix = "resilient-exec-"
        self.note: Callable[[str], object] | None = None  # tells the parent, which removes it if this process dies
        self._path = ""
        self._owner = 0

    def get(self) -> str:
        if not self._path or self._owner != os.getpid():
            self._path = tempfile.mkdtemp(prefix=self.prefix)
            self._owner = os.getpid()
            if self.note is None:
                import atexit

                atexit.register(self.remove)
            else:
                self.note(self._path)
        return self._path

    def remove(self) -> None:
        # A child that the task forked, and that came back out of it, has a copy of this: the folder is not its own.
        if self._path and self._owner == os.getpid():
            remove_tree(self._path)
            self._path = ""
            if self.note is not None:
                self.note("")


_scratch = _Scratch()
_current: TaskContext | None = None
_outside = TaskContext()


def remove_tree(path: str) -> None:
    """Remove a folder with all that is in it, also what is write-protected; what resists is left, nothing is raised."""
    with contextlib.suppress(OSError):
        shutil.rmtree(path)
        return
    for folder, _, _ in os.walk(path):
        with contextlib.suppress(OSError):
            os.chmod(folder, stat.S_IRWXU)
    shutil.rmtree(path, ignore_errors=True)


def task_context() -> TaskContext:
    """The attempt that runs in this worker; outside a pool, a first attempt without a key and without limits."""
    return _current or _outside


def enter(context: TaskContext) -> None:
    """Called by the worker when an attempt begins."""
    global _current  # noqa: PLW0603  one attempt runs in a process at a time
    _current = context


def leave() -> None:
    """Called by the worker when the attempt is over, before that is told."""
    global _current  # noqa: PLW0603  one attempt runs in a process at a time
    _current = None
    _scratch.remove()


def set_scratch(prefix: str, note: Callable[[str], object]) -> None:
    """Called by the worker at its start: what its scratch directories begin with, and whom to tell of them."""
    _scratch.prefix, _scratch.note = prefix, note
