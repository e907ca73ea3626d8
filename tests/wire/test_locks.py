"""With ``fresh_locks`` plain locks arrive new and free, and what is made of them works where it arrives."""

from __future__ import annotations

import asyncio
import copyreg
import logging
import multiprocessing
import pickle
import queue
import subprocess
import sys
import threading
import time

import cloudpickle
import lane_pickles as pickles
import lane_tasks as tasks
import pytest

from resilient_exec.model.errors import NotSendable
from resilient_exec.wire.payload import (
    Unsendable,
    pack_call,
    pack_exception,
    pack_value,
    unpack_call,
    unpack_exception,
    unpack_value,
)

WAIT = 30  # s, for what another thread does at once


def sent_plainly(value):
    return unpack_call(pack_call(tasks.double, (value,), {}, fresh_locks=True))[1][0]


def sent_by_value(value):
    return unpack_call(pack_call(tasks.double, (value, lambda: 1), {}, fresh_locks=True))[1][0]


def returned(value):
    return unpack_value(pack_value(value, fresh_locks=True))


def returned_by_value(value):
    return unpack_value(pack_value((value, lambda: 1), fresh_locks=True))[0]


@pytest.fixture(params=[sent_plainly, sent_by_value, returned, returned_by_value], ids=lambda send: send.__name__)
def send(request):
    return request.param


def in_thread(fn):
    thread = threading.Thread(target=fn)
    thread.start()
    return thread


def wait_for_waiter(condition):
    deadline = time.monotonic() + WAIT
    while not condition._waiters:
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.mark.parametrize("make", [threading.Lock, threading.RLock])
def test_a_lock_that_is_held_arrives_free_and_stays_held(send, make):
    lock = make()
    with lock:
        again = send(lock)
        assert type(again) is type(lock)
        assert again is not lock
        assert again.acquire(timeout=0)
        others = []
        in_thread(lambda: others.append(lock.acquire(timeout=0))).join()
        assert others == [False]
    again.release()


def test_two_references_to_one_lock_stay_references_to_one(send):
    one, other = threading.Lock(), threading.RLock()
    again = send([one, {"same": one, "method": other.acquire}, other])
    assert again[0] is again[1]["same"]
    assert again[1]["method"].__self__ is again[2]
    assert again[0] is not again[2]


@pytest.mark.parametrize("lock", [None, threading.Lock(), threading.RLock()], ids=["own", "Lock", "RLock"])
def test_a_condition_works_where_it_arrives(send, lock):
    original = threading.Condition(lock)
    original.extra = "kept"
    again, its_lock = send((original, original._lock))
    assert again._lock is its_lock
    assert again.extra == "kept"
    seen = []

    def wait():
        with again:
            seen.append("waiting")
            seen.append(again.wait(WAIT))

    thread = in_thread(wait)
    wait_for_waiter(again)
    with again:
        again.notify()
    thread.join()
    assert seen == ["waiting", True]


def test_a_notify_is_not_lost_to_threads_that_wait_elsewhere(send):
    original = threading.Condition()

    def wait():
        with original:
            original.wait(WAIT)

    thread = in_thread(wait)
    wait_for_waiter(original)
    again = send(original)
    assert len(again._waiters) == 0
    assert len(original._waiters) == 1
    with original:
        original.notify()
    thread.join()


def test_an_event_keeps_its_flag_and_works(send):
    is_set, is_not = threading.Event(), threading.Event()
    is_set.set()
    again, other = send((is_set, is_not))
    assert again.is_set()
    assert not other.is_set()
    thread = in_thread(other.set)
    assert other.wait(WAIT)
    thread.join()
    assert not is_not.is_set()


def test_semaphores_and_barriers_keep_their_count_and_work(send):
    semaphore, bounded, barrier = threading.Semaphore(2), threading.BoundedSemaphore(3), threading.Barrier(2)
    semaphore.acquire()
    semaphore, bounded, barrier = send((semaphore, bounded, barrier))
    assert semaphore.acquire(blocking=False)
    assert not semaphore.acquire(blocking=False)
    with pytest.raises(ValueError):
        bounded.release()
    thread = in_thread(lambda: barrier.wait(WAIT))
    barrier.wait(WAIT)
    thread.join()


@pytest.mark.parametrize("make", [queue.Queue, queue.LifoQueue, queue.PriorityQueue])
def test_a_queue_keeps_its_items_and_works_between_threads(send, make):
    original = make(maxsize=2)
    original.put(1)
    again = send(original)
    thread = in_thread(lambda: [again.put(item, timeout=WAIT) for item in (2, 3, 4)])
    assert sorted(again.get(timeout=WAIT) for _ in range(4)) == [1, 2, 3, 4]
    thread.join()
    assert original.qsize() == 1


