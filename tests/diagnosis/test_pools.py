"""Every kind of pool in a watched program: what is counted, without the program's doing anything for it."""

from __future__ import annotations

import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
SCRIPT = """
import sys, time

def work(n):
    time.sleep(2.0 if n < 2 else 60.0)
    return n

if __name__ == "__main__":
{body}
    time.sleep(60)
"""
KINDS = {  # module, lines, kind
    "ProcessPoolExecutor": (
        "concurrent.futures",
        (
            "from concurrent.futures import ProcessPoolExecutor\npool = ProcessPoolExecutor(2)\n"
            "futures = [pool.submit(work, n) for n in range(8)]\nfutures[-1].cancel()"
        ),
    ),
    "ThreadPoolExecutor": (
        "concurrent.futures",
        (
            "from concurrent.futures import ThreadPoolExecutor\npool = ThreadPoolExecutor(2)\n"
            "futures = [pool.submit(work, n) for n in range(8)]\nfutures[-1].cancel()"
        ),
    ),
    "loky": (
        "loky",
        (
            "from loky import get_reusable_executor\npool = get_reusable_executor(2)\n"
            "futures = [pool.submit(work, n) for n in range(8)]\nfutures[-1].cancel()"
        ),
    ),
    "multiprocessing.Pool": (
        "multiprocessing",
        (
            "import multiprocessing\npool = multiprocessing.get_context('spawn').Pool(2)\n"
            "result = pool.map_async(work, range(7), chunksize=1)"
        ),
    ),
    "multiprocessing.pool.ThreadPool": (
        "multiprocessing",
        (
            "from multiprocessing.pool import ThreadPool\npool = ThreadPool(2)\n"
            "result = pool.map_async(work, range(7), chunksize=1)"
        ),
    ),
    "pebble.ProcessPool": (
        "pebble",
        "import pebble\npool = pebble.ProcessPool(2)\nfutures = [pool.schedule(work, args=(n,)) for n in range(7)]",
    ),
    "ResilientPool": (
        "resilient_exec",
        (
            "from resilient_exec import ResilientPool\npool = ResilientPool(2)\n"
            "futures = [pool.submit(work, n) for n in range(7)]"
        ),
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_done_and_what_is_not_is_counted(kind, watched):
    module, lines = KINDS[kind]
    pytest.importorskip(module)
    program = watched(SCRIPT.format(body="".join(f"    {line}\n" for line in lines.splitlines())), stall=30)

    def is_there(event):
        return any(pool["kind"] == kind and pool["done"] == 2 for pool in event["pools"])

    look = program.wait_for(is_there, f"look at {kind} with two tasks done")
    (pool,) = [pool for pool in look["pools"] if pool["kind"] == kind]
    assert (pool["running"] is None) == kind.startswith("multiprocessing")  # those do not know it
    assert (pool["running"] or 0) + pool["pending"] + pool["cancelled"] == (6 if "cancel()" in lines else 5)
    assert pool["max_workers"] == 2
    if not kind.startswith("multiprocessing"):
        assert pool["running"] >= 2
        assert pool["oldest"] is not None
