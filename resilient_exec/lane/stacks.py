"""Asks a worker for the Python stacks of all its threads, from outside, whatever it is doing.

The worker has ``faulthandler`` write them into an inherited file on a signal: a handler in C, which answers under a
held GIL, too.  Whether it has finished is read from the kernel: a signal is pending until its handler runs, and
blocked in the handling thread while it does.  No pause in the writing means the end of it: on a loaded machine a
thread stands still in the middle of a line.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from resilient_exec.process.tree import ON_LINUX, Watch, catches, signal_state
from resilient_exec.wire.register import read_text, same_file

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Stacks"]

_PAUSE = 0.001  # s, between two looks
_QUIET = 0.1  # s without a further byte, after which no more are expected where the kernel does not tell
_LAST_BYTE = 4  # times as long as for the first one


class Stacks:
    """The file for the stacks of one worker.

    Args:
        watch: the worker's process.
        number: of the signal that asks for them.
        file: our descriptor of the file.
        there: the worker's own.
    """

    def __init__(self, watch: Watch, number: int, *, file: int, there: int) -> None:
        self._watch, self._number, self._file, self._there = watch, number, file, there

    def take(self, timeout: float, resume: Callable[[], object] = lambda: None) -> str:
        """What the worker writes now; ``""`` if it cannot, or does not begin in time.

        Args:
            timeout: s, for the first byte; for the last one four times as much.
            resume: lets a stopped worker run on, when the signal is on its way.
        """
        pid = self._watch.pid
        if not same_file(pid, self._there, self._file):
            return ""  # the task has closed it; the number may be a file of its own by now
        if not catches(pid, self._number):
            return ""  # the task has given the signal its deadly default
        before = os.fstat(self._file).st_size
        _, blocking = signal_state(pid, self._number)
        self._watch.signal(self._number)  # waits until the worker is continued, and is then handled first of all
        resume()
        self._wait(before, blocking, timeout)
        return read_text(self._file, before)

    def _wait(self, before: int, blocking: frozenset[str], timeout: float) -> None:
        began = changed = time.monotonic()
        size = before
        while not self._watch.is_gone():
            now = time.monotonic()
            if (new := os.fstat(self._file).st_size) != size:
                size, changed = new, now
            # In this order: between taking a signal up and blocking it, the kernel shows neither; then nothing is
            # written yet. What has begun to write, and neither waits nor runs, has finished.
            if size > before and not _is_handled(self._watch.pid, self._number, blocking):
                break
            if now - began > timeout * (_LAST_BYTE if size > before else 1):
                break
            if not ON_LINUX and size > before and now - changed > _QUIET:
                break
            time.sleep(_PAUSE)


def _is_handled(pid: int, number: int, blocking: frozenset[str]) -> bool:
    """Whether a handler is still to run, or runs, in a thread that did not block the signal itself before."""
    if not ON_LINUX:
        return True
    is_pending, now_blocking = signal_state(pid, number)
    return is_pending or not now_blocking <= blocking
