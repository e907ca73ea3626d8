"""A worker that loky has started by exec: all that we use of loky to start and to reap a process is in this module.

Used are loky's process object, its ``Popen`` (whose child side is ``loky.backend.popen_loky_posix``) and its resource
tracker; its pickler for what a process starts with is used in :mod:`.wire.pickling`.  Its executors are not: the
worker's own channel carries all tasks, so their queues, their manager thread and their exit hook would only be in the
way.  What is different from loky's own start:

* *Nothing in the parent can hold it up.*  loky flushes ``sys.stdout`` and ``sys.stderr`` first; in a parent whose
  stdout is closed, is ``None`` (a daemon's), or is a pipe that nobody reads and in whose lock another thread hangs, no
  worker could ever be started again.  And what the process starts with lies in a file, not in a pipe that a process
  which hangs or is stopped never empties.
* *The worker is started with this interpreter's flags, and without the current folder on its path* (see
  :mod:`.lane.interpreter`).
* *No sentinel pipe*: a worker's death is read from its pidfd.

These are private names of loky (3.7); ``tests/lane/test_loky_names.py`` watches them.  Where there is no
``popen_loky_posix`` (Windows), loky's start is used as it is.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from resilient_exec.lane.interpreter import command
from resilient_exec.lane.trackers import mend_trackers
from resilient_exec.process.executable import check_interpreter, interpreter
from resilient_exec.wire.register import anonymous_file
from resilient_exec.worker.preparation import Numbered

if TYPE_CHECKING:
    from collections.abc import Mapping

    from resilient_exec.worker.seat import Seat

__all__ = ["StartedWorker", "import_loky"]

_CHILD = "loky.backend.popen_loky_posix"  # run as a program, it is what a process of loky's does
_CODE = f"import runpy; runpy.run_module({_CHILD!r}, run_name='__main__', alter_sys=True)"


def import_loky() -> None:
    """Import it now: when the interpreter is on its way out, and pending work is being finished, that would raise."""
    importlib.import_module("loky.backend.process")


class StartedWorker:
    """A worker process, started by loky.

    Args:
        seat: what it is given.
        env: what its environment has besides this process's own.

    Raises:
        OSError: no process can be started.
    """

    def __init__(self, seat: Seat, env: Mapping[str, str]) -> None:
        from loky.backend.process import LokyProcess

        from resilient_exec.worker.serving import run  # which takes its time, and is not needed beside a forkserver

        check_interpreter()
        mend_trackers()
        process = LokyProcess(target=run, args=(seat,), env=dict(env))
        # Not by `start`: that would list it among the program's own children of multiprocessing, and refuse it in those
        # that are daemons.
        self._popen: Any = _popen_class()(process)
        self.pid: int = self._popen.pid

    def exitcode(self) -> int | None:
        """The exit status of the dead worker; ``None``: not known (somebody else has reaped it)."""
        status: int | None = self._popen.poll()
        return status

    def let_go(self) -> None:
        """Reap the worker, which is dead."""
        self._popen.poll()


def _popen_class() -> Any:
    try:
        from loky.backend import popen_loky_posix
    except ImportError:  # Windows
        from loky.backend.popen_loky_win32 import Popen

        return Popen

    class ExecPopen(popen_loky_posix.Popen):  # type: ignore[misc]
        DupFd = Numbered

        def __init__(self, process: Any) -> None:
            self.returncode: int | None = None
            self._fds: list[int] = []
            self._launch(process)

        def duplicate_for_child(self, fd: int) -> int:
            self._fds.append(fd)
            return fd  # under its own number: it becomes inheritable in the child itself

        def _launch(self, process: Any) -> None:
            from multiprocessing.context import set_spawning_popen

            from loky.backend import fork_exec, reduction, resource_tracker, spawn

            spawn._python_exe = interpreter()  # for the tracker; loky does not ask multiprocessing
            resource_tracker._resource_tracker.getfd()
            with open(anonymous_file("resilient-start"), "wb") as file:
                set_spawning_popen(self)
                try:
                    prepared = spawn.get_preparation_data(process._name, process.init_main_module)
                    self._fds += [prepared["tracker_fd"], prepared["mp_tracker_fd"], file.fileno()]
                    reduction.dump(prepared, file)
                    reduction.dump(process, file)
                finally:
                    set_spawning_popen(None)
                file.seek(0)
                call = [*command(_CODE), "--process-name", process.name, "--pipe", str(file.fileno())]
                self.pid = fork_exec.fork_exec(call, self._fds, env=process.env)

    return ExecPopen
