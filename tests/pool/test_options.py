"""Options of pools and tasks: what they do, and how a wrong one is refused."""

from __future__ import annotations

import contextlib
import inspect
import math
import os
import re
import signal
import subprocess
import sys
from decimal import Decimal

import pool_odd as odd
import pool_tasks as tasks
import pytest
from ids import stable
from pool_wait import lines, until, wait_lines

from resilient_exec import ResilientPool, RetryPolicy, TaskKilled, TaskTimeout, WorkerDied, get_reusable_pool

# -- what they do --------------------------------------------------------------------------------------------------


def test_a_view_changes_what_it_names_and_keeps_the_rest(make_pool):
    pool = make_pool(1, timeout=0.5, retry=1)
    view = pool.options(label="mine").options(retry=2)
    error = view.submit(tasks.hang).exception(60)
    assert isinstance(error, TaskTimeout)
    assert error.attempt == 2
    assert "(mine)" in str(error)
    assert "0.5 s" in str(error)
    unlimited = view.options(timeout=None)
    assert unlimited.submit(tasks.wait_a_second).result(60) == "waited"
    assert isinstance(pool.submit(tasks.hang).exception(60), TaskTimeout)


def test_a_view_has_submit_map_settled_and_options_and_owns_nothing(warm):
    view = warm.options(timeout=30)
    assert view.submit(tasks.double, 2).result(60) == 4
    assert list(view.map(tasks.double, range(3), chunksize=2)) == [0, 2, 4]
    assert sorted(done.value for done in view.settled(tasks.double, range(3))) == [0, 2, 4]
    assert view.options(label="x").submit(tasks.double, 3).result(60) == 6
    assert not hasattr(view, "shutdown")


def test_a_key_names_its_task_everywhere(make_pool):
    pool = make_pool(1, retry=1)
    future = pool.options(key=("case", 7)).submit(tasks.context)
    assert future.key == ("case", 7)
    assert future.result(60) == (("case", 7), 1, ())
    assert {event.key for event in future.story} == {("case", 7)}
    error = pool.options(key=("case", 7)).submit(tasks.kill_self).exception(60)
    assert error.key == ("case", 7)
    assert "task ('case', 7)" in str(error)


def test_without_a_key_a_task_is_called_by_its_number(make_pool):
    pool = make_pool(1)
    assert [pool.submit(tasks.context).result(60)[0] for _ in range(3)] == [0, 1, 2]


def test_two_unsettled_tasks_with_one_key_are_refused_and_a_settled_key_is_free(lone, tmp_path):
    go, here = str(tmp_path / "go"), str(tmp_path / "here")
    view = lone.options(key="case")
    first = view.submit(tasks.meet, here, go, 1)
    with pytest.raises(ValueError, match="an unsettled task has the key 'case' already"):
        view.submit(tasks.same, 2)
    wait_lines(here, 1)
    with pytest.raises(ValueError, match="'case'"):
        view.submit(tasks.same, 2)
    tasks.note(go, "now")
    assert first.result(60) == 1
    assert view.submit(tasks.same, 3).result(60) == 3


def test_a_key_is_free_again_when_its_task_was_cancelled_failed_or_could_not_be_sent(lone, tmp_path):
    go, here = str(tmp_path / "go"), str(tmp_path / "here")
    blocker = lone.submit(tasks.meet, here, go)
    wait_lines(here, 1)
    view = lone.options(key="case", retry=1)
    cancelled = view.submit(tasks.same, 1)
    assert cancelled.cancel()
    until(lambda: cancelled._state == "CANCELLED_AND_NOTIFIED")
    unsendable = until_accepted(view, tasks.same, odd.CannotBePickled())
    assert unsendable.exception(60) is not None
    tasks.note(go, "now")
    blocker.result(60)
    assert isinstance(until_accepted(view, tasks.kill_self).exception(60), WorkerDied)
    assert until_accepted(view, tasks.same, 4).result(60) == 4


def until_accepted(view, fn, *arguments):
    """A key is free a moment after its future is done."""

    def submit():
        try:
            return view.submit(fn, *arguments)
        except ValueError:
            return None

    return until(submit)


def test_a_number_given_as_a_key_is_left_out_by_the_pools_own_counting(lone, tmp_path):
    go, here = str(tmp_path / "go"), str(tmp_path / "here")
    mine = lone.options(key=1).submit(tasks.meet, here, go)
    others = [lone.submit(tasks.same, number) for number in range(3)]
    wait_lines(here, 1)
    tasks.note(go, "now")
    assert [future.result(60) for future in others] == [0, 1, 2]
    mine.result(60)
    assert len({mine.key, *(future.key for future in others)}) == 4


