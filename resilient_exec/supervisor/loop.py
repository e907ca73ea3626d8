"""One thread, one loop: takes what has come from callers and workers, asks the core, performs its commands in order.

It alone drives the core, so no decision is ever taken on somebody else's thread.  In one turn it reads what all workers
have sent, handles what has been posted, judges the deadlines, and writes what follows: to each worker at most once.
It waits for nothing but that, with a deadline wherever the core has one; what takes its time is done by the threads of
the lanes, what is the user's own code by those of :mod:`.callbacks`.

**A parent that was stopped** for 3 s (Ctrl-Z) must not find on waking that every deadline has passed: what has arrived
meanwhile is handled first, and attempts get that time back, once each.  One that was only busy (a long pickling under
the GIL) does not: deadlines count from the true begin.

**If the loop itself fails**, every unsettled task settles with an ``InternalError`` that carries its story, and
every worker is killed: a bug here must be loud, and must not hang anybody.

Longer than 400 lines: it is one loop, with a method for each command and for each step of its turn.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from resilient_exec.core.chunks import has_default_key
from resilient_exec.core.machine import Core
from resilient_exec.core.messages import (
    Abandon,
    AskPolicy,
    Begun,
    CancelAsked,
    CloseLane,
    EndStart,
    EndStop,
    Finish,
    Kill,
    KillAsked,
    Lagged,
    LaneClosed,
    LaneReady,
    Look,
    PolicyAnswered,
    RaiseSoftTimeout,
    ResultsDiffer,
    Send,
    Settle,
    ShutdownAsked,
    StartFailed,
    StartWorker,
    Stimulus,
    StopWorker,
    Submitted,
    TakeBack,
    TakenBack,
    TimePassed,
)
from resilient_exec.model.errors import InternalError, PoolClosed
from resilient_exec.model.events import Event, Story, pids_of_ended
from resilient_exec.model.summary import named
from resilient_exec.supervisor.bundling import task_of
from resilient_exec.supervisor.callbacks import Notifier, ObserverThread
from resilient_exec.supervisor.clock import LagWatch
from resilient_exec.supervisor.event_loop import EventLoop
from resilient_exec.supervisor.failures import internal_error
from resilient_exec.supervisor.future import ResilientFuture
from resilient_exec.supervisor.latch import Latch, mark_as_supervising

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from resilient_exec.core.lane_port import Lane
    from resilient_exec.core.states import Limits
    from resilient_exec.model.ports import Failure, Observer, Policy
    from resilient_exec.model.task import NotSent, Task
    from resilient_exec.supervisor.memory_guard import Pressure

__all__ = ["Supervisor"]

_logger = logging.getLogger(__name__)
_DID_NOT_END = (
    "the worker of lane %d did not end within %g s of being asked to, and is killed: what tasks had registered with "
    "atexit, or left to threads, may not be done; ResilientPool(stop_timeout=...) gives it more time"
)

_DIFFERED = (
    "task %s (%s) ran twice at once, with speculate=True, and its attempts returned different results: that of attempt "
    "%d, which was first, is kept, and that of attempt %d dropped (they are compared as pickles)"
)

_HEARTBEAT = 0.5  # s: the longest wait while a deadline runs, so that a stop of the parent is noticed
_TURN = 300  # what is taken out of the inbox before the workers are listened to again
_FIRST_WORKER = 2.0  # s: see Supervisor.submit
_NO_THREAD_AT_EXIT = sys.version_info[:3] in ((3, 12, 0), (3, 12, 1))  # mended in 3.12.2
_JOIN_TIMEOUT = 5.0  # s, for threads to end that have been told to
_monotonic = time.monotonic


class Supervisor:
    """Runs one core.  ``make_lane(number, loop)`` makes its lanes; ``at_end()`` is called when all have ended."""

    def __init__(
        self,
        limits: Limits,
        make_lane: Callable[[int, EventLoop], Lane],
        observers: Iterable[Observer] = (),
        pressure: Pressure | None = None,
        at_end: Callable[[], object] = lambda: None,
    ) -> None:
        self._at_end = at_end
        observers = tuple(observers)
        self.core = Core(replace(limits, tell=bool(observers)))
        self.ended = Latch()
        self._has_started = Latch()  # or failed to: the first worker
        self._failure: BaseException | None = None  # what this loop itself has failed of
        self._at_hand: Any = None  # what is just being handled
        self._pid = os.getpid()
        self._make_lane = make_lane
        self._pressure = pressure
        self._loop = EventLoop()
        self.post: Callable[[Any], None] = self._loop.post
        self._lag = LagWatch()
        self._lanes: dict[int, Lane] = {}
        self._to_flush: set[Lane] = set()
        self._parted: list[Lane] = []  # closed or abandoned, their threads perhaps still ending
        self._notifier = Notifier()
        self.log = Notifier("resilient-log", most=1)  # for all that is logged here: a handler may wait for ever
        self._observers = [ObserverThread(observer) for observer in observers]
        # What is done about a stimulus before the core is told of it.
        self._before: dict[type, Callable[[Any], object]] = {
            Begun: self._note_begun,
            TakenBack: self._note_taken_back,
            LaneReady: lambda _: self._has_started.set(),
            StartFailed: lambda _: self._has_started.set(),
            LaneClosed: self._lane_closed,
        }
        self._perform: dict[type, Callable[[Any], object]] = {
            Event: self._tell,
            StartWorker: self._start_worker,
            Send: self._send,
            Look: lambda c: self._lanes[c.lane].look(),
            TakeBack: lambda c: self._lanes[c.lane].take_back(c),
            AskPolicy: self._ask_policy,
            RaiseSoftTimeout: lambda c: self._lanes[c.lane].raise_soft_timeout(c),
            Kill: lambda c: self._lanes[c.lane].kill(c),
            EndStart: lambda c: self._lanes[c.lane].end_start(c),
            EndStop: self._end_stop,
            StopWorker: lambda c: self._lanes[c.lane].stop(),
            CloseLane: self._close_lane,
            Abandon: self._abandon,
            Settle: self._settle,
            ResultsDiffer: self._warn_of_differing_results,
            Finish: lambda _: None,
        }
        self._thread = threading.Thread(target=self._run, name="resilient-supervisor", daemon=True)
        mark_as_supervising(self._thread)
        self._thread.start()

    # -- from any thread: none of these waits ------------------------------------------------------------------------

    def submit(self, task: Task, problem: NotSent | None) -> None:
        """Take a task in."""
        self.post(Submitted(task, problem))
        self._has_posted(may_start=problem is None)

    def submit_alike(self, future: ResilientFuture[Any]) -> None:
        """Take a task in that may go in one bundle with others: its future is all that is needed."""
        self.post(future)
        self._has_posted(may_start=True)

    def _has_posted(self, *, may_start: bool) -> None:
        if self.ended.is_set():  # it came in just behind the end, and nobody reads the inbox any more
            self._settle_rest()
        if _NO_THREAD_AT_EXIT and may_start and threading.current_thread() is threading.main_thread():
            # These two versions of Python start no thread once the main thread has ended, and a worker needs some: a
            # script that ends right behind its first submit would lose its work. So it is held up, once.
            self._has_started.wait(_FIRST_WORKER)
            self._has_started.set()

    def cancelled(self, future: ResilientFuture[Any]) -> None:
        """The future was cancelled before its task began."""
        self.post(CancelAsked(future.number))

    def kill(self, future: ResilientFuture[Any]) -> None:
        """The task is to end for good."""
        self.post(KillAsked(future.number))

    def story(self, number: int) -> tuple[Event, ...]:
        """The events of an unsettled task."""
        return self.core.story(number)

    def call_back(self, future: ResilientFuture[Any]) -> None:
        """Run the future's done-callbacks, on a thread that holds up nobody."""
        self._notifier.post(future)

    def later(self, job: Callable[[], object]) -> None:
        """Have ``job()`` run on such a thread."""
        self._notifier.run(job)

    def has_default_key(self, number: int) -> bool:
        """Whether an unsettled task that was given no key has that number."""
        task = self.core.task(number)
        inbox = list(self._loop.inbox)
        waiting = [item.task for item in inbox if type(item) is Submitted]
        return any(has_default_key(one, number) for one in (task, *waiting) if one is not None) or any(
            item.number == number for item in inbox if isinstance(item, ResilientFuture)
        )

    def now(self) -> float:
        """Seconds on the core's clock."""
        return time.monotonic() - self._loop.zero

    @property
    def dropped_events(self) -> int:
        """Events that observers were too slow for."""
        return sum(observer.dropped for observer in self._observers)

    def join(self) -> None:
        """Wait, at most 5 s, for the threads of a supervisor that has ended."""
        deadline = time.monotonic() + _JOIN_TIMEOUT
        for observer in self._observers:
            observer.join(max(0.0, deadline - time.monotonic()))
        for notifier in (self._notifier, self.log):
            notifier.join(max(0.0, deadline - time.monotonic()))
        if threading.current_thread() is not self._thread:
            self._thread.join(max(0.0, deadline - time.monotonic()))

    def end_at_exit(self, *, kill: bool = False) -> None:
        """Finish what is pending (or kill it), then end: at the exit of the interpreter.  Ctrl-C kills what runs."""
        if os.getpid() != self._pid:
            return  # a forked child exits: it has inherited this object, but none of its threads
        try:
            self.post(ShutdownAsked(cancel=kill, kill=kill, why="the exit of the interpreter"))
            self.ended.wait()
        except KeyboardInterrupt:
            self.post(ShutdownAsked(cancel=True, kill=True, why="Ctrl-C at the exit of the interpreter"))
            self.ended.wait()
        self.join()

    # -- the loop ----------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self.core.finished:
                self._turn()
        except BaseException as error:
            self._report("the supervisor failed; please report this", error)
            self._fail(error)
        finally:
            self._end()

    def _turn(self) -> None:
        wait = self._longest_wait()
        self._loop.wait(wait)
        lag = self._lag.look(wait)
        if lag is not None:
            self._loop.wait(0.0)  # what has come meanwhile is handled before a deadline is judged
            self._handle(Lagged(*lag))
        inbox = self._loop.inbox
        for _ in range(_TURN):
            if not inbox:
                break
            item = inbox.popleft()
            if isinstance(item, ResilientFuture):
                self._handle(Submitted(task_of(item, inbox)))
            elif callable(item):
                item()
            else:
                self._handle(item)
            del item  # it may hold a user's value: nothing here keeps one
        due = self.core.next_due()
        if due is not None and due <= self.now():
            self._handle(TimePassed())
        for lane in self._to_flush:
            lane.flush()
        self._to_flush.clear()
        self._look_after_others()

    def _look_after_others(self) -> None:
        """The processes of the workers, the machine's memory, callbacks that block: what is looked at now and then."""
        if self._loop.is_time_to_tend():
            now = time.monotonic()
            for lane in list(self._lanes.values()):
                lane.tend(now)
        if self._pressure is not None and self.core.is_busy and (word := self._pressure.look()) is not None:
            self._handle(word)
        if self._notifier.behind:
            self._notifier.tend()

    def _longest_wait(self) -> float | None:
        pressure = self._pressure if self.core.is_busy else None
        longest = _HEARTBEAT if pressure is None else pressure.interval
        due = self.core.next_due()
        if due is None:
            return longest if pressure is not None or self._notifier.behind else None
        return min(max(due - self.now(), 0.0), longest)

    def _handle(self, stimulus: Stimulus) -> None:
        self._at_hand = stimulus
        before = self._before.get(type(stimulus))
        if before is not None:
            before(stimulus)
        commands = self.core.handle(stimulus, _monotonic() - self._loop.zero)
        perform = self._perform
        for command in commands:
            perform[type(command)](command)
        commands.clear()  # the core has the same list still, and one of them may hold a result
        self._at_hand = None

    def _note_begun(self, word: Begun) -> None:
        task = self.core.task(word.number)
        if task is not None:
            task.cargo.future_of(word.number)._note_begun()

    def _note_taken_back(self, word: TakenBack) -> None:
        for number, _, calls in word.calls:
            task = self.core.task(number)
            if task is not None:
                task.cargo.note_taken_back(number, calls)

    def _lane_closed(self, word: LaneClosed) -> None:
        lane = self._lanes.pop(word.lane, None)
        if lane is not None:
            lane.forget()
            self._parted.append(lane)
        if word.failure is not None:
            self._report(f"lane {word.lane} failed; please report this", word.failure)

    def _report(self, words: str, error: BaseException) -> None:
        """Log it, elsewhere: a handler of the user's may wait for what never comes."""
        self.log.run(lambda: _logger.error("%s", words, exc_info=error))

    # -- the commands ------------------------------------------------------------------------------------------------

    def _tell(self, event: Event) -> None:
        for observer in self._observers:
            observer.tell(event)

    def _start_worker(self, command: StartWorker) -> None:
        try:
            lane = self._lanes.get(command.lane)
            if lane is None:
                lane = self._lanes[command.lane] = self._make_lane(command.lane, self._loop)
            lane.start()
        except Exception as error:  # no descriptor or no thread to be had: a failed start like any other
            self._lanes.pop(command.lane, None)
            self.post(StartFailed(command.lane, f"the start of a lane raised {type(error).__name__}: {error}"))

    def _end_stop(self, command: EndStop) -> None:
        self.log.run(lambda: _logger.warning(_DID_NOT_END, command.lane, self.core.limits.stop_timeout))
        self._lanes[command.lane].end_stop(command)

    def _close_lane(self, command: CloseLane) -> None:
        lane = self._lanes.get(command.lane)
        if lane is None:  # it could not even be made
            self.post(LaneClosed(command.lane))
        else:
            lane.close()

    def _send(self, command: Send) -> None:
        parcel = command.task.cargo
        if command.attempt > 1:
            parcel.note_pids(command.task, pids_of_ended(self.core.story(command.number)))
        lane = self._lanes[command.lane]
        if parcel.give(lane.send, command):
            self._to_flush.add(lane)
        else:
            self.post(CancelAsked(command.number))

    def _warn_of_differing_results(self, command: ResultsDiffer) -> None:
        task = command.task
        told = (task.name or named(task.key), task.label, command.kept, command.other)
        self.log.run(lambda: _logger.warning(_DIFFERED, *told))

    def _ask_policy(self, command: AskPolicy) -> None:
        self._notifier.run(lambda: self._answer(command.number, command.attempt, command.policy, command.failure))

    def _answer(self, number: Any, attempt: int, policy: Policy, failure: Failure) -> None:
        delay: float | None = None
        try:
            delay = policy.next_delay(failure)
        except BaseException as error:  # a SystemExit in a strategy ends neither this thread nor the process
            name = failure.name or number
            _logger.exception("a retry policy raised; task %s is not tried again", name, exc_info=error)
        finally:
            self.post(PolicyAnswered(number, attempt, delay))

    def _abandon(self, command: Abandon) -> None:
        lane = self._lanes.pop(command.lane, None)
        if lane is not None:
            lane.abandon()
            self._parted.append(lane)

    @staticmethod
    def _settle(command: Settle) -> None:
        task = command.task
        parcel, task.cargo = task.cargo, None  # nobody needs the call any more
        parcel.settle(command)

    # -- the end -----------------------------------------------------------------------------------------------------

    def _fail(self, error: BaseException) -> None:
        self._failure = error
        for lane in self._lanes.values():
            lane.abandon()
            self._parted.append(lane)
        self._lanes.clear()
        for task, rows in self.core.give_up():
            self._fail_one(task, Story(task.key, rows), error)
        if isinstance(self._at_hand, Submitted) and self._at_hand.task.cargo is not None:
            self._fail_one(self._at_hand.task, Story(None, []), error)

    def _settle_rest(self) -> None:
        """What came in between the last turn and now, or later still, by a thread that had found the pool open."""
        error = self._failure or PoolClosed("the pool was shut down before this task came in")
        with contextlib.suppress(IndexError):  # another thread is quicker
            while True:
                item = self._loop.inbox.popleft()
                if isinstance(item, ResilientFuture):
                    item = Submitted(task_of(item, deque()))  # by itself: others may empty the inbox, too
                if isinstance(item, Submitted):
                    self._fail_one(item.task, Story(item.task.key, []), error)

    @classmethod
    def _fail_one(cls, task: Task, story: Story, error: BaseException) -> None:
        told: InternalError | PoolClosed = (
            error if isinstance(error, PoolClosed) else internal_error(task, error, story)
        )
        attempts = sum(row[1] == "begun" for row in story.rows)
        cls._settle(Settle(task.number, told, attempts, 0.0, story, task))

    def _end(self) -> None:
        deadline = time.monotonic() + _JOIN_TIMEOUT
        for lane in self._parted:
            lane.join(max(0.0, deadline - time.monotonic()))
        self._parted.clear()
        self._at_end()
        for observer in self._observers:
            observer.close()
        self._notifier.close()
        self.log.close()
        self._loop.close()
        self.ended.set()
        self._has_started.set()
        self._settle_rest()
        self._notifier.finish(_JOIN_TIMEOUT)
