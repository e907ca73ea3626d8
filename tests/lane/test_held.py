"""What a worker holds: serials and numbers of attempts, and of the calls of chunks."""

from __future__ import annotations

import itertools

from resilient_exec.core.chunks import Group, Pace
from resilient_exec.lane.held import Holdings
from resilient_exec.model.task import Task
from resilient_exec.wire.register import AHEAD


def task(number, calls=0):
    return Task(number, None, calls=calls, group=Group(number, Pace(), calls) if calls else None)


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
    assert len({one.first % AHEAD for one in made}) == len(made)
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
    assert held.take_back([(103, 1, 2)], view) == [(100, 1, 5)]
    assert held.of(chunk.serial) is None


def test_of_a_chunk_that_has_begun_the_rest_is_taken_back(registers):
    register, view = registers
    held, (chunk,) = filled(5)
    register.begin(chunk.first + 1, 0.0)
    assert held.take_back([(104, 1, 1)], view) == [(104, 1, 1)]
    assert held.take_back([(100, 1, 4)], view) == [(102, 1, 2)]
    assert (chunk.number, chunk.calls) == (100, 2)
    assert held.take_back([(101, 1, 1)], view) == []


def test_what_is_refused_is_cut_off():
    held, (chunk,) = filled(5)
    assert held.cut(chunk, chunk.first + 3) == (103, 1, 2)
    assert chunk.calls == 3
    assert held.cut(chunk, chunk.first) == (100, 1, 3)
    assert not held


# -- bundles -----------------------------------------------------------------------------------------------------------


def bundle(held, size, number=100):
    one = held.make(number, 1, Task(number, None, calls=size, group=Group(number, Pace(), size, bundled=True)))
    held.append(one)
    return one


def spans(held):
    return [(one.number, one.serial, one.calls) for one in held._held]


def test_each_task_of_a_bundle_has_a_serial_and_a_mark_of_its_own():
    held = Holdings()
    first, second = bundle(held, 64), bundle(held, 64, 164)
    assert (first.serial, first.last, second.serial, second.last) == (1, 64, 65, 128)
    assert held.make(300, 1, task(300)).serial == 129
    assert len({serial % AHEAD for serial in range(1, 130)}) == 129


def test_tasks_of_a_bundle_are_taken_back_one_by_one(registers):
    register, view = registers
    held = Holdings()
    bundle(held, 6)
    register.begin(1, 0.0)
    assert held.take_back([(103, 1, 1)], view) == [(103, 1, 1)]
    assert spans(held) == [(100, 1, 3), (104, 5, 2)]
    assert held.take_back([(105, 1, 1)], view) == [(105, 1, 1)]
    assert held.take_back([(100, 1, 1)], view) == [], "it has begun"
    assert spans(held) == [(100, 1, 3), (104, 5, 1)]
    assert not register.begin(4, 0.0), "it is marked"
    assert register.begin(5, 0.0)


def test_of_several_those_are_taken_back_that_have_not_begun(registers):
    register, view = registers
    held = Holdings()
    bundle(held, 6)
    register.begin(1, 0.0)
    register.begin(2, 0.0)
    assert held.take_back([(100, 1, 6)], view) == [(102, 1, 4)]
    assert spans(held) == [(100, 1, 2)]
    assert held.take_back([(100, 2, 6)], view) == [], "another attempt"


def test_a_task_at_the_front_of_a_bundle_is_taken_back_by_itself(registers):
    _, view = registers
    held = Holdings()
    one = bundle(held, 3)
    assert held.take_back([(100, 1, 1)], view) == [(100, 1, 1)]
    assert spans(held) == [(101, 2, 2)]
    assert held.head is not one
    assert held.take_back([(101, 1, 9)], view) == [(101, 1, 2)]
    assert not held


def test_the_worker_passes_over_one_task_of_a_bundle():
    held = Holdings()
    one = bundle(held, 4)
    assert held.cut(one, 2, 1) == (101, 1, 1)
    assert spans(held) == [(100, 1, 1), (102, 3, 2)]
    assert held.of(2) is None


def test_of_a_closed_register_nothing_is_taken_back(registers):
    _, view = registers
    held = Holdings()
    bundle(held, 3)
    view.close()
    assert held.take_back([(100, 1, 3)], view) == []
    assert view.take_back_all(5, 9) == 10
    assert not view.take_back_one(5)
