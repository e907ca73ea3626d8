"""Attempts to break each law that a pool without a journal can show; each group is named after its law."""

from __future__ import annotations

import logging
import os
import signal
import threading

import pool_odd as odd
import pool_tasks as tasks
import pytest
from pool_wait import held_up, lines, meet_all, until, wait_lines

from resilient_exec import InternalError, PoolBroken, RetryPolicy, TaskKilled, WorkerDied

NOW = RetryPolicy(wait=lambda _: 0.0)  # tried again without a pause

# -- law 1: everything settles ---------------------------------------------------------------------------------------


def test_law_1_every_task_settles_once_whatever_is_done_to_it(make_pool):
    """Deaths, hangs, exceptions, cancels and kills at the same time: each future is done, each story ends once."""
    pool = make_pool(2, retry=NOW)
    quick = pool.options(timeout=0.3, retry=1)
    futures = []
    for number in range(36):
        fn, arguments, via = [
            (tasks.same, (number,), pool),
            (tasks.leave, (number,), pool.options(retry=1)),
            (tasks.die_until, (2,), pool),
            (tasks.raise_, (ValueError(number),), pool),
            (tasks.hang, (), quick) if number % 12 == 4 else (tasks.same, (number,), quick),
            (tasks.same, (odd.CannotBePickled(),), pool),
        ][number % 6]
        futures.append(via.submit(fn, *arguments))
        if number % 10 == 7:
            futures[-3].cancel()
        if number % 10 == 9:
            futures[-4].kill()
    pool.shutdown()
    assert all(future.done() for future in futures)
    for future in futures:
        kinds = [event.kind for event in future.story]
        assert kinds.count("settled") == 1
        assert kinds[-1] == "settled"
        assert kinds.count("begun") == future.attempts
    snapshot = pool.snapshot()
    assert snapshot["pending"] == snapshot["running"] == snapshot["backing_off"] == 0
    assert snapshot["done"] + snapshot["failed"] + snapshot["cancelled"] == len(futures)


def test_law_1_a_supervisor_that_fails_settles_everything_with_the_story(make_pool, tmp_path, monkeypatch, caplog):
    pool = make_pool(1)
    (running,), (pid,) = meet_all(pool, tmp_path, 1)
    waiting = pool.submit(tasks.same, 1)
    until(lambda: waiting.story)
    called = threading.Event()
    waiting.add_done_callback(lambda _: called.set())
    caplog.set_level(logging.CRITICAL, "resilient_exec")

    def fail(*_):
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(pool._supervisor.core, "handle", fail)
    third = pool.submit(tasks.same, 2)  # the next word to the core is its last
    for future, kinds in ((running, ["queued", "sent", "begun"]), (waiting, ["queued"]), (third, [])):
        error = future.exception(60)
        assert isinstance(error, InternalError)
        assert "ZeroDivisionError: planted" in str(error)
        assert "please report it" in str(error)
        assert isinstance(error.__cause__, ZeroDivisionError)
        assert [event.kind for event in future.story] == kinds
        assert all(kind in str(error) for kind in kinds)
    assert running.attempts == 1
    assert called.wait(60)
    assert isinstance(pool.submit(tasks.same, 3).exception(60), InternalError)
    pool.shutdown()
    until(lambda: not tasks.alive(pid))


def test_law_1_a_command_that_fails_settles_everything_too(make_pool, monkeypatch, caplog):
    """Not the core, but what performs its orders."""
    pool = make_pool(1)
    pool.submit(tasks.same, 1).result(60)
    caplog.set_level(logging.CRITICAL, "resilient_exec")

    def fail(*_):
        raise ZeroDivisionError("planted")

    (lane,) = pool._supervisor._lanes.values()
    monkeypatch.setattr(lane, "send", fail)
    assert isinstance(pool.submit(tasks.same, 2).exception(60), InternalError)
    pool.shutdown()


@pytest.mark.parametrize("what", ["descriptor", "thread"])
def test_law_1_no_descriptor_or_no_thread_for_a_lane_is_a_failed_start_and_no_more(make_pool, monkeypatch, what):
    """With another lane at work everything still settles with its value."""
    pool = make_pool(3)
    assert pool.submit(tasks.same, 0).result(60) == 0

    def fail(*_):
        if what == "descriptor":
            raise OSError(24, "Too many open files")
        raise RuntimeError("can't start new thread")

    failed = pool._supervisor._make_lane
    monkeypatch.setattr(pool._supervisor, "_make_lane", fail)
    assert list(pool.map(tasks.same, range(20))) == list(range(20))
    monkeypatch.setattr(pool._supervisor, "_make_lane", failed)
    assert list(pool.map(tasks.same, range(20))) == list(range(20))


