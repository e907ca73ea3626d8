"""The worker half: the only code of ours that runs in a worker.

loky starts the process and hands it :func:`bootstrap` as its initializer and :func:`serve` as its one, long call.
No byte of the user's passes through loky's queues: attempts come and outcomes go over a channel of our own, which
the process inherits.  The order in ``serve`` is what blame rests on: the register says *begun* before the call is
even unpickled, and *ended* only when the outcome is in the channel.

What is done to the process, and why:

* it dies with its parent: the kernel's parent-death signal, which needs no GIL;
* it is a child subreaper, so that the lane finds what its children leave behind;
* it ignores SIGINT: a Ctrl-C reaches the whole terminal group, and only the parent decides what it means;
* its descriptors are moved high, and loky's are duplicated there, because tasks close "all descriptors from 3 on",
  and a closed sentinel pipe makes loky take the process for dead and kill it under the next task;
* multiprocessing's start method, which loky sets to its own, is set back to the platform's default: with loky's a
  ``multiprocessing.Process`` inside a task fails.

It draws no random number.
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
from typing import TYPE_CHECKING, Any

from resilient_exec import context, payload
from resilient_exec.channel import ChannelLost, Kind, WorkerChannel
from resilient_exec.evidence import Register

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["CHANNEL_LOST_STATUS", "STACKS_SIGNAL", "Seat", "bootstrap", "serve"]

CHANNEL_LOST_STATUS = 79  # exit status of a worker whose task closed the pool's own descriptors
STACKS_SIGNAL = getattr(signal, "SIGUSR1", None)
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_LOW = 3  # descriptors from here ...
_HIGH = 64  # ... to here are those that tasks are known to close; ours go above


class Inherited:
    """A descriptor that travels to the worker while it is started, and at no other time."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __reduce__(self) -> tuple[Any, ...]:
        from multiprocessing.reduction import DupFd

        return _arrive, (DupFd(self.fd),)


def _arrive(duplicate: Any) -> Inherited:
    return Inherited(duplicate.detach())


class PickledApart:
    """The user's initializer and its arguments, pickled by themselves.

    So that what fails to unpickle fails where we can tell the parent, and not in loky's own start.  They are
    pickled inside loky's pickling of the process, because multiprocessing's locks travel only there.
    """

    def __init__(self, fn: Callable[..., object], args: tuple[Any, ...]) -> None:
        self.call = (fn, args)

    def __reduce__(self) -> tuple[Any, ...]:
        from loky.backend.reduction import dumps

        return bytes, (bytes(dumps(self.call)),)


@dataclass(eq=False)
class Seat:
    """What a worker is given at its start.  Unpickled there, ``initializer`` is the bytes of a pickled call."""

    channel: Inherited
    register: Inherited
    stacks: Inherited
    parent: int
    initializer: Any  # PickledApart | None


class _Worker:
    """This process, once it is one."""

    channel: WorkerChannel
    register: Register


_worker = _Worker()


def _prctl(option: int, value: int) -> None:
    import ctypes

    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _tie_to_parent(parent: int) -> None:
    if sys.platform == "linux":
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        if os.getppid() != parent:  # it died before we asked to be told
            os._exit(1)


def floor() -> int:
    """The lowest number for descriptors of ours, as high as the limit of this process allows."""
    try:
        import resource

        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    except (ImportError, OSError, ValueError):
        return _HIGH
    return max(_HIGH, min(soft if soft > 0 else 1024, 1024) - 64)


def _raise_high(fd: int, lowest: int) -> int:
    if sys.platform == "win32":
        return fd
    import fcntl

    high = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, lowest)
    os.close(fd)
    return high


def _keep_loky_alive(lowest: int) -> None:
    """Duplicate high what loky has inherited low: its sentinel pipe must not be seen to close."""
    if sys.platform != "linux":
        return
    import fcntl

    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        if _LOW <= fd < _HIGH:
            with contextlib.suppress(OSError):  # the directory that is being listed is one of them
                if os.readlink(f"/proc/self/fd/{fd}").startswith("pipe:"):
                    fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, lowest)


def bootstrap(seat: Seat) -> None:
    """Make this process a worker, and run the user's initializer.  What fails is told to the lane, and is the end."""
    _tie_to_parent(seat.parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    lowest = floor()
    _worker.channel = WorkerChannel(_raise_high(seat.channel.fd, lowest))
    try:
        multiprocessing.set_start_method(None, force=True)  # None: the platform's default
        _keep_loky_alive(lowest)
        _worker.register = Register(seat.register.fd)
        os.close(seat.register.fd)  # the mapping stays
        _worker.channel.send(Kind.HELLO, serial=_open_stacks(seat, lowest))
        if seat.initializer is not None:
            fn, args = pickle.loads(seat.initializer)
            fn(*args)
        _worker.channel.send(Kind.READY)
    except BaseException as error:
        # An initializer may raise anything, SystemExit included; loky would only log it here.
        words = f"the start of the worker raised {type(error).__name__}\n{traceback.format_exc()}"
        _flush()
        with contextlib.suppress(ChannelLost):
            _worker.channel.send(Kind.START_FAILED, body=words.encode(errors="replace"))
        os._exit(1)


def _open_stacks(seat: Seat, lowest: int) -> int:
    """Have all stacks written on a signal; the descriptor's number, which the lane checks before it asks."""
    if STACKS_SIGNAL is None:
        return 0
    fd = _raise_high(seat.stacks.fd, lowest)
    faulthandler.register(STACKS_SIGNAL, file=fd, all_threads=True, chain=False)
    return fd


def serve() -> None:
    """Run attempts until told to quit.  Returns ``None``, raises nothing: loky's queues carry no word of the user's."""
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
        with contextlib.suppress(Exception):
            sys.stderr.write(f"resilient_exec: worker {pid} ends: {lost}\n")
            sys.stderr.flush()
        os._exit(CHANNEL_LOST_STATUS)


def _attempt(serial: int, body: memoryview) -> None:
    pid = os.getpid()
    _worker.register.begin(serial)
    _worker.channel.send(Kind.BEGUN, serial)
    kind, answer = _run(body)
    del body
    if os.getpid() != pid:
        os._exit(0)  # see serve: the answer is the parent's to give
    _worker.channel.send(kind, serial, answer)
    _worker.register.end(serial)


def _run(body: memoryview) -> tuple[Kind, bytes]:
    """Run the call and pack what comes of it, whatever that is."""
    try:
        value = _call(body)
        _flush()
        return Kind.RETURNED, payload.pack_value(value)
    except payload.Unsendable as error:
        return Kind.NOT_SENDABLE, str(error).encode(errors="replace")
    except BaseException as error:
        # SystemExit and KeyboardInterrupt, too, are the task's outcome and not this process's.
        _flush()
        _forget_our_frames(error)
        return Kind.RAISED, payload.pack_exception(error)
    finally:
        context.enter(context.TaskContext())


def _call(body: memoryview) -> object:
    size = int.from_bytes(body[:4], "little")
    context.enter(context.TaskContext(*pickle.loads(body[4 : 4 + size])))
    try:
        fn, args, kwargs = payload.unpack_call(body[4 + size :])
    except Exception as error:
        text = f"the call cannot be unpickled in the worker: {type(error).__name__}: {error}"
        raise payload.Unsendable(text) from error
    del body
    return fn(*args, **kwargs)


def _forget_our_frames(error: BaseException) -> None:
    """Let the traceback begin with the user's code."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    if trace is not None:
        error.__traceback__ = trace


def _flush() -> None:
    """What the task printed is out before its outcome is: a later kill must not take it along."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
