"""One slot that runs attempts: a thread that owns one worker at a time.

The thread is the only one that touches its worker.  Everybody else posts: the supervisor an order (and rings the
bell), the kernel a death (the pidfd turns readable), the worker a frame (the socket does).  The thread waits for all
three at once, in one ``poll``, and never in anything else, with two exceptions that the supervisor bounds by giving
the lane up: loky's start of a process, and the unpickling of a result.

**A kill** is: stop the worker, read what it has sent, and look again.  If the attempt has ended meanwhile, the
result has beaten the kill: let the worker run on.  If it is still the one that the kill names, take the stacks, kill
the tree, and read once more, because the worker ran for an instant while its stacks were taken.

**A death** is: read what was sent, then the register.  A whole outcome counts, however the process ended after it;
otherwise the attempt is charged if the register says that it had begun, and given back if not.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import select
import signal
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from resilient_exec.core.messages import (
    AttemptEnded,
    Begun,
    Kill,
    LaneClosed,
    LaneReady,
    Progress,
    RaiseSoftTimeout,
    Send,
    StartFailed,
    Stimulus,
    WorkerGone,
)
from resilient_exec.lane.attempt import PROGRESS_INTERVAL, Attempt
from resilient_exec.lane.lease import Lease, WorkerSettings, end_marked
from resilient_exec.lane.wakeup import Bell
from resilient_exec.model.task import Died
from resilient_exec.wire.channel import ChannelLost, Frame, Kind
from resilient_exec.worker.main import STATUS_WORDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from resilient_exec.core.lane_port import Parcel

__all__ = ["LaneSettings", "LokyLane"]

_logger = logging.getLogger(__name__)

_STACKS_HEAD = "\nThe worker's Python stacks:\n"
_START_STACKS_TIMEOUT = 0.5  # s, for the stacks of a start that hangs


@dataclass(frozen=True)
class LaneSettings:
    """What all lanes of a pool are made with.

    Attributes:
        worker: how their workers are made.
        stall_timeout: seconds without CPU and I/O after which an attempt is told to have stalled; ``None``: never.
        weigh: whether to tell what a worker holds after each attempt.
    """

    worker: WorkerSettings = WorkerSettings()  # noqa: RUF009  frozen
    stall_timeout: float | None = None
    weigh: bool = False


class LokyLane:
    """A lane on a loky executor with one worker.  ``post`` is called, from this lane's thread, with each fact."""

    def __init__(
        self,
        number: int,
        post: Callable[[Stimulus], None],
        settings: LaneSettings = LaneSettings(),
    ) -> None:
        self.number = number
        self._post = post
        self._settings = settings
        self._orders: collections.deque[Callable[[], None]] = collections.deque()
        self._bell = Bell()
        self._lease: Lease | None = None
        self._ready = False  # the worker has said so
        self._stopping = False  # it was asked to end
        self._closing = False  # the lane itself is to end
        self._ended = False
        self._current: Attempt | None = None
        self._serial = 0  # of the last attempt in this worker
        self._start_words = "its interpreter did not come up"
        self._thread = threading.Thread(target=self._run, name=f"resilient-lane-{number}", daemon=True)
        self._started = False

    # -- from any thread: none of these blocks ----------------------------------------------------------------------

    def start(self) -> None:
        """Start a worker; told by ``LaneReady`` or ``StartFailed``."""
        if not self._started:
            self._started = True
            self._thread.start()
        self._order(self._start)

    def send(self, send: Send, parcel: Parcel) -> None:
        """Have the worker run an attempt; told by ``Begun``, then ``AttemptEnded`` or ``WorkerGone``."""
        self._order(lambda: self._send(send, parcel))

    def raise_soft_timeout(self, order: RaiseSoftTimeout) -> None:
        """Have ``SoftTimeout`` raised in that attempt; a late order does nothing."""
        self._order(lambda: self._raise_soft_timeout(order))

    def kill(self, kill: Kill) -> None:
        """End that attempt, or the start, or the stop; a late kill does nothing."""
        self._order(lambda: self._kill(kill))

    def stop(self) -> None:
        """End the idle worker in peace; told by ``WorkerGone``."""
        self._order(self._stop)

    def close(self) -> None:
        """End the worker, then the lane; told by ``LaneClosed``."""
        self._order(self._close)

    def abandon(self) -> None:
        """Kill whatever the lane holds from outside; its thread ends when it comes back from where it hangs."""
        self._closing = self._ended = True
        lease = self._lease
        if lease is not None:
            reaper = threading.Thread(target=end_marked, args=(lease.mark,), name="resilient-reaper", daemon=True)
            reaper.start()
        self._bell.ring()

    def join(self, timeout: float) -> bool:
        """Wait for the lane's thread to end, at most ``timeout`` s; whether it has."""
        if self._started:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _order(self, order: Callable[[], None]) -> None:
        self._orders.append(order)
        self._bell.ring()

    # -- the thread ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            with self._settings.worker.kept():
                try:
                    while not self._ended:
                        self._turn()
                finally:
                    self._end_lease(kill=True)
        except BaseException:
            # Nothing here is expected to raise: whatever did, the task must not be lost with the lane.
            _logger.exception("lane %d failed; please report this", self.number)
        finally:
            self._bell.close()
            self._post(LaneClosed(self.number))

    def _turn(self) -> None:
        ready = self._wait()
        if self._bell.fileno() in ready:
            self._bell.hush()
        while self._orders and not self._ended:
            self._orders.popleft()()
        lease = self._lease
        if lease is None:
            return
        if lease.sending:
            self._pump(lease)
        if lease.socket.fileno() in ready:
            self._read(lease)
        if self._lease is lease and self._death_is_told(lease, ready):
            self._worker_died(lease)
        else:
            self._look(lease, time.monotonic())

    def _look(self, lease: Lease, now: float) -> None:
        current = self._current
        if lease.capture is not None:
            lease.capture.look(now, busy=current is not None or not self._ready)
        if current is not None and now >= current.due:
            for finding in current.look(lease):
                self._post(finding)

    def _next_look(self, lease: Lease) -> float | None:
        dues = [one.due for one in (self._current, lease.capture) if one is not None]
        return max(0.0, min(dues) - time.monotonic()) if dues else None

    @staticmethod
    def _death_is_told(lease: Lease, ready: set[int]) -> bool:
        pidfd = lease.watch.fileno() if lease.watch is not None else -1
        return pidfd in ready if pidfd >= 0 else lease.is_gone()

    def _wait(self) -> set[int]:
        """Wait for an order, a frame, room to write, a death, or the time to look at the tree."""
        poller = select.poll()
        poller.register(self._bell.fileno(), select.POLLIN)
        timeout = None
        lease = self._lease
        if lease is not None:
            if lease.sending or not lease.hung_up:  # what has hung up is for ever ready, and would keep us awake
                poller.register(lease.socket, select.POLLIN | (select.POLLOUT if lease.sending else 0))
            if lease.watch is not None:
                if lease.watch.fileno() >= 0:
                    poller.register(lease.watch.fileno(), select.POLLIN)
                timeout = lease.watch.poll_interval
            waits = [wait for wait in (timeout, self._next_look(lease)) if wait is not None]
            timeout = min(waits, default=None)
        if self._orders:
            timeout = 0.0
        return {fd for fd, _ in poller.poll(None if timeout is None else timeout * 1000 + 1)}

    # -- orders ----------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        if self._lease is not None:
            return
        self._ready = self._stopping = False
        self._serial = 0
        self._start_words = "its interpreter did not come up"
        try:
            self._lease = Lease(self._settings.worker)
            self._lease.open(is_wanted=lambda: not self._orders)
        except BaseException as error:
            # No process, no memory, no descriptor, an initializer that does not pickle: all one to the core.
            root = error.__context__ or error  # loky's own cleaning up may fail over it
            self._start_failed(f"the start of a process raised {type(root).__name__}: {root}")

    def _start_failed(self, words: str) -> None:
        said = self._lease.said() if self._lease is not None else ""
        self._end_lease(kill=True)
        self._post(StartFailed(self.number, words + said))

    def _send(self, send: Send, parcel: Parcel) -> None:
        lease = self._lease
        if lease is None or not self._ready:
            return  # the worker went meanwhile; the core has been told, and has taken the attempt back
        attempt = Attempt(send, parcel, self._serial + 1, self._settings.stall_timeout)
        attempt.look_around(lease)
        if attempt.is_crowded:
            self._gone(lease, f"it still held {attempt.found / 2**20:.0f} MiB of earlier tasks")
            return
        self._serial += 1
        self._current = attempt
        if lease.capture is not None:
            lease.capture.clear()
        lease.send(Kind.ATTEMPT, self._serial, *self._current.frame())
        lease.pump()

    def _raise_soft_timeout(self, order: RaiseSoftTimeout) -> None:
        current = self._current
        if self._lease is not None and current is not None and current.is_called(order.key, order.attempt):
            self._lease.raise_soft_timeout(current.serial)

    def _stop(self) -> None:
        lease = self._lease
        if lease is None or self._current is not None:
            return
        self._stopping = True
        lease.end_in_peace()

    def _close(self) -> None:
        self._closing = True
        if self._lease is not None and self._ready and self._current is None:
            self._stop()
        else:
            self._ended = True  # if it is still starting: `_run` kills what there is

    def _kill(self, kill: Kill) -> None:
        lease = self._lease
        if lease is None:
            return
        if kill.key is None:
            self._kill_start_or_stop(lease)
        elif self._current is not None and self._current.is_called(kill.key, kill.attempt):
            self._kill_attempt(lease, unless_begun=kill.unless_begun)

    def _kill_start_or_stop(self, lease: Lease) -> None:
        if self._stopping:
            self._gone(lease, "it did not end in peace")
        elif not self._ready:
            lease.stop()
            self._read(lease)
            if self._lease is not lease or self._ready:  # it has just said that it is ready, or that it never will be
                lease.resume()
                return
            stacks = lease.take_stacks(_START_STACKS_TIMEOUT)
            self._start_failed(f"it took too long: {self._start_words}{stacks and f'{_STACKS_HEAD}{stacks}'}")

    def _kill_attempt(self, lease: Lease, *, unless_begun: bool) -> None:
        lease.stop()
        self._read(lease)
        if self._lease is not lease:
            return
        has_begun = lease.begun_and_ended()[0] == self._serial
        if self._current is None or (unless_begun and has_begun):
            lease.resume()
            return
        stacks = self._current.last_look(lease) if has_begun else ""
        self._gone(lease, "it was killed", stacks)

    # -- what comes from the worker --------------------------------------------------------------------------------

    def _pump(self, lease: Lease) -> None:
        current = self._current
        if lease.pump() and current is not None and time.monotonic() >= current.progress_at:
            current.progress_at = time.monotonic() + PROGRESS_INTERVAL
            self._post(Progress(self.number))

    def _read(self, lease: Lease) -> None:
        try:
            for frame in lease.frames():
                self._take(lease, frame)
                del frame
                if self._lease is not lease:
                    return
        except ChannelLost as lost:
            if self._ready:
                self._gone(lease, str(lost))
            else:
                self._start_failed(str(lost))

    def _take(self, lease: Lease, frame: Frame) -> None:
        kind = frame.kind
        if kind is Kind.HELLO:
            lease.stacks_fd = frame.serial
            self._start_words = self._settings.worker.preparation
        elif kind is Kind.READY:
            self._ready = True
            self._post(LaneReady(self.number, lease.pid or 0))
        elif kind is Kind.START_FAILED:
            self._start_failed(bytes(frame.body).decode(errors="replace"))
        elif self._current is None or frame.serial != self._serial:
            return
        elif kind is Kind.BEGUN:
            self._post(Begun(self.number, self._current.key, self._current.attempt, lease.pid or 0))
        else:
            outcome = self._current.outcome(lease, kind, frame.body)
            if kind is not Kind.RETURNED:
                # It may be tried again, and what it has started must not run beside its next attempt.
                lease.end_started_since(self._current.sent_at)
            current, self._current = self._current, None
            held = current.memory(lease) if self._settings.weigh else 0
            ended = AttemptEnded(self.number, current.key, current.attempt, outcome, held)
            ended.unfit = lease.has_many_zombies()
            self._post(ended)

    def _worker_died(self, lease: Lease) -> None:
        self._read(lease)
        if self._lease is not lease:
            return
        if self._ready:
            self._gone(lease, "")
            return
        code = lease.kill()
        how = "" if code is None else f" (exit code {code})"
        why = STATUS_WORDS.get(code, self._start_words)
        self._start_failed(f"it ended before it was ready{how}: {why}")

    def _gone(self, lease: Lease, why: str, stacks: str = "") -> None:
        """End the worker, if it has not ended, with its tree; then say what became of the attempt that it held."""
        exitcode = lease.kill()
        self._read_last(lease)
        current, self._current = self._current, None
        gone = WorkerGone(self.number, why=why)
        if current is not None and lease.begun_and_ended()[0] == self._serial:
            from_outside = not why and exitcode == -signal.SIGKILL and lease.pid is not None
            remark = lease.oom.verdict(lease.pid) if from_outside and lease.pid is not None else ""
            why = why or STATUS_WORDS.get(exitcode, "")
            died = Died(exitcode, lease.pid, why, current.evidence(lease, stacks=stacks, remark=remark))
            gone = WorkerGone(self.number, current.key, current.attempt, died, why)
        self._lease, self._ready = None, False
        self._post(gone)  # all are dead: what is still to be given back, or removed, holds up nobody but this lane
        lease.close()
        if self._closing:
            self._ended = True

    def _read_last(self, lease: Lease) -> None:
        """What the dead worker had still sent: a whole outcome counts."""
        with contextlib.suppress(ChannelLost):
            for frame in lease.frames():
                if frame.kind not in (Kind.READY, Kind.START_FAILED):
                    self._take(lease, frame)

    def _end_lease(self, *, kill: bool) -> None:
        lease, self._lease = self._lease, None
        self._ready = False
        if lease is not None:
            if kill:
                lease.kill()
            lease.close()
