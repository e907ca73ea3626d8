"""Processes as the kernel knows them: identity, death, exit codes, trees and marks."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from lane_harness import alive, linux_only, until

from resilient_exec.process import tree as process
from resilient_exec.process.tree import (
    Identity,
    Watch,
    end_tree,
    identify,
    is_alive,
    marked,
    send_signal,
    signal_state,
    tree,
)


@contextmanager
def program(code="import time; time.sleep(3600)", **kwargs):
    """A child process that runs Python code."""
    child = subprocess.Popen([sys.executable, "-S", "-c", code], stdout=subprocess.PIPE, **kwargs)
    try:
        yield child
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


@contextmanager
def watched(child):
    watch = Watch(child.pid)
    try:
        yield watch
    finally:
        watch.close()


@pytest.mark.parametrize(
    ("code", "exitcode"),
    [
        ("pass", 0),
        ("import os; os._exit(3)", 3),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", -15),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -9),
    ],
)
@linux_only
def test_a_watch_knows_the_exit_code_of_a_dead_process_that_nobody_has_reaped(code, exitcode):
    with program(code) as child, watched(child) as watch:
        assert watch.wait(60)
        assert watch.is_gone()
        assert watch.exitcode() == exitcode
        assert watch.exitcode() == exitcode, "it only looked"
        assert child.wait() == exitcode, "whoever started it still reaps it"
        assert watch.exitcode() is None
        assert watch.is_gone()


def test_a_watch_of_a_living_process_waits_no_longer_than_it_is_told_to():
    with program() as child, watched(child) as watch:
        assert not watch.is_gone()
        assert not watch.wait(0.01)
        watch.signal(signal.SIGKILL)
        assert watch.wait(60)


@linux_only
def test_a_watch_turns_readable_at_the_death():
    with program() as child, watched(child) as watch:
        assert not select.select([watch.fileno()], [], [], 0)[0]
        child.kill()
        assert select.select([watch.fileno()], [], [], 60)[0]


def test_a_watch_without_a_pidfd_tells_the_same_by_asking(monkeypatch):
    monkeypatch.delattr(os, "pidfd_open", raising=False)
    with program() as child, watched(child) as watch:
        assert watch.fileno() == -1
        assert watch.poll_interval > 0
        assert not watch.is_gone()
        assert not watch.wait(0.01)
        watch.signal(signal.SIGKILL)
        assert watch.wait(60)
        assert watch.is_gone()
        assert watch.exitcode() is None


def test_a_watch_of_a_process_that_is_dead_and_reaped_says_so():
    with program("pass") as child:
        child.wait()
        with watched(child) as watch:
            assert watch.is_gone()
            assert watch.wait(0)
            watch.signal(signal.SIGKILL)


def test_an_identity_is_not_that_of_another_process_with_the_same_pid():
    with program() as child:
        who = identify(child.pid)
        assert is_alive(who)
        other = Identity(who.pid, who.started - 1)
        assert not is_alive(other)
        send_signal(other, signal.SIGKILL)
        assert child.poll() is None
    assert identify(child.pid) is None
    assert not is_alive(who)


@linux_only
def test_a_zombie_has_an_identity_and_is_not_alive():
    with program("pass") as child:
        until(lambda: process.state(child.pid) == "Z")
        assert identify(child.pid) is not None
        assert not is_alive(identify(child.pid))


@linux_only
def test_a_process_name_with_spaces_and_brackets_does_not_confuse_the_reading_of_its_state(tmp_path):
    odd = tmp_path / "a ) R 1 (b"
    odd.symlink_to("/bin/sleep")
    with subprocess.Popen([str(odd), "3600"]) as child:
        try:
            until(lambda: odd.name[:15] in Path(f"/proc/{child.pid}/stat").read_text())
            until(lambda: process.state(child.pid) == "S")
            assert is_alive(identify(child.pid))
        finally:
            child.kill()


GRANDCHILD = """
import os, sys, time
if os.fork() == 0:
    print(os.getpid(), flush=True)
