"""Makes a process that the forkserver has forked what a started one would be, and runs the worker in it."""

from __future__ import annotations

import contextlib
import os
import pickle
import sys
import time
from multiprocessing import process, resource_tracker, spawn  # so that they are there before the fork

from resilient_exec.worker import fast_exit, serving

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn, Self

    from resilient_exec.worker.seat import Seat

__all__ = ["Changes", "become"]

_FIRST_FDS = 5  # of a request: the worker's link, its standard descriptors, the file with what it starts with


class Changes:
    """What imports have changed beyond modules: entries of ``sys.path``, variables of the environment, the folder."""

    def __enter__(self) -> Self:
        self._path, self._variables, self._folder = list(sys.path), dict(os.environ), _folder()
        self.front: list[str] = []
        self.back: list[str] = []
        self.gone: list[str] = []
        self.variables: dict[str, str | None] = {}
        self.folder = ""
        return self

    def __exit__(self, *_: object) -> None:
        kept = [entry for entry in sys.path if entry in self._path]
        first = sys.path.index(kept[0]) if kept else 0
        self.front = [entry for entry in sys.path[:first] if entry not in self._path]
        self.back = [entry for entry in sys.path[first:] if entry not in self._path]
        self.gone = [entry for entry in self._path if entry not in sys.path]
        names = {*self._variables, *os.environ}
        changed = [name for name in names if self._variables.get(name) != os.environ.get(name)]
        self.variables = {name: os.environ.get(name) for name in changed}
        self.folder = _folder() if _folder() != self._folder else ""

    def make(self) -> None:
        """Change the same in this process."""
        path = [entry for entry in sys.path if entry not in (*self.gone, *self.front, *self.back)]
        sys.path[:] = [*self.front, *path, *self.back]
        for name, value in self.variables.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        if self.folder:
            with contextlib.suppress(OSError):
                os.chdir(self.folder)


def _folder() -> str:
    try:
        return os.getcwd()
    except OSError:
        return ""


class _Worker(process.BaseProcess):
    """This process, as multiprocessing knows it (``current_process()``)."""

    _start_method = None  # children of tasks are started as the platform does

    def __init__(self, seat: Seat, surroundings: dict[str, Any]) -> None:
        super().__init__(target=serving.run, args=(seat,), name=surroundings["name"])
        self._parent_name, self._parent_pid = surroundings["parent"]


def become(fds: list[int], mark: str, base: int, changes: Changes) -> NoReturn:
    """Be the worker that the parent has asked for.

    Args:
        fds: what was sent with the request.
        mark: the variable over which to write this worker's mark.
        base: the number of the first descriptor that the parent has named.
        changes: what the preloaded modules have changed.
    """
    start = _take_places(fds, base)
    with open(start, "rb") as file:
        file.seek(0)
        environment, name, surroundings = pickle.load(file)
        os.environ.clear()
        os.environ.update(environment)
        time.tzset()
        _write_over(mark, name)
        _take_on(surroundings)
        changes.make()
        _reseed()
        current: Any = process.current_process()
        current._inheriting = True
        try:
            seat = pickle.load(file)
        finally:
            del current._inheriting
    worker: Any = _Worker(seat, surroundings)
    fast_exit.end(worker._bootstrap())


def _take_on(surroundings: dict[str, Any]) -> None:
    """Have the parent's limits, priority, affinity, umask, path, arguments, folder and tracker."""
    import resource

    if surroundings["umask"] is not None:
        os.umask(surroundings["umask"])
    with contextlib.suppress(OSError):  # all of these: where a sandbox does not let it be changed, it stays as it is
        os.sched_setaffinity(0, surroundings["affinity"])
    if os.getpriority(os.PRIO_PROCESS, 0) != surroundings["nice"]:
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, surroundings["nice"])
    for number, limits in surroundings["limits"]:
        with contextlib.suppress(OSError, ValueError):
            if resource.getrlimit(number) != limits:
                resource.setrlimit(number, limits)
    with contextlib.suppress(FileNotFoundError):  # the folder has been removed meanwhile
        spawn.prepare(surroundings)
    tracker: Any = resource_tracker._resource_tracker
    tracker._fd = surroundings["tracker"]


def _take_places(fds: list[int], base: int) -> int:
    """Put all descriptors where the parent wants them; the one of the file with what the worker starts with."""
    import fcntl

    above = base + len(fds)
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, above) for fd in fds]
    for fd in fds:
        os.close(fd)
    os.close(high[0])  # the link is the server's
    for number, fd in enumerate(high[1:4]):
        os.dup2(fd, number)
        os.close(fd)
    for number, fd in enumerate(high[_FIRST_FDS:], start=base):
        os.dup2(fd, number)
        os.close(fd)
    return high[4]


def _write_over(placeholder: str, name: str) -> None:
    """Give this process's own memory of its environment the variable ``name`` in place of another, as long one."""
    os.environ.pop(placeholder, None)
    if len(name) != len(placeholder):
        return
    import ctypes

    with open("/proc/self/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    start, end = int(fields[47]), int(fields[48])  # env_start, env_end: fields 50 and 51, by proc(5)
    if not 0 < start < end:
        return
    position = ctypes.string_at(start, end - start).find(f"\0{placeholder}=".encode())
    if position >= 0:
        ctypes.memmove(start + position + 1, name.encode(), len(name))


def _reseed() -> None:
    for name in ("numpy.random", "torch"):
        module = sys.modules.get(name)
        if module is not None:
            with contextlib.suppress(Exception):  # a module that is only half there may fail in any way
                module.seed()
