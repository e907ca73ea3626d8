"""The parent's part of ``logs="forward"``: a thread that hands the workers' records to this process's handlers."""

from __future__ import annotations

import contextlib
import logging
import socket
import sys
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Protocol

from resilient_exec.supervisor import exit_hook
from resilient_exec.supervisor.chunk_future import ChunkFuture
from resilient_exec.wire.log_records import key_as_sent, unpack
from resilient_exec.worker.log_forwarding import Forwarding

if TYPE_CHECKING:
    from collections.abc import Hashable

    from resilient_exec.supervisor.future import ResilientFuture
    from resilient_exec.supervisor.latch import Latch

__all__ = ["LogReceiver"]

_logger = logging.getLogger(__name__)
_LOOK_INTERVAL = 0.5  # s, between two looks whether the pool has ended
_JOIN_TIMEOUT = 5.0  # s, for the handlers to end with what is left
_LARGEST = 1 << 20  # bytes of a message
_MOST_SETTLED = 10_000  # tasks whose labels are kept for records that are still on their way
_BUFFER = 4 << 20  # bytes that may be on their way, if the system allows so many


class _Pool(Protocol):
    @property
    def ended(self) -> Latch:
        """Set when no worker is left."""

    def end_at_exit(self, *, kill: bool = False) -> None:
        """Finish, or kill, what is pending."""


class _Labels:
    """What the tasks of a pool are called: of those that are not settled, and of the last that are.

    A record may arrive a little later than the outcome of its task.
    """

    def __init__(self) -> None:
        self._labels: dict[Hashable, str] = {}
        self._settled: OrderedDict[Hashable, None] = OrderedDict()
        self._lock = threading.RLock()  # a signal handler may submit in between

    def add(self, future: ResilientFuture[Any]) -> None:
        """One more, about to be submitted; where a task of its key is not settled, it will be refused."""
        keys: list[Hashable] = [key_as_sent(future.key)]
        if isinstance(future, ChunkFuture) and future.numbered:
            keys = [future.key + ahead for ahead in range(future.size)]  # type: ignore[operator]
        with self._lock:
            new = [key for key in keys if key not in self._labels or key in self._settled]
            for key in new:
                self._settled.pop(key, None)
                self._labels[key] = future.label
        future.add_done_callback(lambda _: self._settle(new))

    def get(self, key: Hashable) -> str:
        """The label of the task with that key, as it was sent."""
        return self._labels.get(key, "")

    def _settle(self, keys: list[Hashable]) -> None:
        with self._lock:
            self._settled.update(dict.fromkeys(keys))
            while len(self._settled) > _MOST_SETTLED:
                del self._labels[self._settled.popitem(last=False)[0]]


class LogReceiver:
    """Takes records until the pool has ended and none are left, and calls the handlers, on a thread of its own."""

    def __init__(self) -> None:
        if not hasattr(socket, "AF_UNIX"):
            raise ValueError('logs="forward" needs Unix sockets, which this system does not have; leave logs= out')
        # Of this kind each message arrives whole, also where several processes write, and one of them is killed.
        kind = socket.SOCK_SEQPACKET if sys.platform == "linux" else socket.SOCK_DGRAM
        self._near, self._far = socket.socketpair(socket.AF_UNIX, kind)
        self._far.setblocking(False)  # for all who have it
        for sock, option in ((self._far, socket.SO_SNDBUF), (self._near, socket.SO_RCVBUF)):
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, option, _BUFFER)
        self._near.settimeout(_LOOK_INTERVAL)
        self._thread: threading.Thread | None = None
        self._pool: _Pool | None = None
        self.dropped = 0
        self.labels = _Labels()
        self.forwarding = Forwarding(self._far.fileno())

    def start(self, pool: _Pool) -> None:
        """Begin, for a pool that has just been made."""
        self._pool = pool
        self._thread = threading.Thread(target=self._run, args=(pool,), name="resilient-logs", daemon=True)
        self._thread.start()
        exit_hook.end_at_exit(self)

    def close(self) -> None:
        """Close the receiver of a pool that could not be made."""
        self._near.close()
        self._far.close()

    def join(self) -> None:
        """Wait, at most 5 s, until the last record of a pool that has ended is handled."""
        with contextlib.suppress(OSError):
            self._far.send(b"")  # so that it looks
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(_JOIN_TIMEOUT)

    def end_at_exit(self, *, kill: bool = False) -> None:
        """At the exit of the interpreter: let the pool end first, then hand on what is left."""
        if self._pool is not None:
            self._pool.end_at_exit(kill=kill)
        self.join()

    def _run(self, pool: _Pool) -> None:
        try:
            while True:
                ended = pool.ended.is_set()  # before the look: what comes after it was sent by nobody
                if ended:
                    self._near.setblocking(False)
                try:
                    message = self._near.recv(_LARGEST)
                except (TimeoutError, BlockingIOError):
                    if ended:
                        return
                else:
                    self._receive_record(message)
        finally:
            self.close()

    def _receive_record(self, message: bytes) -> None:
        for line in filter(None, message.split(b"\n")):
            try:
                record, dropped = unpack(line)
                if dropped:
                    self.dropped += dropped
                    _logger.warning("%d log records of tasks were dropped: handlers are too slow for them", dropped)
                if record is not None:
                    self._hand_on(record)
            except BaseException:  # a handler or filter that raises, or exits
                with contextlib.suppress(BaseException):
                    _logger.exception("a log record of a task could not be handled")

    def _hand_on(self, record: logging.LogRecord) -> None:
        logger = logging.getLogger(record.name)
        if logger.isEnabledFor(record.levelno):
            if not hasattr(record, "task_label"):  # else a pool inside the task has given it one
                record.task_label = self.labels.get(getattr(record, "task_key", None))
            logger.handle(record)
