"""What it takes to be an Executor: callbacks, cancelling, order (points 8, 10, 11 and 14 of the contract)."""

from __future__ import annotations

import concurrent.futures
import itertools
import threading
import time
from decimal import Decimal
from fractions import Fraction

import pool_odd as odd
import pool_tasks as tasks
import pytest
from pool_wait import lines, until, wait_lines

from resilient_exec import TaskKilled

# -- callbacks -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ValueError("mine"), SystemExit(3), KeyboardInterrupt("mine"), GeneratorExit()])
def test_a_callback_that_raises_harms_nobody_and_is_logged(lone, caplog, error):
    def raising(_):
        raise error

    first, second = [], threading.Event()
    future = lone.submit(tasks.same, 1)
    future.add_done_callback(first.append)
    future.add_done_callback(raising)
    future.add_done_callback(lambda _: second.set())
    assert second.wait(60)
    assert first == [future]
    assert lone.submit(tasks.same, 2).result(60) == 2
    until(lambda: "a done-callback raised" in caplog.text)


def test_callbacks_run_once_each_in_the_order_in_which_they_were_added(lone, tmp_path):
    go, called = str(tmp_path / "go"), []
    future = lone.submit(tasks.wait_for, go)
    for number in range(20):
        future.add_done_callback(lambda _, number=number: called.append(number))
    tasks.note(go, "now")
    last = threading.Event()
    lone.submit(tasks.same, 1).add_done_callback(lambda _: last.set())
    assert last.wait(60)
    assert called == list(range(20))


def test_callbacks_added_while_the_future_is_settled_run_once_each(warm):
    """The race between adding and settling, over many futures."""
    counts = []
    for _ in range(200):
        future, called = warm.submit(tasks.same, 1), []
        for _ in range(5):
            future.add_done_callback(called.append)
        counts.append((future, called))
    for future, called in counts:
        future.result(60)
        until(lambda called=called: len(called) >= 5)
    last = threading.Event()
    warm.submit(tasks.same, 1).add_done_callback(lambda _: last.set())
    assert last.wait(60)
    assert all(called == [future] * 5 for future, called in counts)


def test_a_callback_added_to_a_done_future_runs_at_once_in_the_callers_thread(warm):
    future = warm.submit(tasks.same, 1)
    future.result(60)
    called = []
    future.add_done_callback(lambda _: called.append(threading.current_thread()))
    assert called == [threading.current_thread()]


@pytest.mark.parametrize("error", [ValueError("mine"), SystemExit(3), GeneratorExit()])
def test_a_callback_that_raises_harms_nobody_also_when_the_future_is_done_already(warm, caplog, error):
    """Whether a callback is added before or behind the end depends on the speed of the task."""

    def raising(_):
        raise error

    future = warm.submit(tasks.same, 1)
    future.result(60)
    future.add_done_callback(raising)
    assert type(error).__name__ in caplog.text


@pytest.mark.parametrize("how", ["cancel", "kill", "raise", "not_sendable", "shutdown"])
def test_callbacks_run_once_however_the_task_ends(lone, tmp_path, how):
    go, here = str(tmp_path / "go"), str(tmp_path / "here")
    blocker = lone.submit(tasks.meet, here, go)
    wait_lines(here, 1)
    fn, argument = {"raise": (tasks.raise_, ValueError(1)), "not_sendable": (tasks.same, odd.CannotBePickled())}.get(
        how, (tasks.same, 1)
    )
    called, future = [], lone.submit(fn, argument)
    future.add_done_callback(called.append)
    if how == "cancel":
        assert future.cancel()
        assert future.cancel()
    elif how == "kill":
        future.kill()
        future.kill()
    elif how == "shutdown":
        lone.shutdown(wait=False, cancel_futures=True)
    tasks.note(go, "now")
    blocker.result(60)
    lone.shutdown()
    assert future.done()
    assert called == [future]


