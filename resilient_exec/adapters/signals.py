"""SIGTERM and SIGHUP as a Ctrl-C: the report is written, locks and temporary files are removed, then the status tells.

A cluster that takes a job's node away, ``docker stop`` and a terminal that is closed send these.
"""

from __future__ import annotations

import os
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

__all__ = ["Terminated", "as_interrupts", "status_of", "with_report"]

_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


class Terminated(KeyboardInterrupt):
    """A signal has asked this process to end; everything that a Ctrl-C ends ends for it, too."""

    def __init__(self, number: int) -> None:
        self.number, self.signal_name = number, signal.Signals(number).name
        super().__init__(self.signal_name)


@contextmanager
def as_interrupts() -> Iterator[None]:
    """Raise :class:`Terminated` in the block when such a signal comes; further ones are ignored while it ends."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may have handlers of signals, and is interrupted by them
        return

    def end(number: int, _: FrameType | None) -> None:
        for one in _SIGNALS:
            signal.signal(one, signal.SIG_IGN)
        raise Terminated(number)

    before = {}
    for number in _SIGNALS:
        # nohup has had SIGHUP ignored: that is its user's wish.
        if signal.getsignal(number) == signal.SIG_DFL:
            before[number] = signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def with_report() -> Iterator[None]:
    """In a script: let the block end as after a Ctrl-C when such a signal comes, then end the process by that signal.

    Does nothing where the script has a handler of its own for the signal.
    """
    try:
        with as_interrupts():
            yield
    except Terminated as ended:
        if signal.getsignal(ended.number) != signal.SIG_DFL:
            raise  # the command line has its own end
        os.kill(os.getpid(), ended.number)
        raise


def status_of(error: KeyboardInterrupt) -> int:
    """The exit status of a command that was ended so: 128 and the number of the signal."""
    return 128 + (error.number if isinstance(error, Terminated) else signal.SIGINT)
