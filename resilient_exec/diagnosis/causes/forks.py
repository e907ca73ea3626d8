"""Forked children: only the thread that forked lives on in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resilient_exec.diagnosis.cause import Cause

if TYPE_CHECKING:
    from resilient_exec.diagnosis.facts import Scene, Thread

__all__ = ["nobody_to_release"]


def nobody_to_release(scene: Scene) -> Cause | None:
    """A forked child whose every thread waits, for ever, for what only another thread of it could give."""
    for process in scene.processes:
        if not process.is_forked or not process.threads or not all(map(_waits_within, process.threads)):
            continue
        parent = scene.process(process.parent)
        lost = process.lost_threads
        if lost == 0 or (lost is None and (parent is None or len(parent.threads) < 2)):
            continue  # there was no other thread: what it waits for, it has made itself
        main = process.main or process.threads[0]
        if not main.frames:
            continue
        place = next((f"{frame.function} ({frame.file}, line {frame.line})" for frame in main.frames), "")
        evidence = [
            (
                f"{process.title} was forked from {process.parent}, and waits without a limit for a lock of "
                "its own memory in "
                f"{place}{f': {main.frames[0].text}' if main.frames and main.frames[0].text else ''}"
            ),
            (
                f"it has {len(process.threads)} thread{'s' if len(process.threads) > 1 else ''}, which wait; "
                "nobody in it is "
                "left to release what they wait for"
            ),
        ]
        if lost:
            evidence.append(f"its parent had {lost} more thread{'s' if lost > 1 else ''} when it was forked")
        elif parent is not None:
            evidence.append(f"its parent has {len(parent.threads)} threads")
        title = "a forked child waits for a lock, or a thread, that exists only in its parent"
        remedy = (
            (
                "start processes by another method: multiprocessing.set_start_method('forkserver') or 'spawn' "
                "(the default "
                "since Python 3.14)"
            ),
            "or fork before the first thread is started (pools of threads, logging queues, BLAS, progress bars)",
            "resilient_exec.ResilientPool never forks from a program's process",
        )
        return Cause("fork-with-locks-held", title, tuple(evidence), remedy)
    return None


def _waits_within(thread: Thread) -> bool:
    wait = thread.wait
    return wait.call == "futex" and not wait.is_timed and not wait.shared
