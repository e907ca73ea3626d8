"""A worker that the forkserver has forked: what it is given, how it is asked for, what becomes of it."""

from __future__ import annotations

import os
import pickle
from multiprocessing import context, resource_tracker
from typing import TYPE_CHECKING, Any

from resilient_exec.lane.forkserver_client import receive
from resilient_exec.lane.forkserver_process import ServerGone
from resilient_exec.lane.surroundings import surroundings
from resilient_exec.lane.trackers import mend_trackers
from resilient_exec.process.executable import check_interpreter
from resilient_exec.wire.register import anonymous_file
from resilient_exec.wire.scratch import parent_mark
from resilient_exec.worker.preparation import Numbered

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from resilient_exec.lane.forkserver_client import Forking
    from resilient_exec.worker.seat import Seat

__all__ = ["ForkedWorker"]

_STATUS_TIMEOUT = 1.0  # s for an exit status, once the process is dead
_UNKNOWN_STATUS = 255


class ForkedWorker:
    """A worker process that the forkserver has forked.

    Args:
        forking: whose server.
        seat: what the worker is given.
        env: what its environment has besides this process's own.
        is_wanted: whether to go on waiting for the server to be ready.

    Raises:
        ServerFailed: the server never became ready.
        OSError: no process can be started.
    """

    def __init__(
        self, forking: Forking, seat: Seat, env: Mapping[str, str], is_wanted: Callable[[], bool] = lambda: True
    ) -> None:
        self._forking = forking
        mend_trackers()
        check_interpreter()  # with which the tracker is started, too
        resource_tracker.ensure_running()  # while the server may still be starting
        try:
            self._launch(seat, env, is_wanted)
        except ServerGone:  # as it may be by now for what an earlier worker has done to it
            self._launch(seat, env, is_wanted)

    def _launch(self, seat: Seat, env: Mapping[str, str], is_wanted: Callable[[], bool]) -> None:
        server, base = self._forking.ready(is_wanted)
        travelling = _Travelling(base)
        mark = next((name for name in env if name.startswith(parent_mark())), "")
        with open(anonymous_file("resilient-start"), "wb") as file:
            pickle.dump(({**os.environ, **env}, mark, surroundings(travelling.add)), file)
            travelling.dump(seat, file)
            file.flush()
            self.pid, self._link = self._forking.fork(server, [0, 1, 2, file.fileno(), *travelling.fds])
        self._server = server
        self._link.setblocking(False)
        self._status: int | None = None

    def exitcode(self) -> int | None:
        """The exit status of the dead worker; 255 where the forkserver died before it could tell."""
        if self._status is None:
            word, _, text = receive(self._link, _STATUS_TIMEOUT).partition(" ")
            self._status = int(text) if word == "ended" else _UNKNOWN_STATUS
        return self._status

    def let_go(self) -> None:
        """Have the worker reaped by the forkserver, and killed if it is not dead."""
        self._link.close()
        self._forking.count(self._server, -1)


class _Travelling:
    """Descriptors that travel to a worker, in place of what multiprocessing calls a ``Popen``."""

    DupFd = Numbered

    def __init__(self, base: int) -> None:
        self._base = base
        self.fds: list[int] = []

    def add(self, fd: int) -> int:
        """Have the worker given that descriptor; the number that it will have there."""
        self.fds.append(fd)
        return self._base + len(self.fds) - 1

    duplicate_for_child = add

    def dump(self, value: object, file: Any) -> None:
        """Pickle what holds descriptors, and the locks of multiprocessing."""
        context.set_spawning_popen(self)  # type: ignore[arg-type]  # for this thread
        try:
            pickle.dump(value, file)
        finally:
            context.set_spawning_popen(None)
