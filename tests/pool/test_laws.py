"""Attempts to break each law that a pool without a journal can show; each group is named after its law."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time

import pool_tasks as tasks
import pytest
from pool_wait import lines, until, wait_lines

import resilient_exec.pool
from resilient_exec import InternalError, PoolBroken, RetryPolicy, TaskKilled, TaskTimeout, WorkerDied
from resilient_exec.states import Limits
from resilient_exec.supervisor import SteadyClock

NOW = RetryPolicy(wait=lambda _: 0.0)  # tried again without a pause


def meet_all(pool, folder, count, fn=tasks.meet_attempt):
    """Start tasks, one a lane, and wait until all run; their futures and the pids of their workers."""
    futures = [pool.submit(fn, str(folder / f"here{number}"), str(folder / "go")) for number in range(count)]
    pids = [int(wait_lines(folder / f"here{number}", 1)[0]) for number in range(count)]
    return futures, pids


# -- law 1: everything settles ---------------------------------------------------------------------------------------


def test_law_1_every_task_settles_once_whatever_is_done_to_it(make_pool):
    """Deaths, hangs, exceptions, cancels and kills at the same time: each future is done, each story ends once."""
    pool = make_pool(2, retry=NOW)
    quick = pool.options(timeout=0.3, retry=1)
    futures = []
    for number in range(60):
        fn, arguments, via = [
            (tasks.same, (number,), pool),
            (tasks.leave, (number,), pool.options(retry=1)),
            (tasks.die_until, (2,), pool),
            (tasks.raise_, (ValueError(number),), pool),
            (tasks.hang, (), quick) if number % 12 == 4 else (tasks.same, (number,), quick),
            (tasks.same, (tasks.CannotBePickled(),), pool),
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
    """Twenty crashers among eighty innocents: exactly the crashers fail, each after one attempt."""
    pool = make_pool(2, retry=1)
    futures = [pool.submit(tasks.leave if number % 5 == 0 else tasks.same, number) for number in range(60)]
    for number, future in enumerate(futures):
        if number % 5:
            assert future.result(60) == number
        else:
            assert isinstance(future.exception(60), WorkerDied)
        assert future.attempts == 1


def test_law_2_a_worker_killed_between_two_tasks_charges_nobody(make_pool):
    """Its pid is known from the task before; it is killed at random moments around the ends of quick tasks."""
    pool = make_pool(1, retry=1)
    for round_ in range(10):
        pid = pool.submit(tasks.pid).result(60)
        os.kill(pid, signal.SIGKILL)  # idle, as far as anybody can know
        future = pool.submit(tasks.same, round_)
        assert future.result(60) == round_
        assert future.attempts == 1


def test_law_2_a_kill_hits_its_task_and_not_the_next_one(make_pool):
    """A kill that comes when its task has just ended: the next task in that worker is not touched."""
    pool = make_pool(1, retry=1)
    for number in range(60):
        victim, innocent = pool.submit(tasks.same, number), pool.submit(tasks.same, -number)
        while number % 3 and not victim.running() and not victim.done():
            pass
        victim.kill()
        error = victim.exception(60)
        assert error is None or isinstance(error, TaskKilled)
        assert innocent.result(60) == -number
        assert innocent.attempts == 1


# -- law 3: nothing in the parent waits for ever ----------------------------------------------------------------------


def test_law_3_a_blocked_callback_and_a_blocked_observer_delay_no_lane(make_pool):
    let_go, seen = threading.Event(), threading.Event()

    def observer(_):
        seen.set()
        let_go.wait()

    pool = make_pool(2, observers=[observer], retry=NOW)
    try:
        pool.submit(tasks.same, 0).add_done_callback(lambda _: let_go.wait())
        assert list(pool.map(tasks.double, range(50))) == [2 * number for number in range(50)]
        assert pool.submit(tasks.die_until, 2).result(60)[1] == 2
        assert isinstance(pool.options(timeout=0.2, retry=1).submit(tasks.hang).exception(60), TaskTimeout)
        assert seen.is_set()
    finally:
        let_go.set()


def test_law_3_an_observer_that_prints_to_a_pipe_that_nobody_reads_delays_nobody(start_script):
    read, write = os.pipe()
    try:
        script = start_script(
            """
            import os, sys
            from resilient_exec import ResilientPool
            from pool_tasks import note, same

            def observer(event):
                print("x" * 5000, event, flush=True)

            if __name__ == "__main__":
                with ResilientPool(2, observers=[observer]) as pool:
                    values = list(pool.map(same, range(200)))
                    note("told", values == list(range(200)))
                    os._exit(3)
            """,
            stdout=write,
        )
        assert script.wait_file("told") == "True\n"
        assert script.wait() == 3
    finally:
        os.close(read)
        os.close(write)


def test_law_3_an_observer_that_is_far_behind_loses_events_which_are_counted(make_pool, monkeypatch):
    monkeypatch.setattr("resilient_exec.telling._BACKLOG", 5)
    let_go, told = threading.Event(), []

    def observer(event):
        let_go.wait()
        told.append(event)

    pool = make_pool(1, observers=[observer])
    try:
        list(pool.map(tasks.same, range(20)))
        until(lambda: pool.snapshot()["dropped_events"] >= 20)
    finally:
        let_go.set()
    pool.shutdown()
    assert [event.kind for event in told][:2] == ["queued", "lane_starting"], "what came first was kept"


def test_law_3_an_observer_that_raises_is_logged_and_told_nothing_more(make_pool, caplog):
    told, all_told = [], []

    def raising(event):
        told.append(event)
        raise SystemExit(3)

    with make_pool(1, observers=[raising, all_told.append]) as pool:
        assert list(pool.map(tasks.same, range(5))) == list(range(5))
    assert len(told) == 1
    assert "is told nothing more" in caplog.text
    assert [event.kind for event in all_told].count("settled") == 5


def test_law_3_a_result_that_hangs_as_it_is_unpickled_holds_only_its_own_lane(make_pool, monkeypatch):
    """In the parent alone: in the worker it has proved itself.  Its timeout ends it."""
    monkeypatch.setattr(
        resilient_exec.pool, "Limits", lambda **given: Limits(**{**given, "kill_timeout": 0.5})
    )  # a lane that does not answer is given up after that
    tasks.parent_may_go_on.clear()
    pool = make_pool(2, retry=1)
    try:
        stuck = pool.options(timeout=0.5).submit(tasks.make, "HangsInParent")
        assert tasks.parent_is_stuck.wait(60)
        assert list(pool.map(tasks.double, range(30))) == [2 * number for number in range(30)]
        assert isinstance(stuck.exception(60), TaskTimeout)
        assert sorted(pool.map(tasks.double, range(30))) == [2 * number for number in range(30)]
    finally:
        tasks.parent_may_go_on.set()
        tasks.parent_is_stuck.clear()


def test_law_3_a_frozen_worker_delays_no_other_and_is_ended_by_its_timeout(make_pool, tmp_path):
    pool = make_pool(2, retry=1)
    here, go = str(tmp_path / "here"), str(tmp_path / "go")
    frozen = pool.options(timeout=1).submit(tasks.meet, here, go)
    (pid,) = map(int, wait_lines(here, 1))
    os.kill(pid, signal.SIGSTOP)
    assert list(pool.map(tasks.double, range(30))) == [2 * number for number in range(30)]
    assert isinstance(frozen.exception(60), TaskTimeout)
    assert not tasks.alive(pid)


@pytest.mark.parametrize("fn", [tasks.hang, tasks.hang_in_c, tasks.ignore_everything])
def test_law_3_a_timeout_holds_against_any_code_and_shows_its_stack(make_pool, fn):
    pool = make_pool(1, retry=1)
    error = pool.options(timeout=0.5).submit(fn).exception(60)
    assert isinstance(error, TaskTimeout)
    assert isinstance(error, TimeoutError)
    assert fn.__name__ in error.stacks
    assert "timeout of 0.5 s" in str(error)
    assert pool.submit(tasks.same, 1).result(60) == 1


def test_law_3_four_timeouts_at_once_are_not_waited_for_one_after_the_other(make_pool):
    pool = make_pool(4, retry=1)
    list(pool.map(tasks.meet_nobody, range(4)))
    limited = pool.options(timeout=0.5)
    futures = [limited.submit(tasks.ignore_everything) for _ in range(4)]
    others = [pool.submit(tasks.same, number) for number in range(4)]
    assert [type(future.exception(60)) for future in futures] == [TaskTimeout] * 4
    assert [future.result(60) for future in others] == [0, 1, 2, 3]
    # The four attempts overlapped: each was begun before the first was ended.
    begun = [event.at for future in futures for event in future.story if event.kind == "begun"]
    doomed = [event.at for future in futures for event in future.story if event.kind == "doomed"]
    assert max(begun) < min(doomed)


def test_law_3_a_large_argument_to_a_frozen_worker_delays_no_other(make_pool, tmp_path):
    pool = make_pool(2, retry=1)
    _, (first, second) = meet_all(pool, tmp_path, 2)
    tasks.note(tmp_path / "go", "now")
    os.kill(first, signal.SIGSTOP)
    try:
        large = [pool.options(timeout=30).submit(len, bytes(20_000_000)) for _ in range(2)]
        until(lambda: any(future.done() for future in large))
        assert list(pool.map(tasks.double, range(20))) == [2 * number for number in range(20)]
    finally:
        os.kill(first, signal.SIGCONT)
    assert [future.result(60) for future in large] == [20_000_000] * 2
    assert tasks.alive(second)


def test_law_3_the_clock_of_deadlines_stands_still_while_its_reader_was_stopped():
    now = [100.0]
    clock = SteadyClock(lambda: now[0])
    now[0] += 1.0
    assert clock.read(waited=1.0) == pytest.approx(1.0)
    now[0] += 30.5  # meant to wait 0.5 s: stopped for 30
    assert clock.read(waited=0.5) == pytest.approx(1.0), "nothing of it counts: nobody knows when the stop began"
    now[0] += 30.5
    assert clock.read(waited=0.5) == pytest.approx(1.5), "but one who is late each time does see time pass"
    now[0] += 0.5
    assert clock.read(waited=0.5) == pytest.approx(2.0)
    now[0] += 50
    assert clock.read(waited=None) == pytest.approx(52.0), "who waits for no deadline is late for none"


@pytest.mark.parametrize("stopped", ["parent", "group"])
def test_law_3_a_stopped_parent_kills_nobody_on_waking(start_script, stopped):
    """Stopped for 3 s with attempts under way that have 1 s: those that are quick afterwards are not killed."""
    script = start_script("""
        import os
        from resilient_exec import ResilientPool
        from pool_tasks import meet_attempt, note, same

        if __name__ == "__main__":
            with ResilientPool(2, timeout=1, retry=1) as pool:
                list(pool.map(same, range(4)))
                futures = [pool.submit(meet_attempt, f"here{n}", "go") for n in range(2)]
                note("ready", "yes")
                for future in futures:
                    error = future.exception()
                    note("told", error and type(error).__name__)
                print(list(pool.map(same, range(4))))
    """)
    for name in ("ready", "here0", "here1"):
        script.wait_file(name)
    stop = script.to_group if stopped == "group" else script.process.send_signal
    stop(signal.SIGSTOP)
    time.sleep(3)  # not hoping: this is how long the parent is stopped
    if stopped == "parent":
        tasks.note(script.folder / "go", "now")
    stop(signal.SIGCONT)
    if stopped == "group":
        tasks.note(script.folder / "go", "now")
    assert script.wait() == 0
    assert lines(script.folder / "told") == ["None", "None"]
    assert script.out == "[0, 1, 2, 3]\n"


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
    for number in range(10):
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


def test_law_7_after_shutdown_nothing_is_left(make_pool):
    """Threads, processes, descriptors are looked at by the check behind every test; here the files and sockets."""
    import tempfile

    before = set(os.listdir(tempfile.gettempdir())), set(os.listdir("/dev/shm"))
    pool = make_pool(3, retry=1)
    list(pool.map(tasks.same, range(10)))
    pool.submit(tasks.kill_self).exception(60)
    pool.options(timeout=0.2).submit(tasks.hang).exception(60)
    pool.shutdown()
    ours = [
        name for name in set(os.listdir(tempfile.gettempdir())) - before[0] if "resilient" in name or "loky" in name
    ]
    assert ours == []
    until(lambda: not [name for name in set(os.listdir("/dev/shm")) - before[1] if "loky" in name])


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
    assert [event.at for event in told] == sorted(event.at for event in told)
    assert [event.kind for event in told][-1] == "lane_closed"


# -- law 9 is held by the tests of the core, law 10 by the benchmarks ----------------------------------------------
