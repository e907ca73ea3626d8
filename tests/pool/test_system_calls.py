"""How often a no-op task asks the operating system: counts do not depend on how busy the machine is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path

import pytest

TASKS = 1500
SCRIPT = f"""
    import os, sys
    sys.path.insert(0, {os.path.dirname(__file__)!r})
    import pool_tasks as tasks
    from resilient_exec import ResilientPool

    if __name__ == "__main__":
        with ResilientPool(2, memory_reserve=None) as pool:
            [f.result() for f in [pool.submit(tasks.same, n) for n in range(400)]]
            print(*os.listdir("/proc/self/task"), flush=True)
            print(*[lane["pid"] for lane in pool.snapshot()["lanes"]], flush=True)
            os.access("/the-first-mark", os.F_OK)
            futures = [pool.submit(tasks.same, n) for n in range({TASKS})]
            assert [f.result() for f in futures] == list(range({TASKS}))
            os.access("/the-second-mark", os.F_OK)
"""


def counted(tmp_path):
    """The system calls of parent and workers between the marks, by name."""
    script, trace = tmp_path / "script.py", tmp_path / "trace"
    script.write_text(textwrap.dedent(SCRIPT))
    command = ["strace", "-f", "-qq", "-o", str(trace), sys.executable, str(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if "ptrace" in done.stderr.lower() and done.returncode:
        pytest.skip(f"nothing can be traced here: {done.stderr.strip()[-200:]}")
    assert done.returncode == 0, done.stderr
    parent, workers = (set(line.split()) for line in done.stdout.splitlines()[:2])
    calls = {"parent": Counter(), "workers": Counter()}
    is_between = False
    for line in Path(trace).read_text(errors="replace").splitlines():
        pid, _, rest = line.partition(" ")
        if "-mark" in rest:
            is_between = "first" in rest
        name = rest.strip().partition("(")[0]
        if is_between and name.isidentifier():  # the second half of one that was interrupted is none
            who = "parent" if pid in parent else "workers" if pid in workers else None
            if who is not None:
                calls[who][name] += 1
    return calls


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace counts them, and is not there")
def test_a_no_op_task_costs_a_few_system_calls_and_hardly_a_futex(tmp_path):
    calls = counted(tmp_path)
    futexes = sum(which["futex"] for which in calls.values()) / TASKS
    parent = sum(calls["parent"].values()) / TASKS
    workers = (sum(calls["workers"].values()) - calls["workers"]["futex"]) / TASKS
    assert futexes <= 4, calls
    assert parent <= 4, calls
    assert workers <= 6, calls
