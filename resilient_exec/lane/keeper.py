"""The thread of a lane: starts its workers, kills them, buries them.  It sleeps while attempts run.

It is the only place where the parent waits for a worker, and the supervisor bounds that by giving the lane up.

**A kill** is: stop the worker, read what it has sent, and look again.  If the attempt has ended meanwhile, the
result has beaten the kill: let the worker run on.  If it is still the one that the kill names, take the stacks, kill
the tree, and read once more, because the worker ran for an instant while its stacks were taken.

**A death** is: read what was sent, then the register.  A whole outcome counts, however the process ended after it;
otherwise the attempt is charged if the register says that it had begun, and given back if not.
"""

from __future__ import annotations

import contextlib
import queue
import signal
import threading
from typing import TYPE_CHECKING, Any, Protocol

from resilient_exec.core.messages import Answered, Begun, LaneClosed, StartFailed, WorkerGone
from resilient_exec.lane.lease import Lease, WorkerSettings, end_marked
from resilient_exec.model.lasting import is_lasting
from resilient_exec.model.task import Died
from resilient_exec.process.exit_codes import is_lasting_end
from resilient_exec.supervisor.latch import mark_as_supervising
from resilient_exec.wire.channel import ChannelLost, Kind
from resilient_exec.worker.seat import STATUS_WORDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from resilient_exec.core.messages import AttemptEnded, Kill
    from resilient_exec.lane.attempt import Attempt
    from resilient_exec.lane.held import Held, Holdings
    from resilient_exec.process.tree import Identity
    from resilient_exec.supervisor.event_loop import EventLoop
    from resilient_exec.wire.channel import Frame

__all__ = ["Keeper"]

_STACKS_HEAD = "\nThe worker's Python stacks:\n"
_START_STACKS_TIMEOUT = 0.5  # s, for the stacks of a start that hangs


class Owner(Protocol):
    """The lane, as far as its thread has to do with it: what it does on the thread, while that has the worker."""

    number: int
    held: Holdings
    is_ready: bool
    is_closing: bool
    said: str
    is_lasting: bool  # why it cannot start will fail others, too
    start_words: str
    ending: AttemptEnded | None

    def listen(self, lease: Lease) -> None:
        """The loop is given the worker; called there."""

    def take(self, lease: Lease, frame: Frame, post: Callable[[Any], object]) -> None:
        """One message of the worker."""

    def take_staged(self, lease: Lease, post: Callable[[Any], object]) -> None:
        """Take the results that the worker has and has not sent yet."""

    def running(self, lease: Lease) -> Held | None:
        """What the register says has begun and not ended."""

    def find(self, lease: Lease, kill: Kill) -> Held | None:
        """The attempt that is to be killed."""

    def attempt_of(self, lease: Lease, held: Held) -> Attempt:
        """What measures that attempt."""

    def end_of_attempt(self, fact: AttemptEnded) -> None:
        """What an attempt had started is gone; called on the loop."""


