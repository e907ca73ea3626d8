"""Large buffers: sent from where they are, used where they arrive, and nothing else changes."""

from __future__ import annotations

import gc
import pickle
import socket
import threading
import weakref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resilient_exec.wire import buffers, payload
from resilient_exec.wire.buffers import Pieces
from resilient_exec.wire.channel import Framer, Kind, Outbox, WorkerChannel

np = pytest.importorskip("numpy")

LARGE = 1 << 20  # bytes


@given(st.binary(max_size=300), st.lists(st.binary(max_size=300), max_size=4))
@settings(max_examples=100, deadline=None)
def test_a_message_in_pieces_comes_out_as_it_went_in(text, contents):
    pickled = pickle.dumps(
        (text, [pickle.PickleBuffer(bytearray(c)) for c in contents]), 5, buffer_callback=lambda _: 0
    )
    message = buffers.pieces(pickled, [memoryview(bytearray(c)) for c in contents])
    text_again, again = buffers.loads(message)
    assert text_again == text
    assert [bytes(one) for one in again] == contents
    assert len(message) == len(message.joined() if isinstance(message, Pieces) else message)


def test_an_array_is_not_copied_on_its_way_out():
    array = np.zeros(LARGE, dtype=np.uint8)
    message = payload.pack_call(print, (array, [array[: LARGE // 2]]), {})
    assert len(message.pickled) < 1000
    array[:3] = 7  # it is the caller's own memory until it is sent
    _, (again, (half,)), _ = payload.unpack_call(message)
    assert again[:3].tolist() == half[:3].tolist() == [7, 7, 7]


def test_an_array_that_has_arrived_is_the_messages_own_memory_aligned_and_writable():
    message = payload.pack_value(np.arange(LARGE, dtype=np.float64)).joined()
    array = payload.unpack_value(memoryview(message))
    assert np.shares_memory(array, np.frombuffer(message, dtype=np.uint8))
    assert array.flags.writeable
    assert array.flags.aligned
    array[0] = -1
    assert array[1] == 1


@pytest.mark.parametrize("dtype", ["f8", "c16", "M8[s]", "U3", [("a", "i4"), ("b", "f4")]])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_of_all_kinds_arrive_as_they_were(dtype, order):
    array = np.zeros((300, 300), dtype=dtype, order=order)
    if not isinstance(dtype, list):
        array[:] = np.arange(90_000).reshape(300, 300).astype(dtype)
    for value in (array, array[::2, 1:], array.T):
        again = payload.unpack_value(payload.pack_value(value))
        assert (again == value).all()
        assert again.dtype == value.dtype


def test_what_is_small_or_cannot_be_given_as_a_buffer_is_in_the_pickle():
    for value in (np.zeros(10), np.array([object()] * 100_000), b"x" * LARGE, [0] * 100_000):
        assert type(payload.pack_value([value] if type(value) is list else value)) is bytes


def test_a_readonly_array_arrives_readonly():
    array = np.zeros(LARGE)
    array.flags.writeable = False
    again = payload.unpack_value(payload.pack_value(array))
    assert not again.flags.writeable


def test_who_keeps_a_small_array_of_a_large_message_does_not_keep_all_of_it():
    message = payload.pack_value({"small": np.zeros(20_000), "large": np.zeros(LARGE)}).joined()
    small = payload.unpack_value(memoryview(message))["small"]
    assert not np.shares_memory(small, np.frombuffer(message, dtype=np.uint8))
    assert small.flags.writeable


class WritesIntoItself:
    """As libraries that normalise in place when they are unpickled."""

    def __init__(self, array):
        self.array = array

    def __setstate__(self, state):
        self.array = state["array"]
        self.array += 1


def test_the_proof_of_a_result_does_not_write_into_it():
    value = WritesIntoItself(np.zeros(LARGE))
    message = payload.pack_value(value)
    assert not value.array.any()
    assert payload.unpack_value(message).array[0] == 1


class RefusesToLoad(WritesIntoItself):
    def __setstate__(self, state):
        raise ValueError("not here")


def test_a_result_with_buffers_proves_itself_as_any_other():
    with pytest.raises(payload.Unsendable, match="pickles but cannot be unpickled: ValueError: not here"):
        payload.pack_value(RefusesToLoad(np.zeros(LARGE)))


def test_local_classes_with_arrays_go_by_value():
    class Local:
        pass

    local = Local()
    local.array = np.ones(LARGE)
    message = payload.pack_value(local)
    assert isinstance(message, Pieces)
    assert len(message.buffers) == 1
    assert payload.unpack_value(message).array.sum() == LARGE


def test_the_callers_array_is_let_go_with_the_message():
    array = np.zeros(LARGE)
    gone = weakref.ref(array)
    gc.disable()
    try:
        message = payload.pack_call(print, (array,), {})
        del array
        assert gone() is not None
        del message
        assert gone() is None
    finally:
        gc.enable()


def test_pieces_travel_both_ways_over_a_channel():
    near, far = socket.socketpair()
    near.setblocking(False)
    worker = WorkerChannel(far.detach())
    message = payload.pack_call(print, (np.arange(LARGE), np.ones(20_000)), {})
    aligned = []

    def echo():
        frame = worker.receive()
        _, (large, small), _ = payload.unpack_call(frame.body[4:])
        aligned.append(bytes(frame.body[:4]) == b"head" and large.flags.aligned)
        worker.send(Kind.RETURNED, 7, payload.pack_value((large[::-1].copy(), small)))

    with near, worker._socket:
        thread = threading.Thread(target=echo)
        thread.start()
        outbox, framer, frames = Outbox(near), Framer(near), []
        outbox.put(Kind.ATTEMPT, 7, b"head", message)
        while not frames:
            outbox.pump()
            frames += framer.frames()
        thread.join()
        large, small = payload.unpack_value(frames[0].body)
    assert aligned == [True]
    assert large.flags.aligned
    assert (large[0], large[-1], small.sum()) == (LARGE - 1, 0, 20_000)
