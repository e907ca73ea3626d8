"""Every fault in a task, its payload, an initializer or a worker: it ends as it should, and harms nobody.

The faulty task stands amid eight healthy ones, which must return right and be executed once; the pool goes on; and
nothing is left, which is looked at behind each test.  The short form has two workers, a limit and one attempt; the
full product (1, 2 and 4 workers, with and without a limit, the default retries) is slow.
"""

from __future__ import annotations

import builtins
import contextlib
import os
import signal
import sys
import time
from dataclasses import replace

import fault_tasks as tasks
import pytest
from fault_table import FAULTS, HANDS, LINUX, NO_START, TOO_LONG, File

import resilient_exec.pool.engine
from resilient_exec import PoolBroken, RetryPolicy, TaskKilled
from resilient_exec.core.states import Limits
from resilient_exec.model.events import render
from resilient_exec.model.exit_status import signal_name

DEADLINE = 120  # s, for whatever must come; under load it takes longer
BESIDE = 4  # healthy tasks before the faulty one, and as many behind it
QUICK = RetryPolicy(wait=lambda _: 0.0)  # the default budgets, without the pause


# -- helpers -------------------------------------------------------------------------------------------------------


def class_of(name):
    return getattr(resilient_exec, name, None) or getattr(builtins, name, None) or getattr(tasks, name)


def until(predicate):
    deadline = time.monotonic() + DEADLINE
    while not predicate():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def rows(faults):
    """Each row as a parameter; what is too long for the short form is marked."""
    return [pytest.param(fault, id=fault.name.replace(" ", "-"), marks=marks_of(fault)) for fault in faults]


def marks_of(fault):
    linux = pytest.mark.skipif(not LINUX, reason="Linux only")
    return [*([pytest.mark.slow] if fault.slow else []), *([linux] if fault.linux else [])]


def submit_healthy(pool, path, numbers, payload=b""):
    return {number: pool.submit(tasks.healthy, path, number, payload) for number in numbers}


def check_healthy(futures, path, payload=b""):
    """All returned right, and each was executed once, in one attempt."""
    for number, future in futures.items():
        assert future.result(DEADLINE) == 2 * number + len(payload)
        assert future.attempts == 1
    with open(path) as file:
        assert sorted(map(int, file)) == sorted(futures), "executed exactly once each"


def check_end(fault, future, retry=1):
    """The faulty task ended as its row says, after as many attempts as its policy grants."""
    error = future.exception(DEADLINE)
    ended = "value" if error is None else type(error).__name__
    assert ended in fault.ends, f"{ended}: {error}"
    assert future.attempts in attempts_of(fault, ended, retry), render(future.story)
    if error is None:
        value = future.result()
        assert fault.value(value) if callable(fault.value) else value == fault.value
        return
    assert type(error) is class_of(ended)
    assert fault.says in str(error)
    if ended == "WorkerDied":
        assert error.exitcode == fault.exitcode
        assert error.signal == signal_name(fault.exitcode)
        assert not isinstance(error, TimeoutError), "a death is not reported as a timeout"
    if ended == "TaskTimeout" and LINUX:
        assert fault.shows in error.stacks


def attempts_of(fault, ended, retry):
    if retry == 1 or not fault.attempts:
        return {fault.attempts}
    most = 1 + {"WorkerDied": retry.deaths, "TaskTimeout": retry.timeouts, "MemoryLimitExceeded": retry.memory}.get(
        ended, 0
    )
    return {most} if fault.ends == (ended,) else set(range(1, 2 + retry.timeouts))


def options_of(fault, folder):
    initializer, initargs = fault.initializer_call(folder)
    given = {"initializer": initializer, "initargs": initargs}
    if fault.memory_limit is not None:
        given["memory_limit"] = fault.memory_limit
    if fault.output:
        given["output"] = fault.output
    return given


@contextlib.contextmanager
def unread(descriptor):
    """Make this process's stdout or stderr a pipe that nobody reads."""
    if descriptor is None:
        yield
        return
    read, write = os.pipe()
    kept = os.dup(descriptor)
    (sys.stdout, sys.stderr)[descriptor - 1].flush()
    os.dup2(write, descriptor)
    try:
        yield
    finally:
        os.dup2(kept, descriptor)
        for number in (read, write, kept):
            os.close(number)


def goes_on(pool, path):
    """Later tasks work, more of them than there are lanes."""
    later = submit_healthy(pool, path, range(1000, 1004))
    for number, future in later.items():
        assert future.result(DEADLINE) == 2 * number


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """A worker that does not begin, or does not end in peace, is given up after a second: the tests wait for that."""
    monkeypatch.setattr(
        resilient_exec.pool.engine,
        "Limits",
        lambda **given: Limits(**{**given, "begin_timeout": 1.0, "stop_timeout": 1.0}),
    )


# -- in a task, its payload, or the first start ----------------------------------------------------------------------


@pytest.mark.parametrize("fault", rows(FAULTS))
def test_a_fault_ends_as_it_should_and_harms_nobody(make_pool, tmp_path, fault):
    path = str(tmp_path / "executed")
    with unread(fault.unread):
        pool = make_pool(2, timeout=fault.limit, retry=1, **options_of(fault, tmp_path))
        futures = submit_healthy(pool, path, range(BESIDE))
        faulty = pool.submit(*fault.call(tmp_path))
        futures |= submit_healthy(pool, path, range(BESIDE, 2 * BESIDE))
        check_end(fault, faulty)
        check_healthy(futures, path)
        goes_on(pool, str(tmp_path / "later"))
        pool.shutdown()
    check_files(fault, tmp_path)


