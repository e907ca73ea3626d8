"""Code that is cancelled does not wait for its pool: asyncio cancels its main task where others see Ctrl-C."""

from __future__ import annotations

import asyncio
import signal
import time

import pool_tasks
import pytest

from resilient_exec import TaskKilled

AWAITS = """
import asyncio, sys
from resilient_exec import ResilientPool
from pool_tasks import note, hang

async def main():
    with ResilientPool(1) as pool:
        future = pool.submit(hang)
        while not any(e.kind == "begun" for e in future.story):
            await asyncio.sleep(0.01)
        note("running", "yes")
        {wait}

try:
    asyncio.run(main())
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.parametrize("wait", ["await asyncio.wrap_future(future)", "pass  # leaving waits"])
def test_one_ctrl_c_ends_an_asyncio_program(start_script, wait):
    script = start_script(AWAITS.format(wait=wait))
    script.wait_file("running")
    script.process.send_signal(signal.SIGINT)
    assert script.wait(30) == 0, script.err
    assert script.out == "interrupted\n"


def test_the_cancellation_of_an_asyncio_task_kills_what_runs(make_pool, tmp_path):
    pool, started = make_pool(1), str(tmp_path / "started")
    futures = []

    async def use():
        with pool:
            futures.extend(pool.submit(pool_tasks.hang_in_initializer, started) for _ in range(2))
            await asyncio.wrap_future(futures[0])

    async def cancel():
        task = asyncio.create_task(use())
        await asyncio.to_thread(pool_tasks.wait_for, started)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())
    assert isinstance(futures[0].exception(0), TaskKilled)
    assert futures[1].cancelled()


def test_leaving_by_another_exception_waits_in_asyncio_too(make_pool):
    pool = make_pool(1)

    async def use():
        with pool:
            future = pool.submit(time.sleep, 0.5)
            raise RuntimeError(future)

    with pytest.raises(RuntimeError) as raised:
        asyncio.run(use())
    assert raised.value.args[0].result(0) is None
