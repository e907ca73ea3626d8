"""One forkserver process, as the parent sees it: what it is doing, and how it is asked and ended."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import select
import signal
import socket
import subprocess
import threading
import time

from resilient_exec.lane.interpreter import command
from resilient_exec.lane.surroundings import circumstances
from resilient_exec.process.executable import check_interpreter
from resilient_exec.wire.lines import texts_of
from resilient_exec.wire.register import anonymous_file, read_text
from resilient_exec.wire.scratch import parent_mark

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["ServerFailed", "ServerGone", "ServerProcess", "new_mark"]

_logger = logging.getLogger(__name__)
_END_TIMEOUT = 0.5  # s, for a server to reap its children and go
_TOKEN = 16  # characters
_LEFT_OUT = "preload: %s is left out, workers import it themselves: %s"
_PART = 200  # descriptors in one datagram (the kernel takes 253)
# Without the collector, which would look through all that is imported again and again.
_CODE = "import gc; gc.disable(); from resilient_exec.worker.forkserver import main; main(*{arguments!r}, own={own!r})"


def new_mark(token: str = "0" * _TOKEN) -> str:
    """The mark of a worker: the *name* of a variable, since a pool inside a worker adds its own, and keeps ours."""
    return parent_mark() + token


class ServerGone(OSError):
    """The forkserver is dead, or does not answer."""


class ServerFailed(RuntimeError):
    """The forkserver never became ready; its own words.

    Attributes:
        is_final: it ended by itself, and was neither late nor ended by us.
        is_lasting: another would not become ready, either.
    """

    is_lasting = False

    def __init__(self, words: str, *, is_final: bool = True) -> None:
        super().__init__(words)
        self.is_final = is_final


class ServerProcess:
    """One forkserver process.  ``log(job)`` has ``job()`` write to the log, on a thread that holds up nobody."""

    def __init__(
        self,
        modules: tuple[str, ...],
        env: Mapping[str, str],
        log: Callable[[Callable[[], object]], object],
        own: tuple[str, ...] = (),
    ) -> None:
        self._log = log
        self.began = time.monotonic()
        self.circumstances = circumstances(env)
        self.workers = 0  # that it has forked, and that have not been let go of
        self.was_killed = False  # before it was ready, and not by us
        self._base: int | None = None
        self._told = 0
        self._lock = threading.RLock()  # so that nobody reads what has been closed
        self._ended = ""
        self.control, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.log = anonymous_file("resilient-forkserver")
        try:
            check_interpreter()
            arguments = (far.fileno(), self.log, os.getpid(), new_mark(), list(modules))
            self.process = subprocess.Popen(
                command(_CODE.format(arguments=arguments, own=own)),
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

    def base(self, timeout: float = 0) -> int | None:
        """The number of a worker's first descriptor, when the server is ready; ``None``: not within ``timeout`` s.

        Raises:
            ServerFailed: it never will be; in its own words.
        """
        if self._base is None:
            self._wait(timeout)
            self._base = self._read()
        return self._base

    def _wait(self, timeout: float) -> None:
        """Wait for it to be ready, or dead: it says the one by a message that nobody takes, so that all see it."""
        with self._lock:
            if self._ended:
                return
            poller = select.poll()
            with contextlib.suppress(ValueError):  # it was replaced, or a signal handler has just ended it
                poller.register(self.control, select.POLLIN)
        poller.poll(timeout * 1000)

    def _read(self) -> int | None:
        lines = self._lines()
        for line in lines[self._told :]:
            if line[0] == "left out":
                self._log(functools.partial(_logger.warning, _LEFT_OUT, line[1], line[2]))
        self._told = len(lines)
        last = lines[-1] if lines else ["starting"]
        if last[0] == "ready":
            return int(last[1])
        if last[0] == "failed":
            failed = ServerFailed(f"the forkserver could not preload: {last[1]}\n{last[2]}")
            failed.is_lasting = bool(last[3])
            raise failed
        if self.process.poll() is not None:
            code = self.process.returncode
            self.was_killed = code < 0
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            raise ServerFailed(f"the forkserver died ({how}) while {' '.join(last)}")
        return None

    @property
    def left_out(self) -> tuple[str, ...]:
        """The modules with a ``?`` that it could not import."""
        return tuple(line[1] for line in self._lines() if line[0] == "left out")

    @property
    def doing(self) -> str:
        """What the forkserver was doing last."""
        return " ".join((self._lines() or [["starting"]])[-1])

    def _lines(self) -> list[list[str]]:
        with self._lock:
            if not self._ended:
                with contextlib.suppress(OSError):  # a signal handler has just ended it
                    return texts_of(read_text(self.log))
            raise ServerFailed(self._ended, is_final=False)

    def ask(self, fds: list[int]) -> None:
        """Ask for a worker that gets these descriptors; not by two threads at once.

        Raises:
            OSError: it is dead, or so many requests lie there that there is no room.
        """
        with self._lock:
            if self._ended:
                raise ServerGone(self._ended)
            for start in range(0, len(fds), _PART):
                left = max(0, len(fds) - start - _PART)
                socket.send_fds(self.control, [f"fork {left}".encode()], fds[start : start + _PART])

    def retire(self) -> None:
        """Have it fork no more, and end when the last of its workers has been let go of."""
        with self._lock:
            self.control.close()

    def end(self, why: str) -> None:
        """End it; whoever still waits for it is told why.  Its workers live on."""
        with self._lock:
            if self._ended:
                return
            self._ended = why
            is_ready = any(line[0] == "ready" for line in texts_of(read_text(self.log)))
            os.close(self.log)
            self.control.close()
        if is_ready:  # it sees that, and goes when all its children are reaped
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(_END_TIMEOUT)
        self.process.kill()
        self.process.wait()
