"""The worker half: the only code of ours that runs in a worker.

loky starts the process and hands it :func:`bootstrap` as its initializer and :func:`.worker.serving.serve` as its one,
long call.  No byte of the user's passes through loky's queues: attempts come and outcomes go over a channel of our own,
which the process inherits.

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
import signal
import sys
import traceback

from resilient_exec.model.lasting import is_lasting
from resilient_exec.model.worker_errors import SoftTimeout
from resilient_exec.wire.channel import ChannelLost, Kind, WorkerChannel
from resilient_exec.wire.register import Register
from resilient_exec.worker import context
from resilient_exec.worker.preparation import prepare
from resilient_exec.worker.seat import CHANNEL_LOST_STATUS, SOFT_SIGNAL, STACKS_SIGNAL
from resilient_exec.worker.state import WorkerState
from resilient_exec.worker.streams import Streams, flush
from resilient_exec.worker.terminal import disregard_interrupts, leave_group

try:
    from _signal import getsignal as _getsignal  # type: ignore[import-not-found]  # several times as fast: no enums
except ImportError:
    _getsignal = signal.getsignal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from resilient_exec.wire.script import Known
    from resilient_exec.worker.seat import Seat

__all__ = [
    "arm",
    "bootstrap",
    "end_process",
    "is_armed",
    "on_soft_timeout",
    "raise_soft_timeout_late",
    "worker",
]

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_LOW = 3  # descriptors from here ...
_HIGH = 64  # ... to here are those that tasks are known to close; ours go above


class _Worker:
    """This process, once it is one."""

    channel: WorkerChannel
    register: Register
    streams: Streams
    stacks = 0  # the descriptor for stacks
    handler: Any = None  # what Python knew to handle the signal for stacks when that was set
    fresh_locks = False
    script: Known | None = None  # what the parent has of __main__
    running = 0  # the serial of the attempt whose call is under way, and may be interrupted
    state: WorkerState  # before the first attempt
    unfit = ""  # what the last one has left that fails others


worker = _Worker()


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


def bootstrap(seat: Seat) -> None:
    """Make this process a worker, and run the user's initializer.  What fails is told to the lane, and is the end."""
    _tie_to_parent(seat.parent)
    leave_group()
    disregard_interrupts()
    worker.streams = Streams()
    if seat.output is not None:
        worker.streams.redirect(seat.output[0].fd, seat.output[1].fd)
        if seat.captured:
            worker.streams.capture()
    worker.fresh_locks = seat.fresh_locks
    lowest = floor()
    worker.channel = WorkerChannel(_raise_high(seat.channel.fd, lowest))
    try:
        multiprocessing.set_start_method(None, force=True)  # None: the platform's default
        _move_trackers_high(lowest)
        worker.register = Register(seat.register.fd)
        os.close(seat.register.fd)  # the mapping stays
        context.set_scratch(seat.mark, seat.temporary, worker.register.note_scratch, worker.register.scratch)
        context.set_notes(worker.register)
        context.set_disown(worker.register.disown)
        worker.channel.send(Kind.HELLO, serial=_open_stacks(seat, lowest))
        if seat.before is not None:
            worker.script = prepare(seat.before.fd)
        worker.streams.keep(lambda fd: _duplicate_high(fd, lowest))
        worker.state = WorkerState.take()
        worker.channel.send(Kind.READY)
    except ChannelLost as lost:
        end_process(CHANNEL_LOST_STATUS, str(lost))
    except BaseException as error:
        # An initializer may raise anything, SystemExit included; loky would only log it here.
        words = f"the start of the worker raised {type(error).__name__}\n{traceback.format_exc()}"
        flush()
        with contextlib.suppress(ChannelLost):
            worker.channel.send(Kind.START_FAILED, int(is_lasting(error)), words.encode(errors="replace"))
        os._exit(1)


def on_soft_timeout(*_: object) -> None:
    """Raise ``SoftTimeout`` in the attempt that the parent has named, if that is the one under way."""
    if worker.running and worker.running == worker.register.soft():
        worker.running = 0  # once in an attempt
        raise SoftTimeout(f"the soft_timeout of this attempt is over (attempt {context.task_context().attempt})")


def raise_soft_timeout_late(took: float) -> None:
    """The same for one that struck before the task's code began: ``took`` s went into what that needs."""
    worker.running = 0
    raise SoftTimeout(
        f"the soft_timeout of this attempt (attempt {context.task_context().attempt}) was over before the task's own "
        f"code began: to unpickle its call, and to import what that needs, took {took:.1f} s"
    )


def _open_stacks(seat: Seat, lowest: int) -> int:
    """Have all stacks written on a signal; the descriptor's number, which the lane checks before it asks."""
    if STACKS_SIGNAL is None:
        return 0
    worker.stacks = _raise_high(seat.stacks.fd, lowest)
    arm()
    return worker.stacks


def arm() -> None:
    """Set our two signals anew before each attempt: the last one may have taken them for itself, or blocked them."""
    if STACKS_SIGNAL is None or SOFT_SIGNAL is None:
        return
    with contextlib.suppress(OSError, ValueError):  # the descriptor is closed: no stacks
        faulthandler.unregister(STACKS_SIGNAL)  # or it would think that it is still there
        faulthandler.register(STACKS_SIGNAL, file=worker.stacks, all_threads=True, chain=False)
    signal.signal(SOFT_SIGNAL, on_soft_timeout)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (STACKS_SIGNAL, SOFT_SIGNAL))
    worker.handler = _getsignal(STACKS_SIGNAL)


def is_armed() -> bool:
    """Whether our two signals seem to be as they were set; asks no system."""
    if STACKS_SIGNAL is None or SOFT_SIGNAL is None:
        return True
    return _getsignal(SOFT_SIGNAL) is on_soft_timeout and _getsignal(STACKS_SIGNAL) is worker.handler


def end_process(status: int, words: str) -> NoReturn:
    """End it, with words: left to loky it would live on, and nobody would read the channel."""
    with contextlib.suppress(BaseException):
        sys.stderr.write(f"resilient_exec: worker {os.getpid()} ends: {words}\n")
        sys.stderr.flush()
    os._exit(status)
