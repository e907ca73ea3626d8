"""One thread, one loop, one inbox: takes facts, asks the core, performs its commands in order.

It alone drives the core, so no decision is ever taken on somebody else's thread.  Callers, lanes and hooks only post.
It waits for nothing but its inbox, with a deadline wherever the core has one.

**Its own lag is given back.**  A parent that was stopped for 3 s (Ctrl-Z), or whose interpreter was held by a long
pickling, must not find on waking that every deadline has passed.  The clock that the core sees therefore stands
still while this loop did not run; and what has arrived meanwhile is handled before any deadline is judged.

**If the loop itself fails**, every unsettled task settles with an ``InternalError`` that carries its story, and
every worker is killed: a bug here must be loud, and must not hang anybody.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import sys
import threading
import time
from concurrent.futures import InvalidStateError
from typing import TYPE_CHECKING, Any, NamedTuple

from resilient_exec.core.lane_port import Parcel
from resilient_exec.core.machine import Core
from resilient_exec.core.messages import (
    Abandon,
    Begun,
    CancelAsked,
    CloseLane,
    Finish,
    Kill,
    KillAsked,
    LaneClosed,
    LaneReady,
    RaiseSoftTimeout,
    Send,
    Settle,
    ShutdownAsked,
    StartFailed,
    StartWorker,
    Stimulus,
    StopWorker,
    Submitted,
    TimePassed,
)
from resilient_exec.model.errors import InternalError, PoolClosed
from resilient_exec.model.events import Event, render
from resilient_exec.model.summary import named
from resilient_exec.model.task import Returned, Task
from resilient_exec.supervisor.callbacks import Notifier, ObserverThread
from resilient_exec.supervisor.clock import SteadyClock
from resilient_exec.supervisor.failures import error_of
from resilient_exec.supervisor.latch import Latch
from resilient_exec.supervisor.memory_guard import LOOK_INTERVAL

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable

    from resilient_exec.core.lane_port import Lane
    from resilient_exec.core.states import Limits
    from resilient_exec.model.ports import Observer
    from resilient_exec.model.task import NotSent
    from resilient_exec.supervisor.future import ResilientFuture
    from resilient_exec.supervisor.memory_guard import Pressure

__all__ = ["Supervisor"]

_logger = logging.getLogger(__name__)

_HEARTBEAT = 0.5  # s: the longest wait while a deadline runs, so that a stop of the parent is noticed
_TURN = 500  # stimuli handled before the clock is looked at again
_FIRST_WORKER = 2.0  # s: see Supervisor.submit
_NO_THREAD_AT_EXIT = sys.version_info[:3] in ((3, 12, 0), (3, 12, 1))  # mended in 3.12.2
_JOIN_TIMEOUT = 5.0  # s, for threads to end that have been told to


class _Entry:
    """What the core need not know of an unsettled task."""

    __slots__ = ("call", "claimed", "future", "pids", "task")

    def __init__(self, task: Task, future: ResilientFuture[Any], call: bytes) -> None:
        self.task = task
        self.future = future
        self.call = call
        self.pids: tuple[int, ...] = ()  # of the workers in which attempts have begun
        self.claimed = False  # the future runs: it can no longer be cancelled

    def parcel(self) -> Parcel:
        """What a lane needs of it."""
        task = self.task
        return Parcel(self.call, self.pids, task.timeout, task.soft_timeout, task.memory_limit)


def _claim(future: ResilientFuture[Any]) -> bool:
    """Mark it as running; ``False``: there is nothing to run it for any more."""
    try:
        return future._insist(future.set_running_or_notify_cancel)
    except RuntimeError:  # its holder has set its state himself: his affair, and no reason to fail everybody
        return not future.done()


def _error_of(settle: Settle, future: ResilientFuture[Any]) -> BaseException:
    try:
        return error_of(settle, future.dossier)
    except Exception as error:  # whatever it was that could not be told: the task has settled, and its holder waits
        return _internal(settle.key, error, ())


def _internal(key: Hashable, error: BaseException, story: tuple[Event, ...]) -> InternalError:
    internal = InternalError(
        f"the pool's supervisor failed with {type(error).__name__}: {error}. This is a bug in resilient_exec: "
        f"please report it, with the log and this story of task {named(key)}:\n{render(story)}"
    )
    internal.__cause__ = error
    return internal


class _Asked(NamedTuple):
    """What the holder of a future asks: it concerns that task only, not a later one with the same key."""

    future: ResilientFuture[Any]
    stimulus: CancelAsked | KillAsked


class Supervisor:
    """Runs one core.  ``make_lane(number, post)`` makes its lanes."""

    def __init__(
        self,
        limits: Limits,
        make_lane: Callable[[int, Callable[[Stimulus], None]], Lane],
        observers: Iterable[Observer] = (),
        pressure: Pressure | None = None,
    ) -> None:
        self.core = Core(limits)
        self.ended = Latch()
        self._has_started = Latch()  # or failed to: the first worker
        self._failure: BaseException | None = None  # what this loop itself has failed of
        self._pid = os.getpid()
        self._make_lane = make_lane
        self._pressure = pressure
        self._inbox: queue.SimpleQueue[Stimulus | _Asked] = queue.SimpleQueue()
        self._clock = SteadyClock()
        self._entries: dict[Hashable, _Entry] = {}
        self._lanes: dict[int, Lane] = {}
        self._parted: list[Lane] = []  # closed or abandoned, their threads perhaps still ending
        self._notifier = Notifier()
        self._observers = [ObserverThread(observer) for observer in observers]
        self._perform: dict[type, Callable[[Any], None]] = {
            Event: self._tell,
            StartWorker: self._start_worker,
            Send: self._send,
            RaiseSoftTimeout: lambda c: self._lanes[c.lane].raise_soft_timeout(c),
            Kill: lambda c: self._lanes[c.lane].kill(c),
            StopWorker: lambda c: self._lanes[c.lane].stop(),
            CloseLane: self._close_lane,
            Abandon: self._abandon,
            Settle: self._settle,
            Finish: lambda _: None,
        }
        self._thread = threading.Thread(target=self._run, name="resilient-supervisor", daemon=True)
        self._thread.start()

    # -- from any thread: none of these waits ------------------------------------------------------------------------

    def post(self, stimulus: Stimulus) -> None:
        """Tell a fact."""
        self._inbox.put(stimulus)

    def submit(self, task: Task, future: ResilientFuture[Any], call: bytes, problem: NotSent | None) -> bool:
        """Take a task in; ``False``: an unsettled task has its key."""
        entry = _Entry(task, future, call)
        if self._entries.setdefault(task.key, entry) is not entry:
            return False
        self.post(Submitted(task, problem))
        if self.ended.is_set():  # it came in just behind the end, and nobody reads the inbox any more
            self._settle_rest()
        if _NO_THREAD_AT_EXIT and problem is None and threading.current_thread() is threading.main_thread():
            # These two versions of Python start no thread once the main thread has ended, and a worker needs some: a
            # script that ends right behind its first submit would lose its work. So it is held up, once.
            self._has_started.wait(_FIRST_WORKER)
            self._has_started.set()
        return True

    def cancelled(self, future: ResilientFuture[Any]) -> None:
        """The future was cancelled before its task was sent."""
        self._inbox.put(_Asked(future, CancelAsked(future.key)))

    def kill(self, future: ResilientFuture[Any]) -> None:
        """The task is to end for good."""
        self._inbox.put(_Asked(future, KillAsked(future.key)))

    def story(self, key: Hashable) -> tuple[Event, ...]:
        """The events of an unsettled task."""
        return self.core.story(key)

    def call_back(self, future: ResilientFuture[Any]) -> None:
        """Run the future's done-callbacks, on a thread that holds up nobody."""
        self._notifier.post(future)

    def now(self) -> float:
        """Seconds on the core's clock, as it was last read."""
        return self._clock.last

    @property
    def dropped_events(self) -> int:
        """Events that observers were too slow for."""
        return sum(observer.dropped for observer in self._observers)

    def join(self) -> None:
        """Wait, at most 5 s, for the threads of a supervisor that has ended."""
        deadline = time.monotonic() + _JOIN_TIMEOUT
        for observer in self._observers:
            observer.join(max(0.0, deadline - time.monotonic()))
        self._notifier.join(max(0.0, deadline - time.monotonic()))
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
            _logger.exception("the supervisor failed; please report this")
            self._fail(error)
        finally:
            self._end()

    def _turn(self) -> None:
        wait = self._longest_wait()
        stimulus: Stimulus | _Asked | None = None
        with contextlib.suppress(queue.Empty):
            stimulus = self._inbox.get(timeout=wait)
        self._clock.read(wait)
        for _ in range(_TURN):
            if stimulus is None:
                break
            self._handle(stimulus)
            stimulus = None  # it may hold a user's value: nothing here keeps one
            with contextlib.suppress(queue.Empty):
                stimulus = self._inbox.get_nowait()
        if stimulus is not None:
            self._handle(stimulus)
        due = self.core.next_due()
        if due is not None and due <= self._clock.read():
            self._handle(TimePassed())
        if self._pressure is not None and self._entries and (word := self._pressure.look()) is not None:
            self._handle(word)
        if self._notifier.behind:
            self._notifier.tend()

    def _longest_wait(self) -> float | None:
        looks = self._pressure is not None and bool(self._entries)
        longest = LOOK_INTERVAL if looks else _HEARTBEAT
        due = self.core.next_due()
        if due is None:
            return longest if looks or self._notifier.behind else None
        return min(max(due - self._clock.read(), 0.0), longest)

    def _handle(self, stimulus: Stimulus | _Asked) -> None:
        if isinstance(stimulus, _Asked):
            entry = self._entries.get(stimulus.future.key)
            if entry is None or entry.future is not stimulus.future:
                return
            stimulus = stimulus.stimulus
        elif isinstance(stimulus, Begun):
            entry = self._entries.get(stimulus.key)
            if entry is not None:
                entry.pids += (stimulus.pid,)
        elif isinstance(stimulus, LaneReady | StartFailed):
            self._has_started.set()
        elif isinstance(stimulus, LaneClosed):
            lane = self._lanes.pop(stimulus.lane, None)
            if lane is not None:
                self._parted.append(lane)
        commands = self.core.handle(stimulus, self._clock.read())
        for command in commands:
            self._perform[type(command)](command)
        commands.clear()  # the core has the same list still, and one of them may hold a result

    # -- the commands ------------------------------------------------------------------------------------------------

    def _tell(self, event: Event) -> None:
        for observer in self._observers:
            observer.tell(event)

    def _start_worker(self, command: StartWorker) -> None:
        try:
            lane = self._lanes.get(command.lane)
            if lane is None:
                lane = self._lanes[command.lane] = self._make_lane(command.lane, self.post)
            lane.start()
        except Exception as error:  # no descriptor or no thread to be had: a failed start like any other
            self._lanes.pop(command.lane, None)
            self.post(StartFailed(command.lane, f"the start of a lane raised {type(error).__name__}: {error}"))

    def _close_lane(self, command: CloseLane) -> None:
        lane = self._lanes.get(command.lane)
        if lane is None:  # it could not even be made
            self.post(LaneClosed(command.lane))
        else:
            lane.close()

    def _send(self, command: Send) -> None:
        entry = self._entries[command.key]
        if not entry.claimed:
            # The future is the judge between cancel() and running, and its lock the place where that is decided.
            if not _claim(entry.future):
                self.post(CancelAsked(command.key))
                return
            entry.claimed = True
        self._lanes[command.lane].send(command, entry.parcel())

    def _abandon(self, command: Abandon) -> None:
        lane = self._lanes.pop(command.lane)
        lane.abandon()
        self._parted.append(lane)

    def _settle(self, command: Settle) -> None:
        future, outcome = self._entries.pop(command.key).future, command.outcome
        future._record(command.attempts, command.elapsed, command.story)
        with contextlib.suppress(InvalidStateError):  # cancelled by its holder in this very moment
            if outcome is None:
                future._insist(future._cancel_quietly)
            elif isinstance(outcome, Returned):
                future._insist(future.set_result, outcome.value)
            else:
                future._insist(future.set_exception, _error_of(command, future))
        future._notify_if_cancelled()

    # -- the end -----------------------------------------------------------------------------------------------------

    def _fail(self, error: BaseException) -> None:
        self._failure = error
        for lane in self._lanes.values():
            lane.abandon()
            self._parted.append(lane)
        self._lanes.clear()
        self._fail_all(error)

    def _settle_rest(self) -> None:
        """What came in between the last turn and now, or later still, by a thread that had found the pool open."""
        error = self._failure or PoolClosed("the pool was shut down before this task came in")
        while self._entries:
            self._fail_all(error)

    def _fail_all(self, error: BaseException) -> None:
        while self._entries:
            try:
                key, entry = self._entries.popitem()  # by no key: looking one up may be what has failed
            except KeyError:  # another thread was quicker
                return
            story: tuple[Event, ...] = ()
            with contextlib.suppress(Exception):
                story = self.core.story(key)
            entry.future._record(sum(event.kind == "begun" for event in story), 0.0, story)
            told = error if isinstance(error, PoolClosed) else _internal(key, error, story)
            with contextlib.suppress(InvalidStateError):
                entry.future._insist(entry.future.set_exception, told)
            entry.future._notify_if_cancelled()

    def _end(self) -> None:
        deadline = time.monotonic() + _JOIN_TIMEOUT
        for lane in self._parted:
            lane.join(max(0.0, deadline - time.monotonic()))
        self._parted.clear()
        for observer in self._observers:
            observer.close()
        self._notifier.close()
        self.ended.set()
        self._has_started.set()
        self._settle_rest()
        self._notifier.finish(_JOIN_TIMEOUT)
