"""Tasks for workers that a forkserver has forked."""

from __future__ import annotations

import gc
import os
import random
import re
import signal
import sys
import time
from pathlib import Path

import pool_tasks

from resilient_exec import ResilientPool


def look(name):
    return os.getpid(), os.getppid(), name in sys.modules


def collector():
    return gc.isenabled(), gc.get_threshold()


def surroundings():
    return dict(os.environ), os.getcwd(), list(sys.path)


def draw():
    import numpy as np

    return random.random(), float(np.random.random())  # noqa: NPY002  the global generator is what is asked about


def print_and_die(words):
    print(words, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


def daemon(path):
    """Fork a process that leaves session and tree, and never ends."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            pool_tasks.note(path, os.getpid())
            while True:
                time.sleep(600)
        os._exit(0)
    os.wait()
    while not (os.path.exists(path) and os.path.getsize(path)):
        time.sleep(0.005)


def die_with_a_daemon(path):
    daemon(path)
    os.kill(os.getpid(), signal.SIGKILL)


def leave_a_daemon_and_wait(path):
    daemon(path)
    time.sleep(600)


def hold_the_gil(path):
    Path(path).write_text(f"{os.getpid()}\n")
    re.match(r"(a+)+$", "a" * 64 + "b")


def meet_and_die(here, go):
    pool_tasks.meet(here, go)
    os.kill(os.getpid(), signal.SIGKILL)


def nested(value):
    with ResilientPool(1, preload=("json",)) as pool:
        return pool.submit(pool_tasks.double, value).result(60)
