"""The worker half: the only code of ours that runs in a worker.

loky starts the process and hands it :func:`bootstrap` as its initializer and :func:`serve` as its one, long call.
No byte of the user's passes through loky's queues: attempts come and outcomes go over a channel of our own, which
the process inherits.  The order in ``serve`` is what blame rests on: the register says *begun* before the call is
even unpickled, and *ended* only when the outcome is in the channel.

What is done to the process, and why:

* it dies with its parent: the kernel's parent-death signal, which needs no GIL;
* it is a child subreaper, so that the lane finds what its children leave behind;
* it has a process group of its own, and SIGINT does nothing: see :mod:`.worker.terminal`;
* its descriptors are moved high, and loky's too, because tasks close "all descriptors from 3 on": loky would write
  into the files that get their numbers next, and a closed sentinel pipe makes it take the process for dead and
  kill it under the next task;
* what it prints goes where the pool wants it (:mod:`.worker.streams`);
* a signal that the parent sends raises ``SoftTimeout`` in the task, if the register names that very attempt;
* multiprocessing's start method is set back from loky's to the platform's default: with loky's a
  ``multiprocessing.Process`` inside a task fails.  It draws no random number.
"""

from __future__ import annotations

import contextlib
import faulthandler
import multiprocessing
import os
import pickle
import signal
import sys
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from resilient_exec.model.errors import SoftTimeout
from resilient_exec.wire import payload
from resilient_exec.wire.channel import ChannelLost, Kind, WorkerChannel
from resilient_exec.wire.register import Register
from resilient_exec.worker import context
from resilient_exec.worker.preparation import prepare
from resilient_exec.worker.streams import Streams, flush
from resilient_exec.worker.terminal import disregard_interrupts, leave_group

if TYPE_CHECKING:
    from collections.abc import Iterator

    from resilient_exec.wire.script import Known
    from resilient_exec.worker.preparation import Inherited

__all__ = [
    "CHANNEL_LOST_STATUS",
    "SOFT_SIGNAL",
    "STACKS_SIGNAL",
    "STATUS_WORDS",
    "STRAY_STATUS",
    "Seat",
    "bootstrap",
    "run",
    "serve",
]

CHANNEL_LOST_STATUS = 79  # exit status of a worker whose task closed the pool's own descriptors
STRAY_STATUS = 78  # exit status of a worker in whose own code something of a task's has raised
STATUS_WORDS: dict[int | None, str] = {
    CHANNEL_LOST_STATUS: "the user's code in it closed descriptors that belong to the pool",
    STRAY_STATUS: "a signal handler or a thread that a task left behind raised in the worker's own code",
}
STACKS_SIGNAL = getattr(signal, "SIGUSR1", None)
# One that nobody else is likely to use: SIGUSR2 is some libraries' own.
SOFT_SIGNAL = signal.SIGRTMIN + 7 if hasattr(signal, "SIGRTMIN") else getattr(signal, "SIGUSR2", None)
_BACKSTOP = 2  # times its memory limit: what a process may map, however fast it does so ...
_BACKSTOP_LEAST = 1 << 30  # ... and at least so many bytes beyond it: the stack of each thread counts with 8 MiB
_TIMERS = [getattr(signal, name) for name in ("ITIMER_REAL", "ITIMER_VIRTUAL", "ITIMER_PROF") if hasattr(signal, name)]
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_LOW = 3  # descriptors from here ...
_HIGH = 64  # ... to here are those that tasks are known to close; ours go above


@dataclass(eq=False)
class Seat:
    """What a worker is given at its start."""

    channel: Inherited
    register: Inherited
    stacks: Inherited
    parent: int  # 0: a forkserver, which ends us with the parent, and whose own death we survive
    mark: str  # scratch directories begin with it
    temporary: str  # the folder where they are looked for when the parent has died
    before: Inherited | None  # what it does before its first attempt: see PickledApart
    output: tuple[Inherited, Inherited] | None  # takes the place of stdout and stderr
    fresh_locks: bool


class _Worker:
    """This process, once it is one."""

    channel: WorkerChannel
    register: Register
    streams: Streams
    stacks = 0  # the descriptor for stacks
    fresh_locks = False
    script: Known | None = None  # what the parent has of __main__
    running = 0  # the serial of the attempt whose call is under way, and may be interrupted


_worker = _Worker()


def _prctl(option: int, value: int) -> None:
    import ctypes

    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _tie_to_parent(parent: int) -> None:
    if sys.platform == "linux":
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        if parent:
            _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:  # it died before we asked to be told
                os._exit(1)


