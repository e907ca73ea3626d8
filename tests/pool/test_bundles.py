"""Bundles: tasks that are sent many at once, and stay tasks by themselves whatever happens to their neighbours."""

from __future__ import annotations

import concurrent.futures
import os
import threading

import chunk_tasks as tasks
import pytest
from pool_wait import held_up, until, wait_lines

from resilient_exec import NotSendable, PoolClosed, Settled, TaskKilled, TaskTimeout
from resilient_exec.supervisor import bundling

COUNT = 50
LIMITED = {"timeout": 0.4, "memory_limit": "1GiB", "output": "capture"}


class Together:
    """Submits tasks while the pool's loop is held up, so that it finds them all at once."""

    def __init__(self, pool, spy):
        self.pool, self.sent = pool, spy

    def learn(self, fn, *args):
        """Have the pool know that they are quick."""
        for _ in range(3):
            for future in self.submit(fn, [args] * 64):
                future.result(30)

    def submit(self, fn, calls):
        with held_up(self.pool):
            return [self.pool.submit(fn, *args) for args in calls]


@pytest.fixture
def sent(monkeypatch):
    """How many tasks went in each bundle."""
    sizes = []
    give = bundling.Bundle.give

    def noted(self, send, order):
        sizes.append(order.task.calls)
        return give(self, send, order)

    monkeypatch.setattr(bundling.Bundle, "give", noted)
    return sizes


@pytest.fixture(params=[{}, LIMITED], ids=["plain", "limited"])
def together(make_pool, sent, request):
    """A pool of one lane that knows that these tasks are quick."""
    found = Together(make_pool(1, **request.param), sent)
    found.learn(tasks.quick, "")
    sent.clear()
    return found


def results(futures):
    found = []
    for future in futures:
        try:
            found.append(future.result(30))
        except Exception as error:
            found.append(type(error).__name__)
    return found


def test_quick_tasks_are_sent_many_at_once(together):
    futures = together.submit(tasks.quick, [("", number) for number in range(COUNT)])
    assert results(futures) == list(range(COUNT))
    assert max(together.sent) >= 20


def test_each_has_a_story_of_its_own(together):
    futures = together.submit(tasks.quick, [("", number) for number in range(COUNT)])
    concurrent.futures.wait(futures, 30)
    assert max(together.sent) >= 20
    begins = []
    for number, future in enumerate(futures):
        assert [event.kind for event in future.story] == ["queued", "sent", "begun", "returned", "settled"]
        assert {event.key for event in future.story} == {future.key}
        times = [event.at for event in future.story]
        assert times == sorted(times)
        begins.append(times[2])
        assert future.attempts == 1
        assert future.dossier.arguments == f"'', {number}"
    assert begins == sorted(begins)
    assert len(set(begins)) == COUNT


def test_who_asks_how_one_has_ended_before_it_has_waits_for_that(together):
    futures = together.submit(tasks.quick, [("", number) for number in range(COUNT)])
    settled = [Settled.of(number, future) for number, future in enumerate(futures)]
    assert [(one.value, one.attempts) for one in settled] == [(number, 1) for number in range(COUNT)]
    assert all(one.elapsed > 0 for one in settled)


def test_each_knows_its_key(together):
    futures = together.submit(tasks.quick, [("who", number) for number in range(COUNT)])
    assert [future.result(30) for future in futures] == [(future.key, 1) for future in futures]


@pytest.mark.parametrize("what", ["kill", "exit"])
@pytest.mark.parametrize("where", [(0,), (13, 14), (COUNT - 1,), (3, 17, 40)])
def test_a_death_costs_the_task_that_ran_and_no_other(together, tmp_path, what, where):
    together.learn(tasks.noted, str(tmp_path), COUNT)
    calls = [(str(tmp_path), number, what if number in where else "") for number in range(COUNT)]
    futures = together.submit(tasks.noted, calls)
    assert results(futures) == list(range(COUNT))
    assert tasks.executions(tmp_path, COUNT) == [2 if number in where else 1 for number in range(COUNT)]
    assert [future.attempts for future in futures] == [2 if number in where else 1 for number in range(COUNT)]
    assert max(together.sent) >= 10


