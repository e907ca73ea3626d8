"""Workers that the forkserver forks are what started ones would be; where there can be none, workers are started."""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import pathlib
import resource
import signal
import sys

import pool_surroundings as tasks
import pool_tasks
import pytest
from pool_wait import until

from resilient_exec.lane import forkserver_client, forkserver_process

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="there is a forkserver on Linux only")
KINDS = [
    pytest.param({"forkserver": False}, id="started"),
    pytest.param({}, id="forked"),
    pytest.param({"preload": ("json",)}, id="preloaded"),
]
kinds = pytest.mark.parametrize("kind", KINDS)


# -- what a worker is given, however it is started ---------------------------------------------------------------------


@kinds
def test_a_worker_has_the_present_limits_umask_priority_affinity_and_time_zone(make_pool, kind, monkeypatch):
    pool = make_pool(1, max_tasks_per_worker=1, **kind)
    pool.submit(pool_tasks.pid).result(60)  # a forkserver is there
    (soft, hard), mask = resource.getrlimit(resource.RLIMIT_NOFILE), os.umask(0o22)
    core, cpus = resource.getrlimit(resource.RLIMIT_CORE), os.sched_getaffinity(0)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft - 24, hard))
        resource.setrlimit(resource.RLIMIT_CORE, (0, core[1]))
        os.umask(0o27)
        monkeypatch.setenv("TZ", "XXX-5")
        for thread in os.listdir("/proc/self/task"):
            os.sched_setaffinity(int(thread), {min(cpus)})
        found = pool.submit(tasks.limits).result(60)
    finally:
        os.umask(mask)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        resource.setrlimit(resource.RLIMIT_CORE, core)
        for thread in os.listdir("/proc/self/task"):
            os.sched_setaffinity(int(thread), cpus)
    assert found == (
        (soft - 24, hard), (0, core[1]), 0o27, os.getpriority(os.PRIO_PROCESS, 0), {min(cpus)}, ("XXX", "XXX"),
    )  # fmt: skip


@kinds
def test_what_a_module_does_to_path_and_environment_when_it_is_imported_holds(make_pool, kind, tmp_path, monkeypatch):
    (tmp_path / "vendor").mkdir()
    (tmp_path / "vendor" / "only_there.py").write_text("x = 7\n")
    (tmp_path / "changes_path.py").write_text(
        "import os, sys\n"
        f"sys.path.append({str(tmp_path / 'vendor')!r})\n"
        "sys.path.insert(0, '/of/the/module')\n"
        "os.environ['SET_BY_MODULE'] = 'yes'\n"
        "os.environ.pop('TAKEN_BY_MODULE', None)\n"
        "def play():\n"
        "    import only_there\n"
        "    return only_there.x, os.environ.get('SET_BY_MODULE'), os.environ.get('TAKEN_BY_MODULE'), sys.path[0]\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("TAKEN_BY_MODULE", "still there")
    pool = make_pool(1, **({"preload": ("changes_path",)} if "preload" in kind else kind))
    assert pool.submit(tasks.play, "changes_path").result(60) == (7, "yes", None, "/of/the/module")


@kinds
def test_entries_of_the_path_that_are_no_strings_do_no_harm(make_pool, kind, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path, pathlib.Path("/of/a/path"), None, 7])
    assert make_pool(1, **kind).submit(pool_tasks.double, 2).result(60) == 4


@kinds
@pytest.mark.parametrize("number", [58, 59, 200, 330])
def test_any_number_of_descriptors_travels_in_the_initializers_arguments(make_pool, kind, number):
    pairs = [multiprocessing.Pipe() for _ in range(number)]
    try:
        pool = make_pool(1, initializer=tasks.send_numbers, initargs=tuple(far for _, far in pairs), **kind)
        pool.submit(pool_tasks.pid).result(60)
        assert [near.recv() for near, _ in pairs] == list(range(number))
    finally:
        for pair in pairs:
            for end in pair:
                end.close()


SCRIPT = """
import sys
import pool_surroundings as tasks
from resilient_exec import ResilientPool
if __name__ == "__main__":
    print(tasks.flags())
    for kind in ({"forkserver": False}, {}, {"preload": ("json",)}):
        with ResilientPool(1, **kind) as pool:
            print(pool.submit(tasks.flags).result(60))
"""


def test_the_interpreters_flags_reach_all_workers(start_script):
    options = ("-O", "-B", "-s", "-W", "error::DeprecationWarning", "-X", "dev", "-X", "of_the_user=3")
    script = start_script(SCRIPT, python=options)
    assert script.wait() == 0, script.err
    parent, *workers = script.out.splitlines()
    assert workers == [parent] * 3
    assert "'of_the_user': '3'" in parent


