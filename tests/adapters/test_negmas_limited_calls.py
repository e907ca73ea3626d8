"""Calls that negmas limits in time behave in the worker as in negmas' own executor; only what they cost differs."""

from __future__ import annotations

import threading
import time
import weakref

import pytest

timeouts = pytest.importorskip("negmas.helpers.timeout")

from resilient_exec.adapters.negmas.worlds import limited_calls  # noqa: E402  behind the check whether negmas is there

OURS = "resilient-exec-limited-call"


@pytest.fixture(params=["negmas", "ours"])
def run(request):
    """``TimeoutCaller.run``, of which the tests below want the same in both."""
    if request.param == "ours":
        with limited_calls.handed_over():
            yield timeouts.TimeoutCaller.run
        return
    timeouts.TimeoutCaller.pool = None  # has it make another, which leaves no thread behind
    yield timeouts.TimeoutCaller.run
    if timeouts.TimeoutCaller.pool is not None:
        timeouts.TimeoutCaller.pool.shutdown()
        timeouts.TimeoutCaller.pool = None


def test_a_call_returns_its_value(run):
    assert run(lambda: 41 + 1, 5.0) == 42


def test_a_call_runs_in_another_thread(run):
    assert run(threading.get_ident, 5.0) != threading.get_ident()


@pytest.mark.parametrize("kind", [ValueError, KeyError, TimeoutError, KeyboardInterrupt, SystemExit])
def test_a_call_raises_what_it_raises(run, kind):
    raised = kind("words")

    def fail():
        raise raised

    with pytest.raises(kind) as caught:
        run(fail, 5.0)
    assert caught.value is raised


def test_the_trace_of_what_a_call_raises_shows_where(run):
    def innermost():
        raise ValueError("words")

    with pytest.raises(ValueError, match="words") as caught:
        run(innermost, 5.0)
    assert caught.traceback[-1].name == "innermost"


def test_a_call_that_takes_too_long_is_not_waited_for(run):
    is_over = threading.Event()
    with pytest.raises(TimeoutError):
        run(lambda: is_over.wait(60), 0.05)
    is_over.set()
    assert run(lambda: 1, 5.0) == 1


@pytest.mark.parametrize("timeout", [0.0, -1.0])
def test_without_any_time_left_a_call_times_out_and_the_next_one_is_made(run, timeout):
    is_over = threading.Event()
    with pytest.raises(TimeoutError):
        run(lambda: is_over.wait(60), timeout)
    is_over.set()
    assert run(lambda: 1, 5.0) == 1


def test_a_call_without_a_limit_is_waited_for(run):
    assert run(lambda: 1, None) == 1


@pytest.mark.skipif(not hasattr(timeouts.TimeoutCaller, "_async_raise"), reason="this negmas asks no call to end")
def test_a_call_in_python_that_takes_too_long_is_asked_to_end(run):
    seen = threading.Event()

    def spin():
        try:
            while True:
                time.sleep(0.001)
        except BaseException:
            seen.set()
            raise

    with pytest.raises(TimeoutError):
        run(spin, 0.05)
    assert seen.wait(30)


def test_a_call_inside_of_another_has_a_thread_of_its_own(run):
    def outer():
        return threading.get_ident(), run(threading.get_ident, 5.0)

    first, second = run(outer, 5.0)
    assert len({first, second, threading.get_ident()}) == 3


def test_single_threaded_calls_are_made_directly(run):
    with timeouts.single_thread():
        assert run(threading.get_ident, 5.0) == threading.get_ident()


# -- ours alone


def our_threads():
    return [thread for thread in threading.enumerate() if thread.name == OURS]


def wait_until_there_are_none():
    end = time.monotonic() + 30
    while our_threads() and time.monotonic() < end:
        time.sleep(0.01)
    return our_threads() == []


def test_one_thread_makes_all_calls_of_one_caller():
    with limited_calls.handed_over():
        assert len({timeouts.TimeoutCaller.run(threading.get_ident, 5.0) for _ in range(100)}) == 1


def test_a_limit_that_is_too_large_for_a_lock_is_waited_for():
    with limited_calls.handed_over():
        assert timeouts.TimeoutCaller.run(lambda: 1, 1e30) == 1


def test_calls_that_hang_keep_no_later_one_from_being_made():
    is_over = threading.Event()
    with limited_calls.handed_over():
        for _ in range(64):  # more threads than negmas has
            with pytest.raises(TimeoutError):
                timeouts.TimeoutCaller.run(lambda: is_over.wait(60), 0.001)
        assert timeouts.TimeoutCaller.run(lambda: 1, 30.0) == 1
    is_over.set()
    assert wait_until_there_are_none()


def test_behind_the_block_negmas_is_as_before_and_no_thread_is_left():
    before = vars(timeouts.TimeoutCaller)["run"]
    with limited_calls.handed_over():
        timeouts.TimeoutCaller.run(lambda: 1, 5.0)
        assert our_threads() != []
        assert vars(timeouts.TimeoutCaller)["run"] is not before
    assert vars(timeouts.TimeoutCaller)["run"] is before
    assert wait_until_there_are_none()


def test_what_a_call_holds_is_let_go_of_when_it_has_ended():
    class Large:
        pass

    gone = threading.Event()

    def held():
        large = Large()
        weakref.finalize(large, gone.set)
        return lambda: large

    with limited_calls.handed_over():
        timeouts.TimeoutCaller.run(held(), 5.0)
        timeouts.TimeoutCaller.run(lambda: None, 5.0)
        assert gone.is_set()


def test_a_negmas_without_it_is_left_alone(monkeypatch):
    monkeypatch.delattr(timeouts, "is_single_thread")
    before = vars(timeouts.TimeoutCaller)["run"]
    with limited_calls.handed_over():
        assert vars(timeouts.TimeoutCaller)["run"] is before