class Keeper:
    """Does for ``lane`` what takes its time.  Public methods only post to the thread."""

    def __init__(self, lane: Owner, loop: EventLoop, settings: WorkerSettings) -> None:
        self.is_wanted = True  # the worker that is being started
        self._lane, self._loop, self._settings = lane, loop, settings
        self._orders: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._opening: Lease | None = None  # of which nobody else knows yet
        self._kept: Lease | None = None  # the last one
        self._abandoned = False
        name = f"resilient-lane-{lane.number}"
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        mark_as_supervising(self._thread)
        self._has_run = False

    # -- orders ------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start a worker, and have the loop listen to it."""
        self.is_wanted = True
        if not self._has_run:
            self._has_run = True
            self._thread.start()
        self._orders.put(self._start)

    def kill(self, lease: Lease, kill: Kill) -> None:
        """Kill that worker if it still runs that attempt."""
        self._orders.put(lambda: self._kill(lease, kill))

    def end_start(self, lease: Lease, order: int) -> None:
        """Kill that worker if it is still not ready."""
        self._orders.put(lambda: self._end_start(lease, order))

    def bury(self, lease: Lease, why: str) -> None:
        """End that worker, if it has not ended by itself, and tell what became of what it held."""
        self._orders.put(lambda: self._bury(lease, why))

    def discard(self, lease: Lease) -> None:
        """End that worker; nobody wants to know of it."""
        self._orders.put(lambda: self._discard(lease))

    def end_started(self, lease: Lease, strangers: Iterable[Identity], fact: AttemptEnded) -> None:
        """End what the attempt that is over has started, then tell that it is over."""
        self._orders.put(lambda: self._end_started(lease, frozenset(strangers), fact))

    def look_closely(self, lease: Lease, attempt: Attempt) -> None:
        """Measure an attempt in ways that take their time."""
        self._orders.put(lambda: self._look_closely(lease, attempt))

    def end(self) -> None:
        """End the thread behind what was ordered before; told by ``LaneClosed``."""
        if self._has_run:
            self._orders.put(None)
        else:
            self._loop.post(LaneClosed(self._lane.number))

    def abandon(self) -> None:
        """Kill from outside whatever it has; it ends when it comes back from where it hangs."""
        self._abandoned, self.is_wanted = True, False
        lease = self._opening or self._kept
        if lease is not None:
            reaper = threading.Thread(
                target=end_marked, args=(lease.mark, lease.spared()), name="resilient-reaper", daemon=True
            )
            reaper.start()
        self._orders.put(None)

    def join(self, timeout: float) -> bool:
        """Wait for the thread to end, at most ``timeout`` s; whether it has."""
        if self._has_run:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    # -- the thread --------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        failure: BaseException | None = None
        try:
            with self._settings.kept():
                ended = False
                while not (ended and (self._kept is None or self._abandoned)):
                    order = self._orders.get()
                    ended = ended or order is None
                    if order is not None:
                        order()
                    del order
                if self._kept is not None:
                    _end(self._kept)
        except BaseException as error:
            # Nothing here is expected to raise: whatever did, the task must not be lost with the lane.
            failure = error
        finally:
            if failure is not None and self._kept is not None:
                end_marked(self._kept.mark, self._kept.spared())
            self._loop.post(LaneClosed(self._lane.number, failure))

    def _start(self) -> None:
        try:
            lease = self._opening = Lease(self._settings)
            number = self._lane.number
            lease.open(is_wanted=lambda: self.is_wanted)
        except BaseException as error:
            # No process, no memory, no descriptor, an initializer that does not pickle: all one to the core.
            root = error.__context__ or error  # loky's own cleaning up may fail over it
            number = self._lane.number
            words = f"the start of a process raised {type(root).__name__}: {root}"
            opening, self._opening = self._opening, None
            if opening is not None:
                words += opening.said()
                _end(opening)
            lasting = is_lasting(root) or isinstance(root, FileNotFoundError) or getattr(root, "is_lasting", False)
            self._loop.post(StartFailed(number, words, lasting))
            return
        self._kept, self._opening = lease, None
        self._loop.post(lambda: self._lane.listen(lease))

    def _start_failed(self, lease: Lease, words: str, *, lasting: bool) -> None:
        words += lease.said()
        _end(lease)
        self._kept = None
        self._loop.post(StartFailed(self._lane.number, words, lasting))

    def _end_start(self, lease: Lease, order: int) -> None:
        lease.stop()
        facts, lost = self._read(lease)
        lane = self._lane
        if lane.is_ready:
            lease.resume()
            self._give_back(lease, *facts, Answered(lane.number, order))
            return
        self._post(facts)
        stacks = lease.take_stacks(_START_STACKS_TIMEOUT)
        known = lane.said or lost
        words = known or f"it took too long: {lane.start_words}{stacks and f'{_STACKS_HEAD}{stacks}'}"
        # The user's own initializer, or script, that needs longer than start_timeout will need that again.
        hangs = lease.has_said_hello and not known
        self._start_failed(lease, words, lasting=lane.is_lasting or hangs)

    def _kill(self, lease: Lease, kill: Kill) -> None:
        lane = self._lane
        lease.stop()
        facts, lost = self._read(lease)
        if lost:
            self._post(facts)
            self._bury(lease, lost)
            return
        held = lane.find(lease, kill)
        has_begun = held is not None and lease.view.begun_and_ended()[0] >= held.serial
        if held is None or (kill.unless_begun and has_begun):
            if held is not None:
                facts.append(Begun(lane.number, held.number, held.attempt, lease.pid or 0, self._began(lease)))
            lease.resume()
            self._give_back(lease, *facts, Answered(lane.number, kill.order))
            return
        self._post(facts)
        attempt = lane.attempt_of(lease, held)
        stacks = attempt.last_look(lease) if has_begun else ""
        self._gone(lease, "it was killed", stacks, attempt)

    def _give_back(self, lease: Lease, *facts: Any) -> None:
        # The worker first: a fact by which the core finds it free is followed by the next attempt, for which it must
        # be there.
        self._loop.post(lambda: self._lane.listen(lease))
        self._post(facts)

    def _post(self, facts: Iterable[Any]) -> None:
        for fact in facts:
            self._loop.post(fact)

    def _bury(self, lease: Lease, why: str) -> None:
        facts, _ = self._read(lease)
        self._post(facts)
        lane = self._lane
        if lane.is_ready:
            self._gone(lease, why)
            return
        if lane.said or why:
            self._start_failed(lease, lane.said or why, lasting=lane.is_lasting)
            return
        code = lease.kill()
        how = "" if code is None else f" (exit code {code})"
        why = STATUS_WORDS.get(code, lane.start_words)
        lasting = lease.has_said_hello and code not in STATUS_WORDS and is_lasting_end(code)
        self._start_failed(lease, f"it ended before it was ready{how}: {why}", lasting=lasting)

    def _gone(self, lease: Lease, why: str, stacks: str = "", attempt: Attempt | None = None) -> None:
        """End the worker, if it has not ended, with its tree; then say what became of the attempt that it ran."""
        lane = self._lane
        exitcode = lease.kill()
        facts, _ = self._read(lease)
        self._post(facts)
        guilty = lane.running(lease)
        gone = WorkerGone(lane.number, why=why)
        if guilty is not None:
            from_outside = not why and exitcode == -signal.SIGKILL and lease.pid is not None
            remark = lease.oom.verdict(lease.pid) if from_outside and lease.pid is not None else ""
            why = why or STATUS_WORDS.get(exitcode, "")
            if attempt is None or attempt.serial != guilty.serial:
                attempt = lane.attempt_of(lease, guilty)
            died = Died(exitcode, lease.pid, why, attempt.evidence(lease, stacks=stacks, remark=remark))
            at = self._began(lease)
            gone = WorkerGone(lane.number, guilty.number, guilty.attempt, died, why, at)
        if lane.ending is not None:  # what it had started is gone with the tree
            fact, lane.ending = lane.ending, None
            self._loop.post(fact)
        lane.held.clear()
        lane.is_ready = False
        self._kept = None
        self._loop.post(gone)  # all are dead: what is still to be given back, or removed, holds up nobody but this lane
        lease.close()
        if lane.is_closing:
            self._orders.put(None)

    def _began(self, lease: Lease) -> float:
        return lease.view.begun_at() - self._loop.zero

    def _read(self, lease: Lease) -> tuple[list[Any], str]:
        """Take what the worker has sent: the facts for the core; why it has to end, where it has sent no message."""
        facts: list[Any] = []
        try:
            for frame in lease.frames():
                if frame.kind is Kind.READY and lease.is_gone():
                    continue
                self._lane.take(lease, frame, facts.append)
            self._lane.take_staged(lease, facts.append)
        except ChannelLost as lost:
            return facts, str(lost)
        return facts, ""

    def _end_started(self, lease: Lease, strangers: frozenset[Identity], fact: AttemptEnded) -> None:
        if self._lane.ending is not fact:
            return  # its worker has died meanwhile
        lease.end_started(strangers)
        self._loop.post(lambda: self._lane.end_of_attempt(fact))

    def _discard(self, lease: Lease) -> None:
        self._kept = None
        _end(lease)

    def _look_closely(self, lease: Lease, attempt: Attempt) -> None:
        found: list[Any] = []
        with contextlib.suppress(OSError, ValueError):
            found, _ = attempt.look(lease, closely=True)
        for fact in found:
            self._loop.post(fact)
        attempt.is_looked_at = False


def _end(lease: Lease) -> None:
    lease.kill()
    lease.close()
