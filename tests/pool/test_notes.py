"""``task_context().note``: what a task was at survives its process."""

from __future__ import annotations

import os
import threading

import pool_notes as tasks
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient_exec import TaskTimeout, WorkerDied, task_context
from resilient_exec.wire.register import (
    REGISTER_SIZE,
    SMALL_REGISTER,
    WHICH,
    Note,
    Notes,
    Register,
    View,
    anonymous_file,
    unpack_note,
)


def noted(fd):
    """What stands there as the note."""
    view = View(fd)
    try:
        return view.note()
    finally:
        view.close()


@pytest.fixture(params=[REGISTER_SIZE, SMALL_REGISTER])
def fd(request):
    descriptor = anonymous_file("register", request.param)
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
    notes = Register(fd).notes
    notes.hold(Note("whole"))
    late = Note("a much longer note, of which half was written when the process ended")
    place = notes.put(late)
    os.pwrite(fd, b"\0" * 30, place + 10)
    assert noted(fd) == "whole"


def test_a_note_that_two_threads_have_mangled_is_none(fd):
    register, note = Register(fd), Note("one")
    register.notes.hold(note)
    os.pwrite(fd, b"x", note.place + 6)
    assert noted(fd) == ""


def test_the_number_beside_the_notes_is_the_end_of_those_that_ask_for_it(fd):
    notes = Register(fd).notes
    step, plain = Note("step ", numbered=True), Note("step ")
    for number, told in ((-1, "-1"), (0, "0"), (32767, "32767"), (32768, "32767")):
        notes.number(number)
        notes.hold(step)
        assert noted(fd) == f"step {told}"
        notes.hold(plain)
        assert noted(fd) == "step "


def test_what_stands_in_the_place_of_the_number_is_not_followed_out_of_the_page(fd):
    for number in (1, 1024, 1031, os.fstat(fd).st_size - 4, os.fstat(fd).st_size - 1, 65535):
        os.pwrite(fd, number.to_bytes(2, "little"), 2 * WHICH)
        assert noted(fd) == ""


@given(st.data(), st.sampled_from([REGISTER_SIZE, SMALL_REGISTER]))
def test_a_reader_finds_the_note_before_until_the_next_one_holds(data, size):
    page = bytearray(size)
    notes, known, expected = Notes(page), [], ""
    for _ in range(data.draw(st.integers(1, 60))):
        if known and data.draw(st.booleans()):
            text, note = data.draw(st.sampled_from(known))
        else:
            text = data.draw(st.text(max_size=40)) * data.draw(st.integers(0, 60))
            note = Note(text)
            known.append((text, note))
        place = note.place or notes.put(note)
        assert unpack_note(bytes(page)) == expected, "written, but it does not hold yet"
        notes.which[WHICH] = place
        expected = unpack_note(bytes(page))
        assert text.encode(errors="replace").decode().startswith(expected)
        assert expected or not text, "it is not lost"
    notes.clear()
    assert unpack_note(bytes(page)) == ""
    assert not any(note.place for _, note in known)


def test_a_long_note_is_cut_between_characters_and_any_text_is_taken(fd):
    register = Register(fd)
    register.notes.hold(Note("ä" * 5000))
    assert noted(fd) == "ä" * 763
    register.notes.hold(Note("\ud800 surrogate"))
    assert noted(fd) == "? surrogate"
    register.notes.hold(Note(""))
    assert noted(fd) == ""


def test_a_reader_sees_whole_notes_only_while_they_are_written(fd):
    register = Register(fd)
    notes = [Note(letter * n) for letter, n in (("a", 1500), ("b", 3), ("c", 800))]
    done = threading.Event()

    def write():
        while not done.is_set():
            for note in notes:
                register.notes.hold(note)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        seen = {noted(fd) for _ in range(1500)}
    finally:
        done.set()
        writer.join()
    assert seen <= {"a" * 1500, "b" * 3, "c" * 800, ""}


def test_the_note_does_not_touch_what_stands_beside_it(fd):
    register = Register(fd)
    register.begin(3, 0.0)
    register.note_scratch("/tmp/" + "p" * 300)
    for text in ("x" * 4000, "y" * 4000):
        register.notes.hold(Note(text))
    assert register.scratch() == "/tmp/" + "p" * 300
    assert os.pread(fd, 8, 0) == (3).to_bytes(8, "little")
