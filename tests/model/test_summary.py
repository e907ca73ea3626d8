"""The summary of arguments: short, and no code of theirs is run."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient_exec.model.summary import summary


class Trap:
    """Whatever is asked of it, it says so."""

    def __repr__(self):
        raise AssertionError("repr was called")

    def __hash__(self):
        raise AssertionError("hash was called")

    __str__ = __len__ = __bool__ = __iter__ = __call__ = __repr__

    def __getattribute__(self, name):
        raise AssertionError(f"{name} was asked for")

    def __eq__(self, _):
        raise AssertionError("it was compared")


class LoudList(list):
    def __repr__(self):
        raise AssertionError("repr was called")

    __len__ = __iter__ = __repr__


@pytest.mark.parametrize(
    ("args", "kwargs", "text"),
    [
        ((), {}, ""),
        ((7, "fast", None, 1.5), {"deep": True}, "7, 'fast', None, 1.5, deep=True"),
        (([1, 2], (3,)), {}, "[1, 2], (3)"),
        ((list(range(9)), {"a": 1}, {2}, frozenset()), {}, "<list of 9>, <dict of 1>, <set of 1>, <frozenset of 0>"),
        (([[1, 2]],), {}, "[<list of 2>]"),
        ((b"12345",), {}, "<bytes of 5>"),
        (("x" * 100,), {}, f"'{'x' * 40}'… (100 characters)"),
        ((len, Trap, threading.Lock()), {}, "<len>, <Trap>, <_thread.lock>"),
        (tuple(range(9)), {}, "0, 1, 2, 3, 4, 5, … 3 more"),
        ((1,), dict.fromkeys("abcdefg", 0), "1, a=0, b=0, c=0, d=0, e=0, … 2 more"),
    ],
)
def test_it_is_what_a_person_would_write_down(args, kwargs, text):
    assert summary(args, kwargs) == text


def test_no_code_of_an_argument_is_run():
    text = summary((Trap(), LoudList([1]), [Trap()]), {"trap": Trap()})
    assert text.count("Trap>") == 3
    assert "LoudList>" in text


def test_a_huge_number_is_not_written_out():
    assert summary((1 << 1_000_000,), {}) == "<int of 1000001 bits>"


@given(st.lists(st.recursive(st.none() | st.integers() | st.text() | st.binary(), st.lists), max_size=9))
def test_it_is_always_short(args):
    assert len(summary(args, {})) < 1_500
