"""The worker's one, long call: takes attempts, runs them, sends what comes of each, until it is told to quit.

The order is what blame rests on: the register says *begun* before the call is even unpickled, and *ended* only when the
outcome is in the channel; nothing else is begun before that.  An attempt that the parent has taken back is not begun.

**The process is put in order by need.**  What a task may leave behind (signal handlers, timers, standard streams) is
looked at closely behind one that took longer than a millisecond, and when there is nothing to do; behind a quicker one
there are a few cheap looks, so that a thousand of them cost little.

**What a task that raised has started** is ended, by the parent, before anything else begins: it may be tried again, and
must not run beside its next attempt.  So the worker waits then; but it has the parent look only if it has children.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import sys
import time
import traceback
from typing import TYPE_CHECKING, Any

from resilient_exec.model.errors import SoftTimeout
from resilient_exec.wire import payload
from resilient_exec.wire.channel import CALL, END, ChannelLost, Kind
from resilient_exec.worker import context
from resilient_exec.worker.main import (
    CHANNEL_LOST_STATUS,
    SOFT_SIGNAL,
    STRAY_STATUS,
    arm,
    bootstrap,
    end_process,
    is_armed,
    raise_soft_timeout_late,
    worker,
)
from resilient_exec.worker.streams import flush

if TYPE_CHECKING:
    from resilient_exec.wire.buffers import Pieces
    from resilient_exec.worker.main import Seat

__all__ = ["run", "serve"]

_QUICK = 0.001  # s: behind what took less than this a few looks are enough
_NO_CHILD = 0.0001  # s: nobody starts a process in less
_BACKSTOP = 2  # times its memory limit: what a process may map, however fast it does so ...
_BACKSTOP_LEAST = 1 << 30  # ... and at least so many bytes beyond it: the stack of each thread counts with 8 MiB
_SHIFT = 64 << 20  # bytes: by how much the backstop may be off before it is set anew
_MATTERS = 20  # one part in so many of a limit may be added before it is measured again ...
_RATE = 2 << 30  # ... at so many bytes/s, which no task is expected to surpass
_CROWDED = 2  # a worker that still holds more than one part in so many of an attempt's limit is not to run it
_NO_THREAD = "can't start new thread"
_BACKSTOP_WORDS = (
    "behind memory_limit stands RLIMIT_DATA, at twice as much (and 1 GiB more at least), on what a process maps: it "
    "counts the stack of each thread in full (8 MiB as a rule), used or not; threading.stack_size() makes it less"
)
_TAIL = 16 << 10  # bytes of captured output that travel with an exception
_TIMERS = [getattr(signal, name) for name in ("ITIMER_REAL", "ITIMER_PROF", "ITIMER_VIRTUAL") if hasattr(signal, name)]
_USUAL_TIMERS = _TIMERS[:2]  # the third is hardly ever used: it is looked for when there is nothing to do

_monotonic = time.monotonic
_getitimer: Any = getattr(signal, "getitimer", None)  # where there are timers


class _State:
    """What this process knows of itself, so that it need not look each time."""

    forked = False  # this is a child that a task forked, and that came back out of the task's code
    slow = False  # the last attempt took so long that it may have left anything
    fresh = 0  # bytes that the worker held before its first attempt with a limit; 0: not looked yet
    left = 0  # bytes that it held beyond that when it last looked ...
    measured_at = 0.0  # ... and when that was
    backstop: tuple[int, int] = (0, 0)  # the memory limit for which the kernel's is set, and what was mapped then
    before: tuple[int, int] = (0, 0)  # the kernel's limit as it was
    children: frozenset[int] = frozenset()  # of earlier attempts


_state = _State()


def run(seat: Seat) -> None:
    """Be a worker: what a process of ours does from its start to its end."""
    bootstrap(seat)
    serve()


def serve() -> None:
    """Run attempts until told to quit.  Returns ``None``, raises nothing."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_note_fork)
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
    _state.children = _children()
    while True:
        if _state.slow or channel.is_idle:
            _prepare_for_next()
        frame = channel.receive()
        if frame.kind is not Kind.ATTEMPT:
            channel.leave_open()
            return
        if worker.unfit:  # it was sent before that was known
            channel.send(Kind.SKIPPED, frame.serial)
        else:
            _attempt(frame.serial, frame.body)
        del frame
        if _state.forked:
            os._exit(0)


def _note_fork() -> None:
    _state.forked = True


def _end_forked(error: BaseException | None) -> None:
    """End this process, a child that a task forked, whatever happens: it must not serve the parent's lane."""
    try:
        from resilient_exec.worker.fast_exit import end_forked_by_task

        end_forked_by_task(error)
    finally:
        os._exit(1)


