"""Threads of one process that wait for each other's locks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resilient_exec.diagnosis.cause import Cause
from resilient_exec.diagnosis.facts import is_library

if TYPE_CHECKING:
    from resilient_exec.diagnosis.facts import Process, Scene, Thread

__all__ = ["deadlock"]


def deadlock(scene: Scene) -> Cause | None:
    """A circle: each thread of it waits for a lock that the next one holds."""
    for process in scene.processes:
        circle = _circle(process)
        if circle:
            return _told(process, circle)
    return None


def _wanted(thread: Thread) -> int | None:
    """The lock that its innermost frame of the program's asks for, where the thread waits without a limit."""
    if thread.wait.call not in ("futex", "") or thread.wait.is_timed:
        return None
    for frame in thread.frames:
        if not is_library(frame):
            return frame.wants
        if not frame.is_in("/threading.py", "acquire", "__enter__"):  # of a semaphore, or of an RLock in Python
            break
    return None


def _holder(process: Process, lock: int) -> tuple[Thread, str] | None:
    """Return who holds the lock, and how that is known."""
    for thread in process.threads:
        for frame in thread.frames:
            for known in frame.locks:
                if known.identity == lock and known.owner is not None:
                    owner = next((other for other in process.threads if other.ident == known.owner), None)
                    return (owner, f"{known.name} says so itself") if owner is not None else None
    for thread in process.threads:
        for frame in thread.frames:
            for held, where in () if is_library(frame) else frame.holds:
                if held == lock:
                    return thread, where
    return None


def _circle(process: Process) -> list[tuple[Thread, int, str]]:
    """The threads of a circle, each with the lock it waits for and how its holder is known."""
    for first in process.threads:
        path: list[tuple[Thread, int, str]] = []
        seen: list[int] = []
        thread: Thread | None = first
        while thread is not None and thread.tid not in seen:
            lock = _wanted(thread)
            found = _holder(process, lock) if lock is not None else None
            if lock is None or found is None:
                break
            seen.append(thread.tid)
            path.append((thread, lock, found[1]))
            thread = found[0]
        else:
            if thread is not None:
                return path[seen.index(thread.tid) :]
    return []


def _told(process: Process, circle: list[tuple[Thread, int, str]]) -> Cause:
    evidence = []
    for at, (thread, _, where) in enumerate(circle):
        holder = circle[(at + 1) % len(circle)][0]
        frame = next(frame for frame in thread.frames if frame.wants is not None)
        place = f"{frame.file.rpartition('/')[2]}, line {frame.line}"
        whose = "itself" if holder.tid == thread.tid else f"thread {holder.name or holder.tid}"
        evidence.append(
            f"thread {thread.name or thread.tid} waits in {frame.function} ({place}: {frame.text}) for a lock "
            f"that {whose} "
            f"holds ({where})"
        )
    many = f"{len(circle)} threads of process {process.pid} wait for each other's locks"
    alone = f"a thread of process {process.pid} waits for a lock that it holds itself"
    remedy: tuple[str, ...] = (
        "take the locks in the same order everywhere, or only one of them at a time",
        "or give the wait a limit: lock.acquire(timeout=...)",
    )
    if len(circle) == 1:
        remedy = ("use threading.RLock, or do not take the lock again while it is held",)
    return Cause("lock-deadlock", many if len(circle) > 1 else alone, tuple(evidence), remedy)
