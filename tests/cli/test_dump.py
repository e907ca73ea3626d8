"""``resilient-exec dump``: our pools with their lanes, and the stacks of any program."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap

import pytest

from resilient_exec.diagnosis.stacks import find_py_spy

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
DUMP = [sys.executable, "-m", "resilient_exec", "dump"]
OURS = textwrap.dedent("""
    import sys, time
    from resilient_exec import ResilientPool, task_context

    def work(n):
        print("printed by", n, flush=True)
        task_context().note(f"noted by {n}")
        open(f"began-{n}", "w").close()
        time.sleep(60)

    if __name__ == "__main__":
        with ResilientPool(2, output="capture") as pool:
            futures = [pool.submit(work, n) for n in range(5)]
            futures[0].result()
""")
PLAIN = textwrap.dedent("""
    import threading, time

    def wait_here():
        while True:  # without py-spy only a main thread that runs Python code tells its stacks (3.14 and later)
            time.sleep(0.05)

    threading.Thread(target=wait_here, name="waiting", daemon=True).start()
    print("ready", flush=True)
    wait_here()
""")


def dump(*arguments):
    return subprocess.run([*DUMP, *map(str, arguments)], capture_output=True, timeout=120, check=False, text=True)


def test_a_pool_of_ours_is_listed_and_shown_lane_by_lane(start_script):
    script = start_script(OURS)
    for n in range(2):
        while not (script.folder / f"began-{n}").exists():
            assert script.process.poll() is None, script.err
    listed = dump().stdout
    assert f"{script.process.pid}  " in listed
    assert "3 pending, 2 running" in listed
    shown = dump(script.process.pid)
    assert shown.returncode == 0
    for n in range(2):
        assert f"task {n}, attempt 1" in shown.stdout
        assert f"last note: noted by {n}" in shown.stdout
        assert f"printed: printed by {n}" in shown.stdout
    assert shown.stdout.count("in work: time.sleep(60)") == 2


def test_workers_of_ours_tell_their_stacks_without_py_spy(start_script):
    from resilient_exec.diagnosis import own

    script = start_script(OURS)
    while not (script.folder / "began-1").exists():
        assert script.process.poll() is None, script.err
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit() and own.is_worker(int(name))]
    workers = [pid for pid in pids if os.readlink(f"/proc/{pid}/cwd") == str(script.folder)]
    assert len(workers) == 2
    for pid in workers:
        threads, problem = own.stacks(pid)
        assert not problem
        assert any(frame.name == "work" for frame in threads[pid].frames)


@pytest.mark.skipif(shutil.which("strace") is None, reason="counts system calls")
def test_nothing_is_stopped_for_it(start_script):
    """No process is traced or stopped; what is asked by a signal is asked by that of our own workers alone."""
    script = start_script(OURS)
    while not (script.folder / "began-1").exists():
        assert script.process.poll() is None, script.err
    calls = script.folder / "calls"
    trace = ["strace", "-f", "-o", str(calls), "-e", "trace=ptrace,kill,tkill,tgkill,pidfd_send_signal"]
    shown = subprocess.run(
        [*trace, *DUMP, str(script.process.pid)], capture_output=True, timeout=120, check=False, text=True
    )
    assert "in work: time.sleep(60)" in shown.stdout, shown.stderr
    told = [line for line in calls.read_text().splitlines() if "(" in line and "ENOSYS" not in line]
    assert not [line for line in told if "ptrace(" in line or "SIGSTOP" in line or "SIGTSTP" in line], told


@pytest.mark.skipif(find_py_spy() is None and sys.version_info < (3, 14), reason="no py-spy, no sys.remote_exec")
def test_the_stacks_of_any_program(tmp_path):
    (tmp_path / "script.py").write_text(PLAIN)
    program = subprocess.Popen([sys.executable, "script.py"], cwd=tmp_path, stdout=subprocess.PIPE)
    with program.stdout:
        try:
            assert program.stdout.readline() == b"ready\n"
            shown = dump(program.pid)
            assert shown.returncode == 0
            assert "in <module>" in shown.stdout
            assert "thread waiting" in shown.stdout
        finally:
            program.kill()
            program.wait()


def test_what_cannot_be_shown_is_said():
    assert dump(999_999_999).returncode == 2
    assert "no process 999999999" in dump(999_999_999).stderr
    assert dump("x").returncode == 2