def floor() -> int:
    """The lowest number for descriptors of ours, as high as the limit of this process allows."""
    try:
        import resource

        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    except (ImportError, OSError, ValueError):
        return _HIGH
    soft = min(soft if soft > 0 else 1024, 1024)
    return max(min(_HIGH, soft // 2), soft - 64)


def _raise_high(fd: int, lowest: int) -> int:
    if sys.platform == "win32":
        return fd
    high = _duplicate_high(fd, lowest)
    os.close(fd)
    return high


def _duplicate_high(fd: int, lowest: int) -> int:
    import fcntl

    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, lowest)


def _move_trackers_high(lowest: int) -> None:
    """Move up what loky and multiprocessing have inherited low, before a task closes it.

    Their resource trackers would write into whatever file of the task's has the number next.
    """
    for name in ("loky.backend.resource_tracker", "multiprocessing.resource_tracker"):
        tracker = getattr(sys.modules.get(name), "_resource_tracker", None)
        fd = getattr(tracker, "_fd", None)
        if isinstance(fd, int) and _LOW <= fd < _HIGH:
            tracker._fd = _raise_high(fd, lowest)  # type: ignore[union-attr]


def run(seat: Seat) -> None:
    """Be a worker: what a process of ours does from its start to its end."""
    bootstrap(seat)
    serve()


def bootstrap(seat: Seat) -> None:
    """Make this process a worker, and run the user's initializer.  What fails is told to the lane, and is the end."""
    _tie_to_parent(seat.parent)
    leave_group()
    disregard_interrupts()
    _worker.streams = Streams()
    if seat.output is not None:
        _worker.streams.redirect(seat.output[0].fd, seat.output[1].fd)
    _worker.fresh_locks = seat.fresh_locks
    lowest = floor()
    _worker.channel = WorkerChannel(_raise_high(seat.channel.fd, lowest))
    try:
        multiprocessing.set_start_method(None, force=True)  # None: the platform's default
        _move_trackers_high(lowest)
        _worker.register = Register(seat.register.fd)
        os.close(seat.register.fd)  # the mapping stays
        context.set_scratch(seat.mark, seat.temporary, _worker.register.note_scratch, _worker.register.scratch)
        context.set_notes(_worker.register)
        _worker.channel.send(Kind.HELLO, serial=_open_stacks(seat, lowest))
        if seat.before is not None:
            _worker.script = prepare(seat.before.fd)
        _worker.streams.keep(lambda fd: _duplicate_high(fd, lowest))
        _worker.channel.send(Kind.READY)
    except ChannelLost as lost:
        _end(CHANNEL_LOST_STATUS, str(lost))
    except BaseException as error:
        # An initializer may raise anything, SystemExit included; loky would only log it here.
        words = f"the start of the worker raised {type(error).__name__}\n{traceback.format_exc()}"
        flush()
        with contextlib.suppress(ChannelLost):
            _worker.channel.send(Kind.START_FAILED, body=words.encode(errors="replace"))
        os._exit(1)


def _on_soft_timeout(*_: object) -> None:
    if _worker.running and _worker.running == _worker.register.soft():
        _worker.running = 0  # once in an attempt
        raise SoftTimeout(f"the soft_timeout of this attempt is over (attempt {context.task_context().attempt})")


def _open_stacks(seat: Seat, lowest: int) -> int:
    """Have all stacks written on a signal; the descriptor's number, which the lane checks before it asks."""
    if STACKS_SIGNAL is None:
        return 0
    _worker.stacks = _raise_high(seat.stacks.fd, lowest)
    _arm()
    return _worker.stacks


def _arm() -> None:
    """Set our two signals anew before each attempt: the last one may have taken them for itself, or blocked them."""
    if STACKS_SIGNAL is None or SOFT_SIGNAL is None:
        return
    with contextlib.suppress(OSError, ValueError):  # the descriptor is closed: no stacks
        faulthandler.unregister(STACKS_SIGNAL)  # or it would think that it is still there
        faulthandler.register(STACKS_SIGNAL, file=_worker.stacks, all_threads=True, chain=False)
    signal.signal(SOFT_SIGNAL, _on_soft_timeout)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (STACKS_SIGNAL, SOFT_SIGNAL))


def serve() -> None:
    """Run attempts until told to quit.  Returns ``None``, raises nothing."""
    pid = os.getpid()
    try:
        while True:
            frame = _worker.channel.receive()
            if frame.kind is not Kind.ATTEMPT:
                return
            _attempt(frame.serial, frame.body)
            del frame
            if os.getpid() != pid:
                os._exit(0)  # a child that the task forked, and that came back out of the task's code
    except ChannelLost as lost:
        _end(CHANNEL_LOST_STATUS, str(lost))
    except BaseException:
        # No outcome of a task: what raises here is a signal handler or a thread that a task has left behind.
        _end(STRAY_STATUS, traceback.format_exc())