def test_a_logging_handler_works_where_it_arrives(send, capsys):
    handler = logging.StreamHandler()
    handler.stream = None  # the one that pytest has put there does not travel
    handler.lock.acquire()
    try:
        again = send(handler)
    finally:
        handler.lock.release()
    again.stream = sys.stderr
    again.handle(logging.LogRecord("name", logging.INFO, "path", 1, "it is said", (), None))
    assert capsys.readouterr().err == "it is said\n"


def test_an_exception_that_holds_a_lock_comes_back_as_it_was():
    error = pickles.HoldsLockError()
    with error.lock:
        again = unpack_exception(pack_exception(error, fresh_locks=True))
    assert type(again) is pickles.HoldsLockError
    assert again.args == error.args
    assert again.lock.acquire(timeout=0)
    error = ValueError("text", threading.Lock())
    again = unpack_exception(pack_exception(error, fresh_locks=True))
    assert type(again) is ValueError
    assert again.args[1].acquire(timeout=0)


def test_a_global_lock_of_a_function_that_travels_by_value_travels_too():
    namespace = {"__name__": "__main__", "LOCK": threading.Lock()}
    exec("def locked():\n    with LOCK:\n        return 1", namespace)  # noqa: S102
    with namespace["LOCK"]:
        fn, _, _ = unpack_call(pack_call(namespace["locked"], (), {}, fresh_locks=True))
        assert fn() == 1


def test_it_works_in_another_process():
    data = pack_call(len, ([threading.Event(), queue.Queue(), threading.Lock()],), {}, fresh_locks=True)
    code = (
        "import sys; from resilient_exec.wire.payload import unpack_call\n"
        "_, ((event, queue, lock),), _ = unpack_call(sys.stdin.buffer.read())\n"
        "lock.acquire(timeout=0); queue.put(5); event.set()\n"
        "assert (queue.get(timeout=0), event.wait(0), lock.locked()) == (5, True, True)"
    )
    subprocess.run([sys.executable, "-c", code], input=data, check=True)


# -- what it leaves alone --------------------------------------------------------------------------------------------


class SubLock(type(threading.RLock())):
    pass


class SubCondition(threading.Condition):
    pass


@pytest.mark.parametrize(
    "make", [SubLock, multiprocessing.Lock, threading.local], ids=["subclass", "multiprocessing's", "local"]
)
def test_other_types_are_refused_as_ever_without_advice_that_is_followed_already(send, make):
    with pytest.raises(Unsendable) as caught:
        send(pickles.PlainError(make()))
    assert ".args[0] is a " in str(caught.value)
    assert "fresh_locks" not in str(caught.value)


def test_types_that_travel_by_themselves_travel_as_ever(send):
    assert not send(asyncio.Lock()).locked()
    assert send(SubCondition()).acquire(timeout=0)


def test_nothing_else_in_the_process_pickles_locks():
    before = dict(copyreg.dispatch_table), dict(cloudpickle.Pickler.dispatch_table)
    sent_plainly(threading.Lock())
    sent_by_value(threading.Condition())
    assert (dict(copyreg.dispatch_table), dict(cloudpickle.Pickler.dispatch_table)) == before
    for dumps in (pickle.dumps, cloudpickle.dumps):
        for lock in (threading.Lock(), threading.RLock(), threading.Condition()):
            with pytest.raises(TypeError, match="cannot pickle"):
                dumps(lock)


def test_reducers_registered_by_the_user_still_count():
    class Registered:
        pass

    copyreg.pickle(Registered, lambda _: (int, ("7",)))
    try:
        assert sent_plainly([Registered(), threading.Lock()])[0] == 7
        assert sent_by_value([Registered(), threading.Lock()])[0] == 7
    finally:
        del copyreg.dispatch_table[Registered]


def test_without_the_option_a_lock_is_refused():
    for pack in (lambda lock: pack_call(tasks.double, (lock,), {}), pack_value):
        with pytest.raises(Unsendable, match="use fresh_locks=True"):
            pack(threading.Lock())
    assert type(unpack_exception(pack_exception(pickles.HoldsLockError()))) is NotSendable


def test_a_value_with_fresh_locks_still_proves_itself():
    with pytest.raises(Unsendable, match="pickles but cannot be unpickled: ValueError: it does not"):
        pack_value([threading.Lock(), pickles.Calls(pickles.fail_to_load)], fresh_locks=True)
