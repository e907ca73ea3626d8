"""The future of a task, and ``Settled``, the same as a plain record."""

from __future__ import annotations

import logging
import math
import threading
from concurrent.futures import Future
from concurrent.futures._base import CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED, PENDING, RUNNING
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from resilient_exec.model.dossier import Dossier, as_html
from resilient_exec.model.events import TaskStory
from resilient_exec.model.packed import Packed, Slice
from resilient_exec.model.progress import progress
from resilient_exec.model.summary import Summary, named, summary
from resilient_exec.model.task import Returned
from resilient_exec.supervisor.failures import error_of, internal_error, not_unpacked
from resilient_exec.supervisor.latch import Flag, Monitor

if TYPE_CHECKING:
    import queue
    from collections.abc import Callable, Hashable

    from resilient_exec.core.messages import Settle
    from resilient_exec.model.events import Event, Story
    from resilient_exec.supervisor.alike import Alike, Returns

__all__ = ["Overseer", "ResilientFuture", "made_of"]

_logger = logging.getLogger(__name__)
_PATIENCE = 0.05  # s, for a lock that a program may hold for long (`with future._condition`); then it is done without
_LONGEST_LINE = 200  # characters of an exception's text in a repr
_UNSETTLED = (PENDING, RUNNING)

T = TypeVar("T")


class Overseer(Protocol):
    """What a future asks of its pool's supervisor."""

    def cancelled(self, future: ResilientFuture[Any]) -> None:
        """The future was cancelled before its task was sent."""

    def kill(self, future: ResilientFuture[Any]) -> None:
        """The task is to end for good."""

    def story(self, number: int) -> tuple[Event, ...]:
        """The events of an unsettled task."""

    def call_back(self, future: ResilientFuture[Any]) -> None:
        """Run the future's done-callbacks, on a thread that holds up nobody."""

    def later(self, job: Callable[[], object]) -> None:
        """Have ``job()`` run on a thread that may wait."""

    def now(self) -> float:
        """Seconds on the clock of the events."""


class _Waiters(list[Any]):
    """The waiters of ``concurrent.futures.wait`` and ``as_completed``: they sleep on an ``Event`` that others set."""

    def append(self, waiter: Any) -> None:
        """Take one more; the locks of all futures that it waits for are held, so nobody sets its event meanwhile."""
        if isinstance(waiter.event, threading.Event):
            waiter.event = Flag()
        super().append(waiter)


