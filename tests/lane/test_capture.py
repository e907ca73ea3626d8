"""Captured output: the last lines are there, whatever was printed, and the files stay small."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient_exec.lane import capture as module
from resilient_exec.lane.capture import Capture


@pytest.fixture
def capture():
    one = Capture()
    yield one
    one.close()


def write(capture, text, stream=0):
    os.write(capture.fds[stream], text.encode())


def test_each_stream_has_its_own_tail(capture):
    write(capture, "out\n")
    write(capture, "err\n", 1)
    assert capture.tails(1) == ("out\n", "err\n")


def test_a_file_over_its_cap_is_cut_and_its_last_lines_are_kept(capture):
    write(capture, "x" * 99 + "\n")
    write(capture, ("y" * 99 + "\n") * (module._CAP // 100 + 1))
    write(capture, "the last\n")
    capture.cut(1)
    assert os.fstat(capture.fds[0]).st_size == 0
    write(capture, "and more\n")
    out, _ = capture.tails(1)
    assert out.endswith("y\nthe last\nand more\n")
    assert len(out) <= module._TAIL
    assert out.startswith("y" * 99), "it begins with a whole line"


def test_a_file_below_its_cap_is_left_alone(capture):
    write(capture, "one\n")
    capture.cut(1)
    assert capture.tails(1)[0] == "one\n"
    assert os.fstat(capture.fds[0]).st_size == 4


def test_a_new_attempt_begins_with_nothing(capture):
    write(capture, "x" * (module._CAP + 1))
    capture.cut(1)
    write(capture, "rest")
    os.ftruncate(capture.fds[0], 0)  # the worker does so, when an attempt begins
    assert capture.tails(2) == ("", "")
    write(capture, "new")
    assert capture.tails(2)[0] == "new", "a writer that appends goes on at the new end"


def test_what_is_no_text_is_shown_as_far_as_it_can_be(capture):
    os.write(capture.fds[0], b"\xff\xfe ok\n")
    assert capture.tails(1)[0].endswith(" ok\n")


def test_a_line_longer_than_the_tail_is_shown_from_somewhere(capture):
    write(capture, "z" * (3 * module._TAIL))
    assert capture.tails(1)[0] == "z" * module._TAIL


@given(st.lists(st.one_of(st.text("ab\n", max_size=9), st.just(None)), max_size=40))
def test_however_it_is_cut_the_tail_is_the_end_of_all_that_was_printed(pieces):
    """``None``: a look in between."""
    capture = Capture()
    before, module._CAP = module._CAP, 16
    try:
        for piece in pieces:
            if piece is None:
                capture.cut(1)
            else:
                write(capture, piece)
        printed = "".join(piece for piece in pieces if piece is not None)
        assert capture.tails(1)[0] == printed
    finally:
        module._CAP = before
        capture.close()
