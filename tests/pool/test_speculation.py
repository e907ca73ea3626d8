"""Two attempts of a task at once, with ``speculate=True``: which result counts, and that the other attempt is gone."""

from __future__ import annotations

import itertools
import os
import signal
from concurrent.futures import TimeoutError as FutureTimeout

import pytest
import speculation_tasks as tasks
from pool_tasks import alive
from pool_wait import until

from resilient_exec import TaskKilled, TaskTimeout, WorkerDied


@pytest.fixture
def view(pool):
    """A view whose tasks may run twice, and are known to be quick."""
    view = pool.options(speculate=True, label="f", retry=1)
    assert list(view.map(tasks.quick, range(10))) == list(range(10))
    return view


def pids(folder):
    """Of the workers in which attempts have begun."""
    return [int(path.read_text().split()[0]) for path in sorted(folder.glob("[12]"))]


def kinds(future):
    return [event.kind for event in future.story]


def both_begun(folder):
    until((folder / "2").exists)


@pytest.mark.parametrize("chunksize", [1, 4, None])
def test_a_call_that_hangs_is_rescued_and_no_other_runs_twice(pool, tmp_path, chunksize):
    view = pool.options(speculate=True)
    forever = itertools.repeat
    values = view.map(tasks.act_once, forever(str(tmp_path)), range(30), forever(20), chunksize=chunksize)
    assert list(values) == list(range(30))
    ran = {int(path.name.split()[1]): path.read_text().split() for path in tmp_path.iterdir()}
    assert ran == {number: ["1", "2"] if number == 20 else ["1"] for number in range(30)}


def test_a_straggler_is_killed_before_the_result_of_its_twin_is_there(view, tmp_path):
    future = view.submit(tasks.act, str(tmp_path), "hang", "", "number")
    assert future.result(60) == 2
    first, twin = pids(tmp_path)
    assert not alive(first)
    assert alive(twin)
    assert future.attempts == 2
    assert kinds(future)[-4:] == ["returned", "doomed", "outrun", "settled"]
    text = str(future.dossier)
    assert "was outrun: attempt 2 has ended first" in text
    assert "in _do" in text, "it is not told where it hung"
    assert (tmp_path / "2").read_text() == f"{twin} ()", "the first attempt is said to be dead, and runs"


def test_the_first_attempt_wins_if_it_ends_first(view, tmp_path):
    future = view.submit(tasks.act, str(tmp_path), "await 2", "hang", "number")
    assert future.result(60) == 1
    first, twin = pids(tmp_path)
    assert not alive(twin)
    assert alive(first)


def test_an_exception_wins_as_a_value_does(view, tmp_path):
    future = view.submit(tasks.act, str(tmp_path), "hang", "raise")
    assert isinstance(future.exception(60), ValueError)
    assert not alive(pids(tmp_path)[0])


def test_both_end_at_once(view, tmp_path, caplog):
    """Exactly one result, whichever it is; where both have come, and differ, that is told, and logged."""
    for number in range(4):
        folder = tmp_path / str(number)
        folder.mkdir()
        caplog.clear()
        future = view.submit(tasks.act, str(folder), "await 2", "await 2", "number")
        value = future.result(60)
        story = future.story
        (returned, *more) = [event.attempt for event in story if event.kind == "returned"]
        assert value == returned
        assert kinds(future)[-1] == "settled"
        differed = [event.detail["kept"] for event in story if event.kind == "differed"]
        assert differed == ([value] if more else [])
        if more:
            until(lambda: caplog.records)
            assert f"that of attempt {value}, which was first, is kept" in caplog.text.replace("\n", " ")
        assert view.submit(tasks.quick, 1).result(60) == 1


def test_both_return_the_same(view, tmp_path, caplog):
    future = view.submit(tasks.act, str(tmp_path), "await 2", "await 2", "same")
    assert future.result(60) == "same"
    assert "differed" not in kinds(future)
    assert not caplog.records


