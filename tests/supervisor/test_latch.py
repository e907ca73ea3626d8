"""The end of a pool and a result are waited for: Ctrl-C in whatever moment neither is lost nor hangs anybody."""

from __future__ import annotations

import _thread
import sys
import threading
from concurrent.futures import FIRST_COMPLETED, Future, as_completed, wait

import pool_tasks as tasks
import pytest
from pool_interrupt import Interrupt
from pool_wait import lines, until

from resilient_exec.core.messages import Settle
from resilient_exec.model.events import Story
from resilient_exec.model.task import Returned
from resilient_exec.supervisor.future import ResilientFuture
from resilient_exec.supervisor.latch import Latch, Monitor


def interrupt_who_waits(waiters, ended_by_itself, end):
    """Interrupt the main thread, but no system call; note whether it leaves the wait for that alone."""
    until(lambda: len(waiters))
    _thread.interrupt_main()
    try:
        until(lambda: not len(waiters), 20)
        ended_by_itself.append(True)
    finally:
        end()


def test_it_wakes_all_who_wait_and_those_who_come_later_do_not_wait():
    latch, seen = Latch(), []
    threads = [threading.Thread(target=lambda: seen.append(latch.wait())) for _ in range(4)]
    for thread in threads:
        thread.start()
    until(lambda: len(latch._waiters) == 4)
    assert not latch.is_set()
    latch.set()
    for thread in threads:
        thread.join(60)
    latch.set()
    assert seen == [True] * 4
    assert latch.wait(0)
    assert latch.is_set()
    assert len(latch._waiters) == 0


def test_it_waits_no_longer_than_it_is_told():
    latch = Latch()
    assert not latch.wait(0)
    assert not latch.wait(0.01)
    assert len(latch._waiters) == 0


def test_a_signal_that_wakes_no_system_call_still_ends_the_wait_of_the_main_thread():
    """As one does that comes in the moment before the system call; the second wait shows that this did no harm."""
    latch, ended_by_itself = Latch(), []

    thread = threading.Thread(target=interrupt_who_waits, args=(latch._waiters, ended_by_itself, latch.set))
    with pytest.raises(KeyboardInterrupt):
        thread.start()
        latch.wait()
    thread.join(60)
    assert ended_by_itself == [True]
    assert latch.wait()


def test_a_lost_ctrl_c_at_the_exit_of_the_interpreter_kills_what_hangs(start_script):
    """It interrupts no system call: it came when the main thread was about to wait, and another had the interpreter."""
    script = start_script("""
        import _thread, threading, time
        from resilient_exec import ResilientPool
        import pool_tasks as tasks

        def interrupt(pool):
            tasks.wait_for("exiting")
            while not len(pool._supervisor.ended._waiters):
                time.sleep(0.001)
            _thread.interrupt_main()

        if __name__ == "__main__":
            pool = ResilientPool(1)
            future = pool.submit(tasks.meet, "here", "never")
            future.add_done_callback(lambda f: tasks.note("told", type(f.exception()).__name__))
            tasks.wait_for("here")
            threading._register_atexit(lambda: tasks.note("exiting", "now"))
            threading.Thread(target=interrupt, args=(pool,), daemon=True).start()
    """)
    assert script.wait() == 0
    assert lines(script.folder / "told") == ["TaskKilled"]
    assert script.err == ""


@pytest.mark.parametrize("ends", ["exit", "with"])
def test_ctrl_c_at_any_place_of_the_end_of_a_pool_hangs_nobody(start_script, ends):
    """It is raised at each place in turn where a handler of signals may run, in our code and the standard library."""
    script = start_script(f"""
        import sys
        from pool_interrupt import Interrupt
        from resilient_exec import ResilientPool

        def at_exit(pool):  # as `exit_hook` does: whatever it raises, it is called again
            pool._supervisor.end_at_exit()

        def with_block(pool):
            pool.__exit__(None, None, None)

        def interrupted(place):
            pool, interrupt = ResilientPool(1), Interrupt(place)
            supervisor = pool._supervisor  # as it has one from its first task on
            sys.setprofile(interrupt)
            try:
                {"at_exit" if ends == "exit" else "with_block"}(pool)
            except KeyboardInterrupt:
                pass
            finally:
                sys.setprofile(None)
            supervisor.end_at_exit(kill=True)
            supervisor._thread.join()
            return interrupt.left < 0

        if __name__ == "__main__":
            place = 0
            while interrupted(place):
                place += 1
            print(place)
    """)
    assert script.wait() == 0
    assert int(script.out) > 10


