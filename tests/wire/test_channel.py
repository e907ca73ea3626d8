"""Whatever comes over a channel, in whatever pieces: whole frames, or the end of that worker, and nothing blocks."""

from __future__ import annotations

import os
import signal
import socket
import struct
from contextlib import closing, suppress

import lane_leavings as leavings
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resilient_exec.wire.channel import ChannelLost, Framer, Kind, WorkerChannel, header

KINDS = st.sampled_from(list(Kind))
SERIALS = st.integers(0, 2**32 - 1)
BODIES = st.one_of(st.binary(max_size=40), st.integers(0, 200_000).map(lambda n: b"\xa7" * n))
FRAMES = st.lists(st.tuples(KINDS, SERIALS, BODIES), max_size=6)


@pytest.fixture
def pair():
    """Both ends of a channel, and the framer on ours."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with closing(ours), closing(theirs):
        yield Framer(ours), theirs


def socket_pair():
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    return ours, theirs


@given(FRAMES, st.data())
@settings(max_examples=300, deadline=None)
def test_any_frames_cut_into_any_pieces_are_put_together_again(frames, data):
    stream = b"".join(header(kind, serial, len(body)) + body for kind, serial, body in frames)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    ours, theirs = socket_pair()
    with closing(ours), closing(theirs):
        theirs.setblocking(False)
        framer = Framer(ours)
        got = []
        for piece in pieces:
            rest = memoryview(piece)
            while rest:
                with suppress(BlockingIOError):
                    rest = rest[theirs.send(rest) :]
                got += [(f.kind, f.serial, bytes(f.body)) for f in framer.frames()]
        assert got == frames
        assert not framer.hung_up


@given(FRAMES, st.binary(min_size=18, max_size=100), st.data())
@settings(max_examples=200, deadline=None)
def test_what_is_no_frame_is_told_after_the_frames_before_it(frames, garbage, data):
    garbage = bytes([data.draw(st.integers(0, 255).filter(lambda byte: byte != 0xA7))]) + garbage[1:]
    frames = [(kind, serial, body[:1000]) for kind, serial, body in frames]
    ours, theirs = socket_pair()
    with closing(ours), closing(theirs):
        theirs.sendall(b"".join(header(k, s, len(b)) + b for k, s, b in frames) + garbage)
        got = []
        with pytest.raises(ChannelLost, match="not a message"):
            for frame in Framer(ours).frames():
                got.append((frame.kind, frame.serial, bytes(frame.body)))
        assert got == frames


@pytest.mark.parametrize(
    "head",
    [
        struct.pack("<BBQQ", 0xA7, 99, 0, 0),
        struct.pack("<BBQQ", 0xA6, Kind.READY, 0, 0),
        struct.pack("<BBQQ", 0xA7, Kind.RETURNED, 0, 1 << 41),
    ],
    ids=["a kind that there is not", "another magic byte", "a length that is none"],
)
def test_a_header_that_is_wrong_in_one_point_is_no_frame(pair, head):
    framer, theirs = pair
    theirs.sendall(head)
    with pytest.raises(ChannelLost):
        list(framer.frames())


def test_a_frame_that_no_memory_can_hold_is_told_as_such(pair):
    framer, theirs = pair
    theirs.sendall(header(Kind.RETURNED, 1, 1 << 40))
    with pytest.raises(ChannelLost, match=r"does not fit"):
        list(framer.frames())


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_long_body_takes_memory_as_its_bytes_come(pair):
    framer, theirs = pair
    before = resident()
    theirs.sendall(header(Kind.RETURNED, 1, 4 << 30) + b"\xa7" * 100_000)
    assert list(framer.frames()) == []
    assert resident() - before < 64 << 20


def test_half_a_frame_waits_for_the_other_half_without_blocking(pair):
    framer, theirs = pair
    message = header(Kind.RETURNED, 7, 5) + b"hello"
    for byte in message[:-1]:
        theirs.sendall(bytes([byte]))
        assert list(framer.frames()) == []
    theirs.sendall(message[-1:])
    (frame,) = framer.frames()
    assert (frame.kind, frame.serial, bytes(frame.body)) == (Kind.RETURNED, 7, b"hello")


@pytest.mark.parametrize("sent", [b"", header(Kind.RETURNED, 7, 5)[:6], header(Kind.RETURNED, 7, 5) + b"hel"])
def test_a_channel_that_is_closed_gives_no_half_frame_and_says_so(pair, sent):
    framer, theirs = pair
    theirs.sendall(sent)
    assert list(framer.frames()) == []
    assert not framer.hung_up
    theirs.close()
    assert list(framer.frames()) == []
    assert framer.hung_up


def test_a_frame_sent_before_the_close_is_still_given(pair):
    framer, theirs = pair
    theirs.sendall(header(Kind.READY, 3, 0))
    theirs.close()
    assert [frame.kind for frame in framer.frames()] == [Kind.READY]
    assert list(framer.frames()) == []
    assert framer.hung_up


@given(FRAMES)
@settings(max_examples=50, deadline=None)
def test_a_worker_receives_what_the_parent_sends(frames):
    frames = [(kind, serial, body[:20_000]) for kind, serial, body in frames]
    ours, theirs = socket_pair()
    channel = WorkerChannel(theirs.detach())
    with closing(ours), closing(channel._socket):
        for kind, serial, body in frames:
            ours.sendall(header(kind, serial, len(body)) + body)
            frame = channel.receive()
            assert (frame.kind, frame.serial, bytes(frame.body)) == (kind, serial, body)
        ours.close()
        with pytest.raises(ChannelLost):
            channel.receive()
        with pytest.raises(ChannelLost):
            channel.send(Kind.READY)


def test_a_worker_never_writes_into_what_has_taken_its_channels_number(tmp_path):
    ours, theirs = socket.socketpair()
    channel = WorkerChannel(theirs.detach())
    with closing(ours), closing(channel._socket), open(tmp_path / "own", "wb") as own:
        os.dup2(own.fileno(), channel._socket.fileno())
        with pytest.raises(ChannelLost, match="closed descriptors"):
            channel.send(Kind.READY, 1)
        with pytest.raises(ChannelLost, match="closed descriptors"):
            channel.receive()
    assert (tmp_path / "own").read_bytes() == b""


# -- in a real worker ------------------------------------------------------------------------------------------------


def test_a_worker_that_writes_garbage_into_its_channel_is_ended_and_its_task_is_told_why(ready):
    died = ready.death(leavings.write_into_the_channel, b"this is no message of ours")
    assert died.exitcode == -signal.SIGKILL
    assert "not a message" in died.why


def test_a_worker_that_writes_garbage_before_it_is_ready_is_a_failed_start(lane):
    words = lane.failed_start(leavings.write_into_the_channel, b"this is no message of ours")
    assert "not a message" in words


def test_a_worker_that_claims_a_result_of_a_terabyte_is_ended(ready):
    died = ready.death(leavings.write_into_the_channel, header(Kind.RETURNED, 1, 1 << 40))
    assert "does not fit" in died.why


def test_an_answer_to_another_attempt_is_not_taken_for_this_one(ready):
    stale = header(Kind.RETURNED, 99, 4) + b"junk"
    assert ready.value(leavings.write_then_return, stale, "mine") == "mine"
    ready.nothing()
