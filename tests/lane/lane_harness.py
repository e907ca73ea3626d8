"""One lane, driven by hand: orders go in by short methods, facts come out one by one, each with a deadline.

Nothing here waits by the clock: what is waited for is an event, and ``PATIENCE`` is only how long a test may hope.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import itertools
import os
import queue
import signal
import sys
import termios
import threading
import time
from typing import TYPE_CHECKING, Any, TypeVar

import lane_tasks
import pytest

from resilient_exec.core.lane_port import Parcel
from resilient_exec.core.messages import (
    Answered,
    AttemptEnded,
    Begun,
    EndStart,
    EndStop,
    Kill,
    LaneClosed,
    LaneReady,
    Progress,
    Send,
    StartFailed,
    WorkerGone,
)
from resilient_exec.lane.lane import LaneSettings, LokyLane
from resilient_exec.lane.lease import WorkerSettings
from resilient_exec.model.task import Died, Outcome, Raised, Returned, Task
from resilient_exec.process.tree import state
from resilient_exec.supervisor.event_loop import EventLoop
from resilient_exec.wire import payload

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["PATIENCE", "Harness", "alive", "linux_only", "until"]

PATIENCE = 60.0  # s
T = TypeVar("T")

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="rests on Linux's own means")


def until(condition: Callable[[], T], what: str = "it") -> T:
    """Wait until ``condition()`` is true, or fail; what it returned."""
    deadline = time.monotonic() + PATIENCE
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"{what} did not come true within {PATIENCE:g} s"
        time.sleep(0.002)
    return answer


def alive(pid: int) -> bool:
    """Whether a process has that pid and is no zombie."""
    return state(pid) not in ("", "Z", "X")


class Loop(EventLoop):
    """Runs a lane's half of a loop in a thread: what is posted goes into a queue, but for what is to be called."""

    def __init__(self) -> None:
        super().__init__()
        self.facts: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.lane: LokyLane | None = None
        self.stop = False
        self.looks = False  # ask the lane now and then what its worker is at, as the core does
        self.tells_progress = False
        self.told: set[Any] = set()
        self.thread = threading.Thread(target=self.run, name="loop", daemon=True)
        self.thread.start()

    def run(self) -> None:
        while not self.stop:
            self.wait(0.005 if self.looks else None)
            self.take()
            lane = self.lane
            if lane is not None:
                if self.is_time_to_tend():
                    lane.tend(time.monotonic())
                if self.looks:
                    lane.look()
                lane.flush()
        self.close()

    def take(self) -> None:
        while self.inbox:
            item = self.inbox.popleft()
            if callable(item):
                item()
                continue
            if isinstance(item, AttemptEnded) and (item.number, item.attempt) not in self.told:
                self.begun(Begun(item.lane, item.number, item.attempt, 0))  # as the core takes it
            if isinstance(item, WorkerGone) and item.outcome is not None:
                self.begun(Begun(item.lane, item.number, item.attempt, 0))
            if isinstance(item, Begun):
                self.begun(item)
            elif not isinstance(item, Answered) and (self.tells_progress or not isinstance(item, Progress)):
                self.facts.put(item)

    def begun(self, fact: Begun) -> None:
        if (fact.number, fact.attempt) not in self.told:
            self.told.add((fact.number, fact.attempt))
            self.facts.put(Begun(fact.lane, fact.number, fact.attempt, 0))


