"""A core with workers that run chunks and bundles as far as a test lets them."""

from __future__ import annotations

from collections import Counter
from typing import Any

from core_play import words

from resilient_exec.core.chunks import Group, Pace
from resilient_exec.core.machine import Core
from resilient_exec.core.messages import (
    Answered,
    AttemptEnded,
    Begun,
    CloseLane,
    Finish,
    ItemsEnded,
    Kill,
    LaneClosed,
    LaneReady,
    Look,
    Send,
    Settle,
    StartWorker,
    StopWorker,
    TakeBack,
    TakenBack,
    TimePassed,
    WorkerGone,
)
from resilient_exec.core.states import Limits
from resilient_exec.model.events import Event
from resilient_exec.model.packed import Batch
from resilient_exec.model.task import Died, Returned, Task

__all__ = ["Game", "Worker", "bundle", "chunk", "finish"]


def chunk(first: int, calls: int, retry: Any, *, elastic: bool = False, pace: Pace | None = None, **task: Any) -> Task:
    group = Group(first, pace or Pace(), calls, most=10_000 if elastic else 0)
    return Task(first, retry, key=first, calls=calls, group=group, **task)


class Game:
    """A core with a worker for each lane that runs what it is sent in order, as far as the test lets it."""

    def __init__(self, lanes: int = 1, **limits: Any) -> None:
        self.core = Core(Limits(lanes, depth=64, first_depth=1, tell=False, **limits))
        self.now = 0.0
        self.lanes: dict[int, Worker] = {}
        self.settled: dict[int, Any] = {}
        self.executed: Counter[int] = Counter()
        self.charged: list[int] = []
        self.sent: list[tuple[int, int, int]] = []
        self.finished = False

    def tell(self, stimulus: Any) -> None:
        todo = [stimulus]
        while todo:
            for command in self.core.handle(todo.pop(0), self.now):
                todo += self.perform(command)

    def perform(self, command: Any) -> list[Any]:
        match command:
            case StartWorker():
                self.lanes[command.lane] = Worker(command.lane, self)
            case Send():
                self.sent.append((command.lane, command.number, command.task.calls))
                self.lanes[command.lane].take(command)
            case TakeBack():
                return self.lanes[command.lane].take_back(command)
            case Look():
                return self.lanes[command.lane].look()
            case Kill():
                return self.lanes[command.lane].kill(command)
            case StopWorker():
                self.lanes[command.lane].is_up = False
                return [WorkerGone(command.lane, why="stopped")]
            case CloseLane():
                return [LaneClosed(command.lane)]
            case Settle():
                for number in range(command.number, command.number + (command.task.calls or 1)):
                    assert number not in self.settled, f"{number} settled twice"
                    self.settled[number] = command.outcome
            case Finish():
                self.finished = True
            case Event():  # of the pool: those are told in any case
                pass
            case _:
                raise AssertionError(words(command))
        return []

    def start(self, lane: int) -> None:
        self.lanes[lane].is_up, self.lanes[lane].is_dead = True, False
        self.tell(LaneReady(lane, 4000 + lane))

    def start_all(self) -> None:
        for number, worker in list(self.lanes.items()):
            if not worker.is_up:
                self.start(number)

    def after(self, seconds: float) -> None:
        self.now += seconds
        self.tell(TimePassed())

    def next_delay(self, failure: Any) -> float | None:
        """As a policy: grants two more attempts."""
        self.charged.append(failure.key)
        return 0.0 if sum(failure.counts.values()) <= 2 else None

    asks_user = False


