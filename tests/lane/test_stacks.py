"""Taking the stacks of a worker: what is written slowly, never, or by a handler that has not begun yet."""

from __future__ import annotations

import os
import threading
import time

import pytest

from resilient_exec.lane import stacks
from resilient_exec.wire.register import anonymous_file

NUMBER = 10


class Written:
    """A worker played by a thread: its handler writes ``parts`` with a pause before each."""

    pid = 0

    def __init__(self, monkeypatch, parts, pause=0.0, blocking=frozenset()):
        self.file = anonymous_file("stacks")
        self.blocking, self.is_pending, self.in_handler = blocking, False, False
        self._parts, self._pause = parts, pause
        self._thread = threading.Thread(target=self._handle)
        monkeypatch.setattr(stacks, "same_file", lambda *_: True)
        monkeypatch.setattr(stacks, "catches", lambda *_: True)
        monkeypatch.setattr(stacks, "signal_state", self.state)

    def stacks(self):
        return stacks.Stacks(self, NUMBER, file=self.file, there=3)

    is_shown = True

    def state(self, _pid, _number):
        return self.is_pending and self.is_shown, self.blocking | ({"7"} if self.in_handler else set())

    def is_gone(self):
        return False

    def signal(self, _number):
        self.is_pending = True
        self._thread.start()

    def _handle(self):
        if self._parts is None:
            return
        for part in self._parts:
            time.sleep(self._pause)
            self.in_handler, self.is_pending = True, False
            os.write(self.file, part)
        self.in_handler = False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._thread.join()
        os.close(self.file)


def test_what_is_written_with_long_pauses_in_the_middle_of_a_line_is_read_to_its_end(monkeypatch):
    """As on a loaded machine, where the thread that writes stands still for longer than any guess of ours."""
    with Written(monkeypatch, [b"Thread 0x", b"7f (most", b" recent)\n"], pause=0.25) as worker:
        assert worker.stacks().take(0.5) == "Thread 0x7f (most recent)\n"


def test_a_signal_that_is_taken_up_and_does_not_show_yet_is_waited_for(monkeypatch):
    """The kernel shows it neither as pending nor as handled for an instant; read then, the text would be cut short."""
    with Written(monkeypatch, [b"all ", b"of it\n"], pause=0.1) as worker:
        monkeypatch.setattr(worker, "is_shown", False)
        assert worker.stacks().take(5) == "all of it\n"


def test_a_handler_that_never_begins_is_given_up(monkeypatch):
    with Written(monkeypatch, None) as worker:
        assert worker.stacks().take(0.05) == ""


def test_a_thread_that_blocks_the_signal_itself_is_not_taken_for_its_handler(monkeypatch):
    with Written(monkeypatch, [b"all\n"], blocking=frozenset({"5"})) as worker:
        begin = time.monotonic()
        assert worker.stacks().take(600) == "all\n"
        assert time.monotonic() - begin < 600


@pytest.mark.parametrize("what", ["same_file", "catches"])
def test_nothing_is_asked_of_a_worker_whose_task_took_the_file_or_the_handler_away(monkeypatch, what):
    with Written(monkeypatch, [b"text"]) as worker:
        monkeypatch.setattr(stacks, what, lambda *_: False)
        assert worker.stacks().take(0.05) == ""
        assert not worker.is_pending
        worker.signal(NUMBER)
