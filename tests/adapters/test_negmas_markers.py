"""negmas' marks of who runs which world: which are cleared, which stand; and what a dead attempt leaves."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from socket import gethostname

import pytest

from resilient_exec.adapters.negmas.worlds import markers


@pytest.fixture
def folder(tmp_path):
    """A world set's folder with a place for markers."""
    (tmp_path / "set" / "attempts" / "_running").mkdir(parents=True)
    return tmp_path / "set"


@pytest.fixture
def stranger():
    """A living process that is none of ours."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield process
    process.kill()
    process.wait()


def mark(folder, pid, host=None):
    """As negmas does it."""
    path = folder / "attempts" / "_running" / f"run{host or gethostname()}.{pid}"
    path.write_text("whatever")
    return path


def dead_pid():
    """Of a process that has been and gone."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_dead_process_s_marker_is_cleared(folder):
    path = mark(folder, dead_pid())

    assert markers.clear_markers(folder) == []
    assert not path.exists()


def test_a_zombie_s_marker_is_cleared(folder):
    """It is dead, though its number is still taken."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    path = mark(folder, process.pid)

    assert markers.clear_markers(folder) == []
    assert not path.exists()
    process.wait()


def test_a_living_stranger_s_marker_stands(folder, stranger):
    path = mark(folder, stranger.pid)
    (standing,) = markers.clear_markers(folder)

    assert (standing.pid, standing.host, str(standing)) == (
        stranger.pid,
        gethostname(),
        f"process {stranger.pid} on {gethostname()}",
    )
    assert path.exists()


def test_a_number_that_was_used_again_proves_nothing(folder, stranger):
    """The marker is older than the process of that number."""
    path = mark(folder, stranger.pid)
    long_ago = time.time() - 3600
    os.utime(path, (long_ago, long_ago))

    assert markers.clear_markers(folder) == []
    assert not path.exists()


def test_another_host_s_marker_stands_even_where_its_number_is_free_here(folder):
    path = mark(folder, dead_pid(), host="node-7.cluster.example")

    assert [str(m) for m in markers.clear_markers(folder)] == [f"process {path.suffix[1:]} on node-7.cluster.example"]
    assert path.exists()
    assert markers.clear_markers(folder, take_over=True) == []  # somebody who knows has said so
    assert not path.exists()


def test_a_marker_whose_name_says_nothing_stands(folder):
    path = folder / "attempts" / "_running" / "running"
    path.touch()

    for take_over in (False, True):
        assert [str(m) for m in markers.clear_markers(folder, take_over=take_over)] == ["running"]
    assert path.exists()


def test_a_worker_that_the_pool_knows_to_be_dead_needs_no_further_proof(folder, stranger):
    path = mark(folder, stranger.pid)

    assert markers.clear_markers(folder, dead=[stranger.pid]) == []
    assert not path.exists()


def test_this_process_s_own_marker_is_cleared(folder):
    """Left by a world that raised here, earlier: whoever asks is not running it now."""
    path = mark(folder, os.getpid())

    assert markers.clear_markers(folder) == []
    assert not path.exists()
    markers.clear_own_marker(folder)  # and there need not be one


def test_a_folder_without_markers_is_free(tmp_path):
    assert markers.clear_markers(tmp_path / "never run") == []


def world(folder, name="w.00", log_folder=None):
    """A world's configuration, as far as it matters here."""
    return {"__dir_name": str(folder / name), "world_params": {"log_folder": str(log_folder or folder / name)}}


def test_a_first_attempt_finds_the_folder_as_it_is(folder):
    (folder / "w.00").mkdir()
    (folder / "w.00" / "mine.txt").touch()
    markers.clear_leftovers([world(folder)])

    assert (folder / "w.00" / "mine.txt").exists()


def test_a_later_attempt_finds_the_folders_of_its_worlds_empty_and_nothing_else_touched(folder, tmp_path):
    for name in ("w.00", "w.01", "logs"):
        (folder / name / "deep").mkdir(parents=True)
        (folder / name / "deep" / "stats.csv").write_text("half a li")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (folder / "attempts" / "att_host.1").touch()
    (folder / "notes.txt").touch()
    markers.clear_leftovers([world(folder, "w.00", folder / "logs"), world(folder, "w.01", elsewhere)])

    left = sorted(path.name for path in folder.iterdir())
    assert left == ["attempts", "notes.txt"]
    assert elsewhere.exists()
    assert markers.count_attempts(folder) == 1


def test_a_log_that_is_still_open_is_closed_before_its_file_goes(folder):
    """negmas names loggers after files; the next attempt would write into a file without a name."""
    name = str(folder / "w.00" / "log.txt")
    (folder / "w.00").mkdir()
    (folder / "attempts" / "att_host.1").touch()
    logger = logging.getLogger(name)
    logger.addHandler(logging.FileHandler(name))
    markers.clear_leftovers([world(folder)])

    assert logger.handlers == []