def test_a_timeout_strikes_the_task_that_hangs(make_pool, sent, tmp_path):
    together = Together(make_pool(1, timeout=0.4, retry=1), sent)
    together.learn(tasks.noted, str(tmp_path), COUNT)
    calls = [(str(tmp_path), number, "hang" if number in (7, 30) else "") for number in range(COUNT)]
    futures = together.submit(tasks.noted, calls)
    assert results(futures) == ["TaskTimeout" if number in (7, 30) else number for number in range(COUNT)]
    with pytest.raises(TaskTimeout) as caught:
        futures[7].result()
    assert caught.value.key == futures[7].key
    assert tasks.executions(tmp_path, COUNT) == [1] * COUNT


def test_what_one_raises_is_its_own(together):
    calls = [("raise" if number % 7 == 3 else "", number) for number in range(COUNT)]
    found = results(together.submit(tasks.quick, calls))
    assert found == ["ValueError" if number % 7 == 3 else number for number in range(COUNT)]


@pytest.mark.parametrize("kind", ["list", "large", "tuple", "none"])
def test_any_result_comes_back(together, kind):
    futures = together.submit(tasks.quick, [(kind if number % 5 == 2 else "", number) for number in range(COUNT)])
    found = results(futures)
    assert found == [tasks.quick(kind if number % 5 == 2 else "", number) for number in range(COUNT)]


def test_no_two_get_the_same_object(together):
    first, second, *_ = together.submit(tasks.quick, [("list", 1)] * 8)
    assert first.result(30) == second.result(30)
    assert first.result() is not second.result()


def test_a_result_that_cannot_travel_is_its_own_tasks_failure(together):
    calls = [("unpicklable" if number == 20 else "", number) for number in range(COUNT)]
    futures = together.submit(tasks.quick, calls)
    assert results(futures) == ["NotSendable" if number == 20 else number for number in range(COUNT)]
    with pytest.raises(NotSendable):
        futures[20].result()


def test_those_behind_one_that_takes_long_can_be_cancelled_and_never_run(together, tmp_path):
    together.learn(tasks.noted, str(tmp_path), COUNT)
    calls = [(str(tmp_path), number, "sleep" if number == 5 else "") for number in range(30)]
    futures = together.submit(tasks.noted, calls)
    wait_lines(tmp_path / "5", 1)
    gone = [number for number in range(6, 30) if futures[number].cancel()]
    assert gone == list(range(6, 30))
    assert not futures[5].cancel()
    assert results(futures[:6]) == list(range(6))
    assert all(future.cancelled() for future in futures[6:])
    assert sorted(os.listdir(tmp_path), key=int)[:6] == [str(number) for number in range(6)]
    assert not any((tmp_path / str(number)).exists() for number in range(6, 30))


def test_what_is_cancelled_never_runs_and_what_is_not_runs_once(together, tmp_path):
    together.learn(tasks.noted, str(tmp_path), 999)
    for at in range(0, 600, 200):
        calls = [(str(tmp_path), number) for number in range(at, at + 200)]
        futures = together.submit(tasks.noted, calls)
        cancelled = {at + place for place in range(199, 0, -3) if futures[place].cancel()}
        done, _ = concurrent.futures.wait(futures, 30)
        assert len(done) == 200
        for number in range(at, at + 200):
            future = futures[number - at]
            assert future.cancelled() == (number in cancelled)
            assert (tmp_path / str(number)).exists() == (number not in cancelled), future.story
            if number not in cancelled:
                assert len((tmp_path / str(number)).read_text().splitlines()) == 1
    assert cancelled


def test_one_is_killed_and_no_other(together, tmp_path):
    together.learn(tasks.noted, str(tmp_path), COUNT)
    calls = [(str(tmp_path), number, "hang" if number == 5 else "") for number in range(30)]
    pool = together.pool
    view = pool.options(timeout=None)
    together.pool = view
    view._supervisor = pool._supervisor
    together.learn(tasks.noted, str(tmp_path), COUNT)
    futures = together.submit(tasks.noted, calls)
    wait_lines(tmp_path / "5", 1)
    futures[20].kill()  # it has not begun
    with pytest.raises(TaskKilled):
        futures[20].result(30)
    futures[5].kill()
    with pytest.raises(TaskKilled):
        futures[5].result(30)
    assert results(futures) == ["TaskKilled" if number in (5, 20) else number for number in range(30)]
    assert not (tmp_path / "20").exists()
    assert tasks.executions(tmp_path, 20) == [1] * 20


