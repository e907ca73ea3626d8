"""The worker's process between two calls of the user's: put in order by need, its children noted, its memory measured.

What a task may leave behind (signal handlers, timers, standard streams) is looked at closely behind one that took
longer than a millisecond, and when there is nothing to do; behind a quicker one there are a few cheap looks.
"""

from __future__ import annotations

import contextlib
import os
import signal

from resilient_exec.worker.main import arm, is_armed, worker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["NO_CHILD", "QUICK", "children", "lift_backstop", "look_quickly", "note_children", "note_fork"]
__all__ += ["prepare_for_next", "put_in_order", "resident", "state", "weigh"]

QUICK = 0.001  # s: behind what took less than this a few looks are enough
NO_CHILD = 0.0001  # s: nobody starts a process in less
_BACKSTOP = 2  # times its memory limit: what a process may map, however fast it does so ...
_BACKSTOP_LEAST = 1 << 30  # ... and at least so many bytes beyond it: the stack of each thread counts with 8 MiB
_SHIFT = 64 << 20  # bytes: by how much the backstop may be off before it is set anew
_MATTERS = 20  # one part in so many of a limit may be added before it is measured again ...
_RATE = 2 << 30  # ... at so many bytes/s, which no task is expected to surpass
_CROWDED = 2  # a worker that still holds more than one part in so many of an attempt's limit is not to run it
_TIMERS = [getattr(signal, name) for name in ("ITIMER_REAL", "ITIMER_PROF", "ITIMER_VIRTUAL") if hasattr(signal, name)]
_USUAL_TIMERS = _TIMERS[:2]  # the third is hardly ever used: it is looked for when there is nothing to do
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


state = _State()


def note_fork() -> None:
    """This is a child that a task has forked."""
    state.forked = True


def end_forked(error: BaseException | None) -> None:
    """End this process, a child that a task forked, whatever happens: it must not serve the parent's lane."""
    try:
        from resilient_exec.worker.fast_exit import end_forked_by_task

        end_forked_by_task(error)
    finally:
        os._exit(1)


def put_in_order() -> None:
    """Set right whatever a task may have left amiss."""
    state.slow = False
    arm()
    worker.streams.mend()
    _stop_timers()


def prepare_for_next() -> None:
    """Behind an attempt that took its time, or while there is nothing to do."""
    if state.slow or not look_quickly(_TIMERS):
        put_in_order()
    else:
        worker.streams.mend()


def look_quickly(timers: list[Any] = _USUAL_TIMERS) -> bool:
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


def children() -> frozenset[int]:
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


def note_children(notes: dict[str, Any], *, raised: bool) -> None:
    """Note what processes there are that the attempt may have started, and whether the parent is to end some."""
    found, before = children(), state.children
    if found:
        has_started = raised and (bool(found - before) or 0 in found)
        notes["children"], notes["strangers"] = has_started, tuple(before if has_started else found)
    state.children = found


# -- its memory --------------------------------------------------------------------------------------------------------


def resident() -> int:
    """Bytes that this process holds; 0 where the system does not say."""
    return _statm()[0]


def weigh(memory_limit: int, now: float) -> int:
    """Note what earlier attempts have left, in bytes, before one with that limit (-1: none) begins.

    It is returned where it is so much that this process is not to run the attempt; else 0.  It is measured again when a
    part of the limit that matters may have been added.
    """
    if memory_limit < 0:
        lift_backstop()
        return 0
    if state.backstop[0] != memory_limit or now - state.measured_at > memory_limit / _MATTERS / _RATE:
        state.left = max(0, _measure(memory_limit) - state.fresh)
        state.measured_at = now
        worker.register.hold(state.left)
    return state.left if state.left * _CROWDED > memory_limit else 0


def _statm() -> tuple[int, int]:
    """Bytes that this process holds, and that it has mapped privately; zeros where the system does not say."""
    try:
        with open("/proc/self/statm", "rb", buffering=0) as file:
            fields = file.read(256).split()
        return int(fields[1]) * _PAGE, int(fields[5]) * _PAGE
    except (OSError, ValueError, IndexError):
        return 0, 0


_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


def _measure(memory_limit: int) -> int:
    """Bytes that this process holds before an attempt with that limit, for which the backstop is then set."""
    held, mapped = _statm()
    state.fresh = state.fresh or held
    limit, then = state.backstop
    if limit != memory_limit or abs(mapped - then) > _SHIFT:
        lift_backstop()
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
        state.backstop, state.before = (memory_limit, mapped), (soft, hard)
        worker.state.note_limits()


def lift_backstop() -> None:
    """Take the kernel's limit away again."""
    if state.backstop[0]:
        state.backstop = (0, 0)
        with contextlib.suppress(ImportError, OSError, ValueError):
            import resource

            resource.setrlimit(resource.RLIMIT_DATA, state.before)
            worker.state.note_limits()
