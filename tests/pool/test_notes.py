"""``task_context().note``: what a task was at survives its process."""

from __future__ import annotations

import os
import threading

import pool_notes as tasks
import pytest

from resilient_exec import TaskTimeout, WorkerDied, task_context
from resilient_exec.evidence import REGISTER_SIZE, Register, anonymous_file, pack_note, read_note


@pytest.fixture
def fd():
    descriptor = anonymous_file("register", REGISTER_SIZE)
    yield descriptor
    os.close(descriptor)


def test_the_last_note_survives_sigkill_and_is_in_the_dossier(lone):
    error = lone.submit(tasks.note_and_die, "at step 7: ünïcode").exception(60)
    assert isinstance(error, WorkerDied)
    assert [attempt.note for attempt in error.dossier.attempts] == ["at step 7: ünïcode"] * len(error.dossier.attempts)
    assert "the task noted last: at step 7: ünïcode" in str(error.dossier)


def test_a_note_is_not_taken_for_that_of_the_next_attempt_in_the_same_worker(lone):
    assert lone.submit(tasks.note_and_return, "mine").result(60) == "mine"
    error = lone.options(retry=1).submit(tasks.die).exception(60)
    assert [attempt.note for attempt in error.dossier.attempts] == [""]


def test_a_thread_that_outlives_its_attempt_notes_nothing(lone):
    lone.submit(tasks.note_from_the_past).result(60)
    error = lone.options(retry=1).submit(tasks.die_after_the_late_note).exception(60)
    assert [attempt.note for attempt in error.dossier.attempts] == [""]


def test_what_a_task_noted_before_it_raised_or_hung_is_known_too(lone):
    raised = lone.submit(tasks.note_and_raise, "raising")
    assert isinstance(raised.exception(60), ValueError)
    assert raised.dossier.attempts[-1].note == "raising"
    hung = lone.options(timeout=0.3, retry=1).submit(tasks.note_and_hang, "hanging").exception(60)
    assert isinstance(hung, TaskTimeout)
    assert hung.dossier.attempts[-1].note == "hanging"


def test_outside_a_pool_a_note_does_nothing():
    task_context().note("nobody reads this")


def test_a_note_that_is_half_written_leaves_the_one_before(fd):
    register = Register(fd)
    register.note(pack_note("whole"))
    packed = pack_note("a much longer note, of which half was written when the process ended")
    os.pwrite(fd, packed[: len(packed) // 2], 1024 + 8 + 1532)  # into the place whose turn it is
    assert read_note(fd) == "whole"


def test_a_note_that_two_threads_have_mangled_is_none(fd):
    register = Register(fd)
    register.note(pack_note("one"))
    os.pwrite(fd, b"x", 1024 + 8 + 6)
    assert read_note(fd) == ""


def test_a_long_note_is_cut_between_characters_and_any_text_is_taken(fd):
    register = Register(fd)
    register.note(pack_note("ä" * 5000))
    assert read_note(fd) == "ä" * 763
    register.note(pack_note("\ud800 surrogate"))
    assert read_note(fd) == "? surrogate"
    register.note(pack_note(""))
    assert read_note(fd) == ""


def test_a_reader_sees_whole_notes_only_while_they_are_written(fd):
    register = Register(fd)
    notes = [pack_note(letter * n) for letter, n in (("a", 1500), ("b", 3), ("c", 800))]
    done = threading.Event()

    def write():
        while not done.is_set():
            for note in notes:
                register.note(note)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        seen = {read_note(fd) for _ in range(600)}
    finally:
        done.set()
        writer.join()
    assert seen <= {"a" * 1500, "b" * 3, "c" * 800, ""}


def test_the_note_does_not_touch_what_stands_beside_it(fd):
    register = Register(fd)
    register.begin(3)
    register.note_scratch("/tmp/" + "p" * 300)
    for text in ("x" * 4000, "y" * 4000):
        register.note(pack_note(text))
    assert register.scratch() == "/tmp/" + "p" * 300
    assert os.pread(fd, 8, 0) == (3).to_bytes(8, "little")
