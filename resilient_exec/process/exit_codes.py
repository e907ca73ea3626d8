"""What the exit code of a process says about its next start."""

from __future__ import annotations

import signal

__all__ = ["is_lasting_end"]

_OF_ITS_OWN = ("SIGSEGV", "SIGABRT", "SIGBUS", "SIGILL", "SIGFPE", "SIGSYS", "SIGTRAP")


def is_lasting_end(exitcode: int | None) -> bool:
    """Whether a process that ended so did it by itself: who exits means it, a SIGKILL is somebody else's.

    Args:
        exitcode: as multiprocessing has it: minus the signal's number; ``None``: not known.
    """
    if exitcode is None or exitcode >= 0:
        return exitcode is not None
    return any(getattr(signal, name, None) == -exitcode for name in _OF_ITS_OWN)
