"""One slot that runs attempts: the half of it that the loop drives, and a thread for whatever takes its time.

While attempts run, the **loop** does all there is to do: it writes calls, reads outcomes, looks into the register.
None of that ever waits.  What does wait (starting a process, stopping and killing one, ending what a task has started)
is done by the lane's **thread**, which sleeps meanwhile (:mod:`.lane.keeper`).  A worker belongs to one of them at a
time: the loop hands it over with the order to end it, and gets it back if that comes late.

**Blame.**  Attempts have serials in their worker, and the register says which one has begun last.  What was sent ahead
and has not begun is charged to nobody.

Longer than 400 lines: it has a method for each order of the core, and they share the state of one worker.
"""

from __future__ import annotations

import pickle
import struct
import time
from typing import TYPE_CHECKING, Any

from resilient_exec.core.messages import Answered, AttemptEnded, Begun, ItemsEnded, LaneReady, Progress, TakenBack
from resilient_exec.lane.attempt import Attempt
from resilient_exec.lane.held import Holdings
from resilient_exec.lane.keeper import Keeper
from resilient_exec.lane.translation import call_parts, chunk_parts, failure_of, identities
from resilient_exec.model.packed import Batch, CallTimes, Packed
from resilient_exec.model.task import Returned
from resilient_exec.process import memory
from resilient_exec.wire import payload
from resilient_exec.wire.channel import END, ITEMS, ChannelLost, Frame, Kind
from resilient_exec.wire.items import load_joined, load_staged

if TYPE_CHECKING:
    from collections.abc import Callable

    from resilient_exec.core.messages import EndStart, EndStop, Kill, RaiseSoftTimeout, Send, TakeBack
    from resilient_exec.lane.held import Held
    from resilient_exec.lane.lease import Lease, WorkerSettings
    from resilient_exec.model.task import Outcome
    from resilient_exec.process.tree import Identity
    from resilient_exec.supervisor.event_loop import EventLoop

__all__ = ["LaneSettings", "LokyLane"]

_LOOK_INTERVAL = 0.5  # s, between two looks at the tree of an attempt without limits
_FIRST_LOOK = 0.02  # s, from a send until an attempt with a limit is looked at
_RETURNED = Kind.RETURNED  # to look it up in its class takes 0.2 us
_NEVER = float("inf")
_OUTCOMES = (Kind.RETURNED, Kind.RAISED, Kind.NOT_SENDABLE)


class LaneSettings:
    """What all lanes of a pool are made with.

    Attributes:
        worker: how their workers are made.
        stall_timeout: seconds without CPU and I/O after which an attempt is told to have stalled; ``None``: never.
        weigh: whether to tell what a worker holds after each attempt.
    """

    def __init__(self, worker: WorkerSettings, stall_timeout: float | None = None, *, weigh: bool = False) -> None:
        self.worker, self.stall_timeout, self.weigh = worker, stall_timeout, weigh


