"""A preloading forkserver: what workers find in it, and every way in which it can fail them."""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pool_preload as tasks
import pool_tasks
import pytest
from pool_wait import lines, until, wait_lines

from resilient_exec import PoolBroken, TaskTimeout, WorkerDied
from resilient_exec.lane import forkserver_client, forkserver_process

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="there is a forkserver on Linux only")


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes a module that can be imported, and gives its name."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(code, name="preloaded_by_test"):
        (tmp_path / f"{name}.py").write_text(code)
        return name

    return write


def server_of(pool):
    """The pid of the forkserver, by a worker's word."""
    return pool.submit(os.getppid).result(60)


def broken(pool):
    """The words with which a pool breaks."""
    with pytest.raises(PoolBroken) as caught:
        pool.submit(pool_tasks.pid).result(60)
    return str(caught.value)


# -- what workers find -------------------------------------------------------------------------------------------------


def test_workers_collect_garbage_as_ever(make_pool, module):
    pool = make_pool(1, preload=(module("import gc"),))
    assert pool.submit(tasks.collector).result(60) == (True, gc.get_threshold())


def test_what_a_preloaded_module_says_of_the_collector_holds_in_workers(make_pool, module):
    pool = make_pool(1, preload=(module("import gc; gc.set_threshold(5_000, 7, 9); gc.disable()"),))
    assert pool.submit(tasks.collector).result(60) == (False, (5_000, 7, 9))


def test_workers_are_forked_from_one_process_that_has_imported_what_was_named_once(make_pool, module, tmp_path):
    name = module(f"import os\nwith open({str(tmp_path / 'imports')!r}, 'a') as f: f.write(f'{{os.getpid()}}\\n')")
    pool = make_pool(2, preload=(name,), max_tasks_per_worker=1)
    found = [pool.submit(tasks.look, name).result(60) for _ in range(4)]
    assert len({pid for pid, _, _ in found}) == 4
    assert [str(parent) for _, parent, _ in found] == lines(tmp_path / "imports") * 4
    assert all(loaded for _, _, loaded in found)


def test_a_worker_has_the_parents_present_environment_folder_path_and_output(make_pool, module, monkeypatch, tmp_path):
    pool = make_pool(1, preload=("json",), max_tasks_per_worker=1, env={"OF_THE_POOL": "1"})
    server_of(pool)
    monkeypatch.setenv("SET_LATER", "yes")
    monkeypatch.delenv("HOME")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("/of/later")
    environ, folder, path = pool.submit(tasks.surroundings).result(60)
    assert environ["SET_LATER"] == "yes"
    assert environ["OF_THE_POOL"] == "1"
    assert "HOME" not in environ
    assert folder == str(tmp_path)
    assert path[0] == "/of/later"
    saved = os.dup(1)
    with (tmp_path / "out").open("w") as file:
        os.dup2(file.fileno(), 1)
        try:
            pool.submit(os.write, 1, b"to where the parent writes now\n").result(60)
        finally:
            os.dup2(saved, 1)
            os.close(saved)
    assert lines(tmp_path / "out") == ["to where the parent writes now"]


def test_workers_do_not_share_their_random_numbers(make_pool):
    pytest.importorskip("numpy")
    pool = make_pool(1, preload=("numpy.random", "random"), max_tasks_per_worker=1)
    drawn = [pool.submit(tasks.draw).result(60) for _ in range(3)]
    assert len({one for one, _ in drawn}) == len({other for _, other in drawn}) == 3


def test_an_initializer_its_lock_and_captured_output_reach_a_forked_worker(make_pool):
    lock = multiprocessing.get_context("spawn").Lock()
    pool = make_pool(1, preload=("json",), initializer=pool_tasks.initialize, initargs=(None, lock), output="capture")
    assert pool.submit(pool_tasks.use_lock).result(60) == pool.submit(pool_tasks.use_lock).result(60)
    error = pool.options(retry=1).submit(tasks.print_and_die, "last words").exception(60)
    assert "last words" in error.dossier.attempts[0].stdout


@pytest.mark.parametrize(
    ("fn", "argument", "exitcode"),
    [
        (os._exit, 0, 0),
        (pool_tasks.kill_self, signal.SIGKILL, -9),
        (pool_tasks.kill_self, signal.SIGSEGV, -11),
    ],
)
def test_how_a_forked_worker_ended_is_told_exactly(make_pool, fn, argument, exitcode):
    pool = make_pool(1, preload=("json",), retry=1)
    error = pool.submit(fn, argument).exception(60)
    assert isinstance(error, WorkerDied)
    assert error.exitcode == exitcode
    assert isinstance(pool.options(timeout=0.3).submit(pool_tasks.hang_in_c).exception(60), TaskTimeout)
    assert pool.submit(pool_tasks.same, 1).result(60) == 1


