"""What a lane holds in the parent: a few descriptors, and one thread."""

from __future__ import annotations

import os
import sys
import threading

import pool_tasks
import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="counted in /proc")
LANES = 8


@pytest.mark.parametrize("options", [{}, {"output": "capture"}, {"output": "discard"}])
@pytest.mark.parametrize("forkserver", [True, False])
def test_a_lane_holds_at_most_8_descriptors_and_a_thread(make_pool, tmp_path, forkserver, options):
    def held():
        return len(os.listdir("/proc/self/fd")), threading.active_count()

    def held_with(lanes):
        """What this process holds while all lanes of a pool are at work."""
        pool = make_pool(lanes, forkserver=forkserver, memory_limit="4GiB", timeout=60, **options)
        here, go = tmp_path / f"here {lanes}", tmp_path / f"go {lanes}"
        running = [pool.submit(pool_tasks.meet, here, go) for _ in range(lanes)]
        pool_tasks.wait_for(here)
        while here.read_text().count("\n") < lanes:
            pass
        descriptors, threads = held()
        pool_tasks.note(go, "now")
        for future in running:
            future.result(60)
        pool.shutdown()
        return descriptors, threads

    one, many = held_with(1), held_with(1 + LANES)
    assert many[0] - one[0] <= 8 * LANES
    assert many[1] - one[1] <= LANES
