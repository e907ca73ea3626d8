"""Where the user's code runs in the parent: done-callbacks and observers, each on threads that supervise nothing.

So a callback that waits for another future, and an observer that prints to a stdout which nobody reads, delay no
lane.  Both are fed by queues that the supervisor never waits for.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from typing import TYPE_CHECKING, Any

from resilient_exec.model.dossier import users_frames
from resilient_exec.model.summary import named

if TYPE_CHECKING:
    from collections.abc import Callable

    from resilient_exec.model.events import Event
    from resilient_exec.model.ports import Observer
    from resilient_exec.supervisor.future import ResilientFuture

__all__ = ["Notifier", "ObserverThread", "warn_of_stalls"]

_logger = logging.getLogger(__name__)

_BACKLOG = 10_000  # events kept for an observer that is behind
_STUCK = 1.0  # s in one callback, after which others no longer wait for it
_TEND_AGAIN = 0.05  # s, between two looks while the last callbacks are waited for
_MOST_THREADS = 32  # callbacks that block at the same time; beyond this the others wait after all


class Notifier:
    """Runs what is the user's code: done-callbacks in the order in which their futures were settled, retry strategies.

    One thread does so, started at the first of them.  Where all threads have been inside a callback for a second
    while others wait, one more is started: a callback that blocks for ever blocks no other.
    """

    def __init__(self, name: str = "resilient-callbacks", most: int = _MOST_THREADS) -> None:
        self._name, self._most = name, most
        self._queue: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._since: dict[int, float] = {}  # by thread: when the callbacks that it is inside of began
        # Held for moments, and never while a user's code runs; but a signal handler may settle a future in between.
        self._lock = threading.RLock()

    def post(self, future: ResilientFuture[Any]) -> None:
        """Have the callbacks of a future that is done run soon."""
        self.run(lambda: future._run_callbacks(_report))

    def run(self, job: Callable[[], object]) -> None:
        """Have ``job()`` run soon."""
        self._queue.put(job)
        if not self._threads:
            self.tend()

    @property
    def behind(self) -> bool:
        """Whether callbacks wait; then :meth:`tend` wants to be called now and then."""
        return not self._queue.empty()

    def tend(self) -> None:
        """Start a thread if callbacks wait and all threads are stuck."""
        with self._lock:
            stuck = time.monotonic() - _STUCK
            busy = list(self._since.values())
            all_stuck = len(busy) == len(self._threads) and all(since < stuck for since in busy)
            if self.behind and all_stuck and len(self._threads) < self._most:
                thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._threads.append(thread)
                try:
                    thread.start()
                except RuntimeError:  # no thread to be had (Python 3.12.0 and .1 give none at exit): see `join`
                    self._threads.remove(thread)

    def _run(self) -> None:
        me = threading.get_ident()
        while (job := self._queue.get()) is not None:
            self._since[me] = time.monotonic()
            _run_job(job)
            del job, self._since[me]
        self._queue.put(None)  # for the next thread

    def close(self) -> None:
        """Take no more; what is queued is still run."""
        self._queue.put(None)

    def finish(self, timeout: float) -> None:
        """Behind ``close``: go on tending, at most ``timeout`` s, while callbacks wait behind some that block."""
        deadline = time.monotonic() + timeout
        while self._queue.qsize() > 1 and time.monotonic() < deadline:  # one is the word to end
            self.tend()
            time.sleep(_TEND_AGAIN)

    def join(self, timeout: float) -> None:
        """Behind ``close``: wait for the callbacks to end, at most ``timeout`` s (and not from inside one)."""
        deadline = time.monotonic() + timeout
        while any(thread.is_alive() for thread in self._threads) and time.monotonic() < deadline:
            self.tend()
            for thread in list(self._threads):
                if thread is threading.current_thread():
                    return
                thread.join(min(0.1, max(0.0, deadline - time.monotonic())))
        if not self._threads:
            self._run_here()  # no thread could be started

    def _run_here(self) -> None:
        """Run what waits ahead of the word to end; without waiting, as a Ctrl-C may have kept that from coming back."""
        with contextlib.suppress(queue.Empty):
            while (job := self._queue.get_nowait()) is not None:
                _run_job(job)
                del job
            self._queue.put(None)


def _run_job(job: Callable[[], object]) -> None:
    try:
        job()
    except BaseException as error:  # SystemExit ends neither the thread nor the process
        _report(error)


def _report(error: BaseException) -> None:
    _logger.error("a done-callback raised", exc_info=error)


class ObserverThread:
    """Feeds one observer.  One that raises is logged and dropped; what it is too slow for is counted and dropped."""

    def __init__(self, observer: Observer) -> None:
        self.dropped = 0
        self._observer: Observer | None = observer
        self._queue: queue.Queue[Event | None] = queue.Queue(_BACKLOG)
        self._thread = threading.Thread(target=self._run, name="resilient-observer", daemon=True)
        self._thread.start()

    def tell(self, event: Event) -> None:
        """Pass the event on, or count it as dropped; never waits."""
        if self._observer is None:
            return
        try:
            self._queue.put_nowait(event)
        except queue.Full:
            self.dropped += 1

    def _run(self) -> None:
        while (event := self._queue.get()) is not None:
            observer = self._observer
            if observer is None:
                return
            try:
                observer(event)
            except BaseException as error:
                _logger.exception("the observer %r raised, and is told nothing more", observer, exc_info=error)
                self._observer = None
                return

    def close(self) -> None:
        """Let it end behind what is queued."""
        try:
            self._queue.put_nowait(None)
        except queue.Full:
            self._observer = None  # hopelessly behind: it ends when it comes back

    def join(self, timeout: float) -> None:
        """Wait for it to end, at most ``timeout`` s."""
        if self._thread is not threading.current_thread():
            self._thread.join(timeout)


def warn_of_stalls(event: Event) -> None:
    """An observer: puts a warning into the log for each attempt that has stalled."""
    if event.kind == "stalled":
        where = users_frames(event.evidence.stacks).rstrip() or event.evidence.remark
        _logger.warning(
            "task %s, attempt %d, has used no CPU and done no I/O for %.3g s; it stands at:\n%s",
            named(event.key),
            event.attempt,
            event.detail["idle"],
            where,
        )
