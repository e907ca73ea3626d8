"""The end of a pool is waited for, and Ctrl-C in whatever moment of that wait neither is lost nor hangs anybody."""

from __future__ import annotations

import _thread
import threading

import pytest
from pool_wait import lines, until

from resilient_exec.latch import Latch


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
    assert latch._waiters == []


def test_it_waits_no_longer_than_it_is_told():
    latch = Latch()
    assert not latch.wait(0)
    assert not latch.wait(0.01)
    assert latch._waiters == []


def test_a_signal_that_wakes_no_system_call_still_ends_the_wait_of_the_main_thread():
    """As one does that comes in the moment before the system call; the second wait shows that this did no harm."""
    latch, ended_by_itself = Latch(), []

    def interrupt():
        until(lambda: latch._waiters)
        _thread.interrupt_main()
        try:
            until(lambda: not latch._waiters, 20)
            ended_by_itself.append(True)
        finally:
            latch.set()

    thread = threading.Thread(target=interrupt)
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
            while not pool._supervisor.ended._waiters:
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
    """It is raised at each line, call and return in turn, of ours and of the standard library's."""
    script = start_script(f"""
        import sys
        from resilient_exec import ResilientPool

        class Interrupt:
            def __init__(self, place):
                self.left = place

            def __call__(self, frame, event, argument):
                self.left -= 1
                if self.left < 0:
                    sys.settrace(None)
                    raise KeyboardInterrupt
                return self

        def at_exit(pool):  # as `exit_hook` does: whatever it raises, it is called again
            pool._supervisor.end_at_exit()

        def with_block(pool):
            pool.__exit__(None, None, None)

        def interrupted(place):
            pool, interrupt = ResilientPool(1), Interrupt(place)
            sys.settrace(interrupt)
            try:
                {"at_exit" if ends == "exit" else "with_block"}(pool)
            except KeyboardInterrupt:
                pass
            finally:
                sys.settrace(None)
            pool._supervisor.end_at_exit(kill=True)
            pool._supervisor._thread.join()
            return interrupt.left < 0

        if __name__ == "__main__":
            place = 0
            while interrupted(place):
                place += 1
            print(place)
    """)
    assert script.wait() == 0
    assert int(script.out) > 20
    assert script.err == ""
