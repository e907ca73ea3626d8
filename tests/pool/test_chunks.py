"""``map`` in chunks: each call is what it is alone, whatever happens to its neighbours."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import time

import chunk_tasks as tasks
import pytest
from pool_tasks import alive
from pool_wait import until, wait_lines

from resilient_exec import MemoryLimitExceeded, NotSendable, RetryPolicy, TaskKilled, TaskTimeout, WorkerDied

SIZES = [7, 30, None]
FOREVER = itertools.repeat


def outcomes(values):
    """What an iterator of values gives, with the exception that ends it."""
    found = []
    try:
        for value in values:
            found.append(value)
    except Exception as error:
        found.append(error)
    return found


@pytest.mark.parametrize("chunksize", SIZES)
@pytest.mark.parametrize("what", ["kill", "exit"])
def test_a_death_costs_the_call_that_ran_and_no_other(pool, tmp_path, chunksize, what):
    count = 30
    faults = [what if number in (0, 13, 14, 29) else "" for number in range(count)]
    values = pool.map(tasks.noted, FOREVER(str(tmp_path)), range(count), faults, chunksize=chunksize)
    assert list(values) == list(range(count))
    assert tasks.executions(tmp_path, count) == [2 if fault else 1 for fault in faults]


@pytest.mark.parametrize("chunksize", SIZES)
def test_a_timeout_strikes_the_call_that_hangs(pool, tmp_path, chunksize):
    count = 30
    faults = ["hang" if number in (4, 21) else "" for number in range(count)]
    view = pool.options(timeout=0.3)
    values = view.map(tasks.noted, FOREVER(str(tmp_path)), range(count), faults, chunksize=chunksize)
    assert list(values) == list(range(count))
    assert tasks.executions(tmp_path, count) == [2 if fault else 1 for fault in faults]


def test_a_timeout_is_for_each_call_and_not_for_the_chunk(lone):
    assert list(lone.options(timeout=0.25).map(time.sleep, [0.1] * 6, chunksize=6)) == [None] * 6


def test_the_error_of_a_call_that_timed_out_names_it(lone):
    first = next(lone.map(tasks.who, range(3), chunksize=3))[0]
    values = lone.options(timeout=0.3, retry=1, label="mine").map(
        tasks.odd_one, range(5), FOREVER(2), FOREVER("hang"), chunksize=5
    )
    *before, error = outcomes(values)
    assert before == [0, 1]
    assert isinstance(error, TaskTimeout)
    assert error.key == first + 3 + 2
    assert error.attempt == 1
    assert [event.kind for event in error.story] == ["queued", "sent", "begun", "doomed", "timed_out", "settled"]
    assert "mine" in str(error)
    assert "2, 2, 'hang'" in str(error.dossier)
    assert "misbehave" in error.stacks


def test_what_a_call_raises_is_its_own(lone, tmp_path):
    values = lone.map(tasks.noted, FOREVER(str(tmp_path)), range(6), ["", "", "raise", "", "", ""], chunksize=6)
    *before, error = outcomes(values)
    assert before == [0, 1]
    assert type(error) is ValueError
    assert error.args == ("no",)
    assert "misbehave" in str(error.__cause__)
    assert "resilient_exec" not in str(error.__cause__)


def test_calls_behind_one_that_raised_run(lone, tmp_path):
    seen = lone.submit(tasks.noted, str(tmp_path), 99)
    assert seen.result(60) == 99
    future = lone.submit(tasks_chunk(), tasks.noted, [(str(tmp_path), n, "raise" if n == 1 else "") for n in range(5)])
    assert isinstance(future.exception(60), ValueError)
    assert tasks.executions(tmp_path, 5) == [1] * 5


def tasks_chunk():
    from resilient_exec.pool.mapping import run_chunk

    return run_chunk


@pytest.mark.parametrize("chunksize", [5, None])
def test_a_call_that_raised_is_tried_again_by_itself(lone, chunksize):
    view = lone.options(retry=RetryPolicy(errors=1))
    found = list(view.map(tasks.twice, range(5), chunksize=chunksize))
    first = found[0][0]
    assert [key for key, _, _ in found] == list(range(first, first + 5))
    assert [attempt for _, attempt, _ in found] == [1, 1, 2, 1, 1]
    assert [len(pids) for _, _, pids in found] == [0, 0, 1, 0, 0]


def test_each_budget_is_that_of_one_call(lone, tmp_path):
    faults = ["kill" if number % 2 else "" for number in range(8)]
    view = lone.options(retry=2)
    assert list(view.map(tasks.noted, FOREVER(str(tmp_path)), range(8), faults, chunksize=8)) == list(range(8))
    assert tasks.executions(tmp_path, 8) == [2 if fault else 1 for fault in faults]


def test_a_call_that_always_dies_is_named(lone):
    values = lone.options(retry=2).map(tasks.odd_one, range(5), FOREVER(3), FOREVER("kill"), chunksize=5)
    *before, error = outcomes(values)
    assert before == [0, 1, 2]
    assert isinstance(error, WorkerDied)
    assert error.attempt == 2
    assert error.exitcode == -signal.SIGKILL


def test_results_come_while_a_later_call_of_the_chunk_runs(lone, tmp_path):
    go = tmp_path / "go"
    order = [(1,), (2,), (0,), (3,)]
    calls = [(str(tmp_path), number, str(go)) for (number,) in order]
    values = lone.map(tasks.wait_in_turn, *zip(*calls, strict=True), chunksize=4)
    assert [next(values), next(values)] == [1, 2], "the third one has not ended"
    go.touch()
    assert list(values) == [0, 3]


def test_calls_behind_one_that_takes_long_run_elsewhere(pool, tmp_path):
    list(pool.map(tasks.wait_in_turn, FOREVER(str(tmp_path)), [91, 92], FOREVER(""), chunksize=1))
    go = tmp_path / "go"
    values = pool.map(tasks.wait_in_turn, FOREVER(str(tmp_path)), range(8), FOREVER(str(go)), chunksize=8)
    for number in range(8):
        wait_lines(tmp_path / str(number), 1)  # all of them, while the first one still runs
    go.touch()
    assert list(values) == list(range(8))
    assert tasks.executions(tmp_path, 8) == [1] * 8


@pytest.mark.parametrize("what", ["raise", "kill", "exit"])
@pytest.mark.parametrize("chunksize", [5, None])
def test_a_result_that_misbehaves_when_it_is_unpickled_is_its_calls_own(lone, what, chunksize):
    values = lone.options(retry=1).map(tasks.give, range(5), FOREVER(2), FOREVER(what), chunksize=chunksize)
    *before, error = outcomes(values)
    assert before == [0, 1]
    assert isinstance(error, NotSendable if what == "raise" else WorkerDied)


def test_a_result_that_hangs_when_it_is_unpickled_is_struck(lone):
    values = lone.options(retry=1, timeout=0.4).map(tasks.give, range(5), FOREVER(2), FOREVER("hang"), chunksize=5)
    *before, error = outcomes(values)
    assert before == [0, 1]
    assert isinstance(error, TaskTimeout)


def test_a_result_that_does_not_pickle_is_told(lone):
    values = lone.map(tasks.give, range(5), FOREVER(2), FOREVER("cannot"), chunksize=5)
    *before, error = outcomes(values)
    assert before == [0, 1]
    assert isinstance(error, NotSendable)
    assert "does not pickle" in str(error)


@pytest.mark.parametrize("what", ["raise", "kill", "hang"])
def test_an_argument_that_misbehaves_when_it_is_unpickled_is_its_calls_own(lone, what):
    things = [tasks.Awkward(number, what if number == 2 else "") for number in range(5)]
    values = lone.options(retry=1, timeout=0.4 if what == "hang" else 60).map(tasks.take, things, chunksize=5)
    *before, error = outcomes(values)
    assert before == [0, 1]
    assert isinstance(error, {"raise": NotSendable, "kill": WorkerDied, "hang": TaskTimeout}[what])


def test_an_argument_that_does_not_pickle_is_its_calls_own(lone):
    things = [tasks.Awkward(number, "cannot" if number in (2, 4) else "") for number in range(6)]
    future = lone.submit(tasks_chunk(), tasks.take, [(thing,) for thing in things])
    until(lambda: (counts := lone.snapshot()) and (counts["done"], counts["failed"]) == (4, 2))
    error = future.exception(60)
    assert isinstance(error, NotSendable)
    assert "argument 1 ('made')" in str(error)
    assert "test_chunks.py" in str(error)


def test_values_are_as_they_were_when_each_call_returned(lone):
    assert list(lone.map(tasks.same_list, range(4), chunksize=4)) == [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3]]


@pytest.mark.parametrize("size", [100, 9_000, 70_000, 3_000_000])
@pytest.mark.parametrize("chunksize", [4, None])
def test_results_of_all_sizes_come_back_in_order(lone, size, chunksize):
    found = lone.map(tasks.big, range(9), FOREVER(size), chunksize=chunksize)
    assert all(value == bytes([number]) * size for number, value in enumerate(found))


@pytest.mark.parametrize("chunksize", [3, 1000, None])
def test_many_plain_and_other_values_come_back_as_they_were(pool, chunksize):
    made = [None, True, 7, -(10**30), 1.5, 2j, "é\ud800", b"\0" * 300, (1, "a", None), (), [1, [2]], {"a": {1}}, {3}]
    made = list(itertools.islice(itertools.cycle(made), 3000))
    found = list(pool.map(tasks.take, made, chunksize=chunksize))
    assert found == made
    assert list(map(type, found)) == list(map(type, made))


def test_arguments_that_all_calls_share_are_theirs(lone):
    shared, other = {"a": [1]}, [2]
    found = list(lone.map(lambda *args: args, FOREVER(shared), range(3), FOREVER(other), chunksize=3))
    assert found == [(shared, number, other) for number in range(3)]


def test_a_call_knows_its_own_key_and_number(pool):
    found = list(pool.map(tasks.who, range(50), chunksize=None))
    first = found[0][0]
    assert [key for key, _, _ in found] == list(range(first, first + 50))
    assert pool.submit(tasks.who, 0).result(60)[0] == first + 50


def test_a_key_of_the_users_is_not_a_number_in_a_chunk(lone, tmp_path):
    go = tmp_path / "go"
    first = lone.submit(tasks.who, 0).result(60)[0]
    values = lone.map(tasks.wait_in_turn, FOREVER(str(tmp_path)), range(5), FOREVER(str(go)), chunksize=5)
    wait_lines(tmp_path / "0", 1)
    with pytest.raises(ValueError, match="has the key"):
        lone.options(key=first + 3).submit(tasks.who, 0)
    go.touch()
    assert list(values) == list(range(5))


def test_a_soft_timeout_strikes_one_call(lone):
    list(lone.map(tasks.soft, [0, 2], chunksize=2))  # what they need is imported, which may take its time
    values = lone.options(soft_timeout=0.5, timeout=30).map(tasks.soft, range(4), chunksize=4)
    assert list(values) == [0, "SoftTimeout", 2, 3]


def test_a_memory_limit_strikes_one_call(lone):
    view = lone.options(memory_limit="200MiB", retry=1)
    *before, error = outcomes(view.map(tasks.use_memory, range(5), FOREVER(400 << 20), chunksize=5))
    assert before == [0, 1]
    assert isinstance(error, MemoryLimitExceeded)


def test_max_tasks_per_worker_counts_calls(make_pool):
    pool = make_pool(1, max_tasks_per_worker=3)
    pids = [pid for _, _, pid in pool.map(tasks.who, range(9), chunksize=9)]
    assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [3, 3, 3]


def test_a_call_that_spoils_its_process_is_the_last_there(lone):
    pids = list(lone.map(tasks.lower, range(4), chunksize=4))
    assert pids[0] == pids[1]
    assert pids[2] == pids[3] != pids[0]


def test_a_child_that_comes_back_out_of_a_call_answers_nothing(lone):
    assert list(lone.map(tasks.fork, range(5), chunksize=5)) == list(range(5))


def test_what_a_call_that_raised_has_started_is_ended_first(lone):
    future = lone.submit(tasks_chunk(), tasks.leave_child, [(number,) for number in range(3)])
    child = future.exception(60).args[0]
    until(lambda: not alive(child))


def test_each_call_has_a_scratch_directory_of_its_own(lone):
    folders = list(lone.map(tasks.scratch, range(3), chunksize=3))
    assert len(set(folders)) == 3
    until(lambda: not any(map(os.path.exists, folders)))


def test_output_of_a_call_that_failed_is_its_own(make_pool):
    pool = make_pool(1, output="capture")
    future = pool.submit(tasks_chunk(), tasks.say, [(number,) for number in range(4)])
    seen = []
    pool2 = make_pool(1, output="capture", observers=[seen.append])
    list(outcomes(pool2.map(tasks.say, range(4), chunksize=4)))
    pool2.shutdown()
    assert isinstance(future.exception(60), ValueError)
    (raised,) = [event for event in seen if event.kind == "raised"]
    assert raised.evidence.stdout == "this is 2\n"


def test_a_flood_of_output_holds_nobody_up(make_pool):
    pool = make_pool(1, output="capture")
    *before, error = outcomes(pool.map(tasks.flood, range(5), chunksize=5))
    assert before == [0, 1, 2]
    assert isinstance(error, ValueError)


def test_closing_the_iterator_cancels_what_has_not_begun(lone, tmp_path):
    go = tmp_path / "go"
    values = lone.map(
        tasks.wait_in_turn, FOREVER(str(tmp_path)), [1, 0, *range(2, 200)], FOREVER(str(go)), chunksize=50
    )
    assert next(values) == 1
    wait_lines(tmp_path / "0", 1)
    values.close()
    until(lambda: lone.snapshot()["pending"] == 0)
    go.touch()
    assert lone.submit(tasks.who, 0).result(60)
    assert not (tmp_path / "2").exists()
    snapshot = lone.snapshot()
    assert (snapshot["cancelled"], snapshot["done"]) == (198, 3)


def test_a_shutdown_that_cancels_spares_the_call_that_runs(make_pool, tmp_path):
    pool, go = make_pool(1), tmp_path / "go"
    values = pool.map(tasks.wait_in_turn, FOREVER(str(tmp_path)), range(20), FOREVER(str(go)), chunksize=10)
    wait_lines(tmp_path / "0", 1)
    pool.shutdown(wait=False, cancel_futures=True)
    until(lambda: pool.snapshot()["pending"] == 0)
    go.touch()
    assert next(values) == 0
    pool.shutdown()
    assert not (tmp_path / "1").exists()


@pytest.mark.parametrize("chunksize", [10, None])
def test_a_shutdown_that_kills_settles_all_calls(make_pool, chunksize):
    pool = make_pool(2)
    values = pool.map(tasks.odd_one, range(40), FOREVER(0), FOREVER("hang"), chunksize=chunksize)
    until(lambda: pool.snapshot()["running"])
    pool.shutdown(kill=True)
    with pytest.raises(TaskKilled):
        next(values)


def test_the_timeout_of_map_is_for_its_reader(lone):
    list(lone.map(tasks.who, range(3), chunksize=3))
    values = lone.map(tasks.slow_then, [1, 2, 0, 3], FOREVER(30), chunksize=4, timeout=3)
    assert [next(values), next(values)] == [1, 2]
    with pytest.raises(TimeoutError):
        next(values)


def test_counts_are_of_calls(lone, tmp_path):
    go = tmp_path / "go"
    values = lone.map(tasks.wait_in_turn, FOREVER(str(tmp_path)), [1, 0, *range(2, 12)], FOREVER(str(go)), chunksize=6)
    assert next(values) == 1
    wait_lines(tmp_path / "0", 1)
    counts = until(lambda: (found := lone.snapshot()) and found["running"] == 1 and found)
    assert (counts["pending"], counts["done"]) == (10, 1)
    go.touch()
    assert sorted(values) == [0, *range(2, 12)]
    assert lone.snapshot()["done"] == 12


def test_observers_are_told_of_each_call_that_it_is_queued_and_settled(make_pool):
    seen = []
    with make_pool(1, observers=[seen.append]) as pool:
        list(pool.map(tasks.who, range(20), chunksize=10))
    for kind in ("queued", "settled"):
        assert sorted(event.key for event in seen if event.kind == kind) == list(range(20))
    assert sum(event.detail["calls"] for event in seen if event.kind == "sent") == 20


def test_a_pool_inside_a_call_may_use_chunks(lone):
    assert list(lone.map(tasks.pool_inside, range(3), chunksize=3)) == [[0, 0], [1, 1], [2, 2]]


def test_a_worker_that_is_stopped_between_two_looks_goes_on(lone):
    pids = {pid for _, _, pid in lone.map(tasks.who, range(3), chunksize=3)}
    (pid,) = pids
    values = lone.map(tasks.slow_then, range(200), FOREVER(0.1), chunksize=200)
    os.kill(pid, signal.SIGSTOP)
    time.sleep(0.1)
    os.kill(pid, signal.SIGCONT)
    assert list(values) == list(range(200))


def test_a_worker_that_is_killed_from_outside_costs_one_call_at_most(make_pool, tmp_path):
    pool = make_pool(2)
    count = 400
    values = pool.map(tasks.noted, FOREVER(str(tmp_path)), range(count), chunksize=50)
    for number in (20, 200):
        (pid, *_) = wait_lines(tmp_path / str(number), 1)
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    assert list(values) == list(range(count))
    assert sum(tasks.executions(tmp_path, count)) <= count + 2


def test_endless_input_is_taken_as_it_is_read(pool):
    taken = []

    def endless():
        for number in itertools.count():
            taken.append(number)
            yield number

    values = pool.map(abs, endless(), chunksize=None, buffersize=100)
    assert len(taken) <= 101
    for number in range(1000):
        assert next(values) == number
        assert len(taken) <= number + 1 + 101
    values.close()


def test_whole_numbers_of_other_types_are_chunksizes(pool):
    numpy = pytest.importorskip("numpy")
    assert list(pool.map(abs, range(5), chunksize=numpy.int64(2))) == list(range(5))


MANY = 60_000  # very quick calls: so many that the worker runs them in spurts


@pytest.mark.parametrize("what", ["list", "long", "own", "context", "note", "fork", "sleep"])
def test_one_among_very_quick_calls_may_be_of_another_kind(lone, what):
    start = lone.submit(tasks.who, 0).result(60)[0] + 1
    found = list(lone.map(tasks.odd_value, range(MANY), FOREVER(MANY // 2), FOREVER(what), chunksize=MANY))
    odd = {"list": [MANY // 2], "long": "x" * 100_000, "context": start + MANY // 2}.get(what, MANY // 2)
    assert found == [*range(MANY // 2), odd, *range(MANY // 2 + 1, MANY)]


@pytest.mark.parametrize("what", ["kill", "exit", "raise", "stop", "hang"])
def test_one_among_very_quick_calls_may_fail(lone, what):
    view = lone.options(retry=1, timeout=2 if what == "hang" else None)
    *before, error = outcomes(view.map(tasks.odd_value, range(MANY), FOREVER(MANY // 2), FOREVER(what), chunksize=MANY))
    assert before == list(range(MANY // 2))
    kinds = {"kill": WorkerDied, "exit": WorkerDied, "raise": ValueError, "hang": TaskTimeout}
    assert type(error) is kinds.get(what, RuntimeError)
    if what == "stop":  # no iterator can raise it
        assert error.__cause__.args == (MANY // 2, "really")


def test_very_quick_calls_behind_one_that_takes_long_run_elsewhere(pool, tmp_path):
    list(pool.map(tasks.wait_in_turn, FOREVER(str(tmp_path)), [91, 92], FOREVER(""), chunksize=1))
    values = pool.map(tasks.odd_value, range(MANY), FOREVER(MANY // 2), FOREVER("hang"), chunksize=MANY)
    assert list(itertools.islice(values, MANY // 2)) == list(range(MANY // 2))
    until(lambda: pool.snapshot()["done"] == MANY - 1 + 2)  # while the one hangs
    pool.shutdown(kill=True)


def test_a_note_of_one_very_quick_call_is_not_its_neighbours(lone):
    *_, error = outcomes(lone.options(retry=1).map(tasks.note_then_die, range(MANY), chunksize=MANY))
    assert isinstance(error, WorkerDied)
    assert "noted by another" not in str(error.dossier)


def test_long_arguments_are_not_piled_up_in_one_message(lone, monkeypatch):
    from resilient_exec.lane import lane

    sizes, parts = [], lane.chunk_parts

    def noting(task, attempt):
        found = parts(task, attempt)
        sizes.append(sum(map(len, found)))
        return found

    monkeypatch.setattr(lane, "chunk_parts", noting)
    long = [bytes([number % 256]) * 200_000 for number in range(300)]
    assert list(lone.map(len, long, chunksize=None)) == [200_000] * 300
    assert max(sizes) < 3_000_000
    arrays = [bytearray(200_000) for _ in range(100)]
    assert list(lone.map(len, arrays, chunksize=None)) == [200_000] * 100
    assert max(sizes) < 3_000_000
