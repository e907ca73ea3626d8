"""A server that tasks share lives on behind the worker of the task that has started it, if the task says so."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pool_tasks as tasks
import pytest
from pool_wait import until, wait_lines

from resilient_exec import TaskTimeout, WorkerDied, task_context
from resilient_exec.process.tree import identify, is_alive

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only where there is /proc")


def serve(path, then, *, grandchild=False):
    """Start two processes, and disown one of them."""
    command = ["sh", "-c", "sleep 600 & sleep 600; true"] if grandchild else ["sleep", "600"]
    pids = [subprocess.Popen(command, start_new_session=True).pid for _ in range(2)]
    task_context().disown(pids[0])
    tasks.note(path, " ".join(map(str, pids)))
    if then == "raise":
        raise ValueError("and ends in an error")
    if then == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if then == "hang":
        time.sleep(600)


@pytest.fixture
def end():
    """Ends the processes that a test has left, of which it says so."""
    pids = []
    yield pids
    for pid in pids:
        os.killpg(pid, signal.SIGKILL)


@pytest.mark.parametrize("grandchild", [False, True], ids=["a process", "one with a child"])
@pytest.mark.parametrize("then", ["return", "raise", "die", "hang"])
def test_it_lives_and_its_brother_does_not(make_pool, tmp_path, end, then, grandchild):
    pool = make_pool(1, retry=1, timeout=2 if then == "hang" else None)
    error = pool.submit(serve, tmp_path / "pids", then, grandchild=grandchild).exception(60)
    kinds = {"return": type(None), "raise": ValueError, "die": WorkerDied, "hang": TaskTimeout}
    assert type(error) is kinds[then]
    disowned, brother = (identify(int(pid)) for pid in wait_lines(tmp_path / "pids", 1)[0].split())
    assert pool.submit(tasks.same, 3).result(60) == 3
    pool.shutdown()
    end.append(disowned.pid)
    assert brother is None or not is_alive(brother)
    assert is_alive(disowned)


def test_it_ends_when_the_program_is_killed(start_script):
    script = start_script("""
        import os, signal
        from resilient_exec import ResilientPool
        import test_disown

        if __name__ == "__main__":
            with ResilientPool(1) as pool:
                pool.submit(test_disown.serve, "pids", "return").result(60)
                os.kill(os.getpid(), signal.SIGKILL)
    """)
    script.wait()
    pids = wait_lines(script.folder / "pids", 1)[0].split()
    until(lambda: not any(is_alive(who) for pid in pids if (who := identify(int(pid)))))


def test_only_what_the_worker_has_started_can_be_disowned(warm):
    own = warm.submit(os.getpid).result(60)
    for pid in (os.getpid(), own, 1 << 30):
        error = warm.submit(disown, pid).exception(60)
        assert isinstance(error, ValueError) is (pid != own), pid
    assert isinstance(warm.submit(disown, "7").exception(60), TypeError)
    assert task_context().disown(os.getpid()) is None  # outside a pool it does nothing


def disown(pid):
    task_context().disown(pid)


def disown_many(count):
    child = subprocess.Popen(["sleep", "600"])
    for _ in range(count):
        task_context().disown(child.pid)
    child.kill()
    child.wait()


def test_there_is_room_for_some_and_an_error_for_more(make_pool):
    pool = make_pool(1)
    pool.submit(disown_many, 63).result(60)
    error = pool.submit(disown_many, 1).exception(60)
    assert isinstance(error, OSError)
    assert "no room" in str(error)


def start_large():
    child = subprocess.Popen(
        [sys.executable, "-c", "x = b'x' * (300 << 20); import time; time.sleep(600)"], start_new_session=True
    )
    task_context().disown(child.pid)
    return child.pid


def test_what_it_holds_counts_for_no_limit(make_pool, end):
    pool = make_pool(1, memory_limit="200MiB", retry=1)
    end.append(pool.submit(start_large).result(60))
    assert pool.submit(time.sleep, 1.5).exception(60) is None
