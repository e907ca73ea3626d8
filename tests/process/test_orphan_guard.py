"""After SIGKILL of the parent nothing that a worker had started lives on, whatever it did to hide."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from resilient_exec.process import orphan_guard
from resilient_exec.process.tree import Identity, identify, is_alive
from resilient_exec.wire.scratch import parent_mark

SCRIPT = """
import os, re, subprocess, sys, time
from resilient_exec import ResilientPool, task_context

def start_many(path):
    pids = [os.getpid(), subprocess.Popen(["sleep", "1000"]).pid]
    child = os.fork()
    if child == 0:
        while True:
            pass
    pids.append(child)
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:                      # a daemon, in no process tree of ours
            for fd in range(3, 256):
                try:
                    os.close(fd)
                except OSError:
                    pass
            with open(path + ".daemon", "w") as file:
                file.write(str(os.getpid()))
            os.rename(path + ".daemon", path + ".pid")
            time.sleep(1000)
        os._exit(0)
    while not os.path.exists(path + ".pid"):
        time.sleep(0.01)
    pids.append(int(open(path + ".pid").read()))
    with open(path + ".scratch", "w") as file:
        file.write(str(task_context().scratch_dir))
    with open(path + ".all", "w") as file:
        file.write(" ".join(map(str, pids)))
    os.rename(path + ".all", path)
    re.match(r"(a+)+$", "a" * 60 + "b")         # holds the GIL for ever

if __name__ == "__main__":
    with ResilientPool(1) as pool:
        pool.submit(start_many, sys.argv[1]).result()
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="marks and pidfds are Linux's")


def wait_until(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def family(tmp_path):
    """A parent whose worker has started many, and those many; ended, whatever the test did with it."""
    parent, started = start(tmp_path)
    yield parent, started
    parent.kill()
    parent.wait()


def start(tmp_path):
    script, told = tmp_path / "script.py", tmp_path / "told"
    script.write_text(SCRIPT)
    parent = subprocess.Popen([sys.executable, "-W", "ignore", str(script), str(told)], stderr=subprocess.DEVNULL)
    wait_until(told.exists)
    return parent, [who for pid in told.read_text().split() if (who := identify(int(pid)))]


def guard_of(pid) -> Identity | None:
    for name in Path("/proc").iterdir():
        if name.name.isdigit():
            try:
                arguments = (name / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if any(a.endswith(b"guard.py") for a in arguments) and str(pid).encode() in arguments:
                return identify(int(name.name))
    return None


def guard_of_this_process() -> Identity:
    """It is started when ``watch`` returns, but its command line may be a moment late."""
    wait_until(lambda: guard_of(os.getpid()))
    return guard_of(os.getpid())


def test_what_the_workers_had_started_dies_with_the_killed_parent(family):
    parent, started = family
    assert len(started) == 4
    assert all(map(is_alive, started))
    wait_until(lambda: guard_of(parent.pid))
    own_guard = guard_of(parent.pid)
    assert own_guard is not None
    parent.kill()
    parent.wait()
    wait_until(lambda: not any(map(is_alive, started)))
    wait_until(lambda: not is_alive(own_guard))


def test_the_scratch_directory_of_a_task_does_not_outlive_the_killed_parent(family, tmp_path):
    parent, _ = family
    folder = Path((tmp_path / "told.scratch").read_text())
    assert folder.is_dir()
    wait_until(lambda: guard_of(parent.pid))
    parent.kill()
    parent.wait()
    wait_until(lambda: not folder.exists())


def test_ctrl_c_in_the_terminal_does_not_reach_the_guard(family):
    parent, started = family
    wait_until(lambda: guard_of(parent.pid))
    own_guard = guard_of(parent.pid)
    assert os.getsid(own_guard.pid) != os.getsid(parent.pid)
    parent.send_signal(signal.SIGINT)
    parent.wait(60)
    wait_until(lambda: not any(map(is_alive, [*started, own_guard])))


def test_the_guard_lives_exactly_as_long_as_there_are_lanes():
    orphan_guard.watch()
    assert guard_of(os.getpid()) is None, "nobody would end it"
    orphan_guard.hold()
    orphan_guard.hold()
    orphan_guard.watch()
    assert guard_of_this_process() is not None
    orphan_guard.release()
    own_guard = guard_of_this_process()
    assert own_guard is not None
    orphan_guard.release()
    assert not is_alive(own_guard)


def test_a_guard_that_was_killed_is_replaced_with_the_next_worker():
    orphan_guard.hold()
    orphan_guard.watch()
    first = guard_of_this_process()
    os.kill(first.pid, signal.SIGKILL)
    wait_until(lambda: not is_alive(first))
    orphan_guard.watch()
    second = guard_of_this_process()
    assert second not in (None, first)
    orphan_guard.release()
    assert not is_alive(second)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # of a process with threads: that is tested here
def test_a_forked_child_neither_ends_the_guard_nor_shares_its_mark():
    orphan_guard.hold()
    orphan_guard.watch()
    own_guard = guard_of_this_process()
    mark = parent_mark()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        orphan_guard.release()
        os.write(write, parent_mark().encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 4096).decode() != mark
    assert is_alive(own_guard)
    os.close(read)
    os.close(write)
    orphan_guard.release()


@pytest.mark.parametrize("age", [0, 0.6], ids=["while it dozes", "later"])
def test_a_parent_that_dies_at_any_time_is_noticed(age, tmp_path):
    """It imports what it needs only when a program is some 0.25 s old, or dead."""
    mark = "RESILIENT_EXEC_WORKER_OF_THIS_TEST_"
    scratch = tmp_path / f"{mark}0"
    scratch.mkdir()
    parent = subprocess.Popen(["sleep", "1000"])
    left = subprocess.Popen(["sleep", "1000"], env={**os.environ, f"{mark}0": "1"})
    me = identify(parent.pid)
    command = [sys.executable, "-I", "-S", orphan_guard._PROGRAM, str(me.pid), str(me.started), mark, str(tmp_path)]
    guard = subprocess.Popen(command)
    try:
        time.sleep(age)
        assert left.poll() is None
        parent.kill()
        parent.wait()
        assert guard.wait(60) == 0
        assert left.wait(60) == -signal.SIGKILL
        assert not scratch.exists()
    finally:
        for process in (parent, left, guard):
            process.kill()
            process.wait()
