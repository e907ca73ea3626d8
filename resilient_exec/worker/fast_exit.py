"""How a forked worker ends: as a process does, but for taking its interpreter apart.

Python ends by deleting all modules, one object after the other.  In a worker that was forked that writes to, and so
copies, every page that it shares with its siblings: it took longer than the fork had saved (0.8 s against 0.2 s for a
process per task on a busy machine, with negmas and scml).  So a worker ends as those do that multiprocessing forks:
what is registered with ``atexit`` runs, then ``os._exit``.  Beyond what multiprocessing does, open files are flushed,
also those of C's ``stdio``.  What is left out are the finalizers of objects that live to the end, on which Python gives
no word either.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import io
import os
import sys
import traceback
import weakref

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import NoReturn

__all__ = ["end", "end_forked_by_task", "flush_before_fork"]

_File = io.TextIOWrapper | io.BufferedWriter | io.BufferedRandom
_KINDS = (io.TextIOWrapper, io.BufferedWriter, io.BufferedRandom)
_inherited: list[weakref.ref[_File]] = []  # files that were open at the fork, which a list of objects does not show


def flush_before_fork() -> None:
    """In the process that will fork: or each child would write what is in the buffers of open files."""
    files = _open_files()
    _inherited.extend(map(weakref.ref, files))
    _flush(files)


def end(status: int) -> NoReturn:
    """End this process; its threads have been waited for."""
    run = getattr(atexit, "_run_exitfuncs", None)  # what CPython's own forks call; not in its documentation
    if run is None:
        sys.exit(status)
    with contextlib.suppress(BaseException):  # a handler's; the interpreter would tell of it, and go on
        run()
    _flush((*_open_files(), *(file for one in _inherited if (file := one()) is not None)))
    os._exit(status)


def end_forked_by_task(error: BaseException | None) -> NoReturn:
    """End a child that a task forked and that has left the task's code: with the status that Python gives a program.

    Args:
        error: what it left by; ``None``: it returned.
    """
    status = 0
    if isinstance(error, SystemExit):
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    elif error is not None:
        status = 1
    if error is not None:
        with contextlib.suppress(BaseException):  # printing runs code of the user's
            _tell_why(error)
    _flush(_open_files())
    os._exit(status & 0xFF)


def _tell_why(error: BaseException) -> None:
    if not isinstance(error, SystemExit):
        traceback.print_exception(error)
    elif not isinstance(error.code, int | None):
        print(error.code, file=sys.stderr)  # noqa: T201  as the interpreter does


def _open_files() -> list[_File]:
    """Files that may hold what was not written yet, of the objects that are not frozen."""
    # By the type itself: an object of the user's may do anything when it is asked for its class.
    return [one for one in gc.get_objects() if issubclass(type(one), _KINDS)]


def _flush(files: Iterable[_File]) -> None:
    for file in files:
        with contextlib.suppress(BaseException):  # it is closed, or its descriptor is, or a task has made it its own
            file.flush()
    with contextlib.suppress(Exception):
        ctypes.CDLL(None).fflush(None)
