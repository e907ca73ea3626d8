"""The parent's side of the forkserver (:mod:`.worker.forkserver`): starts it, asks it for workers, ends it.

Nothing here waits without a deadline: what the server is doing is read from a file, a request is one datagram on a
non-blocking socket, and what a worker starts with lies in a file, not in a pipe that has to be emptied.  A server that
is dead, stopped or stuck is killed and replaced at the next start.  That harms no running worker: each is watched by
its own pidfd, and only its exit status is lost.

This rests on private names of loky and multiprocessing, as :mod:`.lane.loky_start` does, and on
Linux (pidfds, ``/proc``).
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import pickle
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from multiprocessing import util
from multiprocessing.context import set_spawning_popen
from typing import TYPE_CHECKING, Any

from resilient_exec.lane.loky_start import context_that_starts
from resilient_exec.process.orphan_guard import parent_mark
from resilient_exec.process.tree import ON_LINUX, Watch
from resilient_exec.wire.register import anonymous_file, read_text
from resilient_exec.worker.forkserver import Numbered

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Forking", "can_fork", "new_mark"]

_logger = logging.getLogger(__name__)
_LOOK = 0.01  # s between two looks at what the server is doing
_REPLY_TIMEOUT = 10.0  # s for a fork, which takes milliseconds
_END_TIMEOUT = 0.5  # s, for a server to reap its children and go
_STATUS_TIMEOUT = 1.0  # s for an exit status, once the process is dead
_LONGEST_WAIT = 3600.0  # s without asking again
_UNKNOWN_STATUS = 255
_TOKEN = 16  # characters
_CODE = "import sys; sys.path[:] = {path!r}; from resilient_exec.worker.forkserver import main; main(*{arguments!r})"


def can_fork() -> bool:
    """Whether there can be a forkserver on this system."""
    return ON_LINUX and hasattr(os, "pidfd_open") and hasattr(socket, "send_fds")


def new_mark(token: str = "0" * _TOKEN) -> str:
    """The mark of a worker: the *name* of a variable, since a pool inside a worker adds its own, and keeps ours."""
    return parent_mark() + token


class ServerGone(OSError):
    """The forkserver is dead, or does not answer."""


class _Server:
    """One forkserver process."""

    def __init__(self, modules: tuple[str, ...], env: Mapping[str, str]) -> None:
        self.began = time.monotonic()
        self._told = 0
        self._lock = threading.Lock()  # so that nobody reads what has been closed
        self._ended = ""
        self.control, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.log = anonymous_file("resilient-forkserver")
        try:
            arguments = (far.fileno(), self.log, os.getpid(), new_mark(), list(modules))
            path = [entry or os.getcwd() for entry in sys.path]
            self.process = subprocess.Popen(
                [sys.executable, "-c", _CODE.format(path=path, arguments=arguments)],
                pass_fds=(far.fileno(), self.log),
                env={**os.environ, **env, new_mark(): "1"},
            )
        except BaseException:
            self.control.close()
            os.close(self.log)
            raise
        finally:
            far.close()
        self.control.setblocking(False)

    def base(self) -> int | None:
        """The number of a worker's first descriptor, when the server is ready; ``None`` before.

        Raises:
            RuntimeError: it never will be; in its own words.
        """
        lines = self._lines()
        for line in lines[self._told :]:
            if line[0] == "left out":
                _logger.warning("preload: %s is left out, workers import it themselves: %s", line[1], line[2])
        self._told = len(lines)
        last = lines[-1] if lines else ["starting"]
        if last[0] == "ready":
            return int(last[1])
        if last[0] == "failed":
            raise RuntimeError(f"the forkserver could not preload: {last[1]}\n{last[2]}")
        if self.process.poll() is not None:
            code = self.process.returncode
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            raise RuntimeError(f"the forkserver died ({how}) while {' '.join(map(str, last))}")
        return None

    @property
    def left_out(self) -> tuple[str, ...]:
        """The modules with a ``?`` that it could not import."""
        return tuple(str(line[1]) for line in self._lines() if line[0] == "left out")

    @property
    def doing(self) -> str:
        """What it was doing last."""
        return " ".join(map(str, (self._lines() or [["starting"]])[-1]))

    def _lines(self) -> list[list[Any]]:
        with self._lock:
            if self._ended:
                raise RuntimeError(self._ended)
            return [json.loads(line) for line in read_text(self.log).split("\n")[:-1]]

    def end(self, why: str) -> None:
        """End it; whoever still waits for it is told why."""
        with self._lock:
            if self._ended:
                return
            self._ended = why
            is_ready = '\n["ready"' in read_text(self.log)
            os.close(self.log)
        self.control.close()
        if is_ready:  # it sees that, and reaps its dead children before it goes
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(_END_TIMEOUT)
        self.process.kill()
        self.process.wait()


class Forking:
    """The forkserver of a pool, started when its first worker is.

    Args:
        modules: what it imports.
        env: what its environment has besides this process's own.
        start_timeout: seconds for it to be ready.
    """

    def __init__(self, modules: tuple[str, ...], env: Mapping[str, str], start_timeout: float) -> None:
        self._modules, self.env, self._start_timeout = modules, dict(env), start_timeout
        self._lock = threading.Lock()  # held for the start of a process at most
        self._server: _Server | None = None
        self._holders = 0
        self._is_warm = False  # started before the first lane, which then takes it over

    def warm(self, is_wanted: Callable[[], bool]) -> tuple[str, ...]:
        """Have it started and ready before there is a lane; the modules that it has left out.

        Raises:
            RuntimeError: as :meth:`ready`.
        """
        with self._lock:
            self._holders += not self._is_warm
            self._is_warm = True
        server, _ = self.ready(is_wanted)
        return server.left_out

    def cool(self) -> None:
        """A lane has come, or none will: whoever warmed it does not hold it any more."""
        with self._lock:
            was_warm, self._is_warm = self._is_warm, False
        if was_warm:
            self.release()

    def hold(self) -> None:
        """A lane begins."""
        with self._lock:
            self._holders += 1
        self.cool()

    def release(self) -> None:
        """A lane has ended; with the last one the server ends."""
        with self._lock:
            self._holders -= 1
            server = None
            if not self._holders:
                server, self._server = self._server, None
        if server is not None:
            server.end("its pool has ended")

    def ready(self, is_wanted: Callable[[], bool]) -> tuple[_Server, int]:
        """A server that can fork, and its first number; waits for it as long as ``is_wanted()``.

        Raises:
            RuntimeError: it fails, takes too long, or is not wanted any more; says what it was doing.
        """
        server = self._present()
        while True:
            try:
                base = server.base()
            except RuntimeError as error:
                self._drop(server, str(error))
                raise
            if base is not None:
                return server, base
            age = time.monotonic() - server.began
            if age > self._start_timeout or not is_wanted():
                words = f"the forkserver was still {server.doing} after {age:.1f} s"
                if age > self._start_timeout:
                    self._drop(server, words)
                raise RuntimeError(words)
            time.sleep(_LOOK)

    def _present(self) -> _Server:
        with self._lock:
            if self._server is not None and self._server.process.poll() is not None and self._is_over(self._server):
                self._server.end("it is dead")
                self._server = None
            if self._server is None:
                self._server = _Server(self._modules, self.env)
            return self._server

    @staticmethod
    def _is_over(server: _Server) -> bool:
        """Whether a dead server had been ready: its death says nothing about the next one."""
        try:
            return server.base() is not None
        except RuntimeError:
            return False

    def _drop(self, server: _Server, why: str) -> None:
        with self._lock:
            if self._server is not server:
                return
            self._server = None
        server.end(why)

    def fork(self, server: _Server, fds: list[int]) -> tuple[int, socket.socket]:
        """Have a worker forked that gets these descriptors; its pid, and the socket that will tell its exit status.

        Raises:
            OSError: the server could not fork (no process slot, no memory).
            ServerGone: it is dead, or does not answer; it has been dropped, and the next start makes another.
        """
        link, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with far:
                socket.send_fds(server.control, [b"fork"], [far.fileno(), *fds])
            word, _, text = _receive(link, _REPLY_TIMEOUT).partition(" ")
            if word == "pid":
                return int(text), link
        except OSError:  # its end is closed, or so many requests lie there that there is no room
            word = "closed"
        link.close()
        if word == "error":
            raise OSError(f"the forkserver could not start a worker: {text}")
        why = "the forkserver is dead" if word == "closed" else "the forkserver does not answer"
        self._drop(server, why)
        raise ServerGone(why)

    @functools.cached_property
    def context(self) -> Any:
        """The context for :func:`loky.get_reusable_executor`, with processes that the server forks."""
        return context_that_starts(lambda process: ForkedPopen(self, process))


class ForkedPopen:
    """What loky holds in place of its own ``Popen``: a worker that the forkserver has forked."""

    DupFd = Numbered

    def __init__(self, forking: Forking, process: Any) -> None:
        try:
            self._launch(forking, process)
        except ServerGone:  # as it may be by now for what an earlier worker has done to it
            self._launch(forking, process)

    def _launch(self, forking: Forking, process: Any) -> None:
        from loky.backend import reduction, spawn

        server, self._base = forking.ready(lambda: True)
        self._fds: list[int] = []
        self._returncode: int | None = None
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(open(anonymous_file("resilient-start"), "wb"))
            environment = {**os.environ, **process.env}
            mark = next((name for name in process.env if name.startswith(parent_mark())), "")
            pickle.dump((environment, mark), file)
            prepared = spawn.get_preparation_data(process._name, process.init_main_module)
            set_spawning_popen(self)  # type: ignore[arg-type]  # as loky's own does
            try:
                for name in ("tracker_fd", "mp_tracker_fd"):
                    prepared[name] = self.duplicate_for_child(prepared[name])
                reduction.dump(prepared, file)
                reduction.dump(process, file)
            finally:
                set_spawning_popen(None)
            file.flush()
            self.sentinel, far = os.pipe()
            stack.callback(os.close, far)
            undo = stack.enter_context(contextlib.ExitStack())
            undo.callback(os.close, self.sentinel)
            self.pid, self._link = forking.fork(server, [0, 1, 2, file.fileno(), *self._fds, far])
            undo.pop_all()
        self._link.setblocking(False)
        self._watch = Watch(self.pid)  # it is not reaped before the link is closed
        util.Finalize(self, _close, (self.sentinel, self._watch, self._link))

    def duplicate_for_child(self, fd: int) -> int:
        """Have the worker given that descriptor; the number that it will have there."""
        self._fds.append(fd)
        return self._base + len(self._fds) - 1

    @property
    def returncode(self) -> int | None:
        """The exit status as far as the forkserver has told it."""
        if self._returncode is None:
            word, _, text = _receive(self._link, 0).partition(" ")
            if word == "ended":
                self._returncode = int(text)
        return self._returncode

    @returncode.setter
    def returncode(self, value: int | None) -> None:
        self._returncode = value

    def poll(self, flag: int = os.WNOHANG) -> int | None:
        """The exit status, if it is dead; 255 where the forkserver died before it could tell."""
        del flag  # nothing is reaped here
        if self.returncode is None and self._watch.is_gone():
            deadline = time.monotonic() + _STATUS_TIMEOUT
            while self.returncode is None and time.monotonic() < deadline:
                time.sleep(_LOOK)
            if self._returncode is None:
                self._returncode = _UNKNOWN_STATUS
        return self.returncode

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait for its death, as loky's own does; the exit status, or ``None``."""
        while self.returncode is None and not self._watch.wait(_LONGEST_WAIT if timeout is None else timeout):
            if timeout is not None:
                return None
        return self.poll()

    def terminate(self) -> None:
        """Ask it to end."""
        self._watch.signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        self._watch.signal(signal.SIGKILL)

    @staticmethod
    def thread_is_spawning() -> bool:
        """As loky's own."""
        return True


def _close(sentinel: int, watch: Watch, link: socket.socket) -> None:
    os.close(sentinel)
    watch.close()
    link.close()


def _receive(link: socket.socket, timeout: float) -> str:
    """A message; ``closed``, or ``""`` if none has come in time."""
    poller = select.poll()
    poller.register(link, select.POLLIN)
    if not poller.poll(timeout * 1000):
        return ""
    try:
        return link.recv(256).decode() or "closed"
    except BlockingIOError:  # another thread was quicker
        return ""
    except ConnectionError:
        return "closed"
