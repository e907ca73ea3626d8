"""No code of the user's runs on a thread that supervises: whatever it does there would hold up everybody.

One exception is Python's own: its collector runs in whatever thread makes an object, and with it the finalizers of what
it finds in cycles (see docs/architecture.md, *Departures*).  So it is off here.
"""

from __future__ import annotations

import gc
import logging
import threading
import weakref

import pool_tasks as tasks
import pytest
from pool_wait import until

from resilient_exec import RetryPolicy

SUPERVISING = ("resilient-supervisor", "resilient-lane", "resilient-reaper")
ran: list[tuple[str, str]] = []  # what, and on which thread


def note(what):
    ran.append((what, threading.current_thread().name))


def _on_supervising_threads():
    return [(what, thread) for what, thread in ran if thread.startswith(SUPERVISING)]


@pytest.fixture(autouse=True)
def no_collector():
    gc.collect()
    gc.disable()
    ran.clear()
    yield
    gc.enable()


class Text(str):
    """A label whose every use is code of the user's."""

    __slots__ = ()

    def __str__(self):
        note("__str__ of a label")
        return "label"

    def __repr__(self):
        note("__repr__ of a label")
        return "label"

    def __format__(self, how):
        note("__format__ of a label")
        return "label"


class Key:
    def __init__(self, number):
        self.number = number

    def __hash__(self):
        note("__hash__ of a key")
        return hash(self.number)

    def __eq__(self, other):
        note("__eq__ of a key")
        return isinstance(other, Key) and other.number == self.number

    def __repr__(self):
        note("__repr__ of a key")
        return f"Key({self.number})"

    def __reduce__(self):
        note("__reduce__ of a key")
        return Key, (self.number,)

    def __del__(self):
        note("__del__ of a key")


class Argument:
    def __init__(self):
        weakref.finalize(self, note, "a finalizer of an argument").atexit = False

    def __reduce__(self):
        note("__reduce__ of an argument")
        return Argument, ()

    def __repr__(self):
        note("__repr__ of an argument")
        return "Argument()"

    def __del__(self):
        note("__del__ of an argument")


class Result:
    def __setstate__(self, _):
        note("__setstate__ of a result")

    def __getstate__(self):
        return {"a": 1}

    def __del__(self):
        note("__del__ of a result")


class OddError(Exception):
    def __str__(self):
        note("__str__ of an error")
        return "odd"

    def __reduce__(self):
        return OddError, ()

    def __init__(self):
        note("__init__ of an error")

    def __del__(self):
        note("__del__ of an error")


def give(_):
    return Result()


def throw(_):
    raise OddError


class Handler(logging.Handler):
    def emit(self, _):
        note("a handler of the log")


def look_through(record):
    note("a filter of the log")
    return True


def strategy(result):
    def call(state):
        note(f"a strategy, of attempt {state.attempt_number}")
        if result is None:
            raise RuntimeError("in a strategy")
        return result

    return call


def observe(event):
    note(f"an observer of {event.kind}")


def use(pool):
    """Have tasks end in all ways, and drop whatever comes of them."""
    futures = []
    for number in range(20):
        view = pool.options(key=Key(number), label=Text("label"))
        futures += [view.submit(give if number % 2 else throw, Argument())]
    policy = RetryPolicy(errors=2, retry_if=strategy(True), wait=strategy(0.0), stop=strategy(False))
    futures.append(pool.options(retry=policy, key=Key(100)).submit(throw, Argument()))
    futures.append(pool.options(retry=RetryPolicy(errors=2, stop=strategy(None))).submit(throw, Argument()))
    futures.append(pool.options(timeout=0.3, retry=1, key=Key(101)).submit(tasks.meet, "here", "never"))
    futures.append(pool.options(key=Key(102), retry=2).submit(tasks.leave, 3))
    waiting = [pool.options(key=Key(200 + number)).submit(give, Argument()) for number in range(20)]
    for future in futures:
        future.add_done_callback(lambda future: note(f"a callback, which sees {future!r}"))
        future.add_done_callback(lambda _: 1 / 0)
    for future in waiting[::2]:
        future.cancel()
    for future in waiting[1::4]:
        future.kill()
    for future in futures:
        str(future.exception(60))
        str(future.dossier), str(future.story)
    pool.snapshot()


@pytest.mark.parametrize("ends", ["shutdown", "kill"])
def test_no_code_of_the_users_runs_on_a_supervising_thread(make_pool, tmp_path, monkeypatch, ends):
    monkeypatch.chdir(tmp_path)
    logger, handler = logging.getLogger("resilient_exec"), Handler()
    handler.addFilter(look_through)
    logger.addHandler(handler)
    try:
        pool = make_pool(2, observers=[observe], preload=("no_such_module?",), stall_timeout=0.2)
        use(pool)
        never_asked = [pool.submit(give, Argument()) for _ in range(10)]  # their results are dropped as they came
        never_asked += [pool.submit(throw, Argument()) for _ in range(10)]
        del never_asked
        pool.shutdown(kill=ends == "kill", cancel_futures=ends == "kill")
        del pool
    finally:
        logger.removeHandler(handler)
    kinds = {what for what, _ in ran}
    for seen in ("__reduce__ of an argument", "__hash__ of a key", "a handler of the log", "__del__ of an argument"):
        assert seen in kinds, "nothing was tried"
    assert any(what.startswith("a strategy") for what in kinds)
    assert _on_supervising_threads() == []


def test_nor_does_it_where_a_service_breaks(make_pool):
    pool = make_pool(1, observers=[observe], initializer=throw, initargs=(1,), start_patience=0.2)
    futures = [pool.options(key=Key(number)).submit(give, Argument()) for number in range(5)]
    for future in futures:
        assert future.exception(60) is not None
    del futures, future
    pool.shutdown()
    until(lambda: any(what == "an observer of pool_broken" for what, _ in ran))
    assert _on_supervising_threads() == []