class Unasked:
    """What a future asks of its supervisor comes to nothing."""

    def __getattr__(self, name):
        return lambda *_: ()


def settle(future):
    """As the supervisor does."""
    outcome = Returned(1)
    future._settle(Settle(future.number, outcome, 1, 0.0, Story(None, []), None), 60)


@pytest.mark.parametrize(
    "use",
    [
        lambda future: future.result(0.002),
        lambda future: future.exception(0),
        lambda future: future.done(),
        lambda future: future.cancel(),
        lambda future: future.add_done_callback(print),
    ],
    ids=["result", "exception", "done", "cancel", "add_done_callback"],
)
def test_ctrl_c_at_any_place_of_a_futures_methods_keeps_nobody_from_settling_it(use):
    place, was_interrupted = 0, True
    while was_interrupted:
        future, interrupt = ResilientFuture(place, "", "", Unasked()), Interrupt(place)
        sys.setprofile(interrupt)
        try:
            use(future)
        except (KeyboardInterrupt, TimeoutError, RuntimeError):
            pass  # RuntimeError: the lock was just being taken back, and the `with` statement complains
        finally:
            sys.setprofile(None)
        thread = threading.Thread(target=settle, args=(future,), daemon=True)
        thread.start()
        thread.join(20)
        assert not thread.is_alive(), f"whoever settles it hangs, after an interrupt at place {place}"
        assert future.done()
        was_interrupted, place = interrupt.left < 0, place + 1
    assert place > 3


def test_a_signal_that_wakes_no_system_call_ends_the_wait_for_a_result():
    future, ended_by_itself = ResilientFuture(0, "", "", Unasked()), []

    arguments = (future._condition._waiters, ended_by_itself, lambda: settle(future))
    thread = threading.Thread(target=interrupt_who_waits, args=arguments)
    with pytest.raises(KeyboardInterrupt):
        thread.start()
        future.result()
    thread.join(60)
    assert ended_by_itself == [True]
    assert future.result(0) == 1


def test_all_who_wait_for_a_result_get_it_and_a_timeout_is_kept():
    future, seen = ResilientFuture(0, "", "", Unasked()), []
    threads = [threading.Thread(target=lambda: seen.append(future.result())) for _ in range(4)]
    for thread in threads:
        thread.start()
    until(lambda: len(future._condition._waiters) == 4)
    with pytest.raises(TimeoutError):
        future.result(0.01)
    settle(future)
    for thread in threads:
        thread.join(60)
    assert seen == [1] * 4


@pytest.mark.parametrize(
    "use",
    [
        lambda futures: wait(futures, 0.002),
        lambda futures: wait(futures, 0.002, FIRST_COMPLETED),
        lambda futures: list(as_completed(futures, 0.002)),
    ],
    ids=["wait", "wait for the first", "as_completed"],
)
def test_ctrl_c_at_any_place_of_a_wait_for_several_keeps_nobody_from_settling_them(use):
    """The standard library takes the locks of all of them, and loses those that it had taken."""
    place, was_interrupted = 0, True
    while was_interrupted:
        futures, interrupt = [ResilientFuture(number, "", "", Unasked()) for number in range(3)], Interrupt(place)
        sys.setprofile(interrupt)
        try:
            use(futures)
        except (KeyboardInterrupt, TimeoutError):
            pass
        finally:
            sys.setprofile(None)
        thread = threading.Thread(target=lambda futures=futures: [*map(settle, futures)], daemon=True)
        thread.start()
        wait(futures, 20)  # by the same thread: it holds what it has lost
        assert [future.done() for future in futures] == [True] * 3, f"after an interrupt at place {place}"
        thread.join(60)
        was_interrupted, place = interrupt.left < 0, place + 1
    assert place > 20


