"""One runner at a time for a tournament's folder: living ones are respected, dead ones are not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from socket import gethostname

import pytest

import resilient_exec.adapters.negmas as adapter
from resilient_exec.adapters.negmas import folder_lock

ME = {"host": "here", "pid": 7, "started": 1.0, "since": "noon"}
OTHER = {**ME, "pid": 8}


@pytest.mark.parametrize(
    ("holder", "is_free", "lives", "words"),
    [
        ({}, True, False, None),
        ({}, None, False, None),
        ({}, False, False, "process unknown"),
        (OTHER, False, True, "process 8 on here runs this tournament (since noon); wait"),
        (OTHER, False, False, "process 8 on here"),
        (OTHER, True, False, None),  # it was killed
        (OTHER, True, True, "process 8 on here"),  # a file system without locks says that they are free
        (OTHER, None, True, "process 8 on here"),
        (OTHER, None, False, None),
        (ME, False, True, "another thread of this very process"),
        (ME, True, True, None),  # an earlier run of ours that could not remove it
        (ME, None, True, "process 7"),
        (
            {**OTHER, "host": "there"},
            True,
            False,
            "cannot be seen from here: if not, run this again with take_over=True (--take-over)",
        ),
        ({**ME, "host": "there"}, True, True, "cannot be seen from here"),
    ],
)
def test_whether_a_claim_stands(holder, is_free, lives, words):
    refusal = folder_lock.objection(holder, ME, is_free=is_free, lives=lives)

    assert refusal is None if words is None else words in refusal


def test_a_claim_names_its_holder_while_it_lasts_and_leaves_nothing(tmp_path):
    with folder_lock.claim(tmp_path):
        holder = json.loads((tmp_path / "resilient" / "lock").read_text())
        assert (holder["host"], holder["pid"]) == (gethostname(), os.getpid())
    assert list((tmp_path / "resilient").iterdir()) == []


HOLDER = """
import sys, time
from pathlib import Path
from resilient_exec.adapters.negmas.folder_lock import claim
with claim(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the folder."""
    process = subprocess.Popen([sys.executable, "-W", "ignore", "-c", HOLDER, tmp_path], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_living_holder_is_respected_and_a_killed_one_is_not(tmp_path, holder):
    with (
        pytest.raises(adapter.CheckFailed, match=f"in use: process {holder.pid} on .* wait until it has ended"),
        folder_lock.claim(tmp_path),
    ):
        pass
    assert (tmp_path / "resilient" / "lock").exists()

    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with folder_lock.claim(tmp_path):
        assert json.loads((tmp_path / "resilient" / "lock").read_text())["pid"] == os.getpid()


def test_a_number_that_was_used_again_is_no_holder(tmp_path, holder):
    """After a restart of the machine, whoever has the dead holder's number now is somebody else."""
    folder = tmp_path / "other"
    (folder / "resilient").mkdir(parents=True)
    lock = {"host": gethostname(), "pid": holder.pid, "started": 1.0, "since": "long ago"}
    (folder / "resilient" / "lock").write_text(json.dumps(lock))

    with folder_lock.claim(folder):
        pass


def test_another_host_s_claim_is_not_judged_and_its_file_is_named(tmp_path):
    path = tmp_path / "resilient" / "lock"
    path.parent.mkdir()
    path.write_text(json.dumps({"host": "node-7.example", "pid": 1, "started": 1.0, "since": "noon"}))

    with pytest.raises(adapter.CheckFailed, match=r"process 1 on node-7.example .*resilient/lock; whether it still"):
        folder_lock.claim(tmp_path).__enter__()
    assert path.exists()


def test_another_host_s_claim_is_taken_over_on_demand_and_that_host_does_not_remove_ours(tmp_path):
    path = tmp_path / "resilient" / "lock"
    path.parent.mkdir()
    path.write_text(json.dumps({"host": "node-7.example", "pid": 1, "started": 1.0, "since": "noon"}))
    theirs = path.stat().st_ino

    with path.open() as old, folder_lock.claim(tmp_path, take_over=True):
        assert json.loads(path.read_text())["host"] == gethostname()
        assert path.stat().st_ino != theirs
        assert not folder_lock._is_same_file(path, old.fileno())  # by which a holder knows whether to remove it
        with pytest.raises(adapter.CheckFailed, match="another thread"), folder_lock.claim(tmp_path, take_over=True):
            pass
    assert list((tmp_path / "resilient").iterdir()) == []


def test_a_living_holder_on_this_host_is_not_taken_over(tmp_path, holder):
    with (
        pytest.raises(adapter.CheckFailed, match="wait until it has ended"),
        folder_lock.claim(tmp_path, take_over=True),
    ):
        pass
    assert json.loads((tmp_path / "resilient" / "lock").read_text())["pid"] == holder.pid


@pytest.mark.parametrize("is_free", [False, None])
def test_a_lock_that_is_taken_or_a_process_that_lives_is_stronger_than_the_wish(is_free):
    assert folder_lock.objection(OTHER, ME, is_free=is_free, lives=True, take_over=True) is not None
    there = {**OTHER, "host": "there"}
    assert (folder_lock.objection(there, ME, is_free=is_free, lives=False, take_over=True) is None) == (is_free is None)


def test_a_claim_that_a_crash_cut_short_is_none(tmp_path):
    (tmp_path / "resilient").mkdir()
    (tmp_path / "resilient" / "lock").write_text('{"host": "no')

    with folder_lock.claim(tmp_path):
        pass


def test_of_many_threads_at_once_one_holds_at_a_time(tmp_path):
    """Each takes it, looks whether it is alone, and gives it back: no two meet, also where files come and go."""
    inside, most, taken = [], [], []

    def run():
        for _ in range(50):
            try:
                with folder_lock.claim(tmp_path):
                    inside.append(1)
                    most.append(len(inside))
                    taken.append(1)
                    inside.pop()
            except adapter.CheckFailed:
                pass

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert set(most) == {1}
    assert taken
    assert list((tmp_path / "resilient").iterdir()) == []