time.sleep(3600)
"""


@pytest.mark.parametrize("how", ["by /proc", "by psutil"])
def test_a_tree_holds_all_descendants_and_not_the_root(how, monkeypatch):
    monkeypatch.setattr(process, "ON_LINUX", process.ON_LINUX and how == "by /proc")
    with program(GRANDCHILD) as child:
        grandchild = int(child.stdout.readline())
        found = {who.pid for who in tree(child.pid)}
        assert found == {grandchild}
        assert {child.pid, grandchild} <= {who.pid for who in tree(os.getpid())}
        end_tree(lambda: tree(child.pid), 60)
        assert not alive(grandchild)
    assert tree(child.pid) == set()


@linux_only
def test_children_of_all_threads_are_in_the_tree():
    with program() as first:
        started = []
        release = threading.Event()

        def start():
            with program() as second:
                started.append(second)
                release.wait(60)

        thread = threading.Thread(target=start)
        thread.start()
        try:
            until(lambda: started)
            assert {first.pid, started[0].pid} <= {who.pid for who in tree(os.getpid())}
        finally:
            release.set()
            thread.join()


@linux_only
def test_a_mark_is_found_by_how_a_variables_name_begins_in_a_process_and_in_what_inherits_from_it():
    with (
        program(GRANDCHILD, env={"MARK_1_a": "1"}) as child,
        program(env={"MARK_2_b": "1", "X": "MARK_1_", "AMARK_1_": "1"}) as other,
    ):
        grandchild = int(child.stdout.readline())
        try:
            assert {who.pid for who in marked("MARK_1_")} == {child.pid, grandchild}
            assert {who.pid for who in marked("MARK_2_b")} == {other.pid}
            assert {who.pid for who in marked("MARK_")} == {child.pid, grandchild, other.pid}
            assert marked("MARK_3") == set()
        finally:
            os.kill(grandchild, signal.SIGKILL)


@linux_only
def test_a_mark_is_found_in_a_program_that_has_just_been_started():
    """Before it has its environment from the kernel: of a thousand some three were not found on a busy machine."""
    for number in range(50):
        with program(env={f"MARK_{number}_": ""}) as child:
            assert {who.pid for who in marked(f"MARK_{number}_")} == {child.pid}


@linux_only
@pytest.mark.parametrize(("ends", "is_found"), [(True, True), (False, False)])
def test_a_process_between_two_programs_is_waited_for_but_not_for_ever(tmp_path, monkeypatch, ends, is_found):
    folder = tmp_path / "123"
    folder.mkdir()
    (folder / "exe").symlink_to("/bin/true")
    stat = ["R", *map(str, range(4, 51)), "0", "0"]
    (folder / "stat").write_text(f"123 (a program) {' '.join(stat)}")
    (folder / "environ").touch()
    monkeypatch.setattr(process, "_PROC", str(tmp_path))
    monkeypatch.setattr(process, "_EXEC_TIMEOUT", 60.0 if ends else 0.01)
    look = process._read

    def read(name):
        text = look(name)
        if ends and name.endswith("stat"):  # behind this look the kernel has it all in place
            (folder / "environ").write_bytes(b"A=1\0MARK_1=\0")
        return text

    monkeypatch.setattr(process, "_read", read)
    assert {who.pid for who in marked("MARK_")} == ({123} if is_found else set())


@linux_only
def test_a_process_without_an_environment_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(process, "_EXEC_TIMEOUT", 1e9)
    with program("print(flush=True)\nimport time; time.sleep(3600)", env={}) as child:
        child.stdout.readline()
        assert marked("MARK_") == set()


def test_killing_a_tree_kills_what_is_stopped_and_what_ignores_sigterm():
    code = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint(flush=True)\ntime.sleep(3600)"
    with program(code) as one, program(code) as two:
        one.stdout.readline()
        two.stdout.readline()
        one.send_signal(signal.SIGSTOP)
        left = end_tree(lambda: {identify(one.pid), identify(two.pid)}, 60)
        assert left == set()
        assert (one.wait(), two.wait()) == (-9, -9)


def test_killing_a_tree_gives_up_after_its_time_and_says_who_lives(monkeypatch):
    monkeypatch.setattr(process, "send_signal", lambda _who, _number: None)
    with program() as child:
        who = identify(child.pid)
        began = time.monotonic()
        assert end_tree(lambda: {who}, 0.05) == {who}
        assert time.monotonic() - began >= 0.05


def test_killing_nothing_is_no_error():
    assert end_tree(set, 1) == set()


@linux_only
def test_a_signal_is_told_to_be_pending_and_by_which_threads_it_is_blocked(tmp_path):
    code = (
        "import signal, sys, time\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])\n"
        "print(flush=True)\nsys.stdin.readline()\n"
        "signal.signal(signal.SIGUSR1, lambda *_: None)\n"
        "signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])\n"
        "print(flush=True)\ntime.sleep(3600)"
    )
    with program(code, stdin=subprocess.PIPE) as child:
        child.stdout.readline()
        assert signal_state(child.pid, signal.SIGUSR1) == (False, {str(child.pid)})
        assert signal_state(child.pid, signal.SIGUSR2) == (False, set())
        child.send_signal(signal.SIGUSR1)
        assert signal_state(child.pid, signal.SIGUSR1) == (True, {str(child.pid)})
        child.stdin.write(b"\n")
        child.stdin.close()
        child.stdout.readline()
        until(lambda: signal_state(child.pid, signal.SIGUSR1) == (False, set()))
    assert signal_state(child.pid, signal.SIGUSR1) == (False, set())