@pytest.mark.parametrize("dies", ["the first", "the twin"])
def test_the_death_of_one_leaves_the_task_to_the_other(view, tmp_path, dies):
    acts = ("await die", "await done") if dies == "the first" else ("await done", "die")
    future = view.submit(tasks.act, str(tmp_path), *acts, "number")
    both_begun(tmp_path)
    if dies == "the first":
        os.kill(pids(tmp_path)[0], signal.SIGKILL)
    until(lambda: "died" in kinds(future))
    with pytest.raises(FutureTimeout):
        future.result(0.1)
    (tmp_path / "done").touch()
    assert future.result(60) == (2 if dies == "the first" else 1)


def test_the_death_of_both_is_that_of_the_task(view, tmp_path):
    future = view.submit(tasks.act, str(tmp_path), "await 2, die", "die")
    error = future.exception(60)
    assert isinstance(error, WorkerDied)


def test_each_has_its_own_timeout(view, tmp_path):
    future = view.options(timeout=1.0).submit(tasks.act, str(tmp_path), "hang", "hang")
    error = future.exception(60)
    assert isinstance(error, TaskTimeout)
    assert future.attempts == 2
    began = {event.attempt: event.at for event in future.story if event.kind == "begun"}
    ended = {event.attempt: event.at for event in future.story if event.kind == "timed_out"}
    assert ended[1] - began[1] >= 1.0
    assert ended[2] - began[2] >= 1.0
    assert not any(map(alive, pids(tmp_path)))


def test_a_kill_ends_both(view, tmp_path):
    future = view.submit(tasks.act, str(tmp_path), "hang", "hang")
    both_begun(tmp_path)
    assert not future.cancel()
    future.kill()
    assert isinstance(future.exception(60), TaskKilled)
    assert not any(map(alive, pids(tmp_path)))


def test_a_shutdown_that_kills_ends_both(pool, view, tmp_path):
    future = view.submit(tasks.act, str(tmp_path), "hang", "hang")
    both_begun(tmp_path)
    pool.shutdown(kill=True)
    assert isinstance(future.exception(0), TaskKilled)
    assert not any(map(alive, pids(tmp_path)))


def test_a_shutdown_that_waits_rescues_the_last_one(pool, view, tmp_path):
    future = view.submit(tasks.act, str(tmp_path), "hang", "", "number")
    pool.shutdown()
    assert future.result(0) == 2
    assert not any(map(alive, pids(tmp_path)))


def test_without_speculate_nothing_runs_twice(pool, view, tmp_path):
    future = pool.options(label="f", timeout=1.5, retry=1).submit(tasks.act, str(tmp_path), "hang")
    assert isinstance(future.exception(60), TaskTimeout)
    assert future.attempts == 1
    assert view.submit(tasks.quick, 1).result(60) == 1


def test_a_key_is_taken_until_both_have_ended(view, tmp_path):
    mine = view.options(key="mine")
    future = mine.submit(tasks.act, str(tmp_path), "hang", "hang")
    both_begun(tmp_path)
    with pytest.raises(ValueError, match="mine"):
        mine.submit(tasks.quick, 1)
    future.kill()
    future.exception(60)
    assert mine.submit(tasks.quick, 1).result(60) == 1


def test_observers_are_told(make_pool, tmp_path):
    told = []
    pool = make_pool(2, observers=[told.append])
    view = pool.options(speculate=True, label="f")
    list(view.map(tasks.quick, range(10)))
    future = view.submit(tasks.act, str(tmp_path), "hang")
    assert future.result(60) == "same"
    until(lambda: told[-1].kind == "settled" and told[-1].key == future.key)
    assert [event for event in told if event.key == future.key] == list(future.story)
    (event,) = [event for event in told if event.kind == "speculated"]
    assert event.detail["ran"] >= event.detail["limit"] > 0


def test_a_running_task_counts_once(pool, view, tmp_path):
    future = view.submit(tasks.act, str(tmp_path), "hang", "hang")
    both_begun(tmp_path)
    counts = pool.snapshot()
    assert (counts["running"], counts["pending"]) == (1, 0)
    assert future.running()
    until(lambda: "running, attempt 2" in repr(future))
    future.kill()


@pytest.mark.parametrize("value", [1, "yes", None, 0.5])
def test_it_is_true_or_false(pool, value):
    with pytest.raises(TypeError, match=r"speculate must be True or False; got"):
        pool.options(speculate=value)
    assert "speculate=True" in repr(pool.options(speculate=True))