def test_what_a_forked_worker_has_forked_and_set_free_ends_with_it(make_pool, tmp_path):
    """It has left the tree and was never exec'd: its mark is in the memory of its first environment."""
    pool = make_pool(1, preload=("json",), retry=1)
    error = pool.submit(tasks.die_with_a_daemon, tmp_path / "daemon").exception(60)
    assert isinstance(error, WorkerDied)
    (pid,) = lines(tmp_path / "daemon")
    until(lambda: not pool_tasks.alive(int(pid)))


def test_a_pool_inside_a_forked_worker_preloads_for_itself(make_pool):
    pool = make_pool(1, preload=("json",))
    assert pool.submit(tasks.nested, 5).result(60) == 10


# -- what cannot be preloaded ------------------------------------------------------------------------------------------


def test_an_import_error_breaks_the_pool_in_its_own_words(make_pool):
    words = broken(make_pool(1, preload=("no_such_module",)))
    assert "the forkserver could not preload: ModuleNotFoundError: No module named 'no_such_module'" in words


def test_a_module_that_ends_the_process_is_named(make_pool, module):
    name = module("import os\nos._exit(3)")
    assert f"the forkserver died (exit code 3) while importing {name}" in broken(make_pool(1, preload=(name,)))


def test_a_module_that_leaves_a_thread_running_is_refused(make_pool, module):
    name = module("import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()")
    assert f"preload '{name}': it leaves a thread running" in broken(make_pool(1, preload=(name,)))


def test_a_module_that_hangs_is_named_when_the_start_timeout_is_over(make_pool, module, tmp_path, monkeypatch):
    """It is over once the module has begun, however busy the machine: the clock leaps then."""
    begun = tmp_path / "begun"
    name = module(f"import os, time\nwith open({str(begun)!r}, 'a') as f: f.write('1\\n')\ntime.sleep(600)")
    leaping = SimpleNamespace(monotonic=lambda: time.monotonic() + 1000 * len(lines(begun)), sleep=time.sleep)
    for module_with_clock in (forkserver_client, forkserver_process):
        monkeypatch.setattr(module_with_clock, "time", leaping)
    words = broken(make_pool(1, preload=(name,), start_timeout=500, start_patience=0))
    assert f"the forkserver was still importing {name} after" in words
    assert len(lines(begun)) == 3


def test_the_start_timeout_of_a_worker_also_ends_its_wait_for_the_forkserver(make_pool, module):
    """Whatever that is doing then: interpreters start slowly on a busy machine."""
    name = module("import time\ntime.sleep(600)")
    pool = make_pool(1, preload=(name,), start_timeout=0.3)
    pool._forking._start_timeout = 600  # its own does not strike
    assert "the forkserver was still " in broken(pool)


def test_a_shutdown_does_not_wait_for_a_module_that_hangs(make_pool, module, tmp_path):
    name = module(f"import time\nopen({str(tmp_path / 'here')!r}, 'w').write('1')\ntime.sleep(600)")
    pool = make_pool(2, preload=(name,), initializer=pool_tasks.initialize, output="discard")  # with files to give back
    future = pool.submit(pool_tasks.pid)
    wait_lines(tmp_path / "here", 1)
    pool.shutdown(kill=True)
    assert future.done()


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("raise OSError('no device')", "importing it raises OSError: no device"),
        ("import os\nos._exit(3)", "importing it ends the process"),
        (
            "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()",
            "importing it starts 1 thread(s)",
        ),
    ],
)
def test_a_module_with_a_question_mark_is_left_out_and_the_log_says_why(make_pool, module, caplog, code, why):
    name = module(code)
    pool = make_pool(1, preload=(f"{name}?", "json"))
    with caplog.at_level(logging.WARNING):
        _, _, loaded = pool.submit(tasks.look, name).result(60)
        pool.shutdown()
    assert not loaded
    assert f"preload: {name} is left out" in caplog.text
    assert why in caplog.text


