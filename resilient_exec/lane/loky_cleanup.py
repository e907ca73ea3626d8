"""Gives back what loky and multiprocessing leave open behind a process that is dead, or that could not be started."""

from __future__ import annotations

import os
from typing import Any

__all__ = ["close_what_loky_left", "let_go"]


def let_go(process: Any) -> None:
    """Have multiprocessing forget a dead process: it keeps each, with a pipe, until it has been joined.

    loky does not join what it finds reaped; and what the user's own code has reaped (a handler of SIGCHLD, a
    ``waitpid(-1)``) multiprocessing would take to be alive for ever.
    """
    if process._popen.poll() is None:
        process._popen.returncode = 255  # its true one is lost
    process.join(0)


def close_what_loky_left(error: BaseException) -> None:
    """Close the pipe that loky (3.7) leaves open when the process that was to read it could not be started."""
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_name == "_launch":
            names = trace.tb_frame.f_locals
            left = [name for name, taken_by in (("parent_w", "f"), ("child_w", "child_r")) if taken_by not in names]
            for fd in (names.get(name) for name in left):
                if isinstance(fd, int):
                    os.close(fd)
        trace = trace.tb_next
