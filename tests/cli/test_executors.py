"""``resilient-exec run`` and scripts with process pools of their own: told at the end, or put on the resilient pool."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import pytest

FUTURES = """
import os, sys
from concurrent.futures import ProcessPoolExecutor, as_completed

def work(x):
    if x == 3 and not os.path.exists("died"):
        open("died", "w").close()
        os._exit(9)
    return x * x

if __name__ == "__main__":
    with ProcessPoolExecutor(2, max_tasks_per_child=None) as pool:
        print(type(pool).__name__, isinstance(pool, ProcessPoolExecutor))
        print(sorted(pool.map(work, range(6))))
"""
JOBLIB = """
from joblib import Parallel, delayed
import os

def work(x):
    if x == 3 and not os.path.exists("died"):
        open("died", "w").close()
        os._exit(9)
    return x * x

if __name__ == "__main__":
    print(Parallel(n_jobs=2)(delayed(work)(x) for x in range(6)))
    print(Parallel(n_jobs=1)(delayed(work)(x) for x in range(3)))
"""
FAILS = """
from joblib import Parallel, delayed

def work(x):
    if x == 1:
        raise ValueError("no")
    return x

if __name__ == "__main__":
    try:
        Parallel(n_jobs=2)(delayed(work)(x) for x in range(4))
    except ValueError as error:
        print("raised", error)
    print(Parallel(n_jobs=2)(delayed(str)(x) for x in range(2)))
"""
ABSENT = "raise ModuleNotFoundError(\"No module named 'negmas'\", name='negmas')"
NOTE = "resilient-exec: nothing went through the pool"


@pytest.fixture
def run(tmp_path):
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "negmas.py").write_text(ABSENT)

    def run(text, *options):
        (tmp_path / "script.py").write_text(text)
        command = [sys.executable, "-m", "resilient_exec", "run", *options, "script.py"]
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(hidden), os.environ.get("PYTHONPATH")]))}
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120, check=False)

    return run


def test_a_pool_of_the_standard_library_is_left_alone_and_told_at_the_end(run):
    done = run(FUTURES.replace("os._exit(9)", "pass"))
    assert done.returncode == 0
    assert done.stdout == "ProcessPoolExecutor True\n[0, 1, 4, 9, 16, 25]\n"
    (line,) = done.stderr.splitlines()
    assert line.startswith(NOTE)
    assert "--executors" in line


def test_with_executors_the_pool_is_ours_and_survives_a_death(run):
    done = run(FUTURES, "--executors", "--retries", "1", "--timeout", "1m")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "ProcessPoolExecutor True\n[0, 1, 4, 9, 16, 25]\n"


@pytest.mark.parametrize("options", [[], ["--executors"]])
def test_a_script_without_pools_is_told_nothing_but_what_it_asked_for(options, run):
    done = run("print('hello')", *options)
    assert done.stdout == "hello\n"
    assert done.stderr.startswith(NOTE) if options else done.stderr == ""


@pytest.mark.skipif(importlib.util.find_spec("joblib") is None, reason="joblib is not installed")
def test_with_executors_joblib_survives_a_death_too(run):
    done = run(JOBLIB, "--executors", "--retries", "1")
    assert (done.returncode, done.stdout) == (0, "[0, 1, 4, 9, 16, 25]\n[0, 1, 4]\n"), done.stderr
    assert done.stderr == ""


@pytest.mark.skipif(importlib.util.find_spec("joblib") is None, reason="joblib is not installed")
def test_with_executors_an_exception_leaves_joblib_and_the_next_call_works(run):
    done = run(FAILS, "--executors")
    assert (done.returncode, done.stdout) == (0, "raised no\n['0', '1']\n"), done.stderr
