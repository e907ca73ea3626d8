"""Programs in a cgroup that kills, throttles or holds back for memory: made for real where this machine lets us."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from pathlib import Path

import pytest

from resilient_exec.diagnosis.limits import Limits

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="cgroups are Linux's")
MIB = 1 << 20
POOL = """
import multiprocessing

def work(n):
    if n == 3:
        block = bytearray(300 << 20)
    return n

if __name__ == "__main__":
    with multiprocessing.get_context("fork").Pool(2) as pool:
        print(pool.map(work, range(8), chunksize=1))
"""
BUSY = """
import concurrent.futures as c

def work(n):
    while True:
        pass

if __name__ == "__main__":
    with c.ProcessPoolExecutor(2) as executor:
        executor.submit(work, 1).result()
"""
ALONE = "block = bytearray(300 << 20)"


def made(controller):
    """A new group of our own below ours, in version 1 or 2; skips where there can be none."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        unified = names == ""
        if not unified and controller not in names.split(","):
            continue
        top = Path("/sys/fs/cgroup" + ("" if unified else f"/{names}") + path)
        folder = top / f"resilient-exec-test-{os.getpid()}-{time.monotonic_ns()}"
        with contextlib.suppress(OSError):
            if unified and controller not in (top / "cgroup.subtree_control").read_text().split():
                continue
            folder.mkdir()
            return folder
    pytest.skip(f"no {controller} cgroup can be made here (no right to, or a read-only mount)")
    raise AssertionError


@pytest.fixture
def cgroup():
    """Makes cgroups, and removes them when all in them has ended."""
    folders = []

    def make(controller, **settings):
        folder = made(controller)
        folders.append(folder)
        for names, value in settings.items():
            there = [folder / name for name in names.split("_or_") if (folder / name).exists()]
            if there:
                there[0].write_text(str(value))
        return folder

    yield make
    for folder in folders:
        for _ in range(200):
            for pid in (folder / "cgroup.procs").read_text().split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), 9)
            with contextlib.suppress(OSError):
                folder.rmdir()
                break
            time.sleep(0.05)


def inside(folder, python=sys.executable):
    """The command that moves itself into the group and runs the script there."""
    return ("sh", "-c", f"echo $$ > '{folder}/cgroup.procs' && exec '{python}' script.py")


LIMIT = "memory.max_or_memory.limit_in_bytes"


def test_a_worker_that_the_kernel_killed_for_memory(watched, cgroup):
    folder = cgroup("memory", **{LIMIT: 150 * MIB})
    program = watched(POOL, command=inside(folder))
    stall = program.wait_for(lambda event: event["event"] == "stall", "stall")
    assert stall["cause"] == "out-of-memory", program.err[-4000:]
    assert "struck" in stall["evidence"][0]


def test_a_program_that_the_kernel_killed_for_memory(watched, cgroup):
    folder = cgroup("memory", **{LIMIT: 150 * MIB})
    program = watched(ALONE, command=inside(folder))
    assert program.process.wait(60) == -9  # watch ends as the program does
    assert "for want of memory" in program.err


def test_a_group_without_memory_that_may_not_kill(watched, cgroup):
    folder = cgroup("memory", **{LIMIT: 150 * MIB})
    control = folder / "memory.oom_control"
    if not control.exists():
        pytest.skip("only version 1 of cgroups can switch the OOM killer off")
    control.write_text("1")
    program = watched(POOL, command=inside(folder))
    stall = program.wait_for(lambda event: event["event"] == "stall", "stall")
    assert stall["cause"] == "throttled", program.err[-4000:]
    assert "under_oom 1" in stall["evidence"][0]


def test_a_program_that_gets_next_to_no_cpu(watched, cgroup):
    folder = cgroup("cpu")
    program = watched(BUSY, command=inside(folder), stall=3)
    program.wait_for(lambda event: event["pools"] and event["pools"][0]["running"], "task at work")
    quota = folder / "cpu.cfs_quota_us"
    if quota.exists():
        quota.write_text("1000")
    else:
        (folder / "cpu.max").write_text("1000 100000")
    stall = program.wait_for(lambda event: event["event"] == "stall", "stall")
    assert stall["cause"] == "throttled", program.err[-4000:]
    assert "denied the CPU" in stall["evidence"][0]


def test_what_a_group_of_version_2_says_of_its_memory(tmp_path):
    (tmp_path / "memory.high").write_text("1048576\n")
    (tmp_path / "memory.current").write_text("1060000\n")
    (tmp_path / "memory.pressure").write_text("some avg10=99.00 avg60=1.00 avg300=0.00 total=1\nfull avg10=97.50 x\n")
    limits = Limits(os.getpid())
    limits._folders = [tmp_path]
    assert "98% of the last 10 s" in limits.throttled()
    (tmp_path / "memory.pressure").write_text("full avg10=3.00 avg60=1.00 avg300=0.00 total=1\n")
    assert limits.throttled() == ""
    (tmp_path / "memory.pressure").write_text("full avg10=97.50 avg60=1.00 avg300=0.00 total=1\n")
    (tmp_path / "memory.high").write_text("max\n")
    assert limits.throttled() == ""