def test_a_larger_priority_goes_first_and_equal_ones_in_order(lone, tmp_path):
    go, here, path = str(tmp_path / "go"), str(tmp_path / "here"), str(tmp_path / "ran")
    blocker = lone.submit(tasks.meet, here, go)
    wait_lines(here, 1)
    futures = [
        lone.options(priority=priority).submit(tasks.note, path, text)
        for priority, text in [(0, "c"), (-1.5, "e"), (2, "a"), (0, "d"), (math.inf, "!"), (2, "b"), (-math.inf, "z")]
    ]
    tasks.note(go, "now")
    for future in (blocker, *futures):
        future.result(60)
    assert lines(path) == ["!", "a", "b", "c", "d", "e", "z"]


def test_a_label_is_what_errors_call_the_task_and_by_default_its_functions_name(make_pool):
    pool = make_pool(1, retry=1)
    assert "(world 3)" in str(pool.options(label="world 3").submit(tasks.kill_self).exception(60))
    assert "(kill_self)" in str(pool.submit(tasks.kill_self).exception(60))
    future = pool.options(label="world 3").submit(tasks.same, 1)
    assert future.label == "world 3"
    future.result(60)


def test_a_timeout_counts_from_the_begin_of_the_attempt_and_not_from_submit(lone, tmp_path):
    go, here = str(tmp_path / "go"), str(tmp_path / "here")
    blocker = lone.submit(tasks.meet, here, go)
    wait_lines(here, 1)
    future = lone.options(timeout=5).submit(tasks.same, 1)
    blocked = lone.options(timeout=0.05).submit(tasks.same, 2)  # over long before it can begin
    assert not blocked.done()
    tasks.note(go, "now")
    assert (blocker.result(60), future.result(60)) == (None, 1)
    assert blocked.story[-1].kind == "settled" if blocked.result(60) == 2 else False


def test_max_tasks_per_worker_gives_a_new_worker_after_that_many_attempts(make_pool):
    pool = make_pool(1, max_tasks_per_worker=2)
    pids = [pool.submit(tasks.pid).result(60) for _ in range(6)]
    assert pids[0] == pids[1] != pids[2] == pids[3] != pids[4] == pids[5]
    assert len(set(pids)) == 3
    until(lambda: not tasks.alive(pids[0]))


def test_max_tasks_per_worker_of_one_gives_each_task_a_process_of_its_own(make_pool):
    pool = make_pool(2, max_tasks_per_worker=1)
    pids = list(pool.map(tasks.pid, range(8)))
    assert len(set(pids)) == 8


def test_a_worker_is_started_only_when_there_is_work(make_pool):
    told = []
    pool = make_pool(4, observers=[told.append])
    assert pool.snapshot()["lanes"] == []
    for _ in range(5):
        pool.submit(tasks.pid).result(60)
    pool.shutdown()
    assert [event.kind for event in told].count("lane_starting") == 1


def test_snapshot_counts_and_names_what_runs(make_pool, tmp_path):
    pool = make_pool(1)
    go, here = str(tmp_path / "go"), str(tmp_path / "here")
    pool.submit(sum, range(5_000_000)).result(60)  # some CPU time: a worker that was only forked has taken none yet
    pool.submit(tasks.raise_, ValueError(1)).exception(60)
    running = pool.options(key="runs").submit(tasks.meet, here, go)
    (pid,) = map(int, wait_lines(here, 1))
    waiting, cancelled = pool.submit(tasks.same, 2), pool.submit(tasks.same, 3)
    cancelled.cancel()
    shot = until(lambda: (now := pool.snapshot())["cancelled"] and now)
    assert {name: shot[name] for name in ("pending", "running", "backing_off", "done", "failed", "cancelled")} == {
        "pending": 1,
        "running": 1,
        "backing_off": 0,
        "done": 1,
        "failed": 1,
        "cancelled": 1,
    }
    (lane,) = shot["lanes"]
    assert (lane["lane"], lane["state"], lane["pid"], lane["key"], lane["attempt"]) == (0, "busy", pid, "runs", 1)
    assert lane["elapsed"] >= 0
    assert lane["rss"] > 1_000_000
    assert lane["cpu"] > 0
    tasks.note(go, "now")
    assert (running.result(60), waiting.result(60)) == (None, 2)


