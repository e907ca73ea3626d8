"""``pool.arun``: an awaitable whose cancellation kills the attempt."""

from __future__ import annotations

import asyncio
import concurrent.futures
import signal
import weakref

import pool_odd as odd
import pool_tasks as tasks
import pytest
from pool_wait import is_freed, lines, until, wait_lines

from resilient_exec import NotSendable, PoolClosed, TaskKilled, WorkerDied


async def begun(*paths):
    """Wait until a task has left a line in each of these files."""
    while not all(map(lines, paths)):  # noqa: ASYNC110  they are written by other processes
        await asyncio.sleep(0.005)


def test_it_gives_the_value(warm):
    assert asyncio.run(warm.arun(tasks.double, 21)) == 42
    assert asyncio.run(warm.arun(tasks.echo, 1, fn=2, self=3)) == ((1,), {"fn": 2, "self": 3})


def test_many_at_once_on_a_view_each_with_its_own_value(make_pool):
    pool = make_pool(2)

    async def main():
        view = pool.options(timeout=60, label="mine")
        return await asyncio.gather(*(view.arun(tasks.double, number) for number in range(100)))

    assert asyncio.run(main()) == [2 * number for number in range(100)]


OWN = [ValueError("mine"), KeyError("k"), TimeoutError("t"), concurrent.futures.CancelledError("c")]


@pytest.mark.parametrize("error", OWN, ids=repr)
def test_what_the_task_raises_is_raised(warm, error):
    async def main():
        await warm.arun(tasks.raise_, error)

    with pytest.raises(type(error)) as caught:
        asyncio.run(main())
    assert type(caught.value) is type(error)
    assert caught.value.args == error.args


def test_a_stop_iteration_hangs_nobody(warm):
    async def main():
        await warm.arun(tasks.raise_, StopIteration("mine"))

    with pytest.raises(RuntimeError) as caught:
        asyncio.run(main())
    assert repr(caught.value.__cause__) == "StopIteration('mine')"


def test_a_sys_exit_of_the_tasks_can_be_caught(warm):
    async def main():
        try:
            await warm.arun(tasks.raise_, SystemExit(3))
        except SystemExit as error:
            return error.code

    assert asyncio.run(main()) == 3


def test_a_death_and_what_cannot_be_sent_are_told_as_ever(make_pool):
    pool = make_pool(1, retry=1)
    with pytest.raises(WorkerDied):
        asyncio.run(pool.arun(tasks.kill_self))
    with pytest.raises(NotSendable):
        asyncio.run(pool.arun(tasks.same, odd.CannotBePickled()))
    pool.shutdown()
    with pytest.raises(PoolClosed):
        asyncio.run(pool.arun(tasks.same, 1))


def test_when_it_is_cancelled_the_attempt_is_dead_and_the_pool_goes_on(lone, tmp_path):
    here = str(tmp_path / "here")

    async def main():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(None) as limit:
                task = asyncio.ensure_future(lone.arun(tasks.meet, here, str(tmp_path / "never")))
                await begun(here)
                limit.reschedule(asyncio.get_running_loop().time())
                await task
        assert not tasks.alive(int(lines(here)[0]))
        return await lone.arun(tasks.same, 5)

    assert asyncio.run(main()) == 5
    assert lone.snapshot()["failed"] == 1
    assert len(lines(here)) == 1  # a killed task is not tried again


def test_a_waiting_one_that_is_cancelled_never_runs(lone, tmp_path):
    go, here, ran = (str(tmp_path / name) for name in ("go", "here", "ran"))

    async def main():
        blocker = asyncio.ensure_future(lone.arun(tasks.meet, here, go, "answer"))
        await begun(here)
        waiting = asyncio.ensure_future(lone.arun(tasks.note, ran, "ran"))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        tasks.note(go, "now")
        return await blocker

    assert asyncio.run(main()) == "answer"
    assert lines(ran) == []


def test_a_failure_in_a_task_group_kills_its_siblings(make_pool, tmp_path):
    pool = make_pool(3)
    heres = [str(tmp_path / f"here{number}") for number in range(2)]

    async def fail():
        await begun(*heres)
        await pool.arun(tasks.raise_, ValueError("mine"))

    async def main():
        async with asyncio.TaskGroup() as group:
            for here in heres:
                group.create_task(pool.arun(tasks.meet, here, str(tmp_path / "never")))
            group.create_task(fail())

    with pytest.raises(ExceptionGroup) as caught:
        asyncio.run(main())
    assert [repr(error) for error in caught.value.exceptions] == ["ValueError('mine')"]
    assert not any(tasks.alive(int(lines(here)[0])) for here in heres)


def test_what_still_runs_when_its_loop_ends_is_killed(lone, tmp_path):
    here = str(tmp_path / "here")

    async def main():
        asyncio.ensure_future(lone.arun(tasks.meet, here, str(tmp_path / "never")))  # noqa: RUF006  left behind
        await begun(here)

    asyncio.run(main())
    assert not tasks.alive(int(lines(here)[0]))


def test_a_loop_that_is_closed_over_it_kills_it_too(lone, tmp_path):
    here = str(tmp_path / "here")
    loop = asyncio.new_event_loop()
    coroutine = lone.arun(tasks.meet, here, str(tmp_path / "never"))

    async def main():
        waiter = coroutine.send(None)  # it runs as far as it can, and waits
        await begun(here)
        return waiter

    loop.run_until_complete(main())
    coroutine.close()
    loop.close()
    until(lambda: not tasks.alive(int(lines(here)[0])))
    until(lambda: lone.snapshot()["failed"] == 1)


def test_futures_that_the_pools_end_cancels_say_so_aloud(make_pool, tmp_path):
    pool = make_pool(1)
    go, here = str(tmp_path / "go"), str(tmp_path / "here")

    async def main():
        blocker = asyncio.ensure_future(pool.arun(tasks.meet, here, go, "answer"))
        await begun(here)
        waiting = asyncio.ensure_future(pool.arun(tasks.same, 1))
        await asyncio.sleep(0)
        pool.shutdown(wait=False, cancel_futures=True)
        with pytest.raises(concurrent.futures.CancelledError):
            await waiting
        pool.shutdown(wait=False, kill=True)
        with pytest.raises(TaskKilled):
            await blocker

    asyncio.run(main())


def test_arguments_are_not_kept_while_the_task_runs(lone, tmp_path):
    go, here = str(tmp_path / "go"), str(tmp_path / "here")

    async def main():
        thing = {1, 2}
        ref = weakref.ref(thing)
        running = asyncio.ensure_future(lone.arun(tasks.meet, here, go, thing))
        del thing
        await begun(here)
        assert is_freed(ref)
        tasks.note(go, "now")
        await running

    asyncio.run(main())


def test_one_ctrl_c_ends_the_program_at_once(start_script):
    script = start_script(
        """
        import asyncio
        import pool_tasks as tasks
        from resilient_exec import ResilientPool

        async def main():
            async with asyncio.TaskGroup() as group:
                for number in range(4):
                    group.create_task(pool.arun(tasks.meet, "here", "never"))

        if __name__ == "__main__":
            pool = ResilientPool(2)
            with pool:
                asyncio.run(main())
        """
    )
    pids = wait_lines(script.folder / "here", 2)
    script.to_group(signal.SIGINT)
    assert script.wait() != 0
    assert "KeyboardInterrupt" in script.err
    assert not any(tasks.alive(int(pid)) for pid in pids)
