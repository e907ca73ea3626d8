"""The worker's one, long call: takes attempts, runs them, sends what comes of each, until it is told to quit.

The order is what blame rests on: the register says *begun* before the call is even unpickled, and *ended* only when the
outcome is in the channel; nothing else is begun before that.  An attempt that the parent has taken back is not begun.
(Chunks, of which each call is begun by itself: :mod:`.worker.chunks`.)

**The process is put in order by need** (:mod:`.worker.upkeep`), so that a thousand quick tasks cost little.

**What a task that raised has started** is ended, by the parent, before anything else begins: it may be tried again, and
must not run beside its next attempt.  So the worker waits then; but it has the parent look only if it has children.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import time
import traceback

from resilient_exec.wire import payload
from resilient_exec.wire.channel import CALL, END, ChannelLost, Kind
from resilient_exec.worker import chunks, context, outcomes, upkeep
from resilient_exec.worker.main import bootstrap, end_process, raise_soft_timeout_late, worker
from resilient_exec.worker.seat import CHANNEL_LOST_STATUS, SOFT_SIGNAL, STRAY_STATUS
from resilient_exec.worker.streams import flush

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from resilient_exec.wire.buffers import Pieces
    from resilient_exec.worker.seat import Seat

__all__ = ["run", "serve"]

_monotonic = time.monotonic
_state = upkeep.state


def run(seat: Seat) -> None:
    """Be a worker: what a process of ours does from its start to its end."""
    bootstrap(seat)
    serve()


def serve() -> None:
    """Run attempts until told to quit.  Returns ``None``, raises nothing."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=upkeep.note_fork)
    try:
        _serve()
    except ChannelLost as lost:
        end_process(CHANNEL_LOST_STATUS, str(lost))
    except BaseException:
        # No outcome of a task: what raises here is a signal handler or a thread that a task has left behind.
        end_process(STRAY_STATUS, traceback.format_exc())


def _serve() -> None:
    # Not inside that `try`: on Python 3.14 what a signal's handler raises where a loop jumps back skips the handlers.
    channel = worker.channel
    _state.children = upkeep.children()
    while True:
        if _state.slow or channel.is_idle:
            upkeep.prepare_for_next()
        frame = channel.receive()
        if frame.kind not in (Kind.ATTEMPT, Kind.CHUNK):
            channel.leave_open()
            return
        if worker.unfit and frame.kind is Kind.CHUNK:  # it was sent before that was known
            chunks.refuse(frame.serial, frame.body)
        elif worker.unfit:
            channel.send(Kind.SKIPPED, frame.serial)
        elif frame.kind is Kind.CHUNK:
            chunks.run(frame.serial, frame.body)
        else:
            _attempt(frame.serial, frame.body)
        del frame
        if _state.forked:
            os._exit(0)


def _attempt(serial: int, body: Any) -> None:
    about_size, number, attempt, soft, hard, memory_limit = CALL.unpack_from(body)
    about, call = _split(body, CALL.size, CALL.size + about_size)
    if not upkeep.look_quickly():
        upkeep.put_in_order()
    if soft and SOFT_SIGNAL is not None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (SOFT_SIGNAL,))
    began = _monotonic()
    if memory_limit >= 0 or _state.backstop[0]:
        left = upkeep.weigh(memory_limit, began)
        if left:
            worker.channel.send(Kind.CROWDED, serial, str(left).encode())
            return
    if not worker.register.begin(serial, began):
        worker.channel.send(Kind.SKIPPED, serial)
        return
    worker.streams.begin()
    context.enter(serial, number, attempt, (soft, hard), about, began)
    kind, notes, answer = _run(serial, call)
    if _state.forked:
        upkeep.end_forked(None)  # the answer is the parent's to give
    ended = _monotonic()
    _state.slow = ended - began > upkeep.QUICK
    if ended - began > upkeep.NO_CHILD or _state.children:
        upkeep.note_children(notes, raised=kind is not Kind.RETURNED)
    packed = pickle.dumps(notes, 5) if notes else b""
    worker.channel.send(kind, serial, END.pack(began, ended, len(packed)), packed, answer)
    worker.register.end(serial)
    context.leave()
    if notes.get("children"):
        worker.channel.await_kind(Kind.GO_ON)
        _state.children = upkeep.children()


def _split(body: bytes | memoryview, start: int, end: int) -> tuple[bytes, bytes | memoryview]:
    """What is between ``start`` and ``end``, and what is behind; a long body is given up, but for the latter."""
    parts = bytes(body[start:end]), body[end:]
    if isinstance(body, memoryview):
        body.release()
    return parts


def _run(serial: int, call: memoryview | bytes) -> tuple[Kind, dict[str, Any], bytes | Pieces]:
    """Run the call and pack what comes of it, whatever that is; with what else is to be said of it."""
    try:
        value = _call(serial, call)
        flush()
        packed = payload.pack_value(value, fresh_locks=worker.fresh_locks, script=worker.script)
        return Kind.RETURNED, outcomes.left(), packed
    except BaseException as error:
        return outcomes.failed(error)


def _call(serial: int, body: memoryview | bytes) -> object:
    fn, args, kwargs = outcomes.opened(payload.unpack_call, body)
    # A long pickle must not lie beside what it was made into for as long as the task runs.
    if type(body) is memoryview:
        with contextlib.suppress(BufferError):  # something unpickled is a view of it
            body.release()
    try:
        worker.running = serial
        if worker.register.soft() == serial:  # it may be over already: the call took that long to unpickle
            raise_soft_timeout_late(context.ran())
        return fn(*args, **kwargs)
    finally:
        outcomes.settle_process(fn)
