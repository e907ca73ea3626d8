"""A worker that does not come up is a failed start, with the best words there are, and leaves nothing behind."""

from __future__ import annotations

import errno
import multiprocessing
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
from lane_harness import Harness, alive, lines, linux_only, until

from resilient_exec.core.messages import LaneClosed, LaneReady, StartFailed
from resilient_exec.worker.seat import CHANNEL_LOST_STATUS, STRAY_STATUS

SILENT = "its interpreter did not come up"


@pytest.fixture
def site(tmp_path, monkeypatch):
    """Code that every interpreter runs which is started now: ``site("...")``."""
    folder = tmp_path / "site"
    folder.mkdir()

    def set_code(code):
        (folder / "sitecustomize.py").write_text(code)
        path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
        monkeypatch.setenv("PYTHONPATH", path)

    return set_code


def test_an_initializer_runs_before_the_first_task(lane):
    lane.start(tasks.set_global, "name", 17)
    assert lane.value(tasks.get_global, "name") == 17


def test_an_initializer_runs_again_in_each_new_worker(lane):
    lane.start(tasks.set_global, "name", 17)
    lane.death(tasks.exit_at_once, 1)
    lane.start()
    assert lane.value(tasks.get_global, "name") == 17


def test_an_initializer_that_raises_is_told_with_its_traceback(lane):
    words = lane.failed_start(pickles.raise_class, ValueError, "no such licence")
    assert "ValueError: no such licence" in words
    assert "in raise_class" in words


def test_an_initializer_that_calls_sys_exit_is_told(lane):
    assert "SystemExit: 3" in lane.failed_start(tasks.call_sys_exit, 3)


def test_an_initializer_that_ends_the_process_is_told_with_the_exit_code(lane):
    words = lane.failed_start(tasks.exit_at_once, 3)
    assert "exit code 3" in words
    assert "its initializer did not return" in words


def test_an_initializer_that_kills_the_process_is_told_with_the_signal(lane):
    assert "exit code -9" in lane.failed_start(tasks.signal_itself, signal.SIGKILL)


def test_an_initializer_that_hangs_is_ended_on_request_and_told_with_its_stacks(lane, tmp_path):
    lane.order_start(tasks.note_then, str(tmp_path / "inside"), tasks.burn_in_c_under_the_gil)
    (pid,) = until(lambda: lines(tmp_path / "inside"))
    lane.give_up_start()
    words = lane.expect(StartFailed).words
    assert "its initializer did not return" in words
    assert "in note_then" in words
    assert not alive(pid)


def test_an_initializer_that_does_not_pickle_is_told(lane):
    words = lane.failed_start(tasks.set_global, "lock", threading.Lock())
    assert "cannot pickle" in words
    assert "lock" in words


def test_an_initializer_that_does_not_unpickle_is_told_in_the_workers_own_words(lane):
    words = lane.failed_start(tasks.set_global, "name", pickles.Calls(pickles.fail_to_load))
    assert "ValueError: it does not load" in words


def test_an_initializer_whose_unpickling_ends_the_process_is_told(lane):
    assert "exit code 4" in lane.failed_start(tasks.set_global, "name", pickles.Calls(os._exit, 4))


def test_an_initializer_that_closes_the_pools_descriptors_is_told_so(lane):
    words = lane.failed_start(leavings.close_descriptors, 3, 65536)
    assert f"exit code {CHANNEL_LOST_STATUS}" in words
    assert "closed descriptors that belong to the pool" in words


def test_an_initializer_that_forks_a_child_which_returns_makes_one_worker_not_two(lane):
    lane.start(tasks.fork_in_initializer)
    lane.nothing()
    lane.still_works()
    lane.nothing()


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
@linux_only
def test_locks_of_the_spawn_and_forkserver_contexts_travel_in_the_initializers_arguments(lane, method):
    lock = multiprocessing.get_context(method).Lock()
    lane.start(tasks.set_global, "lock", lock)
    assert lane.value(tasks.lock_is_free, "lock") is True
    with lock:
        assert lane.value(tasks.lock_is_free, "lock") is False


@linux_only
def test_locks_of_the_fork_context_are_a_clear_error(lane):
    words = lane.failed_start(tasks.set_global, "lock", multiprocessing.get_context("fork").Lock())
    assert "RuntimeError" in words
    assert "fork" in words
    assert "SemLock" in words


def test_a_queue_of_the_spawn_context_carries_words_between_worker_and_parent(lane):
    queue = multiprocessing.get_context("spawn").SimpleQueue()
    lane.start(tasks.set_global, "queue", queue)
    lane.value(tasks.put_in_global_queue, "queue", "hello")
    assert queue.get() == "hello"
    queue.close()


def test_large_arguments_of_an_initializer_arrive(lane):
    lane.start(tasks.large_initializer, bytes(5_000_000))
    assert lane.value(tasks.get_global, "size") == 5_000_000


@linux_only
@pytest.mark.parametrize("size", [1, 5_000_000])
def test_an_interpreter_that_hangs_before_our_code_is_ended_on_request(lane, site, tmp_path, size):
    site(f"import sys\nsys.path.insert(0, {os.path.dirname(__file__)!r})\n" + HANG.format(path=str(tmp_path / "pid")))
    lane.order_start(tasks.large_initializer, bytes(size))
    (pid,) = until(lambda: lines(tmp_path / "pid"))
    lane.answers()
    lane.give_up_start()
    words = lane.expect(StartFailed).words
    assert SILENT in words
    assert not alive(pid)


