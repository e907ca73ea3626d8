"""Where the system lacks a means, or the user's program has taken it, the lane falls back on another."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
import threading

import lane_leavings as leavings
import lane_pickles as pickles
import lane_tasks as tasks
import pytest
from lane_harness import PATIENCE, alive, lines, linux_only, until

from resilient_exec import NotSendable
from resilient_exec.core.messages import Begun, Progress
from resilient_exec.model.task import Returned
from resilient_exec.process import orphan_guard
from resilient_exec.process import tree as process
from resilient_exec.wire import register


def without_pidfd(monkeypatch):
    monkeypatch.delattr(os, "pidfd_open", raising=False)


def without_proc(monkeypatch):
    without_pidfd(monkeypatch)
    for module in (process, orphan_guard):
        monkeypatch.setattr(module, "ON_LINUX", False)


def without_memfd(monkeypatch):
    monkeypatch.delattr(os, "memfd_create", raising=False)


@pytest.mark.parametrize("lack", [without_pidfd, without_proc, without_memfd])
def test_deaths_kills_and_peace_are_told_without_what_linux_offers(lane, monkeypatch, tmp_path, lack):
    lack(monkeypatch)
    lane.start()
    assert lane.value(tasks.double, 2) == 4
    assert lane.death(tasks.exit_at_once, 3).exitcode == 3
    lane.start()
    lane.begin(leavings.leave_and, leavings.leave_child, str(tmp_path / "pids"), "killed by us")
    until(lambda: len(lines(tmp_path / "pids")) == 2)
    lane.kill()
    assert lane.died().why == "it was killed"
    assert not any(map(alive, lines(tmp_path / "pids")))
    lane.start()
    lane.stop()
    assert lane.gone() == ""


def test_without_a_pidfd_the_stacks_are_taken_all_the_same(lane, monkeypatch):
    without_pidfd(monkeypatch)
    lane.start()
    lane.begin(tasks.burn_in_c_under_the_gil)
    until(lambda: "in burn_in_c_under_the_gil" in lane.stacks_now())
    lane.kill()
    assert "in burn_in_c_under_the_gil" in lane.died().evidence.stacks


REAPED_BY_OTHERS = """
    import gc, os, signal, sys

    sys.path.insert(0, {here!r})
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps, and nobody learns an exit status
    import lane_tasks as tasks
    from lane_harness import Harness, alive

    harness = Harness()
    harness.start()
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        assert harness.death(tasks.exit_at_once, 3).exitcode in (3, None)
        harness.start()
        harness.begin(tasks.spin_for_ever)
        harness.kill()
        assert harness.died().exitcode in (-9, None)
        harness.start()
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before
    harness.lane.stop()
    assert harness.gone() == ""
    assert not alive(harness.pid)
    harness.end()
"""


@linux_only
def test_a_parent_that_ignores_sigchld_learns_of_each_death_and_leaks_nothing(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(REAPED_BY_OTHERS).format(here=os.path.dirname(__file__)))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(script)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@linux_only
def test_a_worker_that_is_reaped_by_the_users_own_code_is_told_to_be_gone(ready):
    with ready.held():
        ready.signal(signal.SIGKILL)
        until(lambda: not alive(ready.pid))
        reap_all()
    assert ready.gone() == ""
    ready.still_works()


def reap_all():
    try:
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass
    except ChildProcessError:
        pass


# -- results that misbehave in the parent only -----------------------------------------------------------------------

entered, released = threading.Event(), threading.Event()


class MisbehavesAtHome:
    """Unpickling it calls ``fn(*args)``, but only in the process ``home``."""

    def __init__(self, home, fn, args):
        self.call = (home, fn, args)

    def __reduce__(self):
        return _at_home, self.call


def _at_home(home, fn, args):
    return fn(*args) if os.getpid() == home else "far from home"


def give_misbehaving(home, fn, args):
    return MisbehavesAtHome(home, fn, args)


@pytest.mark.parametrize(("fn", "args"), [(pickles.fail_to_load, ()), (tasks.call_sys_exit, (3,))])
def test_a_result_that_raises_only_in_the_parent_is_an_error_of_its_own_and_harms_nobody(make_pool, fn, args):
    pool = make_pool(1)
    future = pool.submit(give_misbehaving, os.getpid(), fn, args)
    error = future.exception(PATIENCE)
    assert isinstance(error, NotSendable)
    assert "unpickled in the parent" in str(error)
    assert error.__cause__ is not None
    assert future.exception() is error
    assert pool.submit(tasks.double, 2).result(PATIENCE) == 4


def hang_until_released():
    entered.set()
    released.wait()
    return "released"


def test_a_result_that_hangs_only_in_the_parent_holds_whoever_asks_for_it_and_nobody_else(make_pool):
    """Its own lane goes on, and so does a shutdown."""
    entered.clear()
    released.clear()
    pool = make_pool(1)
    future = pool.submit(give_misbehaving, os.getpid(), hang_until_released, ())
    asking = threading.Thread(target=future.result)
    asking.start()
    try:
        assert entered.wait(PATIENCE)
        assert pool.submit(tasks.double, 2).result(PATIENCE) == 4
        pool.shutdown()
    finally:
        released.set()
        asking.join()
    assert future.result() == "released"


# -- words about bytes that flow -------------------------------------------------------------------------------------


@linux_only
def test_while_a_large_call_flows_its_lane_says_so_and_while_it_does_not_it_is_silent(ready):
    ready.loop.tells_progress = True
    ready.signal(signal.SIGSTOP)
    ready.send(tasks.length, bytes(10_000_000))
    assert ready.expect(Progress) == Progress(0)  # what the channel took at once
    ready.nothing()
    ready.signal(signal.SIGCONT)
    assert ready.expect(Progress) == Progress(0)
    ready.expect_past_progress(Begun)
    assert ready.ended() == Returned(10_000_000)


@linux_only
@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM])
def test_without_memfd_a_file_that_has_no_name_any_more_will_do(monkeypatch, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "memfd_create", refuse)
    fd = register.anonymous_file("resilient-test", 4096)
    try:
        assert os.fstat(fd).st_nlink == 0
        assert os.fstat(fd).st_size == 4096
    finally:
        os.close(fd)


@linux_only
def test_a_memfd_that_cannot_be_made_for_want_of_descriptors_is_an_error(monkeypatch):
    def refuse(*_):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "memfd_create", refuse)
    with pytest.raises(OSError, match="Too many open files"):
        register.anonymous_file("resilient-test")
