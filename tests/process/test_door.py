"""The door: who may ask, what is told, and that nothing of it stays."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading

import pytest

from resilient_exec.process import door

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="abstract sockets")


@pytest.fixture
def answering():
    before = door._door.answer
    yield door.answer_with
    door.answer_with(before)


@pytest.fixture
def opened():
    door.hold()
    yield
    door.release()


def test_who_knocks_is_told_of_pools_and_stacks(opened, answering):
    answering(lambda: {"pools": ["one"]})
    told = door.ask(os.getpid(), os.geteuid())
    assert told["pools"] == ["one"]
    main = next(thread for thread in told["threads"] if thread["tid"] == threading.main_thread().native_id)
    assert any(function.endswith("test_who_knocks_is_told_of_pools_and_stacks") for _, _, function in main["frames"])
    assert os.getpid() in door.doors(os.geteuid())
    assert os.getpid() in door.doors(None)
    assert os.getpid() not in door.doors(os.geteuid() + 1)


def test_an_answer_that_fails_is_told_and_the_next_one_is_given(opened, answering):
    answering(lambda: 1 / 0)
    assert "ZeroDivisionError" in door.ask(os.getpid(), os.geteuid())["problem"]
    answering(lambda: {"pools": []})
    assert door.ask(os.getpid(), os.geteuid())["pools"] == []


def test_a_mute_visitor_keeps_nobody_out(opened):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as mute:
        mute.connect(f"\0resilient-exec:{os.geteuid()}:{os.getpid()}")
        assert door.ask(os.getpid(), os.geteuid())["pid"] == os.getpid()


def test_another_users_process_is_told_nothing(opened, monkeypatch):
    monkeypatch.setattr(door, "_user_of", lambda _: os.geteuid() + 1)
    assert door.ask(os.getpid(), os.geteuid()) == {}


LIFE = """
import os
from resilient_exec.process import door

def is_open():
    assert (os.getpid() in door.doors(None)) == bool(door.ask(os.getpid(), os.geteuid()))
    return os.getpid() in door.doors(None)

print(is_open())
door.hold()
door.hold()
door.release()
print(is_open())
door.release()
print(is_open(), os.listdir("/proc/self/task") == [str(os.getpid())])
"""


def test_it_is_open_from_the_first_worker_to_the_end_of_the_last():
    done = subprocess.run([sys.executable, "-c", LIFE], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["False", "True", "False", "True"]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # of a process with threads: that is tested here
def test_a_forked_child_has_none(opened):
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        os.write(writing, b"%d" % (door._door._socket is None))
        os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(reading, 1) == b"1"
    os.close(reading)
    os.close(writing)
    assert door.ask(os.getpid(), os.geteuid())
