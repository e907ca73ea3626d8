"""A task that signals its process group harms its own worker only; Ctrl-C and Ctrl-Z do what users expect of them."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from scripts import PATHS
from terminal_tasks import (
    become_session_leader,
    end_my_group,
    end_my_group_from_a_shell,
    groups,
    interrupt_a_program,
    interrupt_myself,
)

from resilient_exec import PoolBroken, WorkerDied

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no process groups")


@pytest.fixture(params=[(), ("json",)], ids=["started", "forked"])
def preload(request):
    return request.param


@pytest.mark.parametrize("task", [end_my_group, end_my_group_from_a_shell])
def test_a_task_that_ends_its_process_group_ends_its_own_worker_and_nobody_else(make_pool, task, preload):
    pool = make_pool(2, retry=1, preload=preload)
    other, (pid, _) = pool.submit(time.sleep, 1), pool.submit(groups).result()
    assert pid != os.getpid()
    error = pool.submit(task).exception()
    assert isinstance(error, WorkerDied)
    assert error.exitcode == -signal.SIGTERM
    assert other.result() is None
    assert other.attempts == 1
    assert pool.submit(int).result() == 0


def test_an_initializer_that_ends_its_process_group_breaks_the_pool_and_ends_nobody(make_pool, preload):
    pool = make_pool(1, preload=preload, initializer=end_my_group, initargs=(signal.SIGKILL,))
    assert isinstance(pool.submit(int).exception(), PoolBroken)


def test_each_worker_is_in_a_group_of_its_own_which_it_does_not_lead(make_pool, preload):
    pool = make_pool(2, preload=preload, max_tasks_per_worker=1)
    found = [pool.submit(groups).result() for _ in range(3)]
    assert len({group for _, group in found}) == 3
    assert all(group not in (pid, os.getpgrp()) for pid, group in found)
    assert pool.submit(become_session_leader).result()


def test_a_program_that_a_task_started_ends_by_sigint(make_pool, preload):
    pool = make_pool(1, preload=preload)
    assert pool.submit(interrupt_a_program).result() == "bye\n"
    assert pool.submit(interrupt_myself).result() == "went on"


# -- on a terminal -----------------------------------------------------------------------------------------------------

SCRIPT = """
import os, sys, time
from resilient_exec import ResilientPool
from terminal_tasks import read_from_the_terminal

def count(path):
    while True:
        with open(path, "a") as file:
            file.write("x")
        time.sleep(0.01)

if __name__ == "__main__":
    pool = ResilientPool(1)
    try:
        print("tty:", type(pool.submit(read_from_the_terminal).exception()).__name__, flush=True)
        future = pool.submit(count, sys.argv[1])
        while not os.path.exists(sys.argv[1]):
            time.sleep(0.01)
        print("counting", flush=True)
        with pool:
            future.result()
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""


class Terminal:
    """An interactive shell on a pseudo-terminal."""

    def __init__(self, folder: Path) -> None:
        self._far, near = pty.openpty()
        paths = os.pathsep.join(map(str, [*PATHS, Path(__file__).parent]))
        environment = {**os.environ, "PS1": "ready> ", "PYTHONPATH": paths}
        command = ["bash", "--norc", "--noprofile", "-i"]
        self.shell = subprocess.Popen(
            ["setsid", "--ctty", *command], cwd=folder, env=environment, stdin=near, stdout=near, stderr=near
        )
        os.close(near)
        self._read = ""

    def type(self, text: str) -> None:
        os.write(self._far, text.encode())

    def expect(self, text: str) -> None:
        while text not in self._read:
            assert select.select([self._far], [], [], 60)[0], f"{text!r} never came, but {self._read!r}"
            self._read += os.read(self._far, 4096).decode(errors="replace")
        self._read = self._read.partition(text)[2]

    def close(self) -> None:
        os.close(self._far)
        self.shell.kill()
        self.shell.wait()


@pytest.fixture
def terminal(tmp_path):
    if not shutil.which("bash") or not shutil.which("setsid"):
        pytest.skip("no shell with job control")
    (tmp_path / "script.py").write_text(SCRIPT)
    terminal = Terminal(tmp_path)
    yield terminal
    with contextlib.suppress(OSError):
        terminal.close()


def _size(path: Path) -> int:
    return path.stat().st_size


def _until_it_stands(path: Path) -> int:
    """Wait until nothing is written for a second; the size."""
    size, since = -1, time.monotonic()
    while time.monotonic() - since < 1:
        if (now := _size(path)) != size:
            size, since = now, time.monotonic()
        time.sleep(0.05)
    return size


def test_ctrl_z_stops_the_workers_and_fg_lets_them_go_on_and_ctrl_c_ends_all(terminal, tmp_path):
    log = tmp_path / "log"
    terminal.expect("ready> ")
    terminal.type(f"{sys.executable} script.py {log}\n")
    terminal.expect("tty: OSError")  # and not stopped for ever
    terminal.expect("counting")
    for _ in range(2):
        terminal.type("\x1a")
        terminal.expect("ready> ")
        size = _until_it_stands(log)
        terminal.type("fg\n")
        terminal.expect(f"{log}\r\n")  # a Ctrl-Z throws away what was not read by then
        while _size(log) == size:
            time.sleep(0.05)
    terminal.type("\x03")
    terminal.expect("interrupted")
    terminal.expect("ready> ")
    _until_it_stands(log)