def test_snapshot_names_no_worker_where_there_is_none(make_pool):
    pool = make_pool(1, retry=1)
    pid = pool.submit(tasks.pid).result(60)
    os.kill(pid, signal.SIGKILL)
    (lane,) = until(lambda: (lanes := pool.snapshot()["lanes"]) and lanes[0]["state"] == "down" and lanes)
    assert (lane["pid"], lane["key"], lane["rss"], lane["cpu"]) == (None, None, None, None)


def test_snapshot_may_be_taken_at_any_moment_by_anybody(make_pool, monkeypatch):
    """The core is changed by another thread meanwhile: with a switch at every few instructions, too."""
    import sys
    import threading

    pool, stop, errors = make_pool(2), threading.Event(), []

    def look():
        while not stop.is_set():
            try:
                pool.snapshot()
            except Exception as error:
                errors.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    thread = threading.Thread(target=look)
    thread.start()
    try:
        assert list(pool.map(tasks.same, range(300))) == list(range(300))
    finally:
        sys.setswitchinterval(interval)
        stop.set()
        thread.join()
    assert errors == []


# -- how a wrong one is refused --------------------------------------------------------------------------------------

NUMBERS = [
    ({"timeout": 0}, ValueError, "timeout must be .* greater than 0, or None; got 0"),
    ({"timeout": -1.5}, ValueError, "timeout .* got -1.5"),
    ({"timeout": math.nan}, ValueError, "timeout .* got nan"),
    ({"timeout": math.inf}, ValueError, "timeout must be a finite number .* got inf"),
    ({"timeout": 10**400}, ValueError, "timeout must be a finite number"),
    ({"timeout": "5"}, TypeError, "timeout must be a number of seconds or None; got '5'"),
    ({"timeout": True}, TypeError, "timeout .* got True"),
    ({"soft_timeout": 0}, ValueError, "soft_timeout must be .* greater than 0, or None; got 0"),
    ({"soft_timeout": 5, "timeout": 5}, ValueError, r"soft_timeout \(5 s\) must be less than timeout \(5 s\)"),
    ({"memory_limit": 1000}, ValueError, "memory_limit .* at least 1 MiB, or None; got 1000"),
    ({"memory_limit": "2 EiB"}, ValueError, "memory_limit .* got '2 EiB'"),
    ({"memory_limit": "-2GiB"}, ValueError, "memory_limit .* got '-2GiB'"),
    ({"memory_limit": 1e9}, TypeError, "memory_limit .* got 1000000000.0"),
    ({"memory_limit": True}, TypeError, "memory_limit .* got True"),
    ({"retry": 0}, ValueError, "retry must be at least 1 .* got 0"),
    ({"retry": "3"}, TypeError, "retry must be a RetryPolicy or a number of attempts in all; got '3'"),
    ({"retry": None}, TypeError, "retry .* got None"),
    ({"retry": 2.0}, TypeError, "retry .* got 2.0"),
]
VIEW_ONLY = [
    ({"priority": "high"}, TypeError, "priority must be a number, larger goes first; got 'high'"),
    ({"priority": None}, TypeError, "priority .* got None"),
    ({"priority": math.nan}, ValueError, "priority .* got nan"),
    ({"key": []}, TypeError, "unhashable type: 'list'"),
    ({"key": math.nan}, ValueError, "a key must be equal to itself.* got nan"),
    ({"key": Decimal("nan")}, ValueError, "a key must be equal to itself"),
    ({"label": 5}, TypeError, "label must be a text; got 5"),
    ({"deadline": 5}, TypeError, "deadline"),
]
POOL_ONLY = [
    ({"max_workers": 0}, ValueError, "max_workers must be greater than 0, got 0"),
    ({"max_workers": 1.5}, TypeError, "max_workers must be a whole number; got 1.5"),
    ({"max_workers": True}, TypeError, "max_workers .* got True"),
    ({"max_tasks_per_worker": 0}, ValueError, "max_tasks_per_worker must be greater than 0, got 0"),
    ({"max_tasks_per_worker": "2"}, TypeError, "max_tasks_per_worker must be a whole number; got '2'"),
    ({"start_timeout": 0}, ValueError, "start_timeout .* greater than 0.* got 0"),
    ({"start_timeout": None}, TypeError, "start_timeout must be a number of seconds"),
    ({"initializer": 5}, TypeError, "initializer must be a callable, got 5"),
    ({"initializer": tasks.initialize, "initargs": 5}, TypeError, "initargs must be .* got 5"),
    ({"observers": 5}, TypeError, "observers must be .* got 5"),
    ({"observers": [5]}, TypeError, "observer must be a callable .* got 5"),
    ({"max_memory_per_worker": 0}, ValueError, "max_memory_per_worker .* at least 1 MiB, or None; got 0"),
    ({"memory_reserve": "much"}, ValueError, "memory_reserve .* got 'much'"),
    ({"stall_timeout": 0}, ValueError, "stall_timeout .* greater than 0.* got 0"),
    ({"preload": "numpy"}, TypeError, "preload must be a sequence .* got the text 'numpy': put it into a tuple"),
    ({"preload": 5}, TypeError, "preload must be a sequence .* got 5"),
    ({"preload": (5,)}, TypeError, "preload must be a sequence .* got 5"),
    ({"preload": ("a b",)}, ValueError, "preload must be a sequence .* got 'a b'"),
    ({"env": 5}, TypeError, "env must be a mapping from names of variables to texts; got 5"),
    ({"env": {"A": 1}}, TypeError, "env must be a mapping .* got 'A': 1"),
    ({"env": {"A=B": "1"}}, ValueError, "env must be a mapping .* got 'A=B'"),
    ({"inner_max_num_threads": 0}, ValueError, "inner_max_num_threads must be greater than 0, got 0"),
    (
        {"inner_max_num_threads": "2"},
        TypeError,
        "inner_max_num_threads must be .* got '2'; 'auto' and None",
    ),
    ({"inner_max_num_threads": True}, TypeError, "inner_max_num_threads .* got True"),
    ({"seed": "7"}, TypeError, "seed must be a whole number, or None; got '7'"),
    ({"seed": True}, TypeError, "seed .* got True"),
    ({"seed": 1.5}, TypeError, "seed .* got 1.5"),
    ({"logs": "here"}, ValueError, "logs must be one of 'forward'; got 'here'"),
    ({"on_stall": "ask"}, ValueError, "on_stall must be one of 'report', 'kill'; got 'ask'"),
    ({"output": "print"}, ValueError, "output must be one of 'inherit', 'capture', 'discard'; got 'print'"),
]


