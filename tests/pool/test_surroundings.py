"""The process around a pool: what it inherits, is frozen into, has been patched by; and what it leaves when killed."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="Linux's")

HEAD = """
import ctypes, os, signal, subprocess, sys, tempfile, time
from pathlib import Path
from types import SimpleNamespace
from resilient_exec import PoolBroken, ResilientPool, task_context
import pool_tasks

def families():
    for _ in range(5):
        subprocess.Popen("sleep 1000 & sleep 1000", shell=True)
    time.sleep(1000)

def exit_status():
    return subprocess.run(["sh", "-c", "exit 3"]).returncode

def scratch(path):
    pool_tasks.note(path, task_context().scratch_dir)
    time.sleep(1000)

def scratch_file():
    (task_context().scratch_dir / "file").write_text("x")
    return os.getcwd(), os.listdir(), str(task_context().scratch_dir)

def zombies():
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if state == "Z" and int(parent) == os.getpid():
            found.append(pid)
    return found

def refused():
    try:
        ResilientPool(1)
    except PoolBroken as error:
        print(error)
    print(subprocess.run(["pgrep", "-P", str(os.getpid())], capture_output=True).stdout.split()[1:])

if __name__ == "__main__":
"""


def _run(start_script, body, **options):
    script = start_script(HEAD + "".join(f"    {line}\n" for line in body.strip().splitlines()), **options)
    assert script.wait(100) == 0, script.err
    return script.out


@linux_only
@pytest.mark.parametrize("options", ["", ", preload=('json',)"])
def test_nothing_that_a_killed_worker_had_started_stays_a_zombie_of_pid_1(start_script, options):
    # PID 1 of a container inherits orphans, as a child subreaper does.
    body = f"""
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
with ResilientPool(2, timeout=0.5, retry=1{options}) as pool:
    for future in [pool.submit(families) for _ in range(4)]:
        future.exception()
print(zombies())
"""
    assert _run(start_script, body) == "[]\n"


@linux_only
@pytest.mark.parametrize("program", ["/usr/bin/env", "/usr/bin/true"])
@pytest.mark.parametrize("options", ["", ", preload=('json',)"])
def test_the_interpreter_that_is_named_starts_the_workers_of_a_program_that_embeds_python(
    start_script, program, options
):
    body = f"""
import multiprocessing
real, sys.executable = sys.executable, {program!r}
multiprocessing.set_executable(real)
with ResilientPool(1{options}) as pool:
    print(pool.submit(abs, -4).result())
"""
    assert _run(start_script, body) == "4\n"


@linux_only
def test_a_program_that_is_no_python_is_named(start_script):
    body = """
import multiprocessing
multiprocessing.set_executable("/usr/bin/env")
print(ResilientPool(1).submit(abs, -4).exception())
"""
    said = _run(start_script, body)
    assert "'/usr/bin/env' is no Python interpreter" in said
    assert "multiprocessing.set_executable" in said


def test_a_frozen_program_is_refused_before_its_first_process(start_script):
    said = _run(start_script, "sys.frozen = True\nrefused()")
    assert "this program is frozen" in said
    assert "multiprocessing.set_executable" in said
    assert said.endswith("[]\n")


@linux_only
def test_a_frozen_program_that_names_an_interpreter_works(start_script):
    body = """
import multiprocessing
real, sys.executable, sys.frozen = sys.executable, "/usr/bin/true", True
multiprocessing.set_executable(real)
print(ResilientPool(1).submit(abs, -4).result())
"""
    assert _run(start_script, body) == "4\n"


@pytest.mark.parametrize(
    ("module", "asks", "name"),
    [("gevent.monkey", "is_module_patched", "gevent"), ("eventlet.patcher", "is_monkey_patched", "eventlet")],
)
def test_a_program_that_is_monkey_patched_is_refused_before_its_first_process(start_script, module, asks, name):
    fake = f'sys.modules["{module}"] = SimpleNamespace({asks}=lambda name: name in ("{{}}", "ssl"))\nrefused()'
    said = _run(start_script, fake.format("socket"))
    assert f"{name} has replaced parts of the standard library (socket)" in said
    assert said.endswith("[]\n")
    assert _run(start_script, fake.format("signal")) == "[]\n"


@linux_only
@pytest.mark.parametrize("most", [40, 64, 128])
def test_a_tight_limit_on_descriptors_leaves_room_for_workers(start_script, most):
    body = f"""
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, ({most}, {most}))
with ResilientPool(1) as pool:
    print(pool.submit(abs, -4).result(), pool.submit(exit_status).result())
"""
    assert _run(start_script, body) == "4 3\n"


@linux_only
@pytest.mark.parametrize("options", ["", ", preload=('json',)"])
def test_tasks_of_a_program_that_ignores_sigchld_know_how_their_programs_ended(start_script, options):
    body = f"""
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
with ResilientPool(1, retry=1{options}) as pool:
    print(pool.submit(exit_status).result(), type(pool.submit(os._exit, 5).exception()).__name__)
    print(pool.submit(abs, -4).result())
"""
    assert _run(start_script, body) == "3 WorkerDied\n4\n"


@linux_only
def test_a_removed_working_directory_is_named(start_script):
    body = """
folder = tempfile.mkdtemp()
os.chdir(folder)
os.rmdir(folder)
print(ResilientPool(1).submit(abs, -4).exception())
"""
    said = _run(start_script, body)
    assert "the working directory of this process has been removed" in said or said == "None\n"  # forked, it works


@linux_only
def test_a_folder_for_temporary_files_with_a_very_long_path_takes_nothing_into_the_current_one(start_script):
    body = """
folder = Path.cwd()
while len(str(folder)) < 1000:
    folder /= "a" * 90
folder.mkdir(parents=True)
Path("here").mkdir()
os.chdir("here")
os.environ["TMPDIR"], tempfile.tempdir = str(folder), None
with ResilientPool(1) as pool:
    here, there, path = pool.submit(scratch_file).result()
print(here == os.getcwd(), there, os.path.isabs(path), os.path.exists(path), os.listdir(folder), os.listdir())
"""
    assert _run(start_script, body) == "True [] True False [] []\n"


@linux_only
def test_scratch_directories_in_a_folder_of_the_workers_own_do_not_outlive_a_killed_parent(start_script, tmp_path):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    script = start_script(
        HEAD + f"    ResilientPool(1, env={{'TMPDIR': {str(folder)!r}}}).submit(scratch, 'told').result()\n"
    )
    path = Path(script.wait_file("told").strip())
    assert path.parent == folder
    assert path.exists()
    script.process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 30
    while os.listdir(folder):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@linux_only
def test_output_of_worlds_does_not_outlive_a_killed_parent(start_script, tmp_path):
    body = """
    os.environ["TMPDIR"], tempfile.tempdir = sys.argv[1] if len(sys.argv) > 1 else os.getcwd(), None
    from resilient_exec.adapters.worker_output import WorkerOutput
    with WorkerOutput() as output, ResilientPool(1) as pool:
        pool.submit(int).result()
        pool_tasks.note("told", output.folder)
        time.sleep(1000)
"""
    script = start_script(HEAD + body)
    path = Path(script.wait_file("told").strip())
    assert path.exists()
    script.process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 30
    while path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