def check_files(fault, folder):
    """In the files that a task has opened is what it wrote, and nothing of the pool's."""
    if fault.fn is tasks.close_descriptors:
        (file,) = (arg for arg in fault.args if isinstance(arg, File))
        assert set((folder / file.name).read_bytes().splitlines()) == {b"mine"}


@pytest.mark.slow
@pytest.mark.parametrize("limited", [True, False], ids=["limit", "no-limit"])
@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("fault", rows(FAULTS))
def test_the_same_with_any_number_of_workers_with_and_without_a_limit(make_pool, tmp_path, fault, workers, limited):
    """With the default retries.  Without a limit a hang stays a hang, and `kill()` ends it."""
    path = str(tmp_path / "executed")
    with unread(fault.unread):
        limit = fault.limit if limited else None
        pool = make_pool(workers, timeout=limit, retry=QUICK, **options_of(fault, tmp_path))
        futures = submit_healthy(pool, path, range(BESIDE))
        faulty = pool.submit(*fault.call(tmp_path))
        futures |= submit_healthy(pool, path, range(BESIDE, 2 * BESIDE))
        if fault.hangs and not limited:
            if workers > 1:
                check_healthy(futures, path)
            end_by_hand(faulty, faulty.kill)
        else:
            check_end(fault, faulty, QUICK)
        check_healthy(futures, path)
        goes_on(pool, str(tmp_path / "later"))
        pool.shutdown()
    check_files(fault, tmp_path)


# -- without a limit -------------------------------------------------------------------------------------------------


def end_by_hand(future, end):
    """It hangs until the hand comes, and then has been killed."""
    until(lambda: future.attempts)
    assert not future.done()
    end()
    assert type(future.exception(DEADLINE)) is TaskKilled
    assert future.attempts == 1


IN_SHORT = {"a loop in C that holds the GIL", "stopped by SIGSTOP during the task", "a result whose unpickling hangs"}


@pytest.mark.parametrize("how", ["kill", "shutdown"])
@pytest.mark.parametrize("fault", rows(replace(f, slow=f.slow or f.name not in IN_SHORT) for f in FAULTS if f.hangs))
def test_without_a_limit_a_hang_stays_a_hang_beside_which_all_goes_on_and_which_a_hand_ends(
    make_pool, tmp_path, fault, how
):
    path = str(tmp_path / "executed")
    with unread(fault.unread):
        pool = make_pool(2, retry=1, **options_of(fault, tmp_path))
        faulty = pool.submit(*fault.call(tmp_path))
        check_healthy(submit_healthy(pool, path, range(2 * BESIDE)), path)
        if how == "kill":
            end_by_hand(faulty, faulty.kill)
            goes_on(pool, str(tmp_path / "later"))
            pool.shutdown()
        else:
            end_by_hand(faulty, lambda: pool.shutdown(kill=True))


# -- in every start --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", rows(NO_START))
def test_an_initializer_that_always_fails_breaks_the_pool_and_every_task_is_told_why(make_pool, tmp_path, fault):
    path = str(tmp_path / "executed")
    start_timeout = 1 if fault.says == TOO_LONG else DEADLINE
    pool = make_pool(
        2, timeout=fault.limit, start_timeout=start_timeout, start_patience=0, retry=1, **options_of(fault, tmp_path)
    )
    futures = [*submit_healthy(pool, path, range(BESIDE)).values(), pool.submit(*fault.call(tmp_path))]
    for future in futures:
        error = future.exception(DEADLINE)
        assert type(error) is PoolBroken
        assert fault.says in str(error)
        assert future.attempts == 0
    assert not (tmp_path / "executed").exists()
    pool.shutdown()


# -- by a hand from outside ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hand", HANDS, ids=lambda hand: hand.name.replace(" ", "-"))
def test_a_hand_that_strikes_an_idle_worker_costs_nobody_an_attempt(make_pool, tmp_path, hand):
    path = str(tmp_path / "executed")
    pool = make_pool(2, timeout=10, retry=1)
    futures = submit_healthy(pool, path, range(BESIDE))
    victim = pool.submit(tasks.pid)
    pid = victim.result(DEADLINE)
    check_healthy(futures, path)
    os.kill(pid, hand.number)
    futures |= submit_healthy(pool, path, range(BESIDE, 2 * BESIDE), bytes(hand.payload))
    for number in range(BESIDE, 2 * BESIDE):
        assert futures.pop(number).result(DEADLINE) == 2 * number + hand.payload
    goes_on(pool, str(tmp_path / "later"))
    pool.shutdown()
    with open(path) as file:
        assert sorted(map(int, file)) == list(range(2 * BESIDE)), "executed exactly once each"


def test_a_worker_that_is_stopped_behind_its_task_does_not_keep_the_pool_from_ending(make_pool):
    pool = make_pool(2, timeout=10, retry=1)
    os.kill(pool.submit(tasks.pid).result(DEADLINE), signal.SIGSTOP)
    pool.shutdown()