@pytest.mark.parametrize(("given", "error", "said"), NUMBERS + VIEW_ONLY, ids=stable)
def test_a_wrong_option_of_a_task_is_refused_by_name_value_and_rule(warm, given, error, said):
    with pytest.raises(error, match=said):
        warm.options(**given)


@pytest.mark.parametrize(("given", "error", "said"), NUMBERS + POOL_ONLY, ids=stable)
def test_a_wrong_argument_of_a_pool_is_refused_by_name_value_and_rule_and_leaves_nothing(given, error, said):
    with pytest.raises(error, match=said):
        ResilientPool(**given)


def test_options_are_given_by_name_only(warm):
    with pytest.raises(TypeError):
        warm.options(5)
    with pytest.raises(TypeError):
        ResilientPool(1, 5)


def test_env_is_what_the_workers_interpreter_is_started_with(make_pool, monkeypatch):
    """PYTHONHASHSEED counts only where it is set before the interpreter starts."""
    monkeypatch.setenv("RESILIENT_EXEC_TEST", "outer")
    pool = make_pool(1, env={"PYTHONHASHSEED": "7", "RESILIENT_EXEC_TEST": "inner"})
    assert pool.submit(os.getenv, "RESILIENT_EXEC_TEST").result(60) == "inner"
    assert pool.submit(os.getenv, "PATH").result(60) == os.environ["PATH"]
    code = "import os; print(hash('a'))"
    command = [sys.executable, "-c", code]
    expected = subprocess.check_output(command, env={**os.environ, "PYTHONHASHSEED": "7"})
    assert pool.submit(hash, "a").result(60) == int(expected)


def test_an_argument_exists_only_where_it_works():
    """None is accepted and ignored: the signature is what the issue asks for and no more."""
    assert list(inspect.signature(ResilientPool).parameters) == [
        "max_workers",
        "timeout",
        "soft_timeout",
        "start_timeout",
        "start_patience",
        "stop_timeout",
        "retry",
        "memory_limit",
        "memory_reserve",
        "stall_timeout",
        "on_stall",
        "max_tasks_per_worker",
        "max_memory_per_worker",
        "initializer",
        "initargs",
        "main",
        "env",
        "inner_max_num_threads",
        "forkserver",
        "preload",
        "output",
        "logs",
        "fresh_locks",
        "seed",
        "observers",
        "unknown",  # is refused, with what was meant
    ]
    assert list(inspect.signature(ResilientPool.options).parameters)[1:] == [
        "timeout",
        "soft_timeout",
        "memory_limit",
        "retry",
        "key",
        "label",
        "priority",
        "cost",
        "speculate",
    ]