def test_what_follows_one_that_takes_long_runs_in_another_lane(make_pool, sent, tmp_path):
    together = Together(make_pool(2), sent)
    together.learn(tasks.noted, str(tmp_path), COUNT)
    calls = [(str(tmp_path), number, "hang" if number == 3 else "") for number in range(COUNT)]
    futures = together.submit(tasks.noted, calls)
    others = [future for number, future in enumerate(futures) if number != 3]
    assert concurrent.futures.wait(others, 30).not_done == set()
    assert not futures[3].done()
    futures[3].kill()


def test_callbacks_waits_and_settled_see_each_once(together):
    seen = []
    futures = together.submit(tasks.quick, [("", number) for number in range(COUNT)])
    for future in futures:
        future.add_done_callback(seen.append)
    assert set(concurrent.futures.as_completed(futures, 30)) == set(futures)
    until(lambda: len(seen) == COUNT)
    assert set(seen) == set(futures)
    assert sorted(one.value for one in together.pool.settled(tasks.quick, [""] * COUNT, range(COUNT))) == list(
        range(COUNT)
    )


def test_a_shutdown_cancels_those_that_wait(together):
    futures = together.submit(tasks.quick, [("sleep", number) for number in range(COUNT)])
    until(lambda: futures[0].running() or futures[0].done())
    together.pool.shutdown(cancel_futures=True)
    assert all(future.done() for future in futures)
    assert futures[-1].cancelled()
    assert not futures[0].cancelled()


def test_what_comes_in_behind_the_end_settles(make_pool, sent):
    together = Together(make_pool(1), sent)
    together.learn(tasks.quick, "")
    pool = together.pool
    supervisor = pool._supervisor
    pool.shutdown()
    engine = pool._engine
    assert supervisor.ended.is_set()
    futures = []

    def late():
        futures.extend(engine.enqueue(None, tasks.quick, ("", number), {}) for number in range(300))

    threads = [threading.Thread(target=late) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(futures) == 1800
    for future in futures:
        with pytest.raises(PoolClosed):
            future.result(10)


def test_a_number_that_waits_in_a_bundle_is_nobody_elses_key(together):
    futures = together.submit(tasks.quick, [("sleep", number) for number in range(COUNT)])
    with pytest.raises(ValueError, match="has the key"):
        together.pool.options(key=futures[-1].key).submit(tasks.quick, "", 1)
    for future in futures:
        future.cancel()


def test_a_function_whose_name_another_has_meanwhile_is_still_called(together, monkeypatch):
    fn = tasks.quick
    monkeypatch.setattr(tasks, "quick", tasks.noted)
    futures = together.submit(fn, [("", number) for number in range(COUNT)])
    assert results(futures) == list(range(COUNT))
    one = together.submit(fn, [("", 7)])
    assert results(one) == [7]


def test_tasks_of_other_options_go_by_themselves(make_pool, sent):
    together = Together(make_pool(1), sent)
    pool = together.pool
    views = [pool.options(key=f"key {number}") for number in range(8)]
    with held_up(pool):
        futures = [view.submit(tasks.quick, "who", number) for number, view in enumerate(views)]
    assert [future.result(30) for future in futures] == [(f"key {number}", 1) for number in range(8)]
    assert sent == []


def test_the_order_is_kept_and_a_larger_priority_goes_first(make_pool, sent, tmp_path):
    together = Together(make_pool(1), sent)
    together.learn(tasks.noted, str(tmp_path), COUNT)
    pool = together.pool
    urgent = pool.options(priority=1)
    with held_up(pool):
        late = [pool.submit(tasks.quick, "now", number) for number in range(COUNT)]
        soon = [urgent.submit(tasks.quick, "now", number) for number in range(COUNT)]
    first, then = ([future.result(30) for future in futures] for futures in (soon, late))
    assert first == sorted(first)
    assert then == sorted(then)
    assert max(first) < min(then[33:]), "but for what the worker had been sent before they came in"