def test_a_callback_may_submit_and_the_new_tasks_callback_runs_too(lone):
    done = threading.Event()

    def again(future):
        if future.result() == 3:
            done.set()
        else:
            lone.submit(tasks.same, future.result() + 1).add_done_callback(again)

    lone.submit(tasks.same, 0).add_done_callback(again)
    assert done.wait(60)


def test_a_callback_may_wait_for_another_future_of_the_same_pool(lone):
    got = []
    done = threading.Event()

    def wait(_):
        got.append(lone.submit(tasks.double, 4).result(60))
        done.set()

    lone.submit(tasks.same, 0).add_done_callback(wait)
    assert done.wait(60)
    assert got == [8]


def test_a_callback_may_wait_for_a_future_whose_own_callback_comes_behind_it(lone):
    """The other's callbacks wait behind this one: that must not matter to its result."""
    done, first, second = threading.Event(), lone.submit(tasks.same, 1), lone.submit(tasks.same, 2)
    second.add_done_callback(lambda _: None)
    first.add_done_callback(lambda _: (second.result(60), done.set()))
    assert done.wait(60)


def test_a_callback_that_blocks_for_ever_keeps_no_other_from_running(make_pool):
    pool, let_go, others = make_pool(1), threading.Event(), [threading.Event() for _ in range(3)]
    try:
        pool.submit(tasks.same, 0).add_done_callback(lambda _: let_go.wait())
        for other in others:
            pool.submit(tasks.same, 1).add_done_callback(lambda _, other=other: other.set())
        assert all(other.wait(60) for other in others)
    finally:
        let_go.set()


def test_callbacks_behind_one_that_blocks_run_also_when_the_pool_has_ended_meanwhile(make_pool):
    pool, let_go, other = make_pool(1), threading.Event(), threading.Event()
    try:
        pool.submit(tasks.same, 0).add_done_callback(lambda _: let_go.wait())
        pool.submit(tasks.same, 1).add_done_callback(lambda _: other.set())
        pool.shutdown(wait=False)
        assert other.wait(60)
    finally:
        let_go.set()


# -- cancelling ----------------------------------------------------------------------------------------------------


def test_cancelling_a_running_task_is_refused_and_changes_nothing(lone, tmp_path):
    go, here = str(tmp_path / "go"), str(tmp_path / "here")
    future = lone.submit(tasks.meet, here, go, 5)
    wait_lines(here, 1)
    assert future.running()
    assert not future.cancel()
    assert not future.cancelled()
    tasks.note(go, "now")
    assert future.result(60) == 5
    assert not future.cancel()


def test_a_cancelled_task_never_runs_whatever_was_sent_ahead(lone, tmp_path):
    go, here, path = str(tmp_path / "go"), str(tmp_path / "here"), str(tmp_path / "ran")
    blocker = lone.submit(tasks.meet, here, go)
    wait_lines(here, 1)
    futures = [lone.submit(tasks.note, path, number) for number in range(20)]
    assert all(future.cancel() for future in futures[::2])
    assert all(future.cancelled() for future in futures[::2])
    tasks.note(go, "now")
    blocker.result(60)
    for future in futures[1::2]:
        future.result(60)
    lone.shutdown()
    assert lines(path) == [str(number) for number in range(1, 20, 2)]
    for future in futures[::2]:
        with pytest.raises(concurrent.futures.CancelledError):
            future.result(0)
        assert future.attempts == 0


def test_cancel_and_run_are_decided_once_for_each_task(make_pool, tmp_path):
    """Cancelling races with sending, 300 times: a task that was cancelled left no trace, and every other one did."""
    pool, path = make_pool(1), str(tmp_path / "ran")
    cancelled, kept = [], []
    for number in range(300):
        future = pool.submit(tasks.note, path, number)
        (cancelled if future.cancel() else kept).append((number, future))
    pool.shutdown()
    assert all(future.cancelled() for _, future in cancelled)
    assert [future.result(0) for _, future in kept] == [number for number, _ in kept]
    assert lines(path) == [str(number) for number, _ in kept]


