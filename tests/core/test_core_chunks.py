"""Chunks: how the core tells their calls apart, cuts them, and shares them out, without a process."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from chunk_game import Game, Worker, chunk, finish
from core_play import Grant
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from resilient_exec.core.chunks import Group, Pace
from resilient_exec.core.messages import AttemptEnded, CancelAsked, KillAsked, ShutdownAsked, Submitted
from resilient_exec.model.packed import Slice
from resilient_exec.model.task import Raised, Returned, Task


def of(game: Game, number: int) -> str:
    return getattr(game.settled[number], "kind", type(game.settled[number]).__name__)


# -- one after the other -----------------------------------------------------------------------------------------------


def playing(calls: int = 5, lanes: int = 1, *, retry: Any = None, **limits: Any) -> Game:
    game = Game(lanes, **limits)
    game.tell(Submitted(chunk(0, calls, retry or game)))
    game.start_all()
    return game


def run_some(game: Game, count: int, lane: int = 0) -> Worker:
    worker = game.lanes[lane]
    for _ in range(count):
        worker.begin()
        worker.end()
    return worker


def test_a_chunk_is_sent_at_once_and_settles_as_it_comes() -> None:
    game = playing(5)
    assert game.sent == [(0, 0, 5)]
    worker = run_some(game, 3)
    for fact in worker.told():
        game.tell(fact)
    assert sorted(game.settled) == [0, 1, 2]
    values = game.settled[0].value
    assert isinstance(values, Slice)
    assert (values.start, values.count) == (0, 3)
    finish(game)
    assert sorted(game.settled) == list(range(5))


def test_a_death_is_charged_to_the_call_that_had_begun() -> None:
    game = playing(6)
    worker = run_some(game, 2)
    worker.begin()
    for fact in worker.die():
        game.tell(fact)
    assert game.charged == [2]
    assert sorted(game.settled) == [0, 1]
    finish(game)
    assert game.executed == Counter({0: 1, 1: 1, 2: 2, 3: 1, 4: 1, 5: 1})


def test_a_death_between_two_calls_is_charged_to_nobody() -> None:
    game = playing(4)
    for fact in run_some(game, 2).die():
        game.tell(fact)
    assert game.charged == []
    finish(game)
    assert set(game.executed.values()) == {1}


def test_calls_that_each_kill_their_worker_do_not_use_up_what_is_behind_them() -> None:
    game = playing(30, retry=Grant())
    for number in range(25):
        game.start_all()
        worker = game.lanes[0]
        worker.begin()
        assert worker.running == (number, 1)
        for fact in worker.die():
            game.tell(fact)
    finish(game)
    assert [of(game, number) for number in range(30)] == ["died"] * 25 + ["returned"] * 5


def test_a_chunk_whose_workers_are_lost_between_calls_again_and_again_is_given_up() -> None:
    game = playing(4, uncharged=3)
    for _ in range(3):
        game.start_all()
        for fact in game.lanes[0].die():
            game.tell(fact)
    assert [of(game, number) for number in range(4)] == ["lost"] * 4


def test_a_timeout_strikes_the_call_that_is_seen_to_run() -> None:
    game = Game()
    game.tell(Submitted(chunk(0, 5, game, timeout=1.0)))
    game.start_all()
    worker = run_some(game, 2)
    worker.begin()
    game.after(0.02)
    game.after(1.0)
    assert game.charged == [2]
    finish(game)
    assert game.executed == Counter({0: 1, 1: 1, 2: 2, 3: 1, 4: 1})


def test_the_time_of_a_call_is_its_own() -> None:
    game = Game()
    game.tell(Submitted(chunk(0, 5, game, timeout=1.0)))
    game.start_all()
    worker = game.lanes[0]
    for _ in range(5):
        worker.begin()
        for _ in range(9):
            game.after(0.1)
        worker.end()
        for fact in worker.told():
            game.tell(fact)
    assert not game.charged
    assert len(game.settled) == 5


def test_what_a_call_raised_is_its_own() -> None:
    game = playing(4, retry=Grant())
    worker = run_some(game, 1)
    for fact in worker.told():
        game.tell(fact)
    worker.begin()
    worker.running = None
    game.tell(AttemptEnded(0, 1, 1, Raised(ValueError("no")), began=0.0, ended=0.0))
    finish(game)
    assert [of(game, number) for number in range(4)] == ["returned", "raised", "returned", "returned"]


def test_a_lane_with_nothing_to_do_takes_from_one_that_has_too_much() -> None:
    game = Game(2)
    game.tell(Submitted(Task(100, game, key=100)))
    game.tell(Submitted(chunk(0, 9, game)))
    game.start_all()
    finish_one = game.lanes[0]
    game.lanes[1].begin()  # the chunk's first call takes long
    finish_one.begin()
    finish_one.end()
    finish_one.staged.clear()
    game.tell(AttemptEnded(0, 100, 1, Returned(None), began=0.0, ended=0.0))
    game.after(0.006)
    game.after(0.02)
    game.after(0.02)
    assert [one[0] for one in game.lanes[0].queue] == list(range(1, 9))
    assert game.lanes[1].queue == []
    finish(game)
    assert set(game.executed.values()) == {1}


def test_more_lanes_are_started_for_calls_that_the_pool_may_share_out() -> None:
    game = Game(4)
    game.tell(Submitted(chunk(0, 100, game, elastic=True)))
    assert len(game.lanes) == 4
    game.start_all()
    assert [calls for *_, calls in game.sent] == [1, 1, 1, 1]
    finish(game)


def test_more_are_sent_at_once_while_they_are_quick_and_fewer_towards_the_end() -> None:
    game = Game(2)
    game.tell(Submitted(chunk(0, 5000, game, elastic=True)))
    finish(game)
    sizes = [calls for *_, calls in game.sent]
    assert max(sizes) > 100
    assert sizes[0] == 1
    assert sizes[-1] <= 20, "2 ms of work, less than which is not worth a message"
    assert sum(sizes) >= 5000


def test_max_tasks_per_worker_counts_calls() -> None:
    game = playing(10, max_tasks_per_worker=4)
    finish(game)
    assert [calls for *_, calls in game.sent] == [4, 4, 2]


def test_a_cancelled_chunk_lets_only_what_has_begun_end() -> None:
    game = playing(5)
    worker = run_some(game, 1)
    worker.begin()
    game.tell(CancelAsked(0))
    assert sorted(game.settled) == [2, 3, 4]
    finish(game)
    assert game.settled == {0: game.settled[0], 1: game.settled[1], 2: None, 3: None, 4: None}


def test_a_killed_chunk_ends_with_its_worker() -> None:
    game = playing(5)
    run_some(game, 1).begin()
    game.tell(KillAsked(0))
    assert [of(game, number) for number in range(5)] == ["returned", *["killed"] * 4]


@pytest.mark.parametrize("took", [1e-6, 1e-3, 0.02, 1.0])
def test_the_pace_finds_how_many_calls_are_some_30_ms(took: float) -> None:
    pace = Pace()
    for _ in range(12):
        size = pace.size(10**9, 2)
        pace.learn(size, size * took)
    assert max(1, 0.01 / took) <= pace.size(10**9, 2) <= max(1, 0.04 / took)


def test_the_pace_slows_down_at_once() -> None:
    pace = Pace()
    for _ in range(12):
        pace.learn(pace.size(10**9, 2), 1e-5)
    pace.learn(1, 1.0)
    assert pace.size(10**9, 2) == 1


# -- at random ---------------------------------------------------------------------------------------------------------


class ChunkGame(RuleBasedStateMachine):
    """Anything, in any order: every call settles once, nobody innocent is charged or repeated, the order is kept."""

    @initialize(lanes=st.integers(1, 3), most=st.sampled_from([None, 3]), timeout=st.sampled_from([None, 0.5]))
    def begin_game(self, lanes: int, most: int | None, timeout: float | None) -> None:
        self.game = Game(lanes, max_tasks_per_worker=most)
        self.timeout = timeout
        self.next = 0
        self.firsts: list[int] = []
        self.guilty: Counter[int] = Counter()

    @rule(calls=st.integers(1, 12), elastic=st.booleans(), priority=st.integers(0, 1))
    def submit(self, calls: int, elastic: bool, priority: int) -> None:
        task = chunk(self.next, calls, self.game, elastic=elastic, timeout=self.timeout, priority=priority)
        self.firsts.append(self.next)
        self.next += calls
        self.game.tell(Submitted(task))

    @rule()
    def submit_one(self) -> None:
        self.game.tell(Submitted(Task(10_000 + self.next, self.game, key=10_000 + self.next, timeout=self.timeout)))
        self.next += 1

    @rule(lane=st.integers(0, 2))
    def ready(self, lane: int) -> None:
        worker = self.game.lanes.get(lane)
        if worker is not None and not worker.is_up:
            self.game.start(lane)

    def _up(self, lane: int) -> Worker | None:
        worker = self.game.lanes.get(lane)
        return worker if worker is not None and worker.is_up else None

    @rule(lane=st.integers(0, 2), count=st.integers(1, 5), begin_last=st.booleans())
    def work(self, lane: int, count: int, begin_last: bool) -> None:
        worker = self._up(lane)
        if worker is None:
            return
        for _ in range(count):
            if worker.running is not None:
                self._end(worker)
            if worker.queue:
                if worker.staged and worker.chunks[worker.queue[0][0]] != worker.chunks[worker.staged[-1][0]]:
                    self.tell(lane)  # the end of a chunk is told before anything else begins
                worker.begin()
        if not begin_last and worker.running is not None:
            self._end(worker)

    def _end(self, worker: Worker) -> None:
        assert worker.running is not None
        number, attempt = worker.running
        if number < 10_000:
            worker.end()
            return
        worker.running = None
        self.game.tell(
            AttemptEnded(worker.number, number, attempt, Returned(1), began=worker.began, ended=self.game.now)
        )

    @rule(lane=st.integers(0, 2))
    def tell(self, lane: int) -> None:
        worker = self._up(lane)
        for fact in worker.told() if worker is not None else ():
            self.game.tell(fact)

    @rule(lane=st.integers(0, 2))
    def raises(self, lane: int) -> None:
        worker = self._up(lane)
        if worker is not None and worker.running is not None:
            number, attempt = worker.running
            worker.running = None
            self.guilty[number] += 1
            for fact in worker.told():
                self.game.tell(fact)
            ended = AttemptEnded(lane, number, attempt, Raised(ValueError()), began=worker.began, ended=self.game.now)
            self.game.tell(ended)

    @rule(lane=st.integers(0, 2))
    def dies(self, lane: int) -> None:
        worker = self._up(lane)
        if worker is not None:
            if worker.running is not None:
                self.guilty[worker.running[0]] += 1
            for fact in worker.die():
                self.game.tell(fact)

    @rule(seconds=st.sampled_from([0.001, 0.006, 0.02, 0.6]))
    def wait(self, seconds: float) -> None:
        """Calls that run too long are struck: those, and none else, are guilty."""
        for worker in self.game.lanes.values():
            running = worker.running
            if running is not None and self.timeout and self.game.now + seconds >= worker.began + self.timeout:
                self.guilty[running[0]] += 1
        self.game.after(seconds)

    @precondition(lambda self: self.firsts)
    @rule(data=st.data())
    def cancel(self, data: Any) -> None:
        self.game.tell(CancelAsked(data.draw(st.sampled_from(self.firsts))))

    @precondition(lambda self: self.firsts)
    @rule(data=st.data())
    def kill(self, data: Any) -> None:
        self.game.tell(KillAsked(data.draw(st.sampled_from(self.firsts))))

    @invariant()
    def nobody_innocent_is_charged(self) -> None:
        if hasattr(self, "game"):
            charged = Counter(self.game.charged)
            assert all(charged[key] <= self.guilty[key] for key in charged), (charged, self.guilty)
            for number, times in self.game.executed.items():
                assert times <= 1 + charged[number], (
                    f"{number} was executed {times} times, and charged {charged[number]}"
                )

    @invariant()
    def counts_are_right(self) -> None:
        if hasattr(self, "game"):
            core = self.game.core
            counted = core.counted()
            left = sum(record.task.calls or 1 for record in core._records.values())
            assert sum(counted.values()) == left
            assert all(value >= 0 for value in counted.values())
            assert sum(core.ended.values()) == len(self.game.settled)

    def teardown(self) -> None:
        if not hasattr(self, "game"):
            return
        game = self.game
        for worker in game.lanes.values():  # what runs is not to be struck
            if worker.is_up and worker.running is not None:
                self._end(worker)
        _finish_with_singles(self)
        game.tell(ShutdownAsked())
        assert game.finished
        assert not game.core._groups.chunks()
        assert not game.core._groups._blocks
        assert not any(game.core._surplus.values())
        assert game.core._elastic == 0


def _finish_with_singles(play: ChunkGame) -> None:
    game = play.game
    for _ in range(5000):
        game.start_all()
        for lane in list(game.lanes):
            play.work(lane, 1, begin_last=False)
            play.tell(lane)
        if not game.core.is_busy:
            return
        game.after(0.001 if any(w.queue for w in game.lanes.values()) else 1.0)
    raise AssertionError(f"it does not end: {game.core.unsettled()}")


TestChunkGame = ChunkGame.TestCase
TestChunkGame.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_a_chunk_that_is_shared_out_before_it_has_begun_goes_on_in_two_parts() -> None:
    game, pace = Game(2), Pace()
    pace.learn(10, 0.01)
    game.tell(Submitted(Task(100, game, key=100)))
    game.start_all()
    game.tell(Submitted(Task(101, game, key=101)))
    game.start_all()
    game.lanes[0].begin()
    game.lanes[1].begin()
    game.tell(Submitted(chunk(0, 8, game, pace=pace)))
    for lane in (0, 1):
        game.lanes[lane].running = None
        game.tell(AttemptEnded(lane, 100 + lane, 1, Returned(None), began=0.0, ended=0.0))
    assert sorted(calls for _, number, calls in game.sent if number < 100)[-2:] != [8, 8], "sent whole again and again"
    assert {lane for lane, number, _ in game.sent if number < 100} == {0, 1}
    finish(game)
    assert set(game.executed.values()) == {1}


def test_no_more_are_sent_at_once_than_their_size_allows() -> None:
    game = Game(1)
    game.tell(Submitted(Task(0, game, key=0, calls=500, group=Group(0, Pace(), 500, most=7))))
    finish(game)
    assert max(calls for *_, calls in game.sent) == 7