def test_ctrl_c_at_any_place_of_a_wait_for_several_tasks_hangs_no_pool(start_script):
    script = start_script("""
        import sys
        from concurrent.futures import wait
        from pathlib import Path
        from pool_interrupt import Interrupt
        from resilient_exec import ResilientPool
        import pool_tasks as tasks

        def interrupted(pool, place):
            futures = [pool.submit(tasks.wait_for, f"go{place}") for _ in range(3)]  # one of which waits for a lane
            interrupt = Interrupt(place)
            sys.setprofile(interrupt)
            try:
                wait(futures, 0)
            except KeyboardInterrupt:
                pass
            finally:
                sys.setprofile(None)
            Path(f"go{place}").touch()
            assert not wait(futures, 60).not_done, place
            return interrupt.left < 0

        if __name__ == "__main__":
            with ResilientPool(2) as pool:
                place = 0
                while interrupted(pool, place):
                    place += 1
            print(place)
    """)
    assert script.wait() == 0
    assert int(script.out) > 20
    assert script.err == ""


@pytest.mark.slow
def test_hundreds_of_ctrl_cs_while_two_thousand_tasks_are_waited_for_lose_nothing(start_script):
    script = start_script("""
        import os, random, signal, threading, time
        from concurrent.futures import FIRST_COMPLETED, as_completed, wait
        from resilient_exec import ResilientPool
        import pool_tasks as tasks

        def watch(futures, end):
            while time.monotonic() < end:
                wait(futures, 0.001)
                wait(futures, 0.001, FIRST_COMPLETED)
                try:
                    list(as_completed(futures, 0.001))
                except TimeoutError:
                    pass

        def strike(_, frame):
            while frame is not None:
                if frame.f_code is watch.__code__:
                    raise KeyboardInterrupt
                frame = frame.f_back

        def pester(until):
            while time.monotonic() < until:
                time.sleep(random.uniform(0.002, 0.02))
                os.kill(os.getpid(), signal.SIGINT)

        if __name__ == "__main__":
            signal.signal(signal.SIGINT, strike)
            struck, lost, told, end = 0, 0, [], time.monotonic() + 10
            with ResilientPool(2) as pool:
                futures = [pool.submit(tasks.same, number) for number in range(2000)]
                for future in futures:
                    future.add_done_callback(lambda future: told.append(future.result()))
                threading.Thread(target=pester, args=(end,)).start()
                while time.monotonic() < end:
                    try:
                        watch(futures, end)
                    except KeyboardInterrupt:
                        struck += 1
                        lost = max(lost, sum(future._condition._holder is not None for future in futures))
                assert not wait(futures, 120).not_done
            assert sorted(told) == list(range(2000))
            print(struck, lost)
    """)
    assert script.wait() == 0
    struck, lost = map(int, script.out.split())
    assert struck > 20
    assert lost > 0, "nothing was tried: no lock was lost"
    assert script.err == ""


def test_a_signal_that_wakes_no_system_call_ends_the_wait_for_several():
    future, ended_by_itself = ResilientFuture(0, "", "", Unasked()), []

    def interrupt():
        until(lambda: future._waiters)
        interrupt_who_waits(future._waiters[0].event._waiters, ended_by_itself, lambda: settle(future))

    thread = threading.Thread(target=interrupt)
    with pytest.raises(KeyboardInterrupt):
        thread.start()
        wait([future])
    thread.join(60)
    assert ended_by_itself == [True]
    assert [*as_completed([future])] == [future]


def test_futures_of_others_may_be_waited_for_together_with_ours():
    ours, other = ResilientFuture(0, "", "", Unasked()), Future()
    for futures in ([ours, other], [other, ours]):
        assert wait(futures, 0.01).not_done == {ours, other}
    thread = threading.Thread(target=lambda: [other.set_result(1), until(lambda: seen), settle(ours)])
    seen = []
    thread.start()
    seen.extend(as_completed([ours, other], 60))
    thread.join(60)
    assert set(seen) == {ours, other}


