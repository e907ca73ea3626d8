"""What one task does to its standard streams and to its scratch directory is nobody else's trouble."""

from __future__ import annotations

import os
import stat
import sys
import tempfile

import pool_streams as tasks
import pytest
from pool_limits import use_scratch
from pool_wait import lines, until, wait_lines

from resilient_exec import WorkerDied

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looked at by Linux's own means")


@pytest.fixture
def captured(make_pool, monkeypatch):
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # it would hide what is tested here
    return make_pool(1, output="capture", retry=1)


@pytest.mark.parametrize("output", ["capture", "discard", "inherit"])
@pytest.mark.parametrize(
    "fn",
    [
        tasks.close_stdout,
        tasks.close_stdout_object,
        tasks.replace_stdout,
        tasks.detach_stdout,
        tasks.wrap_stdout,
        tasks.delete_stdout,
    ],
)
def test_a_task_that_closes_its_stdout_does_not_have_the_next_one_print_into_its_own_file(
    make_pool, tmp_path, output, fn
):
    pool = make_pool(1, output=output, retry=1)
    pool.submit(fn).result(60)
    future = pool.submit(tasks.print_into_own_file_then_die, str(tmp_path / "data"))
    assert isinstance(future.exception(60), WorkerDied)
    assert (tmp_path / "data").read_text() == "data"
    printed = future.dossier.attempts[0].stdout
    assert printed == ("printed\nby C\n" if output == "capture" else "")


def test_what_c_code_prints_comes_out_in_its_own_attempt(captured):
    captured.submit(tasks.print_by_c, "by C\n").result(60)
    future = captured.submit(tasks.say_half_and_die)
    assert isinstance(future.exception(60), WorkerDied)
    assert future.dossier.attempts[0].stdout == "progress: 41 %"


def test_what_a_task_has_left_behind_may_print_for_ever_and_fills_nothing(captured):
    pid = captured.submit(tasks.leave_printer).result(60)
    until(lambda: tasks.captured_bytes(pid) > 1 << 20)
    until(lambda: tasks.captured_bytes(pid) < 1 << 20, why="the file of an idle worker is never cut")
    until(lambda: tasks.captured_bytes(pid) > 1 << 20)
    until(lambda: tasks.captured_bytes(pid) < 1 << 20, why="it was cut once only")


# -- scratch directories -----------------------------------------------------------------------------------------------


def test_a_link_in_the_place_of_a_scratch_directory_is_removed_and_what_it_leads_to_is_not_touched(lone, tmp_path):
    target = tmp_path / "precious"
    (target / "inner").mkdir(parents=True)
    (target / "inner").chmod(0o755)
    (target / "file").write_text("text")
    folder = lone.submit(tasks.put_link_in_place, str(target)).result(60)
    until(lambda: not os.path.lexists(folder))
    assert (target / "file").read_text() == "text"
    assert stat.S_IMODE((target / "inner").stat().st_mode) == 0o755


def test_a_file_in_its_place_is_removed(lone):
    folder = lone.submit(tasks.put_file_in_place).result(60)
    until(lambda: not os.path.exists(folder))


def test_a_deep_one_is_removed_and_costs_the_task_nothing(lone):
    """Deeper than Python's own recursion, and than the longest path."""
    future = lone.submit(tasks.make_deep, 3_000)
    folder = future.result(120)
    assert future.attempts == 1
    until(lambda: not os.path.exists(folder))


def test_the_children_and_threads_of_a_task_share_its_directory_and_nothing_of_it_is_left(lone):
    assert lone.submit(tasks.ask_in_child).result(60) == ["from the child"]
    (folder,) = lone.submit(tasks.ask_in_threads, 8).result(60)
    until(lambda: not os.path.exists(folder))


def test_a_task_that_worked_in_it_does_not_leave_the_next_one_in_a_folder_that_is_gone(lone):
    before = lone.submit(tasks.where).result(60)
    assert lone.submit(tasks.work_in_it).result(60) != before
    assert lone.submit(tasks.where).result(60) == before


def test_a_thread_that_asks_too_late_is_not_given_the_next_ones_directory(make_pool, tmp_path):
    pool = make_pool(1)
    told = str(tmp_path / "told")
    first = pool.submit(tasks.ask_late, told).result(60)
    wait_lines(told, 1)
    assert lines(told) == [first]
    path = str(tmp_path / "scratch")
    pool.submit(use_scratch, path, "return").result(60)
    assert lines(path) != [first]
    pool.shutdown()
    assert not [name for name in os.listdir(tempfile.gettempdir()) if name == os.path.basename(first)]