class ResilientFuture(Future[T]):
    """A ``concurrent.futures.Future`` that also knows its attempts and its story, and can kill its task.

    Done-callbacks run on a thread of their own, never on one that supervises; so one may block, raise
    ``SystemExit``, submit to the pool or wait for another future.
    """

    _most: int | None = None  # attempts in all, where there is such a limit
    _done_callbacks: list[Callable[[Future[T]], object]]  # of the standard library; typeshed does not show it
    # These stand here until they are set: there may be a million futures, and one is made for each task.
    _result: Any = None
    _exception: BaseException | None = None
    _sent: tuple[Any, int] | None = None  # where, and by how much its serial there is more than its number
    _is_unwanted = False  # it is, or is just being, cancelled: whoever sends it in a bundle is to look
    _settled: Settle | None = None  # its outcome, until somebody asks for it
    _attempts = 0
    _elapsed = 0.0
    _story: Story | None = None
    _returns: Returns | None = None  # these three, of one that has returned in a bundle
    _alike: Alike | None = None  # what it has in common with others that may go in one bundle
    _sink: queue.SimpleQueue[ResilientFuture[T]] | None = None

    def __init__(
        self, key: Hashable, label: str, arguments: Summary | str | tuple[Any, ...], overseer: Overseer, number: int = 0
    ) -> None:
        # Not by Future.__init__, which would make a Condition first, to be thrown away.
        self._condition: Any = Monitor()  # a Ctrl-C inside its lock must not keep the supervisor from settling it
        self._waiters = _Waiters()  # nor one inside theirs
        self._state = PENDING
        self._done_callbacks = []
        self.key = key
        self.label = label
        self.number = number  # of the task in its pool
        self._arguments = arguments
        self._overseer = overseer

    @property
    def attempts(self) -> int:
        """How many attempts have begun so far."""
        return sum(event.kind == "begun" for event in self.story)

    @property
    def story(self) -> TaskStory:
        """The events of the task so far, in order.  ``print`` it."""
        if self._story is None and self._returns is None:
            live = self._overseer.story(self.number)
            if self._story is None and self._returns is None:  # else it has just settled
                return TaskStory(live)
        self._know_the_end()
        return TaskStory(self._story or ())

    def _know_the_end(self) -> None:
        """Make the story, the number of attempts and the time of a task that has returned in a bundle its own."""
        returns = self._returns
        if returns is not None:
            self._story, self._attempts, self._elapsed = returns.of(self.number)
            self._returns = None

    @property
    def dossier(self) -> Dossier:
        """The evidence about all attempts so far: reasons, stacks, last output, memory.  ``print`` it."""
        arguments = self._arguments
        text = summary(arguments, {}) if isinstance(arguments, tuple) else str(arguments)
        return Dossier.of(self.key, self.label, text, self.story)

    def __reduce__(self) -> Any:
        raise TypeError("a future cannot be pickled: send what it returns, future.result()")

    def cancel(self) -> bool:
        """Cancel the task if no attempt has begun yet.  One that runs is not (``False``): see :meth:`kill`."""
        with self._condition:
            if self._state in (CANCELLED, CANCELLED_AND_NOTIFIED):
                return True
            if self._state != PENDING:
                return False
            self._is_unwanted = True  # before the look at where it was sent: who sends it looks in the other order
            if self._has_begun():
                self._is_unwanted = False
                return False
            self._state = CANCELLED
            self._condition.notify_all()
        self._invoke_callbacks()
        self._overseer.cancelled(self)
        return True

    def _has_begun(self) -> bool:
        """Whether it has begun where it was sent to; if not, it never will."""
        sent = self._sent
        if sent is not None and not sent[0].take_back_one(self.number + sent[1]):
            self._state = RUNNING
            return True
        return False

    def running(self) -> bool:
        """Whether an attempt has begun, and the task is not done."""
        sent = self._sent
        if self._state != PENDING or sent is None:
            return super().running()
        return bool(sent[0].has_begun(self.number + sent[1]))

    def result(self, timeout: float | None = None) -> T:
        """As the standard library's.  The value is unpickled by whoever asks first, in that thread."""
        try:
            if self._state != FINISHED:
                super().exception(timeout)  # waits, and raises what there is to raise about that
            if self._settled is not None:
                self._resolve()
            if self._exception is not None:
                raise self._exception
            value: T = self._result
            return value
        finally:
            del self  # or the traceback of an exception, which is kept here, would lead back here

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """As the standard library's.  Value and exception are unpickled by whoever asks first, in that thread."""
        if self._state != FINISHED:
            super().exception(timeout)
        self._resolve()
        return self._exception

    def _get_snapshot(self) -> Any:
        # Python 3.14 asks here, without the lock, for what it would copy to a future of asyncio.
        self._resolve()
        return super()._get_snapshot()  # type: ignore[misc]

    def _resolve(self) -> None:
        """Make the value or the exception of what has come; no lock is held while the user's code is run for it."""
        settled = self._settled
        if settled is None:
            return
        value, error = self._made_of(settled)
        with self._condition:
            if self._settled is settled:
                self._result, self._exception, self._settled = value, error, None

    def _made_of(self, settled: Settle) -> tuple[Any, BaseException | None]:
        return made_of(settled, lambda: self.dossier)

    def kill(self) -> None:
        """End the task for good, whatever it is doing: it settles with ``TaskKilled``, unless it has just ended.

        A waiting task ends at once.  A running one loses its worker, by SIGKILL, with all processes that it started.
        It is not tried again.  Returns at once; wait for the future to see it done.
        """
        if not self.done():
            self._overseer.kill(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {named(self.key)} {self._progress()}>"

    def _progress(self) -> str:
        if self._state in (CANCELLED, CANCELLED_AND_NOTIFIED):  # before the supervisor knows
            return "cancelled"
        return progress(self.story, self._overseer.now(), self._most)

    def _repr_html_(self) -> str:
        """What a notebook shows: the state, and the dossier."""
        return f"<div>{as_html(repr(self))}{self.dossier._repr_html_()}</div>"

    def add_done_callback(self, fn: Callable[[Future[T]], object]) -> None:
        """Have ``fn(future)`` called when the future is done: at once, in this thread, if it is."""
        try:
            super().add_done_callback(fn)
        except KeyboardInterrupt:
            raise
        except BaseException:  # SystemExit, too: it must not depend on the speed of the task whether that ends a thread
            _logger.exception("a done-callback raised")

    # -- for the supervisor --------------------------------------------------------------------------------------------

    def _give_to(self, send: Callable[[Any], tuple[Any, int] | None], order: Any) -> bool:
        """Have an attempt sent by ``send(order)``, unless nobody wants it any more; from then on its begin decides."""
        condition = self._condition
        has_lock = condition.take(_PATIENCE)
        try:
            if self._state not in (PENDING, RUNNING):
                return False
            if order.attempt > 1:  # one has begun, even if nobody saw it before its worker died: too late to cancel
                self._state = RUNNING
            self._sent = send(order)
            return True
        finally:
            if has_lock:
                condition.give_back()

    def _is_still_wanted(self) -> bool:
        """Whether it has not been cancelled, once who may be just about to cancel it has done so or not."""
        condition = self._condition
        if not condition.take(_PATIENCE):
            return False  # for now
        try:
            if self._state in (PENDING, RUNNING):
                self._is_unwanted = False
            return not self._is_unwanted
        finally:
            condition.give_back()

    def _note_begun(self) -> None:
        """It has begun: from here on it is not cancelled any more."""
        condition = self._condition
        has_lock = condition.take(_PATIENCE)
        if self._state == PENDING:
            self._state = RUNNING
        if has_lock:
            condition.give_back()

    def _note_taken_back(self) -> None:
        """It will not run where it was sent to: until it is sent again, no worker is asked whether it has begun."""
        self._sent = None

    def _settle(self, settled: Settle, patience: float = _PATIENCE) -> None:
        """The task is over, and this has become of it.  Where the program holds the lock, that is done when it is free.

        Called once by the supervisor.
        """
        self._attempts, self._elapsed, self._story = settled.attempts, settled.elapsed, settled.story
        condition = self._condition
        if not condition.take(patience):
            self._overseer.later(lambda: self._settle(settled, math.inf))
            return
        try:
            self._sent = None
            is_new = self._state in (PENDING, RUNNING)  # else it was cancelled, or set by its holder
            if is_new and settled.outcome is not None:
                self._settled = settled
                self._state = FINISHED
                for waiter in self._waiters:
                    if isinstance(settled.outcome, Returned):
                        waiter.add_result(self)
                    else:
                        waiter.add_exception(self)
                condition.notify_all()
            elif is_new:
                self._state = CANCELLED
                condition.notify_all()
            if self._state == CANCELLED:  # those who wait in `wait` and `as_completed` are not woken by that alone
                self.set_running_or_notify_cancel()
        finally:
            condition.give_back()
        if is_new:
            self._invoke_callbacks()

    def _return(self, value: Any, returns: Returns, patience: float = _PATIENCE) -> None:
        """The task has returned that in a bundle: as :meth:`_settle`, for what is known to need no unpickling."""
        condition = self._condition
        if not condition.take(patience):
            self._overseer.later(lambda: self._return(value, returns, math.inf))
            return
        self._sent, self._returns, is_new = None, returns, self._state in _UNSETTLED
        if is_new:
            self._result, self._state = value, FINISHED
            if self._waiters:
                for waiter in self._waiters:
                    waiter.add_result(self)
            condition.notify_all()
        elif self._state == CANCELLED:
            self.set_running_or_notify_cancel()
        condition.give_back()
        if is_new and (self._done_callbacks or self._sink is not None):
            self._invoke_callbacks()

    def _invoke_callbacks(self) -> None:
        # The standard library calls this at the end of cancel(), set_result() and set_exception(), in whose thread
        # a user's callback must not run.
        if self._sink is not None:
            self._sink.put(self)
        if self._done_callbacks:
            self._overseer.call_back(self)

    def _run_callbacks(self, report: Callable[[BaseException], object]) -> None:
        for callback in self._done_callbacks:
            try:
                callback(self)
            except BaseException as error:  # SystemExit in a callback ends neither the thread nor the process
                report(error)

    def _on_done(self, sink: queue.SimpleQueue[ResilientFuture[T]]) -> None:
        """Have the future put into ``sink`` when it is done: as a callback, but without a user's code in between."""
        with self._condition:
            if self._state in (PENDING, RUNNING):
                self._sink = sink
                return
        sink.put(self)


def made_of(settled: Settle, dossier: Callable[[], Dossier]) -> tuple[Any, BaseException | None]:
    """The value of a task that has settled, or its exception, unpickled now."""
    outcome = settled.outcome
    try:
        if isinstance(outcome, Returned):
            value = outcome.value
            return (value.unpack() if isinstance(value, Packed | Slice) else value), None
        return None, error_of(settled, dossier())
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit, too: asking for a result is no exit
        try:
            return None, not_unpacked(settled, error, dossier())
        except Exception as worse:  # whatever it was that could not be told: the task has settled
            return None, internal_error(settled.task, worse, settled.story)