HANG = """
if "loky" in " ".join(sys.orig_argv):
    import lane_tasks
    lane_tasks.note({path!r})
    lane_tasks.sleep_for_ever()
"""


@linux_only
@pytest.mark.parametrize("size", [1, 5_000_000])
def test_an_interpreter_that_ends_before_our_code_is_told_with_its_exit_code(lane, site, size):
    site("import os, sys\nif 'loky' in ' '.join(sys.orig_argv): os._exit(9)")
    words = lane.failed_start(tasks.large_initializer, bytes(size))
    assert "exit code 9" in words
    assert SILENT in words


@linux_only
@pytest.mark.parametrize("size", [1, 5_000_000])
def test_an_interpreter_that_is_stopped_before_our_code_is_ended_on_request(lane, site, size):
    site("import os, signal, sys\nif 'loky' in ' '.join(sys.orig_argv): os.kill(os.getpid(), signal.SIGSTOP)")
    lane.order_start(tasks.large_initializer, bytes(size))
    pid = until(lambda: lane.lane.lease and lane.lane.lease.pid)
    lane.answers()
    lane.give_up_start()
    assert SILENT in lane.expect(StartFailed).words
    assert not alive(pid)


def test_serving_without_a_channel_ends_the_process_instead_of_waiting_for_ever(lane, monkeypatch):
    monkeypatch.setattr("resilient_exec.worker.serving.run", tasks.serve_without_a_channel)
    assert f"exit code {STRAY_STATUS}" in lane.failed_start()


def test_a_worker_that_becomes_ready_just_before_its_start_is_given_up_stays(lane, tmp_path):
    lane.order_start(tasks.wait_for, str(tmp_path / "go"))
    until(lambda: lane.lane.lease and lane.lane.lease.stacks_fd, "the hello")
    with lane.held():
        (tmp_path / "go").touch()
        until(lambda: lane.bytes_waiting() > 0)
        lane.give_up_start()
    lane.pid = lane.expect(LaneReady).pid
    lane.nothing()
    lane.still_works()


def test_failed_starts_in_a_row_leave_nothing_and_the_next_one_works(lane, tmp_path):
    lane.order_start(tasks.succeed_from_the_third_time_on, str(tmp_path / "times"))
    assert "not yet" in lane.expect(StartFailed).words
    assert "not yet" in lane.failed_start()
    lane.start()
    lane.still_works()


@linux_only
def test_no_process_to_be_had_is_told_with_the_systems_words_and_leaves_nothing(lane, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("loky.backend.fork_exec.fork_exec", no_process)
        for _ in range(3):
            assert os.strerror(errno.EAGAIN) in lane.failed_start()
    lane.start()
    lane.still_works()


def no_process(*_args, **_kwargs):
    raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))


def test_a_lane_that_is_closed_while_it_starts_ends_with_its_worker(lane, tmp_path):
    lane.order_start(tasks.note_then, str(tmp_path / "inside"), tasks.sleep_for_ever)
    (pid,) = until(lambda: lines(tmp_path / "inside"))
    lane.do(lane.lane.close)
    assert lane.expect(LaneClosed) == LaneClosed(0)
    assert not alive(pid)


def test_a_lane_that_is_abandoned_while_it_starts_loses_its_worker(lane, tmp_path):
    lane.order_start(tasks.note_then, str(tmp_path / "inside"), tasks.sleep_for_ever)
    (pid,) = until(lambda: lines(tmp_path / "inside"))
    with lane.thread_held():
        lane.do(lane.lane.abandon)
        until(lambda: not alive(pid), "the end of the worker while its lane's thread hangs")
    assert lane.expect(LaneClosed) == LaneClosed(0)


def test_a_lane_closed_with_an_idle_worker_ends_in_peace():
    harness = Harness()
    pid = harness.start()
    harness.close()
    harness.end_loop()
    assert not alive(pid)


def run_script(script):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(
        [sys.executable, str(script)], env=environment, capture_output=True, text=True, timeout=120, check=False
    )


@linux_only
def test_without_a_descriptor_left_in_the_parent_a_kill_still_kills_and_a_start_fails_with_words(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(OUT_OF_DESCRIPTORS).format(here=os.path.dirname(__file__), path=str(tmp_path / "pid"))
    )
    done = run_script(script)
    assert done.returncode == 0, done.stdout + done.stderr


OUT_OF_DESCRIPTORS = """
    import gc, os, resource, sys
    from pathlib import Path

    sys.path.insert(0, {here!r})
    import lane_leavings as leavings
    import lane_tasks as tasks
    from lane_harness import Harness, alive, lines, until
    from resilient_exec.core.messages import WorkerGone

    harness = Harness()
    harness.start()
    harness.still_works()
    harness.begin(leavings.fork_a_child_and_spin, {path!r})
    pid = harness.pid
    (child,) = until(lambda: lines(Path({path!r})))

    def exhaust():
        held = []
        try:
            while True:
                held.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            return held

    def give_back(held):
        for fd in held:
            os.close(fd)

    resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
    held = exhaust()
    harness.kill()
    died = harness.expect(WorkerGone).outcome
    give_back(held)
    assert died.exitcode == -9
    assert not alive(pid)
    assert not alive(child)
    harness.answers()  # it has given back what it had of that worker
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))

    held = exhaust()
    words = harness.failed_start()
    give_back(held)
    assert "Too many open files" in words, words
    gc.collect()
    after = len(os.listdir("/proc/self/fd"))
    assert after == before, (before, after, [os.readlink(f"/proc/self/fd/{{fd}}") for fd in range(3, 40)])
    harness.still_works()
    harness.end()
"""