def test_a_cancelled_future_wakes_those_who_wait_for_it(lone, tmp_path):
    go, here = str(tmp_path / "go"), str(tmp_path / "here")
    blocker = lone.submit(tasks.meet, here, go)
    wait_lines(here, 1)
    futures = [lone.submit(tasks.same, number) for number in range(3)]
    threading.Timer(0.05, lambda: [future.cancel() for future in futures]).start()
    done, not_done = concurrent.futures.wait(futures, timeout=60)
    assert (done, not_done) == (set(futures), set())
    assert set(concurrent.futures.as_completed(futures, timeout=60)) == set(futures)
    tasks.note(go, "now")
    blocker.result(60)


@pytest.mark.parametrize("waiter", ["wait", "as_completed"])
def test_what_shutdown_cancels_reaches_those_who_wait_for_it(lone, tmp_path, waiter):
    go, here = str(tmp_path / "go"), str(tmp_path / "here")
    blocker = lone.submit(tasks.meet, here, go)
    wait_lines(here, 1)
    futures = [lone.submit(tasks.same, number) for number in range(5)]
    reached = []

    def wait():
        if waiter == "wait":
            reached.extend(concurrent.futures.wait(futures, timeout=60).done)
        else:
            reached.extend(concurrent.futures.as_completed(futures, timeout=60))

    thread = threading.Thread(target=wait)
    thread.start()
    lone.shutdown(wait=False, cancel_futures=True)
    thread.join(60)
    tasks.note(go, "now")
    blocker.result(60)
    assert set(reached) == set(futures)
    assert all(future.cancelled() for future in futures)


def test_cancelling_behind_a_shutdown_is_still_possible(lone, tmp_path):
    go, here = str(tmp_path / "go"), str(tmp_path / "here")
    blocker = lone.submit(tasks.meet, here, go, 1)
    future = lone.submit(tasks.same, 2)
    wait_lines(here, 1)
    lone.shutdown(wait=False)
    assert future.cancel()
    tasks.note(go, "now")
    assert blocker.result(60) == 1
    lone.shutdown()
    assert future.cancelled()


def test_a_cancelled_or_killed_word_that_comes_late_does_not_hit_a_new_task_with_the_same_key(lone, tmp_path):
    """The holder of the old future was held up between looking at it and saying so."""
    old = lone.options(key="case").submit(tasks.same, 1)
    old.result(60)
    go, here = str(tmp_path / "go"), str(tmp_path / "here")
    new = lone.options(key="case").submit(tasks.meet, here, go, 2)
    wait_lines(here, 1)
    lone._supervisor.kill(old)
    lone._supervisor.cancelled(old)
    tasks.note(go, "now")
    assert new.result(60) == 2


def test_a_future_whose_state_its_holder_has_set_fails_nobody_else(lone, tmp_path, caplog):
    go, here = str(tmp_path / "go"), str(tmp_path / "here")
    blocker = lone.submit(tasks.meet, here, go, 1)
    wait_lines(here, 1)
    meddled, innocent = lone.submit(tasks.same, 2), lone.submit(tasks.same, 3)
    meddled.set_result("mine")
    tasks.note(go, "now")
    assert (blocker.result(60), meddled.result(60), innocent.result(60)) == (1, "mine", 3)
    assert lone.submit(tasks.same, 4).result(60) == 4
    assert "supervisor failed" not in caplog.text


# -- order ---------------------------------------------------------------------------------------------------------


def test_one_worker_runs_in_the_order_of_submission_and_each_once(lone, tmp_path):
    path = str(tmp_path / "ran")
    futures = [lone.submit(tasks.note, path, number) for number in range(200)]
    assert [future.result(60) for future in futures] == list(range(200))
    assert lines(path) == [str(number) for number in range(200)]
    assert [future.attempts for future in futures] == [1] * 200


