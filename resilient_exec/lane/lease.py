"""One worker for as long as a lane holds it: started by loky or by the forkserver, watched by the kernel, ended by us.

A lease belongs to its lane's thread: the kernel's parent-death signal follows the thread that started the process.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time
from typing import TYPE_CHECKING, Any

from resilient_exec.lane.capture import Capture
from resilient_exec.lane.forked_worker import ForkedWorker
from resilient_exec.lane.forkserver_process import ServerFailed, new_mark
from resilient_exec.lane.loky_start import StartedWorker
from resilient_exec.lane.stacks import Stacks
from resilient_exec.process import orphan_guard
from resilient_exec.process.memory import OomWatch
from resilient_exec.process.tree import Identity, Watch, catches, end_tree, is_alive, marked, tree
from resilient_exec.process.tree import state as process_state
from resilient_exec.wire.channel import Framer, Kind, Outbox
from resilient_exec.wire.register import (
    View,
    anonymous_file,
    register_file,
)
from resilient_exec.wire.scratch import remove_all
from resilient_exec.worker.preparation import Inherited, PickledApart
from resilient_exec.worker.seat import SOFT_SIGNAL, STACKS_SIGNAL, Seat

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from resilient_exec.lane.forkserver_client import Forking
    from resilient_exec.wire.buffers import Pieces
    from resilient_exec.wire.script import Script

__all__ = ["Lease", "WorkerSettings", "end_marked"]

_KILL_TIMEOUT = 5.0  # s, for a killed tree to be gone
_STOP_TIMEOUT = 0.05  # s, for SIGSTOP to land (0.25 ms as a rule)
_ZOMBIES_INTERVAL = 1.0  # s
_MOST_ZOMBIES = 50
_SIGSTOP = getattr(signal, "SIGSTOP", None)
_SIGCONT = getattr(signal, "SIGCONT", None)


class WorkerSettings:
    """How the workers of a pool are made.

    Attributes:
        initializer, initargs: called in each when it starts; before that it imports the ``script``.
        output: what becomes of what they print: ``inherit``, ``capture`` or ``discard``.
        fresh_locks: whether locks in results travel as new ones.
        env: variables of their environment, besides this process's own.
        forking: what forks them; ``None``: loky starts each.
    """

    def __init__(
        self,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        output: str = "inherit",
        fresh_locks: bool = False,
        env: Mapping[str, str] | None = None,
        forking: Forking | None = None,
        script: Script | None = None,
    ) -> None:
        self.initializer, self.initargs = initializer, initargs
        self.output, self.fresh_locks = output, fresh_locks
        self.env: Mapping[str, str] = {} if env is None else env
        self.forking, self.script = forking, script

    @property
    def preparation(self) -> str:
        """What a worker failed at that said its hello and was not ready in time."""
        if self.script is None:
            return "its initializer did not return"
        then = " or its initializer did not return" if self.initializer is not None else " did not end"
        return f"the import of the script, {self.script.shown},{then}"

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """While a lane lives: what watches over this process's death, and what forks workers."""
        with contextlib.ExitStack() as stack:
            orphan_guard.hold()
            stack.callback(orphan_guard.release)
            if self.forking is not None:
                self.forking.hold()
                stack.callback(self.forking.release)
            yield