class Worker:
    """Runs calls in order: ``queue`` are those to come, ``staged`` have ended and are not told."""

    def __init__(self, number: int, game: Game) -> None:
        self.number, self.game = number, game
        self.is_up = self.is_dead = False
        self.queue: list[tuple[int, int]] = []  # number, attempt
        self.running: tuple[int, int] | None = None
        self.began = 0.0
        self.staged: list[tuple[int, int]] = []
        self.chunks: dict[int, int] = {}  # of each number, which frame it came with
        self.frames = 0
        self.bundles: set[int] = set()  # frames whose tasks are taken back one by one
        self.alone: set[tuple[int, int]] = set()  # attempts that came by themselves, and are told of so

    def take(self, send: Send) -> None:
        if self.is_dead:  # what had been told of it came just before the word of its death, which takes this back
            return
        assert self.is_up, "sent to a worker that is not there"
        self.frames += 1
        if send.task.group is not None and send.task.group.bundled:
            self.bundles.add(self.frames)
            if not send.task.calls:
                self.alone.add((int(str(send.number)), send.attempt))
        for number in range(send.number, send.number + (send.task.calls or 1)):  # type: ignore[arg-type, operator]
            assert number not in self.game.settled, "what has settled is sent again"
            holders = [w for w in self.game.lanes.values() if (number, send.attempt) in [*w.queue, w.running]]
            assert not holders, f"{number} is in two workers"
            self.queue.append((number, send.attempt))
            self.chunks[number] = self.frames

    def begin(self) -> None:
        self.running = self.queue.pop(0)
        self.began = self.game.now
        self.game.executed[self.running[0]] += 1

    def end(self) -> None:
        assert self.running is not None
        self.staged.append(self.running)
        self.running = None

    def told(self) -> list[Any]:
        """The results that are staged, as one batch."""
        if not self.staged:
            return []
        staged, self.staged = self.staged, []
        batches: list[list[tuple[int, int]]] = []
        for one in staged:
            last = batches[-1][-1] if batches else (-9, 0)
            if (
                one not in self.alone
                and batches
                and one == (last[0] + 1, last[1])
                and self.chunks[one[0]] == self.chunks[last[0]]
            ):
                batches[-1].append(one)
            else:
                batches.append([one])
        now = self.game.now
        return [
            AttemptEnded(self.number, *b[0], Returned(1), began=now, ended=now)
            if b[0] in self.alone
            else ItemsEnded(self.number, *b[0], len(b), Batch(b"", lambda *_: []), 0, 0, now, now + 1e-4 * len(b))
            for b in batches
        ]

    def look(self) -> list[Any]:
        begun = [Begun(self.number, *self.running, 4000, self.began)] if self.running is not None else []
        return [*self.told(), *begun]

    def take_back(self, order: TakeBack) -> list[Any]:
        back = []
        for number, attempt, calls in order.calls:
            if self.chunks.get(number) in self.bundles:  # type: ignore[arg-type]
                wanted = [(one, attempt) for one in range(number, number + calls)]  # type: ignore[arg-type, operator]
                gone = [one for one in self.queue if one in wanted]
                self.queue = [one for one in self.queue if one not in gone]
                back += [(*one, 1) for one in gone[:1]] if len(gone) == 1 else [(*gone[0], len(gone))] if gone else []
            elif (number, attempt) in [*self.queue, self.running, *self.staged]:
                frame = self.chunks[number]  # type: ignore[index]
                gone = [one for one in self.queue if self.chunks[one[0]] == frame and one[0] >= number]  # type: ignore[operator]
                if gone:
                    self.queue = [one for one in self.queue if one not in gone]
                    back.append((*gone[0], len(gone)))
        return [TakenBack(self.number, tuple(back))] if back else []

    def kill(self, order: Kill) -> list[Any]:
        told = self.told()
        numbers = range(order.number, order.number + max(order.calls, 1))  # type: ignore[arg-type, operator]
        there = [one for one in [self.running, *self.queue] if one and one[0] in numbers and one[1] == order.attempt]
        if not there or (order.unless_begun and self.running is not None):
            return [*told, *self.look(), Answered(self.number, order.order)]
        return told + self.die()

    def die(self) -> list[Any]:
        told, running = self.told(), self.running
        self.queue, self.running, self.is_up, self.is_dead = [], None, False, True
        if running is None:
            return [*told, WorkerGone(self.number, why="gone")]
        return [*told, WorkerGone(self.number, *running, Died(-9, 4000), "gone", self.began)]


def bundle(first: int, size: int, retry: Any, *, pace: Pace | None = None, **task: Any) -> Task:
    group = Group(first, pace or Pace(), size, most=5, bundled=True)
    return Task(first, retry, key=first, calls=size, group=group, **task)


def finish(game: Game) -> None:
    """Let all run to its end."""
    for _ in range(20_000):
        game.start_all()
        busy = [w for w in game.lanes.values() if w.is_up and (w.queue or w.running or w.staged)]
        if not busy:
            if not game.core.is_busy:
                return
            game.after(1.0)
            continue
        for worker in busy:
            if worker.running is None and worker.queue:
                worker.begin()
            if worker.running is not None:
                worker.end()
            for fact in worker.told():
                game.tell(fact)
    raise AssertionError(f"it does not end: {game.core.unsettled()}")