def test_modules_of_the_standard_librarys_names_in_the_current_folder_break_no_start(start_script):
    script = start_script("""
        import os, pathlib
        from resilient_exec import ResilientPool
        if __name__ == "__main__":
            os.mkdir("here")
            os.chdir("here")
            for name in ("random", "tempfile", "socket", "struct", "runpy", "json", "types", "encodings"):
                pathlib.Path(f"{name}.py").write_text("raise ImportError('of the user')")
            for kind in ({"forkserver": False}, {}, {"preload": ("csv",)}):
                with ResilientPool(1, **kind) as pool:
                    print(pool.submit(abs, -1).result(60))
    """)
    assert script.wait() == 0, script.err
    assert script.out == "1\n1\n1\n"


@kinds
def test_a_worker_of_a_pool_in_a_daemonic_child_of_multiprocessing_starts(kind):
    context = multiprocessing.get_context("spawn")
    near, far = context.Pipe()
    process = context.Process(target=_pool_in_daemon, args=(far, kind), daemon=True)
    process.start()
    far.close()
    assert near.recv() == 4
    process.join(60)
    near.close()
    process.close()


def _pool_in_daemon(connection, kind):
    from resilient_exec import ResilientPool

    with ResilientPool(1, **kind) as pool:
        connection.send(pool.submit(pool_tasks.double, 2).result(60))


# -- what it cannot take over ------------------------------------------------------------------------------------------


def test_when_a_variable_that_is_read_at_the_start_has_changed_another_server_is_started(make_pool, monkeypatch):
    pool = make_pool(2, max_tasks_per_worker=1)
    first = pool.submit(os.getppid).result(60)
    assert pool.submit(os.getppid).result(60) == first
    monkeypatch.setenv("PYTHONHASHSEED", "7")
    expected = pool.submit(hash, "a").result(60)
    later = pool.submit(os.getppid).result(60)
    assert later != first
    assert pool.submit(hash, "a").result(60) == expected
    assert pool.submit(os.getppid).result(60) == later
    until(lambda: not pool_tasks.alive(first))  # the last of its workers has ended


def test_a_server_that_is_replaced_harms_no_attempt_that_runs_in_a_worker_of_it(make_pool, monkeypatch, tmp_path):
    pool = make_pool(2, max_tasks_per_worker=1, retry=1)
    here, go = tmp_path / "here", tmp_path / "go"
    running = pool.submit(pool_tasks.meet, here, go)
    until(here.exists)
    monkeypatch.setenv("PYTHONHASHSEED", "7")
    others = [pool.submit(pool_tasks.same, number).result(60) for number in range(3)]
    pool_tasks.note(go, "now")
    running.result(60)
    assert others == [0, 1, 2]
    assert running.attempts == 1


# -- where there is none -----------------------------------------------------------------------------------------------


def test_where_there_can_be_none_workers_are_started_and_the_log_says_so_once(make_pool, monkeypatch, caplog):
    monkeypatch.setattr(forkserver_client, "can_fork", lambda: False)
    forkserver_client._tell_once.cache_clear()
    for _ in range(2):
        assert make_pool(1).submit(os.getppid).result(60) == os.getpid()
    assert caplog.text.count("workers are started by exec") == 1


def test_one_that_does_not_start_is_done_without_and_the_log_says_why(make_pool, monkeypatch, caplog):
    monkeypatch.setattr(forkserver_process, "_CODE", "import sys; sys.exit(3)  # {arguments!r}")
    pool = make_pool(2)
    with caplog.at_level(logging.WARNING):
        parents = [pool.submit(os.getppid).result(60) for _ in range(3)]
        pool.shutdown()
    assert parents == [os.getpid()] * 3
    assert "the forkserver does not start: the forkserver died (exit code 3)" in caplog.text
    assert make_pool(1).preloaded() is None


def test_a_start_timeout_shorter_than_the_start_of_a_forkserver_does_not_end_it_each_time(make_pool, tmp_path):
    """On a busy machine that took half a second, was ended, and began anew."""
    slow = "import os, time\nif os.environ.pop('IS_SLOW', ''): time.sleep(1.5)\n"
    (tmp_path / "sitecustomize.py").write_text(slow)
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    pool = make_pool(1, start_timeout=0.5, env={"PYTHONPATH": path, "IS_SLOW": "1"})
    assert pool.submit(abs, -4).result(60) == 4