def test_law_1_a_pool_that_can_make_no_lane_at_all_breaks_and_says_why(make_pool, monkeypatch):
    pool = make_pool(2)

    def fail(*_):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(pool._supervisor, "_make_lane", fail)
    futures = [pool.submit(tasks.same, number) for number in range(3)]
    for future in futures:
        error = future.exception(60)
        assert isinstance(error, PoolBroken)
        assert "Too many open files" in str(error)


# -- law 2: a death costs one attempt ----------------------------------------------------------------------------------


def test_law_2_one_sigkill_of_one_worker_of_four_leaves_the_other_three_and_their_attempts(make_pool, tmp_path):
    pool = make_pool(4, retry=NOW)
    futures, pids = meet_all(pool, tmp_path, 4)
    assert len(set(pids)) == 4
    os.kill(pids[1], signal.SIGKILL)
    wait_lines(tmp_path / "here1", 2)  # its second attempt runs
    tasks.note(tmp_path / "go", "now")
    attempts = [future.result(60) for future in futures]
    assert attempts[1][0] == futures[1].attempts == 2
    assert [attempts[number] for number in (0, 2, 3)] == [(1, pids[number]) for number in (0, 2, 3)]
    assert [len(lines(tmp_path / f"here{number}")) for number in range(4)] == [1, 2, 1, 1]
    assert {lane["pid"] for lane in pool.snapshot()["lanes"]} >= {pids[0], pids[2], pids[3]}


def test_law_2_four_workers_killed_at_once_cost_four_attempts(make_pool, tmp_path):
    pool = make_pool(4, retry=NOW)
    futures, pids = meet_all(pool, tmp_path, 4)
    waiting = [pool.submit(tasks.same, number) for number in range(8)]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    for number in range(4):
        wait_lines(tmp_path / f"here{number}", 2)
    tasks.note(tmp_path / "go", "now")
    assert [future.result(60)[0] for future in futures] == [2, 2, 2, 2]
    assert [future.result(60) for future in waiting] == list(range(8))
    assert {future.attempts for future in waiting} == {1}


def test_law_2_the_guilty_task_is_the_one_that_ran_and_not_one_that_waits(make_pool):
    """Six crashers among thirty: exactly the crashers fail, each after one attempt."""
    pool = make_pool(2, retry=1)
    futures = [pool.submit(tasks.leave if number % 5 == 0 else tasks.same, number) for number in range(30)]
    for number, future in enumerate(futures):
        if number % 5:
            assert future.result(60) == number
        else:
            assert isinstance(future.exception(60), WorkerDied)
        assert future.attempts == 1


def test_law_2_a_worker_killed_between_two_tasks_charges_nobody(make_pool):
    """Its pid is known from the task before; it is killed at random moments around the ends of quick tasks."""
    pool = make_pool(1, retry=1)
    for round_ in range(5):
        pid = pool.submit(tasks.pid).result(60)
        os.kill(pid, signal.SIGKILL)  # idle, as far as anybody can know
        future = pool.submit(tasks.same, round_)
        assert future.result(60) == round_
        assert future.attempts == 1


def test_law_2_a_kill_hits_its_task_and_not_the_next_one(make_pool):
    """A kill that comes when its task has just ended: the next task in that worker is not touched."""
    pool = make_pool(1, retry=1)
    for number in range(24):
        victim, innocent = pool.submit(tasks.same, number), pool.submit(tasks.same, -number)
        while number % 3 and not victim.running() and not victim.done():
            pass
        victim.kill()
        error = victim.exception(60)
        assert error is None or isinstance(error, TaskKilled)
        assert innocent.result(60) == -number
        assert innocent.attempts == 1


# -- law 4: dead before replaced ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", sorted(set(tasks.CRASHES) - {"descriptors"}))
def test_law_4_the_previous_worker_is_dead_when_the_next_attempt_begins(make_pool, how):
    pool = make_pool(2, retry=NOW)
    seen = pool.submit(tasks.die_and_look, how).result(60)
    assert seen == [False, False], "workers of the first two attempts, looked at by the third"


def test_law_4_a_child_that_the_attempt_left_is_dead_when_the_next_attempt_begins(make_pool, tmp_path):
    """In a session of its own, and its parent dead by SIGKILL: no walk down the tree finds it."""
    pool = make_pool(1, retry=NOW)
    assert pool.submit(tasks.die_with_a_child, str(tmp_path / "child")).result(60) == [False, False]


def test_law_4_a_timed_out_attempt_is_dead_when_its_task_starts_again(make_pool, tmp_path):
    path = tmp_path / "child"
    pool = make_pool(1, retry=NOW)
    future = pool.options(timeout=0.7).submit(tasks.hang_with_a_child, str(path))
    assert future.result(60) == [False, False]
    assert future.attempts == 2