def test_tasks_that_many_threads_submit_run_once_each(make_pool, tmp_path):
    pool, path = make_pool(2), str(tmp_path / "ran")
    results = [[] for _ in range(8)]

    def submit(number):
        results[number] = [pool.submit(tasks.note, path, f"{number}-{item}") for item in range(40)]

    threads = [threading.Thread(target=submit, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    wanted = [f"{number}-{item}" for number in range(8) for item in range(40)]
    assert [future.result(60) for future in itertools.chain(*results)] == wanted
    assert sorted(lines(path)) == sorted(wanted)
    assert len({future.key for future in itertools.chain(*results)}) == 320


def test_kill_ends_a_running_and_a_waiting_task_for_good(lone, tmp_path):
    go, here, path = str(tmp_path / "go"), str(tmp_path / "here"), str(tmp_path / "ran")
    running = lone.submit(tasks.meet, here, go)
    waiting, other = lone.submit(tasks.note, path, 1), lone.submit(tasks.note, path, 2)
    wait_lines(here, 1)
    waiting.kill()
    running.kill()
    errors = [running.exception(60), waiting.exception(60)]
    assert [type(error) for error in errors] == [TaskKilled, TaskKilled]
    assert [error.attempt for error in errors] == [1, 0]
    assert other.result(60) == 2
    assert lines(path) == ["2"]
    assert not tasks.alive(int(lines(here)[0]))
    running.kill()  # a done task is left alone
    assert running.exception(0) is errors[0]


# -- times that are no usual numbers -----------------------------------------------------------------------------------

NUMBERS = {
    "nan": (float("nan"), False),
    "0": (0, False),
    "minus infinity": (float("-inf"), False),
    "a negative number": (-(10**400), False),
    "a decimal NaN": (Decimal("NaN"), False),
    "infinity": (float("inf"), True),
    "a number that no float can be": (10**400, True),
    "a fraction": (Fraction(60), True),
    "a decimal number": (Decimal(60), True),
    "True": (True, None),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_whoever_waits_for_a_result_waits_as_long_as_the_number_says_or_not_at_all(lone, tmp_path, name):
    """With NaN it was for ever; for the standard library it is no time at all."""
    timeout, is_long = NUMBERS[name]
    go = str(tmp_path / "go")
    future = lone.submit(tasks.meet, str(tmp_path / "here"), go)
    if is_long:
        threading.Timer(0.2, tasks.note, (go, "now")).start()
        assert future.exception(timeout) is None
        assert concurrent.futures.wait([future], timeout).done == {future}
        assert list(lone.map(tasks.same, [1], timeout=timeout)) == [1]
        return
    for ask in (future.result, future.exception):
        with pytest.raises(TimeoutError):
            ask(timeout)
    assert concurrent.futures.wait([future], timeout).not_done == {future}
    with pytest.raises(TimeoutError):
        list(lone.map(tasks.same, [1], timeout=timeout))
    tasks.note(go, "now")
    future.result(60)


def test_numbers_of_numpy_are_times_to_wait_whatever_their_precision(lone):
    """The clock plus a float16 is infinite, or some hours off."""
    numpy = pytest.importorskip("numpy")
    for kind in (numpy.float16, numpy.float32, numpy.float64, numpy.int8, numpy.uint64):
        assert lone.submit(time.sleep, 0.05).result(kind(60)) is None
        assert list(lone.map(tasks.same, [1, 2], timeout=kind(60))) == [1, 2]


@pytest.mark.parametrize(
    "timeout", ["1", b"1", [], 1j, object(), Decimal("sNaN")], ids=lambda value: type(value).__name__
)
def test_what_is_no_number_is_no_time_to_wait(lone, tmp_path, timeout):
    go = str(tmp_path / "go")
    future = lone.submit(tasks.meet, str(tmp_path / "here"), go)
    with pytest.raises(TypeError, match="timeout must be a number of seconds or None; got "):
        future.result(timeout)
    with pytest.raises(TypeError, match="timeout must be a number of seconds or None; got "):
        lone.map(tasks.same, [1], timeout=timeout)
    tasks.note(go, "now")
    future.result(60)
