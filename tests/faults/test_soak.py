"""Ten minutes of random faults: every outcome is the planned one, and nothing in the parent grows."""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import random
import statistics
import sys
import threading
import time

import pytest
import soak_tasks as tasks

from resilient_exec import ResilientPool, RetryPolicy, Settled, TaskTimeout
from resilient_exec.process.memory import resident

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="measured by Linux's own means"),
]
SECONDS = float(os.environ.get("SOAK_SECONDS", "600"))
ATTEMPTS_A_SECOND = 34  # 20,000 in ten minutes
ROUND = 400  # tasks
SICK = 0.04
NOW = RetryPolicy(deaths=1, timeouts=0, memory=0, wait=lambda _: 0.0)


def plan_of(draw):
    """For each task of a round: what it does."""
    return [draw.choice(tasks.SICK) if draw.random() < SICK else "nothing" for _ in range(ROUND)]


def standing():
    """Descriptors, threads, child processes (trackers included) and bytes of this process."""
    gc.collect()
    children = 0
    for thread in os.listdir("/proc/self/task"):
        with contextlib.suppress(FileNotFoundError), open(f"/proc/self/task/{thread}/children") as file:  # it has ended
            children += len(file.read().split())
    return len(os.listdir("/proc/self/fd")), threading.active_count(), children, resident(os.getpid())


def check(done, what):
    if what == "nothing":
        assert done.ok, (done.error, done.attempts)
        assert done.value == done.index
        assert done.attempts == 1
    else:
        tasks.CHECKS[what](done)


def burst(pool, plan):
    """All at once, so that they wait in bundles; then as many healthy ones in chunks; how many attempts there were."""
    futures = [pool.submit(tasks.run, what, number) for number, what in enumerate(plan)]
    for number, future in enumerate(futures):
        check(Settled.of(number, future), plan[number])
    healthy = pool.map(tasks.run, ["nothing"] * ROUND, range(ROUND), chunksize=None)
    assert list(healthy) == list(range(ROUND))
    return ROUND + sum(future.attempts for future in futures)


def test_ten_minutes_of_random_faults_leave_no_trace_in_the_parent(tmp_path):
    draw = random.Random(4)
    attempts, seen = 0, []
    began = time.monotonic()
    settings = {"timeout": 60, "retry": NOW, "output": "capture", "memory_limit": "400MiB", "fresh_locks": True}
    # A short limit for those that hang only: on a busy machine a crash takes half a second.
    with ResilientPool(2, stall_timeout=0.3, **settings) as pool, ResilientPool(2, **settings) as together:
        limited = pool.options(timeout=0.5)
        for number in itertools.count():
            if time.monotonic() - began > SECONDS:
                break
            plan = plan_of(draw)
            hang = [limited.submit(tasks.run, what, None) for what in plan if what == "hangs"]
            others = [what for what in plan if what != "hangs"]
            for done in pool.settled(tasks.run, others, range(ROUND)):
                check(done, others[done.index])
                attempts += done.attempts
            for future in hang:
                assert isinstance(future.exception(), TaskTimeout)
                attempts += future.attempts
            attempts += burst(together, others)
            seen.append(standing())
            print(f"round {number}: {attempts} attempts; descriptors, threads, children, bytes: {seen[-1]}")
    assert attempts >= ATTEMPTS_A_SECOND * SECONDS
    third = max(1, len(seen) // 3)
    # A lane may be between two workers when it is looked at: the median of the last third, and not each.
    early = [max(column) for column in zip(*seen[:third], strict=True)]
    late = [statistics.median(column) for column in zip(*seen[-third:], strict=True)]
    for number, name in enumerate(("descriptors", "threads", "processes")):
        assert late[number] <= early[number], f"{name} have grown"
    assert late[3] < 1.1 * early[3] + (4 << 20), "the parent's memory has grown"