def test_law_4_a_killed_task_takes_what_it_started_with_it(make_pool, tmp_path):
    path = tmp_path / "child"
    pool = make_pool(1)
    future = pool.submit(tasks.hang_with_a_child, str(path))
    (child,) = map(int, wait_lines(path, 1))
    assert tasks.alive(child)
    future.kill()
    assert isinstance(future.exception(60), TaskKilled)
    assert not tasks.alive(child)


# -- law 5: what is done is kept ---------------------------------------------------------------------------------------


def test_law_5_a_result_that_reached_the_parent_survives_its_workers_death(make_pool):
    """The worker is killed as soon as anything of a result can be seen: it is never computed again."""
    pool = make_pool(1, retry=NOW)
    for number in range(5):
        future = pool.submit(tasks.pid)
        pid = future.result(60)
        os.kill(pid, signal.SIGKILL)
        assert (future.result(), future.attempts) == (pid, 1), number


def test_law_5_a_task_that_returns_and_then_dies_has_returned(make_pool, tmp_path):
    """Its thread ends the process right behind the result."""
    pool, path = make_pool(1, retry=NOW), str(tmp_path / "ran")
    for number in range(5):
        future = pool.submit(tasks.return_then_die, path, number)
        assert future.result(60) == number
        assert future.attempts == 1
    assert lines(path) == ["0", "1", "2", "3", "4"]


# -- law 6 is held by test_contract. Law 7: no trace ---------------------------------------------------------------


def test_law_7_after_shutdown_no_file_and_no_semaphore_is_left(start_script):
    """Threads, processes and descriptors are looked at by the check behind every test of this suite."""
    script = start_script("""
        import os, tempfile
        os.makedirs("tmp", exist_ok=True)  # workers import this script
        os.environ["TMPDIR"] = tempfile.tempdir = os.path.abspath("tmp")
        from resilient_exec import ResilientPool
        import pool_tasks as tasks

        def semaphores():
            return [name for name in os.listdir("/dev/shm") if f"loky-{os.getpid()}" in name]

        if __name__ == "__main__":
            pool = ResilientPool(3, retry=1)
            list(pool.map(tasks.same, range(10)))
            pool.submit(tasks.kill_self).exception()
            pool.options(timeout=0.2).submit(tasks.hang).exception()
            pool.shutdown()
            print(os.listdir("tmp"), semaphores())
    """)
    assert script.wait() == 0
    assert script.out == "[] []\n"
    assert script.err == ""


@pytest.mark.parametrize("task", ["hang", "hang_in_c"])
def test_law_7_after_sigkill_of_the_parent_no_worker_lives_on(start_script, task):
    script = start_script(f"""
        import os
        from resilient_exec import ResilientPool
        import pool_tasks as tasks

        def run(number):
            tasks.note(f"pid{{number}}", os.getpid())
            tasks.{task}()

        if __name__ == "__main__":
            pool = ResilientPool(2)
            for number in range(2):
                pool.submit(run, number)
            pool.shutdown()
    """)
    pids = [int(script.wait_file(f"pid{number}")) for number in range(2)]
    assert all(tasks.alive(pid) for pid in pids)
    script.process.kill()
    script.wait()
    until(lambda: not any(tasks.alive(pid) for pid in pids), 20)


# -- law 8: told before done -------------------------------------------------------------------------------------------


def test_law_8_an_event_is_told_before_its_command_is_performed(make_pool):
    """The observer's queue has "sent" before the lane is given the attempt, and "settled" before the future is done."""
    pool = make_pool(1, observers=[lambda _: None])
    pool.submit(tasks.same, 0).result(60)
    (lane,) = pool._supervisor._lanes.values()
    order = []
    send, (observer,) = lane.send, pool._supervisor._observers
    tell = observer.tell
    lane.send = lambda *given: (order.append("performed"), send(*given))
    observer.tell = lambda event: (order.append(event.kind), tell(event))
    with held_up(pool):
        future = pool.submit(tasks.same, 1)
        future._sink = Sink(order)
    assert future.result(60) == 1
    until(lambda: "done" in order)
    assert order == ["queued", "sent", "performed", "begun", "returned", "settled", "done"]


class Sink:
    def __init__(self, order):
        self.order = order

    def put(self, _):
        self.order.append("done")


def test_law_8_observers_and_stories_tell_the_same_in_the_same_order(make_pool):
    told = []
    with make_pool(2, observers=[told.append], retry=NOW) as pool:
        futures = [pool.submit(tasks.die_until, 1 + number % 2) for number in range(6)]
        [future.result(60) for future in futures]
    for future in futures:
        assert [event for event in told if event.key == future.key] == list(future.story)
    for future in futures:  # begins are told when they are heard of, with the time at which they were
        assert [event.at for event in future.story] == sorted(event.at for event in future.story)
    assert [event.kind for event in told][-1] == "lane_closed"


# -- law 9 is held by the tests of the core, law 10 by the benchmarks ----------------------------------------------