class Lease:
    """A worker process with its channel, its evidence and its descendants."""

    def __init__(self, settings: WorkerSettings) -> None:
        self.mark = new_mark(os.urandom(8).hex())
        self._process: StartedWorker | ForkedWorker | None = None
        self._kin: set[Identity] = set()  # descendants seen so far
        self.is_watched_for_room = False  # in its socket
        self.has_moved = False  # bytes of a long call have moved since somebody looked
        self.has_said_hello = False  # the worker; from there on it runs the user's script and initializer
        self.stacks_fd = 0  # in the worker, told by its hello; 0: not known yet
        self.watch: Watch | None = None
        self.capture: Capture | None = None
        self._zombies_due = time.monotonic() + _ZOMBIES_INTERVAL
        self.oom = OomWatch()
        self._settings = settings
        self._temporary = orphan_guard.temporary()
        with contextlib.ExitStack() as undo:  # should descriptors run out half-way
            self._register = register_file()
            undo.callback(os.close, self._register)
            self.view = View(self._register)
            undo.callback(self.view.close)
            self._stacks = anonymous_file("resilient-stacks")
            undo.callback(os.close, self._stacks)
            self._before = None
            if settings.initializer is not None or settings.script is not None:
                fd = anonymous_file("resilient-initializer")
                self._before = PickledApart(fd, settings.script, settings.initializer, settings.initargs)
                undo.callback(os.close, fd)
            if settings.output == "capture":
                self.capture = Capture()
                undo.callback(self.capture.close)
            self._nowhere: list[int] = []  # where the output goes that nobody wants
            for _ in range(2 if settings.output == "discard" else 0):
                self._nowhere.append(os.open(os.devnull, os.O_WRONLY))
                undo.callback(os.close, self._nowhere[-1])
            self._reserve = os.open(os.devnull, os.O_RDONLY)  # for a kill that finds no descriptor left
            undo.callback(os.close, self._reserve)
            self.socket, self._far_socket = socket.socketpair()
            undo.pop_all()
        self.socket.setblocking(False)
        self._framer = Framer(self.socket)
        self._outbox = Outbox(self.socket)
        self.send_call = self._outbox.put_call  # each attempt takes this way

    # -- the start -------------------------------------------------------------------------------------------------

    def open(self, is_wanted: Callable[[], bool] = lambda: True) -> None:
        """Start the worker.

        Blocks for as long as the system takes to start a process; before that, while ``is_wanted()``, for as long as
        the forkserver takes to be ready.  Raises whatever these raise.
        """
        try:
            if self._before is not None:  # the script or the initializer, which may start processes
                orphan_guard.watch()
            self._process = self._start(is_wanted)
            self.watch = Watch(self._process.pid)
            orphan_guard.watch()  # before it is sent anything; and while it comes up, which takes as long
        finally:
            self._far_socket.close()  # only the worker may have the far end
            os.close(self._register)  # the view of it stays
            self._register = -1
            if self._before is not None:
                os.close(self._before.fd)
            for fd in self._nowhere:
                os.close(fd)

    def _start(self, is_wanted: Callable[[], bool]) -> StartedWorker | ForkedWorker:
        forking = self._settings.forking
        env = {**self._settings.env, self.mark: "1"}
        if forking is not None and not forking.is_given_up:
            try:
                return ForkedWorker(forking, self._seat(parent=0), env, is_wanted)
            except ServerFailed as failed:
                if not forking.may_do_without(failed):
                    raise
        return StartedWorker(self._seat(parent=os.getpid()), env)

    def _seat(self, parent: int) -> Seat:
        captured = self.capture.fds if self.capture is not None else []
        output = [Inherited(fd) for fd in captured or self._nowhere]
        return Seat(
            channel=Inherited(self._far_socket.fileno()),
            register=Inherited(self._register),
            stacks=Inherited(self._stacks),
            parent=parent,
            mark=f"{self.mark}_",
            temporary=self._temporary,
            before=self._before,
            output=(output[0], output[1]) if output else None,
            captured=bool(captured),
            fresh_locks=self._settings.fresh_locks,
        )

    @property
    def pid(self) -> int | None:
        """The worker's process id, once it has one."""
        return self.watch.pid if self.watch is not None else None

    # -- talking ---------------------------------------------------------------------------------------------------

    def send(self, kind: Kind, serial: int = 0, *parts: bytes | Pieces) -> None:
        """Queue a frame; :meth:`pump` moves it."""
        self._outbox.put(kind, serial, *parts)

    def pump(self) -> int:
        """Write as much as the socket takes now; how many bytes that was."""
        return self._outbox.pump()

    @property
    def sending(self) -> bool:
        """Whether something is still to be written."""
        return bool(self._outbox)

    @property
    def hung_up(self) -> bool:
        """Whether the worker's end is closed: nothing more will come, and what is left is its death."""
        return self._framer.hung_up

    def frames(self) -> Any:
        """The whole frames that have come; raises ``ChannelLost`` for what is none."""
        return self._framer.frames()

    # -- evidence --------------------------------------------------------------------------------------------------

    def said(self) -> str:
        """Return words that end an error about a start: what the worker has printed last, or where it may be read."""
        if self.capture is None:
            return "; its stderr may say more" if self._settings.output == "inherit" else ""
        return "".join(f"\nIts last words:\n{tail}" for tail in self.capture.tails(0) if tail)

    def remember_tree(self) -> None:
        """Note the worker's present descendants, so that they are found when it has died by itself."""
        if self.pid is not None:
            self._kin = {who for who in self._kin if is_alive(who)} | tree(self.pid)

    def pids(self, strangers: frozenset[Identity]) -> list[int]:
        """Return the worker and its present descendants, without the strangers and what descends from them."""
        if self.pid is None:
            return []
        return [self.pid, *(who.pid for who in tree(self.pid, strangers | self._disowned()))]

    def _disowned(self) -> frozenset[Identity]:
        """Processes that tasks have disowned."""
        return frozenset(Identity(*process) for process in self.view.disowned())

    def spared(self) -> frozenset[Identity]:
        """These, and what descends from them."""
        found = self._disowned()
        return found.union(*(tree(who.pid) for who in found if is_alive(who)))

    def has_many_zombies(self) -> bool:
        """Whether the worker, whose children its orphans become, has piled up dead ones; looks once in a second.

        It cannot reap them: they may be some library's own children, whose exit status that wants.
        """
        now = time.monotonic()
        if self.pid is None or now < self._zombies_due:
            return False
        self._zombies_due = now + _ZOMBIES_INTERVAL
        return sum(process_state(who.pid) == "Z" for who in tree(self.pid)) > _MOST_ZOMBIES

    def raise_soft_timeout(self, serial: int) -> None:
        """Have ``SoftTimeout`` raised in that attempt, unless the task has taken the signal's handler away."""
        self.view.raise_soft(serial)
        if self.watch is not None and SOFT_SIGNAL is not None and catches(self.watch.pid, SOFT_SIGNAL):
            self.watch.signal(SOFT_SIGNAL)

    def take_stacks(self, timeout: float, *, stop: bool = True) -> str:
        """The Python stacks of all threads of the worker, within ``timeout`` s; a stopped one is stopped again."""
        if self.watch is None or STACKS_SIGNAL is None or not self.stacks_fd:
            return ""
        stacks = Stacks(self.watch, STACKS_SIGNAL, file=self._stacks, there=self.stacks_fd)
        if not stop:
            return stacks.take(timeout)
        try:
            return stacks.take(timeout, self.resume)
        finally:
            self.stop()

    def end_started(self, strangers: frozenset[Identity]) -> None:
        """Kill the worker's descendants, but for those, and theirs."""
        pid = self.pid
        if pid is not None:
            end_tree(lambda: tree(pid, strangers | self._disowned()), _KILL_TIMEOUT)

    # -- stopping and ending ---------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Freeze the worker: what it has sent by now is all there is to read."""
        self._free_reserve()
        if self.watch is None or _SIGSTOP is None:
            return
        self.watch.signal(_SIGSTOP)
        deadline = time.monotonic() + _STOP_TIMEOUT
        while process_state(self.watch.pid) not in ("T", "t", "Z", "X", "") and time.monotonic() < deadline:
            time.sleep(0.0002)

    def resume(self) -> None:
        """Let a stopped worker run on."""
        if self._reserve < 0:
            with contextlib.suppress(OSError):
                self._reserve = os.open(os.devnull, os.O_RDONLY)
        if self.watch is not None and _SIGCONT is not None:
            self.watch.signal(_SIGCONT)

    def _free_reserve(self) -> None:
        if self._reserve >= 0:
            os.close(self._reserve)
            self._reserve = -1

    def is_gone(self) -> bool:
        """Whether the worker is dead."""
        return self.watch is None or self.watch.is_gone()

    def end_in_peace(self) -> None:
        """Ask the worker to end; the watch tells when it has."""
        self.send(Kind.QUIT)
        self.pump()

    def kill(self) -> int | None:
        """Kill the worker and all its descendants, as far as they can be found; its exit code, if known.

        They are dead when this returns, except for what the kernel cannot kill within 5 s.
        """
        self._free_reserve()
        end_tree(self._find_all, _KILL_TIMEOUT, self.watch.identity if self.watch is not None else None)
        if self.watch is not None and not self.watch.is_gone():  # without a descriptor /proc shows nothing
            self.watch.signal(signal.SIGKILL if sys.platform != "win32" else signal.SIGTERM)
            self.watch.wait(_KILL_TIMEOUT)
        return self._exitcode()

    def _find_all(self) -> set[Identity]:
        found = {who for who in self._kin if is_alive(who)} | marked(self.mark)
        worker = self.watch.identity if self.watch is not None else None
        if worker is not None and is_alive(worker):  # of a reaped one the pid may be somebody else's by now
            found.add(worker)
        for who in list(found):
            found |= tree(who.pid)
        return found - self.spared()

    def _exitcode(self) -> int | None:
        code = self.watch.exitcode() if self.watch is not None else None
        if code is None and self._process is not None:
            code = self._process.exitcode()
        return code

    def close(self) -> None:
        """Give back every descriptor; the worker must be dead."""
        self._outbox.clear()
        self._free_reserve()
        scratch = self.view.scratch()
        self.view.close()
        if self.capture is not None:
            self.capture.close()
        for sock in (self.socket, self._far_socket):
            sock.close()
        for fd in (self._register, self._stacks):
            if fd >= 0:
                os.close(fd)
        if self.watch is not None:
            self.watch.close()
        process, self._process = self._process, None
        if process is not None:
            process.let_go()
        if scratch:
            for folder in {os.path.dirname(scratch), self._temporary}:
                remove_all(folder, self.mark)


def end_marked(mark: str, spared: frozenset[Identity] = frozenset()) -> None:
    """Kill from outside whatever was started under ``mark``, but for those: for a lane that does not answer."""

    def find() -> set[Identity]:
        found = marked(mark)
        for who in list(found):
            found |= tree(who.pid)
        return found - spared

    end_tree(find, _KILL_TIMEOUT)