def test_a_log_handler_that_waits_for_ever_keeps_no_worker_from_starting(make_pool):
    """As one that writes to a stderr which is a pipe that nobody reads."""
    goes_on, has_come = threading.Event(), threading.Event()

    class Stuck(logging.Handler):
        def emit(self, _):
            has_come.set()
            goes_on.wait(60)

    handler, logger = Stuck(), logging.getLogger("resilient_exec")
    logger.addHandler(handler)
    try:
        pool = make_pool(1, preload=("no_such_module?",))
        assert pool.submit(os.getpid).result(60)
        assert has_come.wait(60)
        assert pool.submit(os.getpid).result(60)
    finally:
        goes_on.set()
        logger.removeHandler(handler)


def test_preloaded_waits_for_it_and_names_what_was_left_out(make_pool, module, monkeypatch):
    name = module("raise OSError('no device')")
    pool = make_pool(1, preload=("json", f"{name}?"))
    assert pool.preloaded() == (name,)
    assert pool.preloaded() == (name,)
    assert server_of(pool) == server_of(pool)
    idle = make_pool(1, preload=("json",))
    assert idle.preloaded() == ()
    idle.shutdown()
    assert make_pool(1).preloaded() == ()
    assert make_pool(1, forkserver=False).preloaded() is None
    with pytest.raises(PoolBroken, match="no_such_module"):
        make_pool(1, preload=("no_such_module",)).preloaded()


def test_without_a_forkserver_workers_are_started_as_without_it_and_the_log_says_so(make_pool, monkeypatch, caplog):
    monkeypatch.setattr(forkserver_client, "can_fork", lambda: False)
    pool = make_pool(1, preload=("json",))
    assert pool.submit(os.getppid).result(60) == os.getpid()
    assert "there is no forkserver on this system" in caplog.text


# -- the forkserver's own troubles -------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_forkserver_that_is_killed_or_stopped_costs_no_attempt_and_is_replaced(
    make_pool, monkeypatch, tmp_path, number
):
    monkeypatch.setattr(forkserver_client, "_REPLY_TIMEOUT", 0.5)
    pool = make_pool(2, preload=("json",), max_tasks_per_worker=1, retry=1)
    first = server_of(pool)
    here, go = tmp_path / "here", tmp_path / "go"
    running = [pool.submit(pool_tasks.meet, here, go) for _ in range(2)]
    wait_lines(here, 2)
    os.kill(first, number)
    pool_tasks.note(go, "now")
    for future in running:
        future.result(60)
    later = [pool.submit(os.getppid) for _ in range(4)]
    (second,) = {future.result(60) for future in later}
    assert second != first
    assert len(lines(here)) == 2
    assert [future.attempts for future in [*running, *later]] == [1] * 6


def test_a_worker_that_dies_after_its_forkserver_is_told_dead_without_an_exit_status(make_pool, tmp_path):
    pool = make_pool(1, preload=("json",), retry=1)
    first = server_of(pool)
    here, go = tmp_path / "here", tmp_path / "go"
    doomed = pool.submit(tasks.meet_and_die, here, go)
    wait_lines(here, 1)
    os.kill(first, signal.SIGKILL)
    until(lambda: not pool_tasks.alive(first))
    pool_tasks.note(go, "now")
    error = doomed.exception(60)
    assert isinstance(error, WorkerDied)
    assert error.exitcode in {None, 255}
    assert pool.submit(pool_tasks.same, 1).result(60) == 1


def test_many_lanes_that_start_at_once_share_one_forkserver(make_pool):
    pool = make_pool(8, preload=("json",))
    barrier = threading.Barrier(4)

    def submit():
        barrier.wait(60)
        return [pool.submit(os.getppid) for _ in range(8)]

    results = []
    threads = [threading.Thread(target=lambda: results.extend(submit())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({future.result(60) for future in results}) == 1


PARENT = """
import os, pathlib, sys, time
import pool_tasks, pool_preload
from resilient_exec import ResilientPool
if __name__ == "__main__":
    pool = ResilientPool(2, preload=("json",))
    pathlib.Path("server").write_text(f"{pool.submit(os.getppid).result(60)}\\n")
    pool.submit(pool_preload.hold_the_gil, "worker")
    pool.submit(pool_preload.leave_a_daemon_and_wait, "daemon")
    time.sleep(600)
"""


def test_after_sigkill_of_the_parent_neither_workers_nor_forkserver_nor_what_they_forked_remain(start_script):
    script = start_script(PARENT)
    folder = Path(script.folder)
    pids = [int(wait_lines(folder / name, 1)[0]) for name in ("server", "worker", "daemon")]
    os.kill(script.process.pid, signal.SIGKILL)
    script.process.wait()
    until(lambda: not any(map(pool_tasks.alive, pids)))
