"""Other systems than Linux, as far as Linux can stand in for them: what only it has is taken away, in all processes."""

from __future__ import annotations

import sys

import pytest

from resilient_exec import PoolBroken, ResilientPool

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="plays another system on Linux")

# What looks at the name of the system while it is imported is imported before that changes: there is no macOS below.
LIKE_MACOS = """
import multiprocessing.resource_tracker, os, select, signal, socket, subprocess, sys
import cloudpickle, loky.backend.context, psutil
for owner, names in (
    (os, ("pidfd_open", "memfd_create", "P_PIDFD", "sched_getaffinity", "sched_setaffinity", "eventfd")),
    (select, ("epoll",)),
    (signal, ("pidfd_send_signal", "SIGRTMIN", "SIGRTMAX")),
    (socket, ("SOCK_SEQPACKET",)),
):
    for name in names:
        if hasattr(owner, name):
            delattr(owner, name)
sys.platform = "darwin"
"""
SCRIPT = """
import pathlib, time
HERE = pathlib.Path(__file__).parent
(HERE / "like_macos").mkdir(exist_ok=True)
(HERE / "like_macos" / "sitecustomize.py").write_text(LIKE_MACOS)  # for the workers
exec(LIKE_MACOS)

import logging
from resilient_exec import ResilientPool, SoftTimeout

def square(n):
    assert sys.platform == "darwin", sys.platform
    return n * n

def hang():
    time.sleep(1000)

def leave_a_child_and_hang():
    child = subprocess.Popen(["sleep", "1000"])
    (HERE / "child").write_text(str(child.pid))
    hang()

def exit_with_3():
    os._exit(3)

def eat():
    held = []
    while True:
        held.append(b"x" * 10**7)

def fail():
    print("printed")
    logging.getLogger("tasks").warning("logged")
    raise ValueError("mine")

def put_in_order():
    try:
        hang()
    except SoftTimeout:
        return "put in order"

if __name__ == "__main__":
    logging.basicConfig(stream=sys.stdout, format="%(name)s: %(message)s")
    path = os.pathsep.join([str(HERE / "like_macos"), os.environ["PYTHONPATH"]])
    with ResilientPool(2, retry=1, output="capture", logs="forward", env={"PYTHONPATH": path}) as pool:
        print(list(pool.map(square, range(5))))
        print(pool.options(soft_timeout=1, timeout=60).submit(put_in_order).result(100))
        for options, fn in (
            ({"timeout": 1}, hang),
            ({"timeout": 3}, leave_a_child_and_hang),
            ({}, exit_with_3),
            ({"memory_limit": "400MiB"}, eat),
            ({}, fail),
        ):
            future = pool.options(**options).submit(fn)
            error = future.exception(100)
            print(type(error).__name__, future.attempts, f"in {fn.__name__}" in str(future.dossier))
        print("printed" in future.dossier.attempts[0].stdout)
        future = pool.submit(hang)
        while not future.running():
            time.sleep(0.01)
        future.kill()
        print(type(future.exception(100)).__name__)
        print(pool.submit(square, 7).result(100))
    child = int((HERE / "child").read_text())
    if not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE:  # init will reap it
        print("its child is gone")
"""


@linux_only
def test_without_what_only_linux_has_a_pool_keeps_its_promises(start_script):
    script = start_script(f"LIKE_MACOS = {LIKE_MACOS!r}\n{SCRIPT}")
    assert script.wait(200) == 0, script.err
    lines = script.out.splitlines()
    assert lines.pop(lines.index("tasks: logged"))  # when the record comes is nobody's promise
    assert lines == [
        "[0, 1, 4, 9, 16]",
        "put in order",
        "TaskTimeout 1 True",
        "TaskTimeout 1 True",
        "WorkerDied 1 False",
        "MemoryLimitExceeded 1 True",
        "ValueError 1 True",
        "True",
        "TaskKilled",
        "49",
        "its child is gone",
    ], script.err


@pytest.mark.parametrize("name", ["win32", "emscripten", "wasi"])
def test_where_it_cannot_work_a_pool_says_so_before_its_first_process(monkeypatch, name):
    monkeypatch.setattr(sys, "platform", name)
    with pytest.raises(PoolBroken, match=f"{name} is not supported yet.*WSL"):
        ResilientPool(1)
