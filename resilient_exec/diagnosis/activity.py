"""What a program is doing that makes no future done and is no hang: computing, sleeping, receiving, asking somebody."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resilient_exec.diagnosis.facts import describe_function, is_library
from resilient_exec.diagnosis.roles import HELPERS

if TYPE_CHECKING:
    from resilient_exec.diagnosis.facts import Process, Scene, Thread

__all__ = ["activities", "asks", "waits"]

_BUSY = 0.05  # of a core
_NETWORK = {"read", "recvfrom", "recvmsg", "poll", "ppoll", "connect", "accept", "accept4", "select", "pselect6"}
_NETWORK |= {"epoll_wait", "epoll_pwait", "epoll_pwait2"}
_LONG = 1.0  # s: a wait that ends by itself, and is no library's polling
_DEVICES = ("/dev/nvidia", "/dev/kfd", "/dev/dri", "/dev/accel")
_MUCH = 64 * 1024  # bytes since the last look


def activities(scene: Scene) -> list[str]:
    """One line for each thing that is going on; empty: nothing that could bring the program forward."""
    found = []
    for process in scene.processes:
        if process.role in HELPERS or process.state in "ZTt":
            continue
        text = _busy(scene, process) or _moves(scene, process)
        if text is None:
            works = _at_work(scene, process)
            text = next((told for thread in works if (told := _excuse(thread)) is not None), None)
        if text is not None:
            found.append(f"{process.title} {text}")
    return found


def _busy(scene: Scene, process: Process) -> str | None:
    share = scene.busy.get(process.pid, 0.0)
    if share < _BUSY:
        return None
    holder = next((thread for thread in process.threads if thread.has_gil or thread.state == "R"), process.main)
    place = describe_function(holder) if holder is not None else "a place that is not known"
    silent = "" if process.is_heard else "; it gives the GIL to no other thread: code in C, most likely"
    return f"computes ({share:.0%} of a core) in {place}{silent}"


def _moves(scene: Scene, process: Process) -> str | None:
    moved = scene.reading.get(process.pid, 0)
    return f"reads or writes ({moved // 1024} KiB since the last look)" if moved >= _MUCH else None


def _at_work(scene: Scene, process: Process) -> list[Thread]:
    """The threads that do a pool's tasks, and the main threads of the processes that do."""
    workers = {pid for pool in scene.pools for pid in pool.workers}
    idents = {ident for pool in scene.pools if pool.pid == process.pid for ident in pool.threads}
    threads = [thread for thread in process.threads if thread.ident in idents]
    if process.pid in workers or (process.pid != scene.root and process.parent in _below(scene, workers)):
        threads += [process.main] if process.main is not None else []
    if process.main is not None and asks(process.main):
        threads.append(process.main)
    return threads


def _below(scene: Scene, workers: set[int]) -> set[int]:
    found = set(workers)
    for process in scene.processes:  # in the order of their birth
        if process.parent in found:
            found.add(process.pid)
    return found


def asks(thread: Thread) -> bool:
    """Whether it waits for its standard input, or for a terminal."""
    wait = thread.wait
    terminal = wait.target.startswith(("/dev/pts", "/dev/tty"))
    return (wait.call == "read" and wait.fd == 0) or (wait.call in ("poll", "ppoll", "select", "pselect6") and terminal)


def _excuse(thread: Thread) -> str | None:
    wait, place = thread.wait, describe_function(thread)
    if asks(thread):
        return f"waits for input ({wait.target}) in {place}"
    if wait.call in ("nanosleep", "clock_nanosleep"):
        return f"sleeps in {place}"
    if thread.state == "D":
        return f"waits for a disk or a network file system (state D, {wait.channel or 'place not known'}) in {place}"
    if wait.target.startswith(_DEVICES):
        return f"waits for a device ({wait.target}) in {place}"
    if wait.target.startswith("socket:") and wait.call in _NETWORK:
        return f"waits for the network ({wait.target}) in {place}"
    if wait.call == "futex" and wait.is_timed and not wait.shared and (limit := _limit(thread)) >= _LONG:
        return f"waits for at most {limit:g} s in {place}"
    if wait.call in ("wait4", "waitid"):
        return f"waits for a process that it has started, in {place}"
    if wait.call in ("flock", "fcntl"):
        return f"waits for the lock of a file ({wait.target}) in {place}"
    return None


def _limit(thread: Thread) -> float:
    """The limit of the wait that the program's own code has asked for, in s; 0: it has not."""
    for frame in thread.frames:
        if not is_library(frame):
            break
        if frame.has_timeout and frame.timeout is not None:
            return frame.timeout
    return 0.0


def waits(thread: Thread) -> str:
    """Return what a thread waits for, in a few words."""
    wait = thread.wait
    if thread.state == "R":
        return "running"
    if wait.call == "futex":
        limit = ", with a limit" if wait.is_timed else ""
        return f"lock shared by processes{limit}" if wait.shared else f"lock or condition{limit}"
    if wait.call in ("nanosleep", "clock_nanosleep"):
        return "sleep"
    if wait.call in ("wait4", "waitid"):
        return "end of a child"
    if wait.call:
        on = f" {wait.target}" if wait.target else ""
        fd = f" (descriptor {wait.fd})" if wait.fd is not None else ""
        return f"{wait.call}{on}{fd}"
    return wait.channel or "not known"