@pytest.mark.parametrize("idle_timeout", [0, -1, "5", None, True])
def test_a_wrong_idle_timeout_is_refused_by_name(idle_timeout):
    with pytest.raises((TypeError, ValueError), match=f"idle_timeout .* got {idle_timeout!r}"):
        get_reusable_pool(1, idle_timeout=idle_timeout)


def test_the_errors_of_a_killed_task_name_who_asked_for_it(lone, tmp_path):
    here = str(tmp_path / "here")
    future = lone.submit(tasks.meet, here, str(tmp_path / "never"))
    wait_lines(here, 1)
    future.kill()
    error = future.exception(60)
    assert isinstance(error, TaskKilled)
    assert "future.kill()" in str(error)
    assert "meet" in error.stacks


def test_a_key_that_cannot_be_printed_is_refused(warm):
    with pytest.raises(TypeError, match=r"a key of type pool_odd.RaisesInRepr .* raised ValueError: no repr"):
        warm.options(key=odd.RaisesInRepr())


def test_a_key_that_cannot_be_printed_any_more_costs_nobody_anything(make_pool):
    """Nor does one whose pickling exits: nothing that a key does may end the supervisor or a lane."""
    pool = make_pool(1, retry=2)
    future = pool.options(key=odd.RaisesInReprLater()).submit(tasks.leave, 3)
    error = future.exception(60)
    assert isinstance(error, WorkerDied)
    assert "pool_odd.RaisesInReprLater, whose repr raises" in str(error)
    assert future.attempts == 2
    assert pool.submit(tasks.same, 5).result(60) == 5


def test_keys_that_cannot_be_compared_any_more_end_the_pool_and_hang_nobody(make_pool, tmp_path):
    """Nothing can be found any more: every task settles, with an error that says so."""
    pool = make_pool(1)
    others = [pool.submit(tasks.meet, str(tmp_path / f"here{n}"), str(tmp_path / "never")) for n in range(2)]
    futures = []
    for number in range(3):
        with contextlib.suppress(ValueError):  # submit may be the first to meet it
            futures.append(pool.options(key=odd.RaisesInEqLater()).submit(tasks.same, number))
    for future in [*others, *futures]:
        future.kill()
        assert future.exception(60) is not None


def test_a_retry_policy_says_what_it_grants():
    assert RetryPolicy() == RetryPolicy(deaths=2, timeouts=1, memory=1, errors=0)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("max_tasks_per_child", "here it is called max_tasks_per_worker"),
        ("processes", "here it is called max_workers"),
        ("mp_context", "leave it out"),
        ("timout", "did you mean timeout?"),
        ("something_else_altogether", "argument 'something_else_altogether'"),
    ],
)
def test_an_argument_of_another_pool_is_refused_with_the_name_that_it_has_here(name, hint):
    with pytest.raises(TypeError, match=re.escape(hint)):
        ResilientPool(1, **{name: 1})


def test_numbers_of_numpy_are_numbers(make_pool):
    numpy = pytest.importorskip("numpy")
    pool = make_pool(
        numpy.int64(1),
        timeout=numpy.float32(60),
        retry=numpy.int32(2),
        memory_limit=numpy.int64(1 << 30),
        max_tasks_per_worker=numpy.int8(5),
    )
    assert pool.options(priority=numpy.int64(3), timeout=numpy.int16(7)).submit(abs, -4).result() == 4
    assert pool.options(priority=10**400).submit(abs, -5).result() == 5
    policy = RetryPolicy(deaths=numpy.int64(2), errors=numpy.uint8(1), total=numpy.int16(3))
    assert (type(policy.deaths), policy.errors, policy.total) == (int, 1, 3)
    assert list(pool.map(abs, [-1, -2], chunksize=numpy.int64(2), buffersize=numpy.int64(1))) == [1, 2]
    with pytest.raises(ValueError, match="priority"):
        pool.options(priority=numpy.float64("nan"))
    with pytest.raises(ValueError, match="timeout"):
        pool.options(timeout=10**400)


@pytest.mark.parametrize("number", [2**63, 10**400])
def test_chunks_and_buffers_may_be_larger_than_any_sequence(warm, number):
    assert list(warm.map(abs, [-1, -2, 3], chunksize=number)) == [1, 2, 3]
    assert list(warm.map(abs, [-1, -2, 3], buffersize=number)) == [1, 2, 3]
