"""The parent's side of the forkserver (:mod:`.worker.forkserver`): starts it, asks it for workers, ends it.

Nothing here waits without a deadline: what the server is doing is read from a file, a request is one datagram (or a
few) on a non-blocking socket, and what a worker starts with (:mod:`.forked_worker`) lies in a file, not in a pipe.  A
server that is dead, stopped or stuck is killed and replaced at the next start.  That harms no running worker: each is
watched by its own pidfd, and only its exit status is lost.

This rests on Linux: pidfds and ``/proc``.  Nothing of loky's is used: :mod:`.lane.loky_start` is what starts workers
where there is no forkserver.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import select
import socket
import sys
import threading
import time

from resilient_exec.lane.forkserver_process import ServerFailed, ServerGone, ServerProcess
from resilient_exec.lane.surroundings import circumstances

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Forking", "can_fork", "receive", "tell_that_there_is_none"]

_logger = logging.getLogger(__name__)
_ON_LINUX = sys.platform == "linux"
_LOOK = 0.01  # s between two looks at whether the server is still wanted
_LEAST = 10.0  # s for a server without modules to be ready
_REPLY_TIMEOUT = 10.0  # s for a fork, which takes milliseconds


def can_fork() -> bool:
    """Whether there can be a forkserver on this system: it has pidfds, which some sandboxes refuse, and ``/proc``."""
    if not (_ON_LINUX and hasattr(os, "pidfd_open") and hasattr(socket, "send_fds")):
        return False
    try:
        os.close(os.pidfd_open(os.getpid()))
        return bool(os.listdir("/proc/self/fd"))
    except OSError:
        return False


def tell_that_there_is_none(modules: tuple[str, ...]) -> None:
    """Say in the log that there can be no forkserver: for each pool that was to preload, else once, and on Linux."""
    if modules:
        _logger.warning("preload: there is no forkserver on this system; each worker imports what it needs by itself")
    elif _ON_LINUX:
        _tell_once("there can be no forkserver here (no pidfds, or no /proc)")


@functools.cache
def _tell_once(why: str) -> None:
    _logger.warning("%s: workers are started by exec, which takes longer; forkserver=False says so, too", why)


class Forking:
    """The forkserver of a pool, started when its first worker is, or before.

    Args:
        modules: what it imports.
        env: what its environment has besides this process's own.
        start_timeout: seconds for it to be ready; not less than ``_LEAST`` where it imports no modules.
    """

    def __init__(self, modules: tuple[str, ...], env: Mapping[str, str], start_timeout: float) -> None:
        self.modules, self.env = modules, dict(env)
        self.own: tuple[str, ...] = ()  # modules of ours that it imports, because each worker would
        # One that imports nothing is late on a busy machine only: were it ended, the next one would be as late.
        self._start_timeout = start_timeout if modules else max(start_timeout, _LEAST)
        self._lock = threading.RLock()  # for the start of a process at most; a signal handler may end the pool in it
        self._server: ServerProcess | None = None
        self._retired: list[ServerProcess] = []
        self._holders = 0
        self._is_warm = False  # started before the first lane, which then takes it over
        self._was_killed = False  # before it was ready: that may happen once
        self.has_begun = self._is_closed = False
        self._has_worked = False
        self.is_given_up = False  # workers are to be started by exec
        # Whose handlers may wait for what never comes: the pool gives a thread for that.
        self.log: Callable[[Callable[[], object]], object] = lambda job: job()

    def begin(self) -> None:
        """Start it, and do not wait: a lane will come, or :meth:`cool` is called.

        What fails is told when a worker is started.
        """
        self.has_begun = True
        self._warm()
        with contextlib.suppress(OSError, RuntimeError):
            self._present()
        if self._is_closed:  # meanwhile
            self.cool()

    def warm(self, is_wanted: Callable[[], bool]) -> tuple[str, ...] | None:
        """Have it started and ready before there is a lane; the modules that it has left out, ``None``: it is given up.

        Raises:
            ServerFailed, OSError: as :meth:`ready`.
        """
        self._warm()
        try:
            server, _ = self.ready(is_wanted)
            return server.left_out
        except ServerFailed as failed:
            if not self.may_do_without(failed):
                raise
        finally:
            if self._is_closed or self.is_given_up:
                self.cool()
        return None

    def _warm(self) -> None:
        with self._lock:
            self._holders += not self._is_warm
            self._is_warm = True

    def cool(self) -> None:
        """A lane has come, or none will: whoever warmed it does not hold it any more."""
        with self._lock:
            was_warm, self._is_warm = self._is_warm, False
        if was_warm:
            self.release()

    def close(self) -> None:
        """No lane will come any more, nor is there one."""
        self._is_closed = True
        self.cool()

    def may_do_without(self, why: ServerFailed) -> bool:
        """Whether workers may be started by exec in place of it: where nothing is preloaded, and it never worked."""
        with self._lock:
            if self.modules or self._has_worked or not why.is_final:
                return False
            self.is_given_up = True
        words = f"the forkserver does not start: {why}"
        self.log(lambda: _tell_once(words))
        return True

    def hold(self) -> None:
        """A lane begins."""
        with self._lock:
            self._holders += 1
        self.cool()

    def release(self) -> None:
        """A lane has ended; with the last one the server ends."""
        with self._lock:
            self._holders -= 1
            over = []
            if not self._holders:
                over, self._retired = self._retired, []
                over += [self._server] if self._server is not None else []
                self._server = None
        for server in over:
            server.end("its pool has ended")

    def ready(self, is_wanted: Callable[[], bool]) -> tuple[ServerProcess, int]:
        """A server that can fork, and its first number; waits for it as long as ``is_wanted()``.

        Raises:
            ServerFailed: it fails, takes too long, or is not wanted any more; says what it was doing.
            OSError: it cannot be started.
        """
        server = self._present()
        while True:
            try:
                base = server.base(_LOOK)
            except ServerFailed as error:
                if self._may_try_again(server):  # killed by somebody, once: that is no reason to fail all lanes
                    server = self._present()
                    continue
                self._drop(server, str(error))
                raise
            if base is not None:
                self._was_killed, self._has_worked = False, True
                return server, base
            age = time.monotonic() - server.began
            if age > self._start_timeout or not is_wanted():
                words = f"the forkserver was still {server.doing} after {age:.1f} s"
                if age > self._start_timeout or not self._holders:  # or it was started behind its release
                    self._drop(server, words)
                raise ServerFailed(words, is_final=False)

    def _may_try_again(self, server: ServerProcess) -> bool:
        """Whether another server takes its place: it was killed, for the first time; or another lane has seen that."""
        with self._lock:
            if self._server is not server:
                return server.was_killed
            if self._was_killed or not server.was_killed:
                return False
            self._was_killed = True
            self._server = None
        server.end("it was killed")
        return True

    def _present(self) -> ServerProcess:
        """The server, a new one where there is none, or where this process is not any more what it was."""
        with self._lock:
            server = self._server
            if server is not None and server.process.poll() is not None and self._was_ready(server):
                server.end("it is dead")
                server = None
            elif server is not None and server.circumstances != circumstances(self.env):
                server.retire()
                self._retired.append(server)
                server = None
            if server is None:
                server = self._server = ServerProcess(self.modules, self.env, self._write_log, self.own)
            over = [one for one in self._retired if not one.workers]
            self._retired = [one for one in self._retired if one.workers]
        for one in over:
            one.end("it was replaced")
        return server

    def _write_log(self, job: Callable[[], object]) -> None:
        self.log(job)  # as it is now: the server may have been started before the pool has given a thread for that

    @staticmethod
    def _was_ready(server: ServerProcess) -> bool:
        """Whether a dead server had been ready: its death says nothing about the next one."""
        try:
            return server.base() is not None
        except ServerFailed:
            return False

    def _drop(self, server: ServerProcess, why: str) -> None:
        with self._lock:
            if self._server is not server:
                return
            self._server = None
        server.end(why)

    def fork(self, server: ServerProcess, fds: list[int]) -> tuple[int, socket.socket]:
        """Have a worker forked that gets these descriptors; its pid, and the socket that will tell its exit status.

        Raises:
            OSError: the server could not fork (no process slot, no memory).
            ServerGone: it is dead, or does not answer; it has been dropped, and the next start makes another.
        """
        link, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with far:
                server.ask([far.fileno(), *fds])
            word, _, text = receive(link, _REPLY_TIMEOUT).partition(" ")
            if word == "pid":
                self.count(server, 1)
                return int(text), link
        except OSError:
            word = "closed"
        link.close()
        if word == "error":
            raise OSError(f"the forkserver could not start a worker: {text}")
        why = "the forkserver is dead" if word == "closed" else "the forkserver does not answer"
        self._drop(server, why)
        raise ServerGone(why)

    def count(self, server: ServerProcess, more: int) -> None:
        """Add that many to the number of its living workers."""
        with self._lock:
            server.workers += more


def receive(link: socket.socket, timeout: float) -> str:
    """A message of the server; ``closed``, or ``""`` if none has come in time."""
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
