"""What travels to a worker and back, in a pool: what cannot says so, with all that is known of its task."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import socket
import sys
import tracemalloc
import weakref
from multiprocessing import connection, reduction, resource_sharer, shared_memory

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


# -- what multiprocessing shares ---------------------------------------------------------------------------------------

SPAWN = multiprocessing.get_context("spawn")
HEAP = SPAWN.RawValue("i", 0)  # what keeps the descriptor of multiprocessing's heap is there before any test


class SubConnection(connection.Connection):
    """Its pickle was the number of its descriptor, as the standard library's is."""


class Handle:
    """Holds a descriptor, and is sent by a reducer that is registered with multiprocessing."""

    def __init__(self, fd):
        self.fd = fd


def _rebuild_handle(sent):
    return Handle(sent.detach())


def _reduce_handle(handle):
    return _rebuild_handle, (reduction.DupFd(handle.fd),)


MAKERS = {
    "the end of a pipe": lambda: multiprocessing.Pipe()[0],
    "a connection of a class of one's own": lambda: SubConnection(os.open(os.devnull, os.O_RDONLY)),
    "a socket": socket.socket,
    "a listener": connection.Listener,
    "a queue": SPAWN.Queue,
    "a simple queue": SPAWN.SimpleQueue,
    "a joinable queue": SPAWN.JoinableQueue,
    "a lock": SPAWN.Lock,
    "an rlock": SPAWN.RLock,
    "a semaphore": SPAWN.Semaphore,
    "an event": SPAWN.Event,
    "a condition": SPAWN.Condition,
    "a barrier": lambda: SPAWN.Barrier(2),
    "a value": lambda: SPAWN.Value("i", 3),
    "an array": lambda: SPAWN.Array("i", 3),
    "a raw value": lambda: SPAWN.RawValue("i", 3),
}
AT_START = [name for name in MAKERS if name != "a listener"]
REMEDIES = ("initargs", "open it in the worker", "make it in the worker", "return what is in it", "leave it out")


def made(what, how):
    thing = MAKERS[what]()
    if how == "result":
        return thing
    if how == "in a result":
        return {"a": [thing]}
    error = ValueError("words")
    error.held = thing
    raise error


@pytest.fixture
def thing(request):
    found = MAKERS[request.param]()
    yield found
    ends = [found, getattr(found, "_reader", None), getattr(found, "_writer", None)]
    for end in ends:
        if hasattr(end, "close"):
            end.close()


@pytest.mark.parametrize("thing", MAKERS, indirect=True)
def test_what_multiprocessing_shares_is_no_argument_and_the_error_says_what_to_do(warm, thing):
    for args in ((thing,), ([{"a": thing}],)):
        error = warm.submit(tasks.same, *args).exception(60)
        assert isinstance(error, NotSendable)
        assert any(remedy in str(error) for remedy in REMEDIES), str(error)
    assert warm.submit(tasks.same, 5).result(60) == 5


@pytest.mark.parametrize("how", ["result", "in a result", "in an exception"])
@pytest.mark.parametrize("what", MAKERS)
def test_nor_does_it_come_back(warm, what, how):
    error = warm.submit(made, what, how).exception(60)
    assert isinstance(error, NotSendable)
    if how == "in a result":
        assert any(remedy in str(error) for remedy in REMEDIES), str(error)


def keep(thing):
    global kept  # noqa: PLW0603  a process is one worker
    kept = thing


def kind_of_kept():
    return type(kept).__name__


@pytest.mark.parametrize("thing", AT_START, indirect=True)
def test_each_worker_is_given_it_at_its_start(make_pool, thing):
    pool = make_pool(1, initializer=keep, initargs=(thing,))
    assert pool.submit(kind_of_kept).result(60) == type(thing).__name__


def add_one():
    with kept.get_lock():
        kept.value += 1


def test_and_it_is_the_same_one(make_pool):
    shared = SPAWN.Value("i", 0)
    pool = make_pool(2, initializer=keep, initargs=(shared,))
    for future in [pool.submit(add_one) for _ in range(20)]:
        future.result(60)
    assert shared.value == 20


def read_handle(handle):
    return os.read(handle.fd, 5)


def give_handle():
    read, write = os.pipe()
    os.write(write, b"there")
    os.close(write)
    return Handle(read)


def raise_handle():
    error = ValueError("words")
    error.held = give_handle()
    raise error


def test_what_users_have_registered_with_multiprocessing_arrives_once(make_pool, monkeypatch):
    """The result proved itself, by which its descriptor had been fetched already."""
    monkeypatch.setattr(reduction.ForkingPickler, "_extra_reducers", reduction.ForkingPickler._extra_reducers.copy())
    reduction.ForkingPickler.register(Handle, _reduce_handle)
    pool = make_pool(1, initializer=reduction.ForkingPickler.register, initargs=(Handle, _reduce_handle))
    read, write = os.pipe()
    os.write(write, b"hello")
    try:
        assert pool.submit(read_handle, Handle(read)).result(60) == b"hello"
        handles = [pool.submit(give_handle).result(60), pool.submit(raise_handle).exception(60).held]
        for handle in handles:
            assert read_handle(handle) == b"there"
            os.close(handle.fd)
    finally:
        os.close(read)
        os.close(write)
        resource_sharer.stop()