# -- the process between two attempts --------------------------------------------------------------------------------


def _put_in_order() -> None:
    """Set right whatever a task may have left amiss."""
    _state.slow = False
    arm()
    worker.streams.mend()
    _stop_timers()


def _prepare_for_next() -> None:
    """Behind an attempt that took its time, or while there is nothing to do."""
    if _state.slow or not _look_quickly(_TIMERS):
        _put_in_order()
    else:
        worker.streams.mend()


def _look_quickly(timers: list[Any]) -> bool:
    """Whether all seems well behind a quick attempt."""
    for timer in timers:
        if _getitimer(timer)[0]:
            return False
    return is_armed() and worker.streams.seem_well()


def _stop_timers() -> None:
    """One that a task has forgotten must not strike the next."""
    for timer in _TIMERS:
        if signal.getitimer(timer)[0] > 0:
            signal.setitimer(timer, 0)


def _children() -> frozenset[int]:
    """The processes whose parent this one is, those that were left by their own among them."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return frozenset()
    except (AttributeError, OSError):  # another system: the parent looks for itself
        return frozenset((0,))
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in os.listdir("/proc/self/task"):
            with contextlib.suppress(OSError), open(f"/proc/self/task/{thread}/children", "rb") as file:
                found += map(int, file.read().split())
    return frozenset(found)


# -- an attempt --------------------------------------------------------------------------------------------------------


def _attempt(serial: int, body: Any) -> None:
    about_size, number, attempt, soft, hard, memory_limit = CALL.unpack_from(body)
    about, call = _split(body, CALL.size, CALL.size + about_size)
    if not _look_quickly(_USUAL_TIMERS):
        _put_in_order()
    if soft and SOFT_SIGNAL is not None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (SOFT_SIGNAL,))
    began = _monotonic()
    if memory_limit >= 0:
        left = _left_by_others(memory_limit, began)
        if left * _CROWDED > memory_limit:
            worker.channel.send(Kind.CROWDED, serial, str(left).encode())
            return
    elif _state.backstop[0]:
        _lift_backstop()
    if not worker.register.begin(serial, began):
        worker.register.end(serial)
        worker.channel.send(Kind.SKIPPED, serial)
        return
    worker.streams.begin()
    context.enter(serial, number, attempt, (soft, hard), about, began)
    kind, notes, answer = _run(serial, call)
    if _state.forked:
        _end_forked(None)  # the answer is the parent's to give
    ended = _monotonic()
    _state.slow = ended - began > _QUICK
    if ended - began > _NO_CHILD or _state.children:
        _note_children(notes, raised=kind is not Kind.RETURNED)
    packed = pickle.dumps(notes, 5) if notes else b""
    worker.channel.send(kind, serial, END.pack(began, ended, len(packed)), packed, answer)
    worker.register.end(serial)
    context.leave()
    if notes.get("children"):
        worker.channel.await_kind(Kind.GO_ON)
        _state.children = _children()


def _split(body: bytes | memoryview, start: int, end: int) -> tuple[bytes, bytes | memoryview]:
    """What is between ``start`` and ``end``, and what is behind; a long body is given up, but for the latter."""
    parts = bytes(body[start:end]), body[end:]
    if isinstance(body, memoryview):
        body.release()
    return parts


def _note_children(notes: dict[str, Any], *, raised: bool) -> None:
    """Note what processes there are that the attempt may have started, and whether the parent is to end some."""
    children, before = _children(), _state.children
    if children:
        has_started = raised and (bool(children - before) or 0 in children)
        notes["children"], notes["strangers"] = has_started, tuple(before if has_started else children)
    _state.children = children


def _run(serial: int, call: memoryview | bytes) -> tuple[Kind, dict[str, Any], bytes | Pieces]:
    """Run the call and pack what comes of it, whatever that is; with what else is to be said of it."""
    fresh_locks = worker.fresh_locks
    try:
        value = _call(serial, call)
        flush()
        return Kind.RETURNED, _left(), payload.pack_value(value, fresh_locks=fresh_locks, script=worker.script)
    except payload.Unsendable as error:
        return Kind.NOT_SENDABLE, _evidence(), str(error).encode(errors="replace")
    except BaseException as error:
        # SystemExit and KeyboardInterrupt, too, are the task's outcome and not this process's.
        if _state.forked:
            _end_forked(error)
        flush()
        _forget_our_frames(error)
        notes = _evidence()
        notes["name"], notes["ordinary"] = str(type(error).__qualname__), issubclass(type(error), Exception)
        notes["soft"] = _is_soft(error)
        notes["remark"] = _remark(error)
        return Kind.RAISED, notes, payload.pack_exception(error, fresh_locks=fresh_locks, script=worker.script)


def _remark(error: BaseException) -> str:
    """What may have been the reason, where the error is what the kernel's limit brings about."""
    refused = issubclass(type(error), MemoryError) or (type(error) is RuntimeError and _NO_THREAD in error.args)
    return _BACKSTOP_WORDS if refused and _state.backstop[0] else ""


