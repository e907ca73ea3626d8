"""What a worker holds: serials and numbers of attempts, and of the calls of chunks."""

from __future__ import annotations

import itertools

from resilient_exec.core.chunks import Group, Pace
from resilient_exec.lane.held import Holdings
from resilient_exec.model.task import Task


def task(number, calls=0):
    return Task(number, None, calls=calls, group=Group(number, Pace()) if calls else None)


def filled(*sizes):
    held, made, number = Holdings(), [], 100
    for size in sizes:
        one = held.make(number, 1, task(number, size))
        held.append(one)
        made.append(one)
        number += size or 1
    return held, made


def test_each_has_a_mark_of_its_own_and_each_call_a_serial():
    _, made = filled(0, 5, 0, 200, 1, 0)
    assert len({one.first % 64 for one in made}) == len(made)
    spans = [(one.serial, one.last) for one in made]
    assert all(last < start for (_, last), (start, _) in itertools.pairwise(spans))


def test_what_has_an_outcome_is_taken_off_the_front():
    held, (chunk, other) = filled(3, 0)
    held.advance(chunk, 2)
    assert (chunk.number, chunk.serial, chunk.calls) == (102, chunk.first + 2, 1)
    assert held.of(chunk.first) is None
    held.advance(chunk)
    assert held.head is other


def test_a_call_is_found_by_its_number_and_attempt():
    held, (chunk, other) = filled(5, 0)
    assert held.find(102, 1, 0, 0).serial == chunk.first + 2
    assert held.find(102, 2, 0, 0) is None
    assert held.find(105, 1, 0, 0) is other
    assert held.find(99, 1, 3, 0).number == 100, "the next one of those that are there"
    assert held.find(100, 1, 5, chunk.first + 3).number == 103, "the one that has begun"


def test_a_chunk_that_has_not_begun_is_taken_back_whole(registers):
    _, view = registers
    held, (chunk, _) = filled(5, 0)
    assert held.take_back([(103, 1)], view) == [(100, 1)]
    assert held.of(chunk.serial) is None


def test_of_a_chunk_that_has_begun_the_rest_is_taken_back(registers):
    register, view = registers
    held, (chunk,) = filled(5)
    register.begin(chunk.first + 1, 0.0)
    assert held.take_back([(104, 1)], view) == [(104, 1)]
    assert held.take_back([(100, 1)], view) == [(102, 1)]
    assert (chunk.number, chunk.calls) == (100, 2)
    assert held.take_back([(101, 1)], view) == []


def test_what_is_refused_is_cut_off():
    held, (chunk,) = filled(5)
    assert held.cut(chunk, chunk.first + 3) == (103, 1)
    assert chunk.calls == 3
    assert held.cut(chunk, chunk.first) == (100, 1)
    assert not held