class Harness:
    """A lane and the queue of the facts that it posts."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.facts = self.loop.facts
        self.lane: LokyLane | None = None
        self.pid = 0  # of the worker that was ready last
        self._keys = itertools.count(1)
        self.key = 0  # of the attempt that was sent last

    def do(self, order: Callable[[], T]) -> T:
        """Have the loop do it; what comes of it."""
        done: queue.SimpleQueue[T] = queue.SimpleQueue()
        self.loop.post(lambda: done.put(order()))
        return done.get(timeout=PATIENCE)

    # -- the worker ------------------------------------------------------------------------------------------------

    def order_start(self, initializer: Callable[..., object] | None = None, *initargs: Any) -> None:
        """Have a worker started; of the lane's first one the initializer is fixed."""
        if self.lane is None:
            self.loop.lane = self.lane = LokyLane(0, self.loop, LaneSettings(WorkerSettings(initializer, initargs)))
        self.do(self.lane.start)

    def start(self, initializer: Callable[..., object] | None = None, *initargs: Any) -> int:
        """Start a worker; its pid, once it is ready."""
        self.order_start(initializer, *initargs)
        self.pid = self.expect(LaneReady).pid
        return self.pid

    def failed_start(self, initializer: Callable[..., object] | None = None, *initargs: Any) -> str:
        """Start a worker that cannot come up; the words about it."""
        self.order_start(initializer, *initargs)
        return self.expect(StartFailed).words

    def is_idle(self) -> bool:
        """Whether its worker waits for an attempt, and no fact for its reader."""
        lane = self.lane
        return lane is not None and lane.lease is not None and not lane.held and self.facts.empty()

    def still_works(self) -> None:
        """The lane's worker, a new one if need be, runs an ordinary task."""
        if self.lane.lease is None:
            self.start()
        assert self.outcome(lane_tasks.double, 21) == Returned(42)

    def end(self) -> None:
        """Close the lane, by force where it does not end in peace."""
        lane = self.lane
        if lane is not None:
            with contextlib.suppress(ProcessLookupError, TypeError):
                os.kill(lane.lease.pid if lane.lease else None, signal.SIGCONT)
            self.do(lane.close)
            if not lane.join(5):
                self.do(lambda: lane.end_stop(EndStop(0, 1)))  # it does not end in peace
                if not lane.join(10):
                    self.do(lane.abandon)
            assert lane.join(PATIENCE), "the lane's thread does not end"
        self.end_loop()

    def end_loop(self) -> None:
        """End the thread of the loop."""
        self.loop.stop = True
        self.loop.wake()
        self.loop.thread.join(PATIENCE)

    # -- facts -----------------------------------------------------------------------------------------------------

    def expect(self, kind: type[T]) -> T:
        """The next fact, which is one of ``kind``."""
        try:
            fact = self.facts.get(timeout=PATIENCE)
        except queue.Empty:
            pytest.fail(f"no fact came within {PATIENCE:g} s; a {kind.__name__} was expected")
        assert isinstance(fact, kind), f"a {kind.__name__} was expected, not {fact}"
        return fact

    def expect_past_progress(self, kind: type[T]) -> T:
        """The next fact but words about bytes that flow."""
        while isinstance(fact := self.facts.get(timeout=PATIENCE), Progress):
            pass
        assert isinstance(fact, kind), fact
        return fact

    def nothing(self) -> None:
        """The lane's thread has done all that it was told to, and has posted nothing."""
        self.answers()
        assert self.facts.empty(), f"unexpected: {self.facts.get()}"

    # -- attempts --------------------------------------------------------------------------------------------------

    def send(self, fn: Callable[..., object], *args: Any) -> int:
        """Send an attempt; its key."""
        self.key = next(self._keys)
        self.send_task(Task(self.key, None, key=self.key, cargo=Parcel(payload.pack_call(fn, args, {}))))
        return self.key

    def send_task(self, task: Task, attempt: int = 1) -> None:
        """Send an attempt at that task."""
        self.loop.looks = True
        self.loop.post(lambda: self.lane.send(Send(0, task.number, attempt, task)) and None)

    def begin(self, fn: Callable[..., object], *args: Any) -> None:
        """Send an attempt and see it begin."""
        key = self.send(fn, *args)
        assert self.expect(Begun) == Begun(0, key, 1, 0)

    def begin_when_ready(self, fn: Callable[..., object], *args: Any) -> None:
        """Wait for the worker that was ordered, then send an attempt and see it begin."""
        self.pid = self.expect(LaneReady).pid
        self.begin(fn, *args)

    def ended(self) -> Outcome:
        """The outcome of the attempt sent last, whose worker lives on."""
        fact = self.expect(AttemptEnded)
        assert (fact.number, fact.attempt) == (self.key, 1)
        if isinstance(fact.outcome, Raised):
            return Raised(fact.outcome.exception.unpack(), fact.outcome.evidence)
        if isinstance(fact.outcome, Returned):
            return Returned(fact.outcome.value.unpack())
        return fact.outcome

    def died(self) -> Died:
        """The outcome of the attempt sent last, whose worker has died of it."""
        fact = self.expect(WorkerGone)
        assert (fact.number, fact.attempt) == (self.key, 1), f"blamed on nobody: {fact}"
        assert isinstance(fact.outcome, Died)
        assert not alive(self.pid)
        return fact.outcome

    def gone(self) -> str:
        """The worker is gone, to nobody's charge; why."""
        fact = self.expect(WorkerGone)
        assert (fact.number, fact.attempt, fact.outcome) == (None, 0, None)
        return fact.why

    def outcome(self, fn: Callable[..., object], *args: Any) -> Outcome:
        """Run an attempt that its worker survives."""
        self.begin(fn, *args)
        return self.ended()

    def raised(self, fn: Callable[..., object], *args: Any) -> BaseException:
        """Run an attempt that raises."""
        outcome = self.outcome(fn, *args)
        assert isinstance(outcome, Raised), outcome
        return outcome.exception

    def value(self, fn: Callable[..., object], *args: Any) -> Any:
        """Run an attempt that returns."""
        outcome = self.outcome(fn, *args)
        assert isinstance(outcome, Returned), outcome
        return outcome.value

    def death(self, fn: Callable[..., object], *args: Any) -> Died:
        """Run an attempt that ends its worker."""
        self.begin(fn, *args)
        return self.died()

    # -- kills and the like ----------------------------------------------------------------------------------------

    def kill(self, key: int | None = None, *, unless_begun: bool = False) -> None:
        """Order the kill of an attempt, by default the one sent last."""
        number = self.key if key is None else key
        self.loop.post(lambda: self.lane.kill(Kill(0, number, 1, 1, unless_begun)))

    def kill_attempt(self, attempt: int) -> None:
        """Order the kill of a certain attempt at the task sent last."""
        self.loop.post(lambda: self.lane.kill(Kill(0, self.key, attempt, 1)))

    def stacks_now(self) -> str:
        """The worker's stacks, as a kill would take them; it is not harmed."""

        def take() -> str:
            lease = self.lane.lease
            lease.stop()
            taken = lease.take_stacks(0.5)
            lease.resume()
            return taken

        return self.do(take)

    def give_up_start(self) -> None:
        """Order the end of a start."""
        self.loop.post(lambda: self.lane.end_start(EndStart(0, 1)))

    def give_up_stop(self) -> None:
        """Order the kill of a worker that stops."""
        self.loop.post(lambda: self.lane.end_stop(EndStop(0, 1)))

    def stop(self) -> None:
        """Have the worker end in peace."""
        self.loop.post(self.lane.stop)

    def signal(self, number: int) -> None:
        """Signal the worker; a stop is waited for."""
        os.kill(self.pid, number)
        if number == signal.SIGSTOP:
            until(lambda: state(self.pid) == "T", "the stop")

    def answers(self) -> None:
        """Neither the loop nor the lane's thread is blocked: each gets to an order."""
        answered = threading.Event()
        self.do(lambda: None)
        self.lane._keeper._orders.put(answered.set)
        assert answered.wait(PATIENCE), "the lane's thread is blocked"
        self.do(lambda: None)

    def held(self) -> contextlib.AbstractContextManager[None]:
        """Within this block the loop reads nothing and performs no order."""
        return self._held(self.loop.post)

    def thread_held(self) -> contextlib.AbstractContextManager[None]:
        """Within this block the lane's thread performs no order."""
        return self._held(self.lane._keeper._orders.put)

    @contextlib.contextmanager
    def _held(self, order: Callable[[Callable[[], None]], object]) -> Iterator[None]:
        entered, release = threading.Event(), threading.Event()

        def hold() -> None:
            entered.set()
            assert release.wait(PATIENCE)

        order(hold)
        assert entered.wait(PATIENCE)
        try:
            yield
        finally:
            release.set()

    def has_begun_by_register(self) -> bool:
        """Whether the worker has begun the attempt sent last, told or not."""
        return self.lane.lease.view.begun_and_ended()[0] == self.lane.held._serial

    def pump_by_hand(self) -> None:
        """Perform the order that waits, in the stead of the loop, which is held; and write what follows."""
        self.loop.inbox.pop()()
        self.lane.flush()

    def has_ended_by_register(self) -> bool:
        """Whether the worker has sent the outcome of the last attempt, read or not."""
        return self.lane.lease.view.begun_and_ended()[1] == self.lane.held._serial

    def bytes_waiting(self) -> int:
        """How much the worker has sent that the lane has not read."""
        count = array.array("i", [0])
        fcntl.ioctl(self.lane.lease.socket, termios.FIONREAD, count)
        return count[0]

    def wait_in_thread(self) -> set[int]:
        """What the lane's thread finds ready when it has nothing to do."""
        return self.do(lambda: {key.fd for key, _ in self.loop._selector.select(0)})

    def close(self) -> None:
        """Close the lane and see it end."""
        self.do(self.lane.close)
        while not isinstance(fact := self.facts.get(timeout=PATIENCE), LaneClosed):
            assert isinstance(fact, WorkerGone | StartFailed), fact
        assert self.lane.join(PATIENCE)


def lines(path: Path) -> list[int]:
    """The numbers that a task has written, one a line; only whole lines count."""
    if not path.exists():
        return []
    return [int(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
