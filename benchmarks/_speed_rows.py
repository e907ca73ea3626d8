"""The measurements of `speed.py`: one function for each row; each side and round has a process of its own.

Run as a script, this measures once: `python _speed_rows.py ROW SIDE SIZE` prints a JSON object, whose `value` is the
figure and whose other entries are told beside it.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import _speed_tasks as tasks
from _speed_sides import LEARNED, OURS, SIDES, WORKERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HERE = Path(__file__).resolve().parent
LANES = 8  # of the pool of which the resources of each lane are counted
MANY_LANES = 64
SHORT_LIMIT = 1.0  # s, for tasks that hang
DIES, HANGS = 0.05, 0.02  # the shares of tasks that die and hang in the makespan
LONG = {"map, no-op": 0.0, "map, 100 us": 1e-4, "map, 1 ms": 1e-3, "map, 10 ms": 1e-2, "map, 1 s": 1.0}  # s
CHUNKS = {"map, no-op": (256, 2048), "map, 100 us": (16, 128), "map, 1 ms": (4, 32), "map, 10 ms": (1, 4)}
MIXED_CHUNKS = (1, 8)
START: dict[str, str] = {
    OURS: "from resilient_exec import ResilientPool\npool = ResilientPool(2)",
    "resilient_exec, by exec": "from resilient_exec import ResilientPool\npool = ResilientPool(2, forkserver=False)",
    "stdlib": "from concurrent.futures import ProcessPoolExecutor\nfrom multiprocessing import get_context\n"
    "pool = ProcessPoolExecutor(2, mp_context=get_context('spawn'))",
    "loky": "from loky import ProcessPoolExecutor\npool = ProcessPoolExecutor(2)",
    "pebble": "from pebble import ProcessPool\nfrom multiprocessing import get_context\n"
    "pool = ProcessPool(2, context=get_context('spawn'))",
    "deadpool": "from deadpool import Deadpool\npool = Deadpool(max_workers=2)",
    "mp.Pool": "from multiprocessing import get_context\npool = get_context('spawn').Pool(2)",
}


@contextlib.contextmanager
def opened(side: str, workers: int = WORKERS) -> Iterator[Any]:
    """The pool of that side, with its workers started."""
    pool = SIDES[side].open(workers)
    try:
        if hasattr(pool, "submit"):
            for handle in [pool.submit(tasks.last, 0.01) for _ in range(4 * workers)]:
                pool.wait(handle)
        else:
            list(pool.map(tasks.nothing, list(range(100)), 1))
        yield pool
    finally:
        pool.close()


def no_op(side: str, count: int) -> dict[str, Any]:
    """Tasks per second."""
    with opened(side) as pool:
        for handle in [pool.submit(tasks.nothing, number) for number in range(50)]:
            pool.wait(handle)
        began, busy = time.perf_counter(), time.process_time()
        for handle in [pool.submit(tasks.nothing, number) for number in range(count)]:
            pool.wait(handle)
        seconds, busy = time.perf_counter() - began, time.process_time() - busy
    return {"value": count / seconds, "parent_cpu_us": 1e6 * busy / count}


def mapped(row: str, side: str, count: int) -> dict[str, Any]:
    """Calls per second of a map; for pools that need a chunk size, with the best of a few."""
    if row == "map, mixed":
        chance = random.Random(7)
        items = [10 ** chance.uniform(-6, -1) for _ in range(count)]  # 1 us to 100 ms, as many of each magnitude
    else:
        items = [LONG[row]] * count
    chunks = MIXED_CHUNKS if row == "map, mixed" else CHUNKS.get(row, (1,))
    with opened(side) as pool:
        best, ideal = float("inf"), sum(items) / WORKERS
        for chunk in chunks if side not in (OURS, "joblib") else chunks[:1]:
            began = time.perf_counter()
            for _ in pool.map(tasks.last, items, chunk):
                pass
            best = min(best, time.perf_counter() - began)
    return {"value": count / best, "of_ideal": best / ideal if ideal else None}


def makespan(side: str, count: int) -> dict[str, Any]:
    """The time for tasks of which some die and some hang at their first execution, divided by the ideal time.

    The ideal: all good work, half a task for each death, the limit for each that hangs, shared by the workers.
    """
    chance = random.Random(3)
    faults = ["dies"] * round(DIES * count) + ["hangs"] * round(HANGS * count)
    kinds = faults + [""] * (count - len(faults))
    chance.shuffle(kinds)
    seconds = 0.05
    ideal = (count * seconds + kinds.count("dies") * seconds / 2 + kinds.count("hangs") * SHORT_LIMIT) / WORKERS
    with tempfile.TemporaryDirectory() as folder:
        calls = [(folder, number, kind, seconds) for number, kind in enumerate(kinds)]
        took = _with_retries(side, calls)
        executed = [os.stat(os.path.join(folder, str(number))).st_size for number in range(count)]
    again = sum(times - 1 for times, kind in zip(executed, kinds, strict=True) if not kind)
    return {"value": took / ideal, "innocents_repeated": again}


def _with_retries(side: str, calls: list[tuple[Any, ...]]) -> float:
    """Seconds until all have succeeded; for the peers with a retry loop as their users have to write it."""
    if side == OURS:
        from resilient_exec import ResilientPool

        pool: Any = ResilientPool(WORKERS, timeout=SHORT_LIMIT)
        submit = pool.submit
    else:
        peer = SIDES[side].open()
        pool = peer.pool
        if side == "pebble":
            peer.timeout = SHORT_LIMIT
        else:
            peer.options = {"deadpool_timeout": SHORT_LIMIT}
        submit = peer.submit
    for handle in [submit(tasks.last, 0.01) for _ in range(8)]:
        handle.result()
    began = time.perf_counter()
    waiting = [(submit(tasks.faulty, *call), call) for call in calls]
    while waiting:
        again = []
        for handle, call in waiting:
            try:
                handle.result()
            except Exception:
                again.append((submit(tasks.faulty, *call), call))
        waiting = again
    took = time.perf_counter() - began
    if side == "pebble":
        pool.close()
        pool.join()
    else:
        pool.shutdown()
    return took


def tail(side: str, count: int) -> dict[str, Any]:
    """40 short tasks, then one that is as long as all: the time in terms of the ideal, which is the long one's."""
    seconds = 0.8 / count
    with opened(side) as pool:
        began = time.perf_counter()
        if side in (OURS, LEARNED):
            costs = (seconds, 1.0) if side == OURS else ("learned", "learned")
            short, long = (pool.pool.options(cost=cost, label=str(place)) for place, cost in enumerate(costs))
            handles = [short.submit(tasks.last, seconds) for _ in range(count)] + [long.submit(tasks.last, 1.0)]
        else:
            handles = [pool.submit(tasks.last, each) for each in [seconds] * count + [1.0]]
        for handle in handles:
            pool.wait(handle)
        return {"value": time.perf_counter() - began}


