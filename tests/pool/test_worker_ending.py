"""How a worker ends whose work is done: nothing that was left to its end is lost, whether it was forked or started."""

from __future__ import annotations

import sys

import pool_ending as tasks
import pool_tasks
import pytest

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="there is a forkserver on Linux only")
KINDS = [pytest.param((), id="started"), pytest.param(("json",), id="forked", marks=linux_only)]


@pytest.fixture(params=KINDS)
def pool(make_pool, request):
    """Its worker ends after each task."""
    return make_pool(1, preload=request.param, max_tasks_per_worker=1, retry=1, timeout=60)


def text(path):
    return path.read_text() if path.exists() else ""


def do_and_end(pool, fn, *args):
    """The result, when the next worker has begun: the one that gave it has ended."""
    value = pool.submit(fn, *args).result(60)
    pool.submit(pool_tasks.pid).result(60)
    return value


def test_what_is_registered_with_atexit_runs(pool, tmp_path):
    do_and_end(pool, tasks.register, str(tmp_path / "out"), "at the end\n")
    assert text(tmp_path / "out") == "at the end\n"


def test_handlers_that_fail_keep_none_of_the_others_and_no_worker_from_its_end(pool, tmp_path):
    do_and_end(pool, tasks.register_all, str(tmp_path / "out"), tasks.fails, tasks.leaves, tasks.fails)
    assert text(tmp_path / "out") == "all were called\n"


@pytest.mark.slow  # it waits for as long as a worker is given to end
def test_a_handler_that_hangs_holds_up_its_lane_no_longer_than_a_worker_that_does_not_end(pool, tmp_path):
    pool.submit(tasks.register_all, str(tmp_path / "unused"), pool_tasks.hang).result(60)
    assert pool.submit(pool_tasks.pid).result(60) > 0


@pytest.mark.parametrize("leave", [tasks.leave_open, tasks.leave_open_what_cannot_be_flushed])
def test_what_is_still_in_the_buffers_of_open_files_is_written(pool, tmp_path, leave):
    words = "a few words\n"
    assert do_and_end(pool, leave, str(tmp_path / "out"), words) == 0
    assert text(tmp_path / "out") == text(tmp_path / "out.binary") == words


def test_what_is_still_in_the_buffers_of_c_is_written(pool, tmp_path):
    assert do_and_end(pool, tasks.leave_open_in_c, str(tmp_path / "out"), "a few words\n") == 0
    assert text(tmp_path / "out") == "a few words\n"


@linux_only
def test_a_file_that_a_preloaded_module_has_opened_gets_each_word_once(make_pool, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "opens_a_file.py").write_text(
        f"file = open({str(tmp_path / 'log')!r}, 'a')\nfile.write('from the import\\n')\n"
    )
    pool = make_pool(2, preload=("opens_a_file",), max_tasks_per_worker=1)
    for number in range(4):
        pool.submit(tasks.use_module, "opens_a_file", f"from task {number}\n").result(60)
    pool.shutdown()
    expected = ["from the import", *(f"from task {number}" for number in range(4))]
    assert sorted(text(tmp_path / "log").splitlines()) == sorted(expected)


@pytest.mark.parametrize("options", ["", "forkserver=False", pytest.param("preload=('json',)", marks=linux_only)])
def test_a_worker_that_ends_warns_of_nothing_in_development_mode(start_script, options):
    script = start_script(
        f"""
        import logging
        from resilient_exec import ResilientPool

        def fail():
            raise ValueError("mine")

        if __name__ == "__main__":
            with ResilientPool(1, max_tasks_per_worker=1, logs="forward", {options}) as pool:
                print(pool.submit(abs, -4).result(), pool.submit(logging.warning, "logged").result())
            with ResilientPool(1, initializer=fail, {options}) as pool:
                print(pool.submit(abs, -4).exception())
        """,
        python=("-X", "dev", "-W", "error"),
    )
    assert script.wait() == 0
    assert "4 None\n" in script.out
    assert "mine" in script.out
    assert [line for line in script.err.splitlines() if "Warning" in line] == []