class LokyLane:
    """A lane on a loky executor with one worker.  ``loop`` is posted each fact; all methods are for its thread."""

    def __init__(self, number: int, loop: EventLoop, settings: LaneSettings) -> None:
        self.number = number
        self.settings = settings
        self.lease: Lease | None = None  # the worker, while the loop has it
        self.held = Holdings()  # what was sent, and has had no outcome
        self.is_ready = False  # the worker has said so
        self.is_stopping = False  # it was asked to end
        self.is_closing = False  # the lane itself is to end
        self.start_words = "its interpreter did not come up"
        self._loop = loop
        self.said, self.is_lasting = "", False  # the worker, of why it cannot start, and whether others cannot, either
        self.ending: AttemptEnded | None = None  # of one that is over, while what it has started is ended
        self._late: list[int] = []  # orders to be answered when that is done
        self._away: Lease | None = None  # the worker, while the thread has it, and may give it back
        self._postponed: list[Callable[[], object]] = []  # orders that came meanwhile
        self._end_start: int | None = None  # the order to end a start of which no process is there yet
        self._measured: Attempt | None = None
        self._strangers: frozenset[Identity] = frozenset()  # processes that earlier attempts have left
        self._tend_at = float("inf")
        self._keeper = Keeper(self, loop, settings.worker)

    # -- orders ------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start a worker; told by ``LaneReady`` or ``StartFailed``."""
        self.is_ready = self.is_stopping = False
        self._end_start, self.ending, self.said, self.is_lasting = None, None, "", False
        self._measured, self._strangers = None, frozenset()
        self._away = None
        self._postponed.clear()
        self.held.restart()
        self.start_words = "its interpreter did not come up"
        self._keeper.start()

    def send(self, send: Send) -> tuple[Any, int] | None:
        """Queue an attempt for the worker, for :meth:`flush` to write; where and how to take it back.

        Where the thread has the worker, as for a kill that came too late, that is done when it has given it back.
        """
        lease = self._away or self.lease
        if lease is None or not self.is_ready:
            return None  # the worker went meanwhile: the core is told, and takes the attempt back
        held = self.held.make(send.number, send.attempt, send.task)
        self._queue(lease, held)
        return lease.view, held.serial - send.number  # type: ignore[operator]

    def _queue(self, lease: Lease, held: Held) -> None:
        if self._away is not None:
            self._postponed.append(lambda: self._queue(lease, held))
            return
        self.held.append(held)
        task = held.task
        if not held.calls:
            lease.send_call(held.serial, *call_parts(task, held.attempt))
        else:
            lease.send(Kind.CHUNK, held.serial, *chunk_parts(task, held.attempt))
        if self._tend_at == _NEVER:
            looks_close = task.memory_limit is not None or self.settings.stall_timeout is not None
            self._tend_by(time.monotonic() + (_FIRST_LOOK if looks_close else _LOOK_INTERVAL))

    def flush(self) -> None:
        """Write what is queued, as far as the socket takes it; go on when it takes more."""
        lease = self.lease
        if lease is None or not lease.sending:
            return
        moved = lease.pump()
        if lease.sending != lease.is_watched_for_room:
            lease.is_watched_for_room = lease.sending
            self._loop.watch(lease.socket.fileno(), self._on_socket, write=lease.sending)
        if moved and lease.is_watched_for_room:
            lease.has_moved = True

    def look(self) -> None:
        """Tell what the worker is at."""
        lease = self.lease
        if lease is None or not self.is_ready:
            return
        # Before the channel is read, and what is staged: the outcomes of all before are in these.
        begun, ended = lease.view.begun_and_ended()
        at = lease.view.begun_at() - self._loop.zero
        self._read(lease)
        if self.lease is not lease:
            return
        self.take_staged(lease, self._loop.post)
        if lease.has_moved:
            lease.has_moved = False
            self._loop.post(Progress(self.number))
        held = self.held.head
        if held is not None and held.serial == begun != ended:
            self._loop.post(Begun(self.number, held.number, held.attempt, lease.pid or 0, at))

    def take_back(self, order: TakeBack) -> None:
        """Have those that have not begun never run here; told by ``TakenBack``."""
        if self._away is not None:
            self._postponed.append(lambda: self.take_back(order))
            return
        lease = self.lease
        if lease is None:
            return
        back = self.held.take_back(order.calls, lease.view)
        if back:
            self._loop.post(TakenBack(self.number, tuple(back)))

    def raise_soft_timeout(self, order: RaiseSoftTimeout) -> None:
        """Have ``SoftTimeout`` raised in that attempt; a late order does nothing."""
        if self._away is not None:
            self._postponed.append(lambda: self.raise_soft_timeout(order))
            return
        held = self.held.find(order.number, order.attempt, 0, 0)
        if self.lease is not None and held is not None:
            self.lease.raise_soft_timeout(held.serial)

    def kill(self, kill: Kill) -> None:
        """End that attempt by killing the worker's whole process tree; one that comes late is only answered."""
        if self._away is not None:
            self._postponed.append(lambda: self.kill(kill))
            return
        ending = self.ending
        if ending is not None and (ending.number, ending.attempt) == (kill.number, kill.attempt):
            self._late.append(kill.order)
        elif self.lease is None or self.find(self.lease, kill) is None:
            self._loop.post(Answered(self.number, kill.order))
        else:
            self._away = self._hand_over(self.lease)
            self._keeper.kill(self._away, kill)

    def end_start(self, order: EndStart) -> None:
        """End a start that takes too long."""
        if self.lease is not None and not self.is_ready:
            self._away = self._hand_over(self.lease)
            self._keeper.end_start(self._away, order.order)
        elif self.is_ready:
            self._loop.post(Answered(self.number, order.order))
        else:
            self._end_start = order.order
            self._keeper.is_wanted = False

    def end_stop(self, order: EndStop) -> None:
        """Kill the worker that does not end in peace."""
        if self.lease is not None:
            self._keeper.bury(self._hand_over(self.lease), "it did not end in peace")
        else:
            self._loop.post(Answered(self.number, order.order))

    def stop(self) -> None:
        """End the idle worker in peace; told by ``WorkerGone``."""
        if self._away is not None:
            self._postponed.append(self.stop)
        elif self.lease is not None and not self.held:
            self.is_stopping = True
            self.lease.end_in_peace()
            self.flush()

    def close(self) -> None:
        """End the worker, then the lane; told by ``LaneClosed``."""
        self.is_closing = True
        if self.lease is not None and self.is_ready and not self.held:
            self.stop()  # and the lane ends when the worker has
        else:
            self._keeper.is_wanted = False
            if self.lease is not None:
                self._keeper.discard(self._hand_over(self.lease))
            self._keeper.end()

    def abandon(self) -> None:
        """The lane does not answer: whatever it holds is killed from outside, and it will not be heard again."""
        self.is_closing = True
        if self.lease is not None:
            self._keeper.discard(self._hand_over(self.lease))
        self._keeper.abandon()

    def forget(self) -> None:
        """Its thread has ended, and nobody else ends a worker that is still there."""
        if self.lease is not None:
            self._hand_over(self.lease).close()

    def join(self, timeout: float) -> bool:
        """Wait for the lane's thread to end, at most ``timeout`` s; whether it has."""
        return self._keeper.join(timeout)

    # -- the worker changes hands ------------------------------------------------------------------------------------

    def listen(self, lease: Lease) -> None:
        """The thread gives a worker to the loop: a new one, or one whose kill came late."""
        self.lease, self._away = lease, None
        self._loop.watch(lease.socket.fileno(), self._on_socket, write=lease.sending)
        lease.is_watched_for_room = lease.sending
        if lease.watch is not None and lease.watch.fileno() >= 0:
            self._loop.watch(lease.watch.fileno(), self._on_death)
        elif lease.watch is not None:
            self._tend_by(time.monotonic() + (lease.watch.poll_interval or _LOOK_INTERVAL))
        if lease.capture is not None:
            self._tend_by(lease.capture.due)
        if self.held:
            self._tend_by(time.monotonic() + _FIRST_LOOK)
        if self._end_start is not None:
            order, self._end_start = self._end_start, None
            self._away = self._hand_over(lease)
            self._keeper.end_start(self._away, order)
        elif self.is_closing and not self.is_stopping:
            self._keeper.discard(self._hand_over(lease))
        else:
            self._do_what_was_postponed()

    def _do_what_was_postponed(self) -> None:
        postponed, self._postponed = self._postponed, []
        for order in postponed:  # which may hand the worker over again: the rest is postponed then, too
            order()
        self.flush()

    def _hand_over(self, lease: Lease) -> Lease:
        self._loop.unwatch(lease.socket.fileno())
        if lease.watch is not None:
            self._loop.unwatch(lease.watch.fileno())
        self.lease = None
        return lease

    # -- what comes from the worker ----------------------------------------------------------------------------------

    def _on_socket(self) -> None:
        lease = self.lease
        if lease is None:
            return
        self._read(lease)
        if self.lease is lease:
            if lease.hung_up:  # it is for ever ready, and would keep us awake: what is left is the worker's death
                self._loop.unwatch(lease.socket.fileno())
            else:
                self.flush()

    def _on_death(self) -> None:
        lease = self.lease
        if lease is None:
            return
        self._read(lease)
        if self.lease is lease:
            self._keeper.bury(self._hand_over(lease), "")

    def _read(self, lease: Lease) -> None:
        post = self._loop.post
        try:
            for frame in lease.frames():
                if frame.kind is _RETURNED:
                    self._take_outcome(lease, frame, post)
                else:
                    self.take(lease, frame, post)
                if self.lease is not lease:
                    return
        except ChannelLost as lost:
            self._keeper.bury(self._hand_over(lease), str(lost))

    def take(self, lease: Lease, frame: Frame, post: Callable[[Any], object]) -> None:
        """One message of the worker, wherever it was read; what follows from it for the core is given to ``post``."""
        kind = frame.kind
        if kind is Kind.HELLO:
            lease.has_said_hello, lease.stacks_fd = True, frame.serial
            self.start_words = self.settings.worker.preparation
        elif kind is Kind.READY:
            self.is_ready = True
            post(LaneReady(self.number, lease.pid or 0))
        elif kind is Kind.START_FAILED:
            self.said, self.is_lasting = bytes(frame.body).decode(errors="replace"), bool(frame.serial)
            if self.lease is lease:
                self._keeper.bury(self._hand_over(lease), "")
        elif kind in _OUTCOMES:
            self._take_outcome(lease, frame, post)
        elif kind is Kind.ITEMS:
            self._take_items(lease, frame, post)
        else:
            self._take_refusal(lease, frame, post)

    def _take_refusal(self, lease: Lease, frame: Frame, post: Callable[[Any], object]) -> None:
        held = self.held.of(frame.serial)
        if held is None:
            return
        if frame.kind is Kind.SKIPPED:
            post(TakenBack(self.number, (self.held.cut(held, frame.serial, 1 if held.bundled else 0),)))
        elif frame.kind is Kind.CROWDED and self.lease is lease:
            left = int(bytes(frame.body)) / 2**20
            self._keeper.bury(self._hand_over(lease), f"it still held {left:.0f} MiB of earlier tasks")

    def _take_outcome(self, lease: Lease, frame: Frame, post: Callable[[Any], object]) -> None:
        head = self.held.head
        if head is None or head.serial != frame.serial:
            return  # no message of ours, or about what was taken back
        first = head.at(frame.serial)
        self.held.advance(head)
        number, kind, body = self.number, frame.kind, frame.body
        began, ended, size = END.unpack_from(body)
        data = body[END.size + size :]  # a long one is a view already
        notes = pickle.loads(body[END.size : END.size + size]) if size else {}
        outcome: Outcome
        if kind is _RETURNED:
            outcome = Returned(Packed(data, payload.unpack_value))
        else:
            known = self._measured
            measured = known.measured() if known is not None and known.serial == first.serial else ((), 0)
            tails = (
                lease.capture.joined(first.serial, (notes["stdout"], notes["stderr"])) if lease.capture else ("", "")
            )
            outcome = failure_of(kind, data, notes, tails, measured)
        weight = memory.resident(lease.pid) if self.settings.weigh and lease.pid is not None else 0
        zero, unfit = self._loop.zero, notes.get("unfit", "")
        fact = AttemptEnded(number, first.number, first.attempt, outcome, weight, unfit, began - zero, ended - zero)
        if notes.get("children"):
            self.ending = fact
            self._keeper.end_started(lease, identities(notes["strangers"]), fact)
            return
        if "strangers" in notes or self._strangers:
            self._strangers = frozenset(identities(notes.get("strangers", ())))
            fact.unfit = fact.unfit or ("it has many zombies" if lease.has_many_zombies() else "")
        post(fact)

    def _take_items(self, lease: Lease, frame: Frame, post: Callable[[Any], object]) -> None:
        body, zero = frame.body, self._loop.zero
        began, ended, count, size, joined, timed = ITEMS.unpack_from(body)
        start = ITEMS.size + size
        words = bytes(body[ITEMS.size : start]).decode(errors="replace")
        times = None
        if timed:
            times = CallTimes(struct.unpack_from(f"<{count}d", body, start), ended, zero)
            start += 8 * count
        batch = Batch(bytes(body[start:]), load_joined if joined else load_staged, times, plain=joined)
        fact = self._items(lease, (frame.serial, count), batch, words)
        if fact is not None:
            fact.began, fact.ended = began - zero, ended - zero
            post(fact)

    def take_staged(self, lease: Lease, post: Callable[[Any], object]) -> None:
        """Take the results that the worker has and has not sent yet."""
        first, count, data = lease.view.staged()
        if count and (fact := self._items(lease, (first, count), Batch(data, load_staged))) is not None:
            post(fact)

    def _items(self, lease: Lease, first: tuple[int, int], batch: Batch, unfit: str = "") -> ItemsEnded | None:
        """Results have come: ``first``, the serial of the first of them, and their number.

        Those that were known, since they were staged, are not new.
        """
        serial, count = first
        head = self.held.head
        if head is None or not head.calls or serial > head.serial:
            return None  # no message of ours
        known = head.serial - serial
        new = max(0, min(count - known, head.calls))
        if not new and not unfit:
            return None
        weight = memory.resident(lease.pid) if self.settings.weigh and lease.pid is not None else 0
        fact = ItemsEnded(self.number, head.number, head.attempt, new, batch, known, weight)  # type: ignore[arg-type]
        fact.unfit = unfit
        if new:
            self.held.advance(head, new)
        return fact

    def end_of_attempt(self, fact: AttemptEnded) -> None:
        """What an attempt that raised had started is gone: now it is over, and the next may begin."""
        if self.ending is not fact:
            return  # its worker has died, and it was told then
        self.ending = None
        self._loop.post(fact)
        for order in self._late:
            self._loop.post(Answered(self.number, order))
        self._late.clear()
        if self.lease is not None:
            self.lease.send(Kind.GO_ON)
            self.flush()

    # -- looking at what runs ----------------------------------------------------------------------------------------

    def _tend_by(self, when: float) -> None:
        if when < self._tend_at:
            self._tend_at = when
            self._loop.tend_at(when)

    def tend(self, now: float) -> None:
        """Look at the worker, if it is time to."""
        if now < self._tend_at:
            self._loop.tend_at(self._tend_at)
            return
        self._tend_at = float("inf")
        lease = self.lease
        if lease is None:
            return
        if lease.watch is not None and lease.watch.fileno() < 0:
            if lease.is_gone():
                self._on_death()
                return
            self._tend_by(now + (lease.watch.poll_interval or _LOOK_INTERVAL))
        if lease.capture is not None:
            serial = lease.view.begun_and_ended()[0]
            lease.capture.look(now, serial, busy=bool(self.held) or not self.is_ready)
            self._tend_by(lease.capture.due)
        if self.held:
            self._measure(lease, now)

    def _measure(self, lease: Lease, now: float) -> None:
        held = self.running(lease)
        due = now + _FIRST_LOOK
        if held is not None and not (attempt := self.attempt_of(lease, held)).is_looked_at:
            found, attempt.is_looked_at = attempt.look(lease, closely=False)
            for fact in found:
                self._loop.post(fact)
            if attempt.is_looked_at:
                self._keeper.look_closely(lease, attempt)
            due = max(attempt.due, due)
        self._tend_by(due)

    def attempt_of(self, lease: Lease, held: Held) -> Attempt:
        """What measures that attempt."""
        known = self._measured
        if known is None or known.serial != held.serial:
            began = lease.view.begun_at() if lease.view.begun_and_ended()[0] == held.serial else time.monotonic()
            stall = self.settings.stall_timeout
            known = self._measured = Attempt(self.number, held, began, stall, self._strangers)
        return known

    def running(self, lease: Lease) -> Held | None:
        """What the register says has begun and not ended."""
        begun, ended = lease.view.begun_and_ended()
        held = self.held.of(begun) if begun != ended else None
        return held.at(begun) if held is not None else None

    def find(self, lease: Lease, kill: Kill) -> Held | None:
        """The attempt that is to be killed; of a chunk that is, the call under way."""
        return self.held.find(kill.number, kill.attempt, kill.calls, lease.view.begun_and_ended()[0])