def _end(status: int, words: str) -> NoReturn:
    """End the process, with words: left to loky it would live on, and nobody would read the channel."""
    with contextlib.suppress(BaseException):
        sys.stderr.write(f"resilient_exec: worker {os.getpid()} ends: {words}\n")
        sys.stderr.flush()
    os._exit(status)


def _attempt(serial: int, body: memoryview) -> None:
    pid = os.getpid()
    _worker.register.begin(serial)
    _worker.channel.send(Kind.BEGUN, serial)
    _arm()
    _worker.streams.mend()
    kind, answer = _run(serial, body)
    del body
    if os.getpid() != pid:
        os._exit(0)  # see serve: the answer is the parent's to give
    _worker.channel.send(kind, serial, answer)
    _worker.register.end(serial)
    context.leave()


def _run(serial: int, body: memoryview) -> tuple[Kind, bytes]:
    """Run the call and pack what comes of it, whatever that is."""
    fresh_locks = _worker.fresh_locks
    try:
        value = _call(serial, body)
        flush()
        return Kind.RETURNED, payload.pack_value(value, fresh_locks=fresh_locks, script=_worker.script)
    except payload.Unsendable as error:
        return Kind.NOT_SENDABLE, str(error).encode(errors="replace")
    except BaseException as error:
        # SystemExit and KeyboardInterrupt, too, are the task's outcome and not this process's.
        flush()
        _forget_our_frames(error)
        return Kind.RAISED, payload.pack_exception(error, fresh_locks=fresh_locks, script=_worker.script)


def _call(serial: int, body: memoryview) -> object:
    size = int.from_bytes(body[:4], "little")
    (key, attempt, pids, limits), memory_limit = pickle.loads(body[4 : 4 + size])
    context.enter(context.TaskContext(key, attempt, pids, limits, serial))
    try:
        fn, args, kwargs = payload.unpack_call(body[4 + size :])
    except Exception as error:
        text = f"the call cannot be unpickled in the worker: {payload.text_of(error)}"
        if _worker.script is not None and isinstance(error, AttributeError):
            text += '; what is defined behind `if __name__ == "__main__":` is not there: define it above'
        raise payload.Unsendable(text) from error
    # The raw pickle must not lie beside what it was made into for as long as the task runs.
    with contextlib.suppress(BufferError):  # something unpickled is a view of it
        body.release()
    timers = _running_timers()
    with _backstop(memory_limit) if memory_limit is not None else contextlib.nullcontext():
        try:
            _worker.running = serial
            _on_soft_timeout()  # it may be over already: the call took that long to unpickle
            return fn(*args, **kwargs)
        finally:
            _worker.running = 0
            for timer in _running_timers():
                if timer not in timers:  # one that the task has forgotten must not strike the next
                    signal.setitimer(timer, 0)


@contextlib.contextmanager
def _backstop(memory_limit: int) -> Iterator[None]:
    """Let the kernel refuse what would be mapped faster than the lane can look: that is a ``MemoryError`` in the task.

    RLIMIT_DATA counts private writable memory, touched or not (RLIMIT_AS would also count what numerical libraries
    only reserve); hence far above the limit itself, which is on what is really held.
    """
    try:
        import resource

        with open("/proc/self/statm", "rb") as file:
            mapped = int(file.read().split()[5]) * resource.getpagesize()
        soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
        wanted = mapped + max(_BACKSTOP * memory_limit, memory_limit + _BACKSTOP_LEAST)
        tighter = wanted if soft == resource.RLIM_INFINITY else min(soft, wanted)
        resource.setrlimit(resource.RLIMIT_DATA, (tighter, hard))
    except (ImportError, OSError, ValueError, IndexError):  # no such limit here: the lane's looks are all there is
        yield
        return
    try:
        yield
    finally:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _running_timers() -> list[int]:
    return [timer for timer in _TIMERS if signal.getitimer(timer)[0] > 0]


def _forget_our_frames(error: BaseException) -> None:
    """Let the traceback begin with the user's code."""
    trace = vars(BaseException)["__traceback__"].__get__(
        error
    )  # by the slot: a __getattribute__ of the user's may raise
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    if trace is not None:
        BaseException.with_traceback(error, trace)  # a frozen dataclass refuses setattr