def straggler(side: str, count: int) -> dict[str, Any]:
    """Tasks that may run twice, one of which is stuck for 3 s once: the time in terms of the ideal, without that."""
    seconds = WORKERS / count  # so the ideal is 1 s
    with opened(side) as pool, tempfile.NamedTemporaryFile(delete=False) as file:
        submit = pool.pool.options(speculate=True).submit if side == OURS else pool.submit
        began = time.perf_counter()
        paths = [file.name if number == count // 2 else "/nowhere" for number in range(count)]
        for handle in [submit(tasks.stuck_once, seconds, path) for path in paths]:
            pool.wait(handle)
        return {"value": time.perf_counter() - began}


def first_result(side: str, count: int) -> dict[str, Any]:
    """Seconds from the start of an interpreter to the first result, the median of so many."""
    get = "apply_async(abs, (-7,)).get()" if side == "mp.Pool" else "submit(abs, -7).result()"
    get = "schedule(abs, args=(-7,)).result()" if side == "pebble" else get
    end = {"mp.Pool": "pool.terminate()", "pebble": "pool.stop()\npool.join()"}.get(side, "pool.shutdown()")
    code = f"{START[side]}\nassert pool.{get} == 7\nprint('done', flush=True)\n{end}\n"
    took = []
    for _ in range(count):
        began = time.perf_counter()
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
            word = process.stdout.readline() if process.stdout else ""
            took.append(time.perf_counter() - began)
        if word.strip() != "done":
            raise RuntimeError(f"{side} gave no result")
    return {"value": sorted(took)[len(took) // 2]}


def after_a_kill(side: str, count: int) -> dict[str, Any]:
    """Seconds from the SIGKILL of the only worker, which is idle, to the next result, the median of so many.

    Pools that break are made anew, as their users have to do.
    """
    pool = SIDES[side].open(1)
    took = []
    victim = pool.wait(pool.submit(tasks.pid))
    for _ in range(count):
        time.sleep(0.1)
        began = time.perf_counter()
        os.kill(victim, signal.SIGKILL)
        while True:
            try:
                now = pool.wait(pool.submit(tasks.pid))
            except Exception:
                pool = SIDES[side].open(1)
                continue
            if now != victim:
                break
        took.append(time.perf_counter() - began)
        victim = now
    pool.close()
    return {"value": sorted(took)[len(took) // 2]}


def large(row: str, side: str, count: int) -> dict[str, Any]:
    """MB/s of numpy arrays of 100 MB, as results or as arguments."""
    size = 100_000_000
    with opened(side) as pool:
        given = tasks.array(size)
        calls: list[tuple[Callable[..., Any], Any]] = [(tasks.array, size) if row == "result" else (tasks.taken, given)]
        pool.wait(pool.submit(*calls[0]))  # numpy is imported
        began = time.perf_counter()
        for _ in range(count):
            pool.wait(pool.submit(*calls[0]))
        return {"value": count * size / 1e6 / (time.perf_counter() - began)}


def parent(side: str, count: int) -> dict[str, Any]:
    """Resources of the parent: descriptors for each lane, threads that wake while attempts run, bytes for each task."""
    before = len(os.listdir("/proc/self/fd"))
    with opened(side, LANES) as pool:
        for handle in [pool.submit(tasks.last, 0.2) for _ in range(2 * LANES)]:
            pool.wait(handle)
        lanes = len(os.listdir("/proc/self/fd")) - before
        running = [pool.submit(tasks.last, 1.5) for _ in range(LANES)]
        time.sleep(0.5)
        then = _switches()
        time.sleep(0.5)
        now = _switches()
        mine = threading.get_native_id()
        awake = sum(now[thread] != then.get(thread) for thread in now if thread != mine)
        threads = len(now)
        for handle in running:
            pool.wait(handle)
        blocked = [pool.submit(tasks.last, 2.0) for _ in range(LANES)]
        held = _resident()
        queued = [pool.submit(tasks.nothing, number) for number in range(count)]
        held = _resident() - held
        for handle in (*blocked, *queued):
            pool.wait(handle)
    return {"value": lanes / LANES, "threads_awake": awake, "threads": threads, "bytes_a_task": held / count}


def _switches() -> dict[int, int]:
    """How often each thread of this process has gone to sleep."""
    found = {}
    for thread in os.listdir("/proc/self/task"):
        lines = Path(f"/proc/self/task/{thread}/status").read_text().splitlines()
        found[int(thread)] = int(next(line for line in lines if line.startswith("voluntary")).split()[1])
    return found


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def many_lanes(side: str, count: int) -> dict[str, Any]:
    """64 workers and tasks that sleep 100 ms: the ideal time in terms of the time taken, and the most descriptors."""
    with opened(side, MANY_LANES) as pool:
        began = time.perf_counter()
        handles = [pool.submit(tasks.last, 0.1) for _ in range(count)]
        for handle in handles:
            pool.wait(handle)
        took = time.perf_counter() - began
        return {"value": count * 0.1 / MANY_LANES / took, "descriptors": len(os.listdir("/proc/self/fd"))}


ROWS: dict[str, Callable[[str, int], dict[str, Any]]] = {
    "no-op": no_op,
    "no-op, protected": no_op,
    "makespan": makespan,
    "tail": tail,
    "straggler": straggler,
    "first result": first_result,
    "after a kill": after_a_kill,
    "result": lambda side, count: large("result", side, count),
    "argument": lambda side, count: large("argument", side, count),
    "parent": parent,
    "64 lanes": many_lanes,
}


def measure(row: str, side: str, size: int) -> dict[str, Any]:
    """Measure a row once for one side."""
    if row.startswith("map, "):
        return mapped(row, side, size)
    return ROWS[row](side, size)


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