@pytest.mark.parametrize("error", ["EPERM", "ENOSYS"])
def test_a_sandbox_without_pidfds_is_as_a_system_without_them(start_script, error):
    script = start_script(f"""
        import ctypes, errno, os, struct
        rules = [(0x20, 0, 0, 0), (0x15, 0, 1, 434), (0x06, 0, 0, 0x00050000 | errno.{error}), (0x06, 0, 0, 0x7FFF0000)]
        class Program(ctypes.Structure):
            _fields_ = [("length", ctypes.c_ushort), ("rules", ctypes.c_void_p)]
        if __name__ == "__main__":
            text = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *rule) for rule in rules))
            program = Program(len(rules), ctypes.cast(text, ctypes.c_void_p))
            libc = ctypes.CDLL(None)
            assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
            assert libc.prctl(22, 2, ctypes.byref(program), 0, 0) == 0  # PR_SET_SECCOMP: no pidfd_open
            from resilient_exec import ResilientPool
            for kind in ({{}}, {{"preload": ("json",)}}):
                with ResilientPool(1, timeout=20, retry=1, **kind) as pool:
                    print(type(pool.submit(os._exit, 3).exception(60)).__name__, pool.submit(abs, -4).result(60))
    """)
    assert script.wait() == 0, script.err
    assert script.out == "WorkerDied 4\n" * 2
    assert "no pidfds" in script.err


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"forkserver": 1}, TypeError, "forkserver must be True or False, got 1"),
        ({"forkserver": False, "preload": ("json",)}, ValueError, "leave one of the two out"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(make_pool, arguments, error, words):
    with pytest.raises(error, match=words):
        make_pool(1, **arguments)


# -- its beginning and its end -----------------------------------------------------------------------------------------


def test_a_pool_without_work_starts_no_process_and_one_that_is_dropped_leaves_none(make_pool):
    pool = make_pool(1)
    assert pool._forking._server is None
    pool.preloaded()
    server = pool._forking._server.process.pid
    assert pool_tasks.alive(server)
    pool.shutdown()
    assert not pool_tasks.alive(server)


def test_a_dropped_pool_whose_forkserver_has_begun_takes_it_along(start_script):
    script = start_script("""
        import gc, os
        import pool_tasks as tasks
        from resilient_exec import ResilientPool
        if __name__ == "__main__":
            pool = ResilientPool(1)
            pool.preloaded()
            pid = pool._forking._server.process.pid
            del pool
            gc.collect()
            while tasks.alive(pid):
                pass
            print("gone")
    """)
    assert script.wait() == 0, script.err
    assert script.out == "gone\n"


def test_an_interpreter_that_ends_with_an_unused_pool_leaves_no_forkserver(start_script):
    script = start_script(
        """
        from resilient_exec import ResilientPool
        if __name__ == "__main__":
            pool = ResilientPool(1)
            pool.preloaded()
            print(pool._forking._server.process.pid)
    """,
        python=("-W", "error"),
    )
    assert script.wait() == 0, script.err
    assert script.err == ""
    until(lambda: not pool_tasks.alive(int(script.out)))


def test_a_server_that_is_killed_while_it_starts_is_started_again_and_no_lane_fails(make_pool, tmp_path, monkeypatch):
    begun, go = tmp_path / "begun", tmp_path / "go"
    (tmp_path / "waits_for_a_file.py").write_text(
        f"import os, time\nopen({str(begun)!r}, 'a').write(f'{{os.getpid()}}\\n')\n"
        f"while not os.path.exists({str(go)!r}): time.sleep(0.005)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    told = []
    pool = make_pool(3, preload=("waits_for_a_file",), observers=[lambda event: told.append(event.kind)])
    futures = [pool.submit(pool_tasks.same, number) for number in range(6)]
    until(lambda: begun.exists() and begun.read_text().count("\n") == 1)
    os.kill(int(begun.read_text()), signal.SIGKILL)
    until(lambda: begun.read_text().count("\n") == 2)
    go.touch()
    assert [future.result(60) for future in futures] == list(range(6))
    assert "lane_failed" not in told


def test_shutdown_and_a_new_pool_in_the_same_program(make_pool):
    for _ in range(3):
        pool = make_pool(1)
        worker, server = pool.submit(tasks.with_parent).result(60)
        pool.shutdown()
        gc.collect()
        assert not pool_tasks.alive(worker)
        assert not pool_tasks.alive(server)


def test_native_threads_of_a_preloaded_library_and_warnings_as_errors_do_not_keep_it_from_forking(start_script):
    """From Python 3.12 on a fork of a process with threads warns."""
    pytest.importorskip("numpy")
    script = start_script(
        """
        from resilient_exec import ResilientPool
        if __name__ == "__main__":
            with ResilientPool(2, preload=("numpy",), inner_max_num_threads=4) as pool:
                print(list(pool.map(abs, [-1, 2, -3])))
    """,
        python=("-W", "error"),
    )
    assert script.wait() == 0, script.err
    assert script.out == "[1, 2, 3]\n"
    assert script.err == ""
