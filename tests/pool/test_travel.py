"""What travels to a worker and back, in a pool: what cannot says so, with all that is known of its task."""

from __future__ import annotations

import multiprocessing
import pickle
import sys
import tracemalloc
import weakref
from multiprocessing import shared_memory

import pool_tasks as tasks
import pytest
from pool_wait import until

from resilient_exec import NotSendable

PLUGIN = """
class Refused(Exception): pass
class Plan:
    def __init__(self, n): self.n = n
def plan(n):
    if n < 0:
        raise Refused(f"no plan for {n}")
    return Plan(n)
"""


def use_plugin(folder, n):
    if folder not in sys.path:
        sys.path.insert(0, folder)
    import plugin_of_the_worker

    return plugin_of_the_worker.plan(n)


@pytest.fixture
def plugin(tmp_path):
    (tmp_path / "plugin_of_the_worker.py").write_text(PLUGIN)
    return str(tmp_path)


def test_an_exception_of_which_only_the_worker_has_the_class_is_told_in_full(warm, plugin):
    future = warm.options(key="the plan").submit(use_plugin, plugin, -1)
    error = future.exception(60)
    assert isinstance(error, NotSendable)
    assert isinstance(error, pickle.PicklingError)
    assert "plugin_of_the_worker.Refused, said: Refused: no plan for -1" in str(error)
    assert "No module named 'plugin_of_the_worker'" in str(error)
    assert "raise Refused" in str(error.__cause__)
    assert (error.key, error.attempt) == ("the plan", 1)
    (attempt,) = error.dossier.attempts
    assert attempt.outcome in ("raised", "not_sent")
    assert "raise Refused" in attempt.traceback
    assert warm.submit(tasks.same, 5).result(60) == 5


def test_a_result_of_which_only_the_worker_has_the_class_is_refused(warm, plugin):
    error = warm.options(key="the plan").submit(use_plugin, plugin, 3).exception(60)
    assert isinstance(error, NotSendable)
    assert "No module named 'plugin_of_the_worker'" in str(error)
    assert error.key == "the plan"


class CannotTravel(Exception):
    def __reduce__(self):
        raise TypeError("stays where it is")

    @property
    def args(self):
        raise RuntimeError("no args")


class Evil(Exception):
    def __getattribute__(self, name):
        raise RuntimeError(f"no {name}")


class EvilBase(BaseException):
    def __getattribute__(self, name):
        raise SystemExit(f"no {name}")


def throw(kind):
    raise kind("words")


@pytest.mark.parametrize("kind", [CannotTravel, Evil, EvilBase])
def test_an_exception_that_cannot_travel_has_key_attempt_and_dossier_and_harms_no_worker(warm, kind):
    worker = warm.submit(tasks.pid).result(60)
    error = warm.options(key="odd", retry=1).submit(throw, kind).exception(60)
    if type(error) is NotSendable:
        assert f"the task raised test_travel.{kind.__name__}" in str(error)
        assert (error.key, error.attempt) == ("odd", 1)
        assert error.dossier.attempts[0].number == 1
        assert "in throw" in error.dossier.attempts[0].traceback
    else:
        assert type(error) is kind
    assert warm.submit(tasks.pid).result(60) == worker


class PicklesWith:
    def __init__(self, kind):
        self.kind = kind

    def __reduce__(self):
        throw(self.kind)


class UnpicklesWith(PicklesWith):
    def __reduce__(self):
        return throw, (self.kind,)


@pytest.mark.parametrize("kind", [Evil, EvilBase])
@pytest.mark.parametrize("odd", [PicklesWith, UnpicklesWith])
def test_what_raises_an_exception_that_cannot_be_looked_at_on_its_way_harms_no_worker(warm, odd, kind):
    worker = warm.submit(tasks.pid).result(60)
    for future in (warm.options(retry=1).submit(tasks.same, odd(kind)), warm.options(retry=1).submit(odd, kind)):
        assert isinstance(future.exception(60), NotSendable | kind)
    assert warm.submit(tasks.pid).result(60) == worker


def send(connection):
    connection.send("here")


def test_the_end_of_a_pipe_arrives_or_is_refused_and_the_pool_goes_on(warm):
    near, far = multiprocessing.Pipe()
    with near, far:
        error = warm.submit(send, far).exception(60)
        assert isinstance(error, NotSendable) or near.recv() == "here"
    assert warm.submit(tasks.same, 5).result(60) == 5


def make_pipe():
    return multiprocessing.Pipe()


def test_a_pipe_as_a_result_arrives_or_is_refused(warm):
    assert isinstance(warm.submit(make_pipe).exception(60), NotSendable)


def fill(memory):
    memory.buf[0] = 7
    memory.close()


def test_shared_memory_arrives_as_with_the_standard_library(warm):
    memory = shared_memory.SharedMemory(create=True, size=1)
    try:
        warm.submit(fill, memory).result(60)
        assert memory.buf[0] == 7
    finally:
        memory.close()
        memory.unlink()


@pytest.mark.parametrize("make", ["Queue", "SimpleQueue", "Lock", "Event"])
def test_what_is_shared_by_inheritance_only_is_refused_as_by_the_standard_library(warm, make):
    shared = getattr(multiprocessing.get_context("spawn"), make)()
    error = warm.submit(tasks.same, shared).exception(60)
    assert isinstance(error, NotSendable)
    assert "inheritance" in str(error)
    if make == "Queue":
        shared.close()
        shared.join_thread()


def test_many_calls_with_one_large_array_hold_it_once(warm):
    """Each was pickled anew: 60 calls with 40 MB held more than 2 GB."""
    np = pytest.importorskip("numpy")
    array = np.ones(1_000_000)  # 8 MB
    tracemalloc.start()
    try:
        futures = [warm.submit(tasks.first_and_sum, array, i) for i in range(30)]
        held = tracemalloc.get_traced_memory()[1]
        assert [future.result(60) for future in futures] == [(i, 1_000_000.0) for i in range(30)]
    finally:
        tracemalloc.stop()
    assert held < 20 << 20


def test_an_array_comes_back_writable_and_is_nobody_elses(warm):
    np = pytest.importorskip("numpy")
    future = warm.submit(tasks.same, np.zeros(1_000_000))
    result = future.result(60)
    result += 1
    assert result.sum() == 1_000_000
    assert warm.submit(tasks.same, np.zeros(1_000_000)).result(60).sum() == 0


def test_a_task_that_is_tried_again_is_sent_its_array_again(make_pool, tmp_path):
    np = pytest.importorskip("numpy")
    pool = make_pool(1)
    assert pool.submit(tasks.die_first, str(tmp_path / "died"), np.ones(1_000_000)).result(60) == 1_000_000


def test_the_callers_array_is_free_when_its_task_has_settled(warm):
    np = pytest.importorskip("numpy")
    array = np.zeros(1_000_000)
    gone = weakref.ref(array)
    future = warm.submit(tasks.first_and_sum, array, 1)
    del array
    assert future.result(60) == (1, 0.0)
    until(lambda: gone() is None)
