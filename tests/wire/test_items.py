"""Calls of a chunk on their way, and their results: what goes with others, and what goes by itself."""

from __future__ import annotations

import io
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient_exec.model.packed import Batch, Packed, Slice
from resilient_exec.wire import items, payload
from resilient_exec.wire.register import HALT, NEXT, RESULTS_FROM, STAGED, STOP

PLAIN = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=20), st.binary(max_size=20)
)
VALUES = st.one_of(PLAIN, st.tuples(PLAIN, PLAIN), st.just(()))


@given(st.lists(VALUES, max_size=30))
def test_results_are_staged_and_joined_as_they_were(values):
    staged = [items.stage_plain(value) for value in values]
    assert None not in staged
    found = items.load_staged(b"".join(staged) + b"what is behind", len(values))
    assert found == values
    assert list(map(type, found)) == list(map(type, values))
    assert items.load_joined(items.join_results(values), len(values)) == values


@pytest.mark.parametrize(
    "value", [[1], {1: 2}, bytearray(b"x"), ([1],), 1j.__class__, "x" * 10_000, type("T", (int,), {})(3)]
)
def test_what_can_change_or_is_long_or_of_another_kind_does_not_go_with_others(value):
    assert items.stage_plain(value) is None


def test_a_sealed_result_is_opened_by_whoever_asks_for_it():
    sealed = items.SealedResult(payload.pack_value([1, {2}]))
    data = items.stage_plain(7) + items.stage_sealed(sealed)
    seven, packed = items.load_staged(data, 2)
    assert seven == 7
    assert isinstance(packed, Packed)
    assert packed.unpack() == [1, {2}]
    assert Slice(Batch(data, items.load_staged), 1, 1).unpack() == [1, {2}]


def test_the_plain_pickler_refuses_what_has_code_of_its_own_and_goes_on():
    file = io.BytesIO()
    pickler = items.PlainPickler(file)
    pickler.dump(1)
    for odd in (Exception, 1j, len, Awkward()):
        with pytest.raises(items.NotPlain):
            pickler.dump(odd)
    same = "twice"
    pickler.dump([same, same])
    pickler.dump(same)
    assert items.load_staged(file.getvalue(), 3) == [1, ["twice", "twice"], "twice"]


class Awkward:
    def __reduce__(self):
        raise AssertionError("the code of a result was run")


def test_arguments_are_plain_or_sealed_each_by_itself():
    assert items.kinds_of([(1, "a"), (), (None,)]) == {int, str, type(None)}
    rules = {"fresh_locks": False, "script": None}
    own, other = items.seal_call(print, (1, "a"), rules), items.seal_call(print, ([1],), rules)
    places, calls = items.load_calls(items.pack_calls((), [own, other]))
    assert (places, calls[0]) == ((), (1, "a"))
    assert payload.unpack_arguments(calls[1].data) == ([1],)
    assert items.size_of(own) < items.size_of(("x" * 1000,))


def test_large_buffers_in_sealed_arguments_arrive_and_can_be_written_to():
    numpy = pytest.importorskip("numpy")
    array = numpy.arange(50_000.0)
    sealed = items.seal_call(print, (array,), {"fresh_locks": False, "script": None})
    _, (arrived,) = items.load_calls(items.pack_calls((), [sealed]))
    (found,) = payload.unpack_arguments(arrived.data)
    assert (found == array).all()
    found[0] = 7


def test_arguments_that_all_calls_share_are_found_by_identity():
    shared = [1]
    calls = [(shared, 1, [2]), (shared, 2, [2])]
    assert items.shared_columns(calls) == (0,)
    assert items.shared_columns(calls[:1]) == ()
    assert items.with_columns((1, [2]), (0, 2), ("a", "b")) == ("a", 1, "b", [2])


def test_what_is_staged_is_seen_by_the_parent(registers):
    register, view = registers
    assert view.staged()[1] == 0
    data = items.stage_plain("one") + items.stage_plain("two")
    register.numbers[RESULTS_FROM] = 100
    register.page[32768 : 32768 + len(data)] = data
    register.numbers[STAGED] = 2
    first, count, seen = view.staged()
    assert (first, count, items.load_staged(seen, count)) == (100, 2, ["one", "two"])


def test_of_very_quick_calls_all_before_the_one_that_has_begun_are_staged(registers):
    register, view = registers
    register.numbers[RESULTS_FROM], register.numbers[STAGED] = 100, 0
    data = pickle.dumps(1, 3) * 3
    register.page[32768 : 32768 + len(data)] = data
    register.begin(103, 0.0)
    first, count, seen = view.staged()
    assert (first, count, items.load_staged(seen, count)) == (100, 3, [1, 1, 1])


def test_calls_are_taken_back_from_the_first_that_is_not_about_to_begin(registers):
    register, view = registers
    register.begin(10, 0.0)
    assert view.stop_before(12, 20) == 12
    assert register.numbers[STOP] == 12
    assert register.numbers[HALT]
    register.numbers[NEXT] = 15
    assert view.stop_before(12, 20) == 16
    view.close()
    assert view.stop_before(12, 20) == 21, "of a worker that is gone all have begun"


def test_an_attempt_that_was_taken_back_has_not_begun(registers):
    register, view = registers
    assert register.begin(1, 0.5)
    assert view.begun_and_ended()[0] == 1
    assert view.take_back(2)
    assert not register.begin(2, 1.5)
    assert view.begun_and_ended()[0] == 1
    assert view.begun_at() == 0.5
    assert not view.take_back(1)
    assert view.has_begun(1)
