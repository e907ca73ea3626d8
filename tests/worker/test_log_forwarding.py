"""The worker's handler of forwarded records, without a worker: while nobody reads, and when something strikes."""

from __future__ import annotations

import logging
import socket
import sys

import pytest

from resilient_exec import SoftTimeout
from resilient_exec.wire.log_records import LONGEST, pack, unpack
from resilient_exec.worker import log_forwarding
from resilient_exec.worker.log_forwarding import ForwardingHandler

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="sockets of a kind that only Linux has")


@pytest.fixture
def near():
    """The parent's end of the socket."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    near.setblocking(False)
    handler = ForwardingHandler(far.detach())
    yield _Near(near, handler)
    handler.close()
    near.close()


class _Near:
    def __init__(self, near, handler):
        self.socket, self.handler = near, handler

    def log(self, text, **kwargs):
        record = logging.LogRecord("name", logging.INFO, "path", 1, text, (), None)
        record.__dict__.update(kwargs)
        self.handler.handle(record)

    def read(self):
        """The texts, and how many were dropped, of what has come."""
        texts, dropped = [], 0
        while True:
            try:
                lines = self.socket.recv(1 << 20).split(b"\n")
            except BlockingIOError:
                return texts, dropped
            for line in lines:
                record, count = unpack(line)
                dropped += count
                if record is not None:
                    texts.append(record.getMessage())


def test_while_nobody_reads_records_wait_then_are_dropped_and_counted(near, monkeypatch):
    monkeypatch.setattr(log_forwarding, "_MOST_WAITING", 100)
    monkeypatch.setattr(log_forwarding, "_NO_ROOM", 0.01)
    for number in range(5000):
        near.log(str(number))
    near.handler.flush_at_last()  # gives up soon
    texts, dropped = near.read()
    near.handler.flush_at_last(0.0)
    for _ in range(3):
        near.log("later")
        more, counted = near.read()
        texts, dropped = texts + more, dropped + counted
    assert dropped > 0
    assert texts[-3:] == ["later"] * 3
    assert len(texts) + dropped == 5003
    assert texts[:50] == [str(number) for number in range(50)]


def test_what_waits_at_the_exit_and_finds_no_room_is_counted_at_least(near, monkeypatch):
    monkeypatch.setattr(log_forwarding, "_NO_ROOM", 0.01)
    for number in range(5000):
        near.log(str(number))
    near.handler.flush_at_exit()
    texts, dropped = near.read()
    near.handler.flush()
    _, counted = near.read()
    assert len(texts) + dropped + counted == 5000


@pytest.mark.parametrize("where", ["pack", "send"])
def test_a_soft_timeout_that_strikes_while_a_record_is_made_leaves_it(near, monkeypatch, where):
    def strike(*_):
        raise SoftTimeout("over")

    if where == "pack":
        monkeypatch.setattr(log_forwarding, "pack", strike)
    else:
        monkeypatch.setattr(near.handler, "_send", strike)
    with pytest.raises(SoftTimeout):
        near.log("struck")
    monkeypatch.undo()
    near.log("and on")
    assert near.read()[0][-1] == "and on"


def test_a_signal_handler_that_logs_while_a_record_is_sent_harms_nobody(near):
    send = near.handler._send

    def send_interrupted():
        near.handler._send = send
        near.log("by the handler")
        return send()

    near.handler._send = send_interrupted
    near.log("interrupted")
    assert near.read() == (["interrupted", "by the handler"], 0)


def test_a_record_of_any_size_fits_into_a_message(near):
    for size in (10, LONGEST - 500, LONGEST, 10 * LONGEST):
        near.log("x" * size, **{f"extra{number}": "y" * size for number in range(50)})
    near.log("and on")
    texts, dropped = near.read()
    assert (len(texts), texts[-1], dropped) == (5, "and on", 0)


@pytest.mark.parametrize("key", [7, "a", None, 1.5, True, ("a", (1, None)), b"x", ()], ids=str)
def test_a_plain_key_arrives_as_it_is(key):
    record, _ = unpack(pack(logging.makeLogRecord({"msg": "m"}), key, 2))
    assert (record.task_key, type(record.task_key), record.task_attempt) == (key, type(key), 2)


def test_another_key_arrives_as_its_text():
    record, _ = unpack(pack(logging.makeLogRecord({"msg": "m"}), frozenset("a"), 2))
    assert record.task_key == "frozenset({'a'})"


@pytest.mark.parametrize("line", [b"", b"no json", b"[1]", b"7", b'{"msg":'])
def test_what_is_no_record_is_said_to_be_none(line):
    with pytest.raises(ValueError, match=r"."):
        unpack(line)