def test_a_future_settles_when_whoever_holds_its_lock_gives_it_back_and_not_before(make_pool, tmp_path):
    """It was taken from its holder; nor does anything else of the pool wait for it."""
    lone = make_pool(1)
    go = str(tmp_path / "go")
    future = lone.submit(tasks.wait_for, go)
    with future._condition:
        tasks.note(go, "now")
        assert lone.submit(tasks.same, 3).result(60) == 3
        assert lone.submit(tasks.same, 4).result(60) == 4
        assert not future.done()
    assert future.exception(60) is None


def test_so_it_does_when_that_is_another_thread_which_acquires_and_releases(make_pool, tmp_path):
    lone = make_pool(1)
    go, taken, end, errors = str(tmp_path / "go"), threading.Event(), threading.Event(), []
    future = lone.submit(tasks.wait_for, go)

    def hold():
        future._condition.acquire()
        try:
            taken.set()
            end.wait(60)
        finally:
            try:
                future._condition.release()
            except RuntimeError as error:
                errors.append(error)

    holder = threading.Thread(target=hold)
    holder.start()
    assert taken.wait(60)
    tasks.note(go, "now")
    assert lone.submit(tasks.same, 3).result(60) == 3
    end.set()
    holder.join(60)
    assert future.exception(60) is None
    assert not errors


def test_a_future_waits_while_another_thread_is_half_way_through_the_locks_of_several():
    first, last, others = ResilientFuture(0, "", "", Unasked()), Future(), []
    while id(last) < id(first):  # they are taken in this order
        others.append(last)
        last = Future()
    seen = []

    def look():
        with last._condition:
            until(lambda: first._condition._holder)
            seen.append(first._condition.take(0.2))
        seen.append(first._condition.take(60))
        first._condition.release()

    thread = threading.Thread(target=look)
    thread.start()
    until(lambda: not last._condition.acquire(blocking=False) or last._condition.release())
    wait([first, last], 0.5)
    thread.join(60)
    assert seen == [False, True]
    assert first._condition._holder is None


def test_a_lock_may_be_taken_again_by_who_has_it():
    """As a signal handler does that comes while the main thread has it."""
    monitor = Monitor()
    with monitor, monitor:
        assert monitor.acquire()
        monitor.release()
        assert monitor.take(0)
        monitor.release()
        thread = threading.Thread(target=lambda: seen.append(monitor.take(0.05)))
        seen = []
        thread.start()
        thread.join(60)
        assert seen == [False]
    assert monitor.take(0)
    monitor.release()
    with pytest.raises(RuntimeError):
        monitor.release()


def lose(monitor, where):
    """Take it, and be interrupted at that place."""
    interrupt = Interrupt(where)
    sys.setprofile(interrupt)
    try:
        with monitor:
            pass
    except KeyboardInterrupt:
        pass
    finally:
        sys.setprofile(None)
    return interrupt.left < 0


def test_a_lock_that_was_lost_at_any_place_of_a_with_statement_is_free_for_all_who_wait_for_it():
    """On Python 3.14 signals are handled between its `__enter__` and the statement."""
    place = 0
    while True:
        monitor, seen = Monitor(), []
        was_interrupted = lose(monitor, place)

        def take(monitor=monitor, seen=seen):
            with monitor:
                seen.append(True)

        threads = [threading.Thread(target=take) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert seen == [True] * 3, f"after an interrupt at place {place}"
        with monitor:
            pass
        assert monitor._lock.acquire(blocking=False)
        if not was_interrupted:
            return
        place += 1


def test_who_has_lost_it_may_take_it_again_at_once():
    monitor = Monitor()

    def take():
        monitor.__enter__()  # and ends

    take()
    with monitor:
        assert monitor._is_owned()
    assert monitor._holder is None


def test_a_lock_that_was_given_back_leads_to_no_frame():
    """A future would lead back to itself, and be there until the collector comes."""
    future = ResilientFuture(0, "", "", Unasked())
    with pytest.raises(TimeoutError):
        future.result(0)
    wait([future], 0)
    monitor = future._condition
    assert (monitor._holder, monitor._tried) == (None, None)
