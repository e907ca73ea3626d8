"""The worker's part of ``logs="forward"``: a handler that sends records to the parent, and never waits for it.

Records go through one socket for all workers of a pool, whose messages arrive whole or not at all, however a worker
ends.  While the parent does not read, records wait here, a bounded number; what is more is dropped and counted.
"""

from __future__ import annotations

import atexit
import logging
import os
import select
import socket
import sys
import time
from collections import deque
from typing import Any

from resilient_exec.model.worker_errors import SoftTimeout
from resilient_exec.wire.log_records import LONGEST, pack, pack_dropped
from resilient_exec.worker import context
from resilient_exec.worker.preparation import Inherited

__all__ = ["Forwarding", "ForwardingHandler"]

_MOST_WAITING = 10_000  # records
_MOST_BYTES = 8 << 20  # of those that wait
_NO_ROOM = 0.2  # s without room for anything: the parent does not read
_AFTER_ATTEMPT = 1.0  # s, behind an attempt, for the parent to take what still waits ...
_AT_EXIT = 2.0  # ... and at the end of the worker
_LOWEST = 64  # descriptors below are those that tasks are known to close


class Forwarding:
    """What each worker is given at its start: the socket, and the levels that loggers have in the parent just then."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __reduce__(self) -> tuple[Any, ...]:
        return _start, (Inherited(self._fd), _levels())


def _levels() -> tuple[int, int, dict[str, int]]:
    """Of this process: what is disabled, the root's level, and those that other loggers have of their own."""
    root = logging.getLogger()
    known = list(root.manager.loggerDict.items())
    own = {name: logger.level for name, logger in known if isinstance(logger, logging.Logger) and logger.level}
    return root.manager.disable, root.level, own


def _start(inherited: Inherited, levels: tuple[int, int, dict[str, int]]) -> Any:
    """Called in the worker by unpickling it; what comes back is called to begin."""
    return lambda: _begin(inherited.fd, levels)


def _begin(fd: int, levels: tuple[int, int, dict[str, int]]) -> None:
    """Send all records to the parent, in place of whatever handlers there are: an imported script has set some up."""
    disabled, root_level, own = levels
    root = logging.getLogger()
    for logger in [root, *list(root.manager.loggerDict.values())]:
        if isinstance(logger, logging.Logger) and logger.handlers:
            logger.handlers[:] = [one for one in logger.handlers if isinstance(one, logging.NullHandler)]
            logger.propagate = True
    for name, level in own.items():
        logging.getLogger(name).setLevel(level)
    logging.disable(disabled)
    root.setLevel(root_level)
    handler = ForwardingHandler(fd)
    root.addHandler(handler)
    context.set_after_attempt(handler.flush_at_last)
    atexit.register(handler.flush_at_exit)


class ForwardingHandler(logging.Handler):
    """Sends records, as far as the socket takes them at once."""

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._socket = socket.socket(fileno=_raise_high(fd))
        self._socket.setblocking(False)  # whatever default there is
        self._pid = os.getpid()
        self._inode = os.fstat(self._socket.fileno()).st_ino
        self._waiting: deque[bytes] = deque()
        self._bytes = 0  # of those
        self._dropped = 0
        self._flushing = False
        self._stuck = False  # the parent did not read when it was waited for last

    def emit(self, record: logging.LogRecord) -> None:
        """Send it now or, if the parent does not read, later."""
        if os.getpid() != self._pid:  # a child that the task forked: what waits is sent by the worker
            self._pid = os.getpid()
            self._forget()
        here = context.task_context()
        try:
            line = pack(record, here.key, here.attempt if context.is_running() else 0)
        except SoftTimeout:
            raise
        except Exception:  # a record that cannot be told is no affair of the task's
            self._dropped += 1
        else:
            if len(self._waiting) >= _MOST_WAITING or self._bytes + len(line) > _MOST_BYTES:
                self._dropped += 1
            else:
                self._waiting.append(line)
                self._bytes += len(line)
        self.flush()

    def flush(self) -> None:
        """Send what waits, as far as that goes at once."""
        if self._flushing:  # a signal handler that logs
            return
        self._flushing = True
        try:
            while self._waiting or self._dropped:
                if not self._send():
                    return
        finally:
            self._flushing = False

    def flush_at_last(self, longest: float = _AFTER_ATTEMPT) -> None:
        """The same behind an attempt, whose outcome has been told: waits for the parent, while that takes something."""
        if not self._waiting and not self._dropped:
            return
        deadline = time.monotonic() + longest
        self.acquire()
        try:
            self.flush()
            while (self._waiting or self._dropped) and not self._stuck:
                room = select.select([], [self._socket], [], _NO_ROOM)[1]
                if not room or time.monotonic() > deadline:
                    self._stuck = not room  # a handler hangs: that is waited for once, and not behind each attempt
                    return
                self.flush()
        except (OSError, ValueError):  # the task has closed it
            self._forget()
        finally:
            self.release()

    def flush_at_exit(self) -> None:
        """The same at the end of the worker."""
        self._stuck = False
        self.flush_at_last(_AT_EXIT)
        self._dropped += len(self._waiting)
        self._forget()
        self.flush_at_last(_AT_EXIT)

    def close(self) -> None:
        """As the standard library's; what is logged afterwards is lost."""
        super().close()
        self._socket.close()

    def _forget(self) -> None:
        self._waiting.clear()
        self._bytes = 0

    def _send(self) -> bool:
        """Send one message of several records; whether there was room for it."""
        lines, length = [], 0
        if self._dropped:
            lines.append(pack_dropped(self._dropped))
        for line in self._waiting:
            length += len(line) + 1
            if length > LONGEST and len(lines) > 0:
                break
            lines.append(line)
        dropped = self._dropped
        try:
            # A task may have closed it, and something else may have got its number.
            is_ours = os.fstat(self._socket.fileno()).st_ino == self._inode
            if is_ours:
                self._socket.send(b"\n".join(lines))
        except BlockingIOError:
            return False
        except OSError:  # the parent is gone
            is_ours = False
        if not is_ours:
            self._forget()
            self._dropped = 0
            return False
        self._stuck = False
        self._dropped -= dropped
        for _ in range(len(lines) - bool(dropped)):
            self._bytes -= len(self._waiting.popleft())
        return True


def _raise_high(fd: int) -> int:
    if sys.platform == "win32":
        return fd
    import fcntl

    high = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _LOWEST)
    os.close(fd)
    return high