def _is_soft(error: BaseException) -> bool:
    # By the types alone: a __getattribute__ of the user's may raise.
    if issubclass(type(error), BaseExceptionGroup):
        return any(map(_is_soft, vars(BaseExceptionGroup)["exceptions"].__get__(error)))
    return issubclass(type(error), SoftTimeout)


def _evidence() -> dict[str, Any]:
    """What the parent could not find out any more when the next attempt has begun."""
    out, err = worker.streams.tails(_TAIL)
    return {"note": worker.register.noted(), "stdout": out, "stderr": err, "held": _statm()[0], **_left()}


def _left() -> dict[str, Any]:
    """What the attempt has left in this process that fails others."""
    return {"unfit": worker.unfit} if worker.unfit else {}


def _call(serial: int, body: memoryview | bytes) -> object:
    try:
        fn, args, kwargs = payload.unpack_call(body)
    except Exception as error:
        text = f"the call cannot be unpickled in the worker: {payload.text_of(error)}"
        raise payload.Unsendable(text + _why_no_script(error)) from error
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
        worker.running = 0
        worker.state.untrace()
        worker.unfit = worker.state.compare(fn)


def _why_no_script(error: Exception) -> str:
    """What to say about the script where a call did not find something: it may be the script's."""
    if not isinstance(error, AttributeError):
        return ""
    if worker.script is not None:
        return '; what is defined behind `if __name__ == "__main__":` is not there: define it above'
    loaded = sys.modules.get("resilient_exec.worker.script")
    return f"; {loaded.failed.words}" if loaded is not None and loaded.failed.words else ""


def _forget_our_frames(error: BaseException) -> None:
    """Let the traceback begin with the user's code."""
    # By the slot itself: a __getattribute__ of the user's may raise.
    trace = vars(BaseException)["__traceback__"].__get__(error)
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    if trace is not None:
        BaseException.with_traceback(error, trace)  # a frozen dataclass refuses setattr


# -- its memory --------------------------------------------------------------------------------------------------------


def _statm() -> tuple[int, int]:
    """Bytes that this process holds, and that it has mapped privately; zeros where the system does not say."""
    try:
        with open("/proc/self/statm", "rb", buffering=0) as file:
            fields = file.read(256).split()
        return int(fields[1]) * _PAGE, int(fields[5]) * _PAGE
    except (OSError, ValueError, IndexError):
        return 0, 0


_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


def _left_by_others(memory_limit: int, now: float) -> int:
    """Bytes of earlier attempts that this process holds before one with that limit, for which the backstop is set.

    They are measured again when a part of the limit that matters may have been added.
    """
    if _state.backstop[0] != memory_limit or now - _state.measured_at > memory_limit / _MATTERS / _RATE:
        _state.left = max(0, _measure(memory_limit) - _state.fresh)
        _state.measured_at = now
        worker.register.hold(_state.left)
    return _state.left


def _measure(memory_limit: int) -> int:
    """Bytes that this process holds before an attempt with that limit, for which the backstop is then set."""
    held, mapped = _statm()
    _state.fresh = _state.fresh or held
    limit, then = _state.backstop
    if limit != memory_limit or abs(mapped - then) > _SHIFT:
        _lift_backstop()
        _set_backstop(memory_limit, mapped)
    return held


def _set_backstop(memory_limit: int, mapped: int) -> None:
    """Let the kernel refuse what would be mapped faster than the lane can look: that is a ``MemoryError`` in the task.

    RLIMIT_DATA counts private writable memory, touched or not (RLIMIT_AS would also count what numerical libraries
    only reserve); hence far above the limit itself, which is on what is really held.
    """
    with contextlib.suppress(ImportError, OSError, ValueError):  # no such limit here: the lane's looks are all there is
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
        wanted = mapped + max(_BACKSTOP * memory_limit, memory_limit + _BACKSTOP_LEAST)
        tighter = wanted if soft == resource.RLIM_INFINITY else min(soft, wanted)
        resource.setrlimit(resource.RLIMIT_DATA, (tighter, hard))
        _state.backstop, _state.before = (memory_limit, mapped), (soft, hard)
        worker.state.note_limits()


def _lift_backstop() -> None:
    if _state.backstop[0]:
        _state.backstop = (0, 0)
        with contextlib.suppress(ImportError, OSError, ValueError):
            import resource

            resource.setrlimit(resource.RLIMIT_DATA, _state.before)
            worker.state.note_limits()
