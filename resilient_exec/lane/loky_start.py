"""loky's own start of a process, made so that nothing in the parent can hold it up.

* loky flushes ``sys.stdout`` and ``sys.stderr`` before it starts a process.  A process that is started by exec has no
  use for that; and in a parent whose stdout is closed, is ``None`` (a daemon's), or is a pipe that nobody reads and in
  whose lock another thread hangs, no worker could ever be started again.
* Each start tells the resource trackers of loky and of multiprocessing about semaphores, through a pipe and with a lock
  held.  A tracker that is stopped reads nothing; once its pipe is full every lane would stand in that write.

These rest on private names of loky 3.7.  Where they are missing, its start is used as it is.
"""

from __future__ import annotations

import contextlib
import functools
import os
import select
import signal
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["check_interpreter", "context_that_starts", "fill_standard_descriptors", "launch_context", "mend_trackers"]

_PATIENCE = 1.0  # s, for a tracker to make room in its pipe


def fill_standard_descriptors() -> None:
    """Open the null device as descriptor 0, 1 or 2 where this process has none (a daemon), as daemons do.

    Else one of ours, or of loky's, would be given that number, and a worker would print into it.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            with contextlib.suppress(OSError):  # the lowest that is free is this one
                os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


def check_interpreter() -> None:
    """Refuse a start that cannot be: the trackers would die first, and each start fail for another reason.

    Raises:
        FileNotFoundError: ``sys.executable`` is no program.
    """
    if not os.path.isfile(sys.executable or ""):
        raise FileNotFoundError(f"sys.executable = {sys.executable!r} is no program, and workers are started with it")


@functools.cache
def launch_context() -> Any:
    """The context for :func:`loky.get_reusable_executor`, with a start that flushes nothing."""
    from loky.backend import get_context
    from loky.backend.process import LokyProcess

    try:
        from loky.backend.popen_loky_posix import Popen
    except ImportError:  # Windows has another
        return get_context("loky")
    if not hasattr(Popen, "_launch") or not hasattr(LokyProcess, "_Popen"):
        return get_context("loky")
    return context_that_starts(_quiet(Popen))


def _quiet(popen: Any) -> Any:
    class QuietPopen(popen):  # type: ignore[misc]
        __module__ = popen.__module__  # loky starts "python -m" that module

        def __init__(self, process_obj: Any) -> None:
            self.returncode = None  # all that loky's own does, but for the flush
            self._fds: list[int] = []
            self._launch(process_obj)

    return QuietPopen


def context_that_starts(start: Callable[[Any], Any]) -> Any:
    """Loky's context, with processes that are started by ``start(process)``, which gives what loky's ``Popen`` is."""
    from loky.backend import get_context
    from loky.backend.process import LokyProcess

    class QuietProcess(LokyProcess):  # type: ignore[misc]
        @staticmethod
        def _Popen(process_obj: Any) -> Any:  # noqa: N802  multiprocessing's name
            return start(process_obj)

        def __reduce__(self) -> tuple[Any, ...]:
            # In the worker it is loky's own class: nothing of ours is to be imported for it there.
            return object.__new__, (LokyProcess,), self.__dict__

    return type("QuietContext", (type(get_context("loky")),), {"Process": QuietProcess})()


def mend_trackers() -> None:
    """Kill a resource tracker that has not read for a second; loky and multiprocessing start another by themselves."""
    if sys.platform == "win32":
        return
    from multiprocessing import resource_tracker

    from loky.backend.resource_tracker import _resource_tracker as lokys

    for tracker in (lokys, resource_tracker._resource_tracker):
        fd, pid = getattr(tracker, "_fd", None), getattr(tracker, "_pid", None)
        if fd is not None and pid is not None and not _takes_more(fd):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)


def _takes_more(fd: int) -> bool:
    """Whether a page can be written there, which is more than one start writes; waits a second for it."""
    poller = select.poll()
    poller.register(fd, select.POLLOUT)
    return bool(poller.poll(_PATIENCE * 1000))
