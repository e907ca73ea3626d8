"""Workers that died: with a lock, in the middle of a message, with their task, or at their start again and again."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from resilient_exec.diagnosis.cause import Cause
from resilient_exec.diagnosis.facts import is_library
from resilient_exec.diagnosis.roles import HELPERS

if TYPE_CHECKING:
    from resilient_exec.diagnosis.facts import Death, Pool, Process, Scene, Thread

__all__ = ["dying_at_start", "half_a_message", "how", "lock_of_the_dead", "lost_task", "replaced", "unguarded_main"]

_SEVERAL = 3  # deaths at the start: no accident any more
_QUEUE_CODE = ("/queues.py", "pebble/pool/channel.py")
_BOOTSTRAP = "bootstrapping phase"


def how(death: Death) -> str:
    """How it ended, in words."""
    age = f" after {death.age:.1f} s" if death.age else ""
    if death.exit_code is None:
        return f"{death.pid} ({death.role}) is gone{age}; how it ended is not known"
    if death.exit_code < 0:
        try:
            name = signal.Signals(-death.exit_code).name
        except ValueError:
            name = f"signal {-death.exit_code}"
        return f"{death.pid} ({death.role}) was killed by {name}{age}"
    return f"{death.pid} ({death.role}) ended with status {death.exit_code}{age}"


def _violent(scene: Scene) -> list[Death]:
    """Deaths that were no orderly end, as far as is known."""
    return [death for death in scene.deaths if death.exit_code != 0 and death.role not in HELPERS]


def _told(deaths: list[Death]) -> str:
    more = f", and {len(deaths) - 3} more" if len(deaths) > 3 else ""
    return "; ".join(how(death) for death in deaths[-3:]) + more


def unguarded_main(scene: Scene) -> Cause | None:
    """Workers import a script that starts workers."""
    found = [death for death in scene.deaths if _BOOTSTRAP in death.last_words]
    if len(found) < _SEVERAL:
        return None
    evidence = (
        f"{len(found)} workers have died at their start, one after the other: {_told(found)}",
        f"each with: {found[-1].last_words[:200]}",
        (
            f"the script is imported in each worker (start method spawn or forkserver), and starts processes as it is: "
            f"{found[-1].position}"
        ),
    )
    remedy = (
        'put what the script does behind `if __name__ == "__main__":`',
        "(a pool of resilient_exec does not run an unguarded script in its workers)",
    )
    return Cause("unguarded-main", "the script has no guard, and its workers run it again", evidence, remedy)


def dying_at_start(scene: Scene) -> Cause | None:
    """Workers die, each with the same error, and are replaced by the next."""
    return _with_last_words(scene) or _without_words(scene)


_DYING_REMEDY = (
    (
        "mend what the error names: a module that workers cannot import (sys.path, PYTHONPATH, the current folder), "
        "an initializer that raises, a library that cannot be loaded"
    ),
    ("a pool that gives up after some failed starts and says why: concurrent.futures, resilient_exec.ResilientPool"),
)


def _with_last_words(scene: Scene) -> Cause | None:
    words: dict[str, list[Death]] = {}
    for death in scene.deaths:
        if death.last_words and death.position.startswith("start"):
            words.setdefault(death.last_words.splitlines()[0], []).append(death)
    if not words or not scene.unfinished:
        return None
    text, found = max(words.items(), key=lambda item: len(item[1]))
    if len(found) < _SEVERAL:
        return None
    evidence = (
        f"{len(found)} workers have died at their start, and none of them has begun a task: {_told(found)}",
        f"each with: {text[:300]}",
        f"no future was done for {scene.still:.0f} s; {scene.unfinished} are waited for",
    )
    return Cause("workers-die-at-start", _DYING, evidence, _DYING_REMEDY)


_DYING = "the workers of a pool die at their start, again and again"


def _without_words(scene: Scene) -> Cause | None:
    """``multiprocessing.Pool``: what its workers raise outside of tasks is only in the program's stderr."""
    for pool in scene.fresh_pools:
        had_died = replaced(pool)
        # A task that ends its worker can do so only once: more workers than tasks are no tasks' doing.
        tasks = pool.more.get("messages", pool.unfinished)
        if pool.done == 0 and pool.unfinished and had_died > max(_SEVERAL, tasks):
            died = [death for death in _violent(scene) if pool.kind in death.role]
            evidence = (
                f"a {pool.kind} in process {pool.pid}: {pool.text()}",
                f"it has replaced {had_died} workers, more than it has tasks, and no task was done",
                *([f"some of them: {_told(died)}"] if died else []),
                "why is in the program's stderr: a traceback for each",
            )
            return Cause("workers-die-at-start", _DYING, evidence, _DYING_REMEDY)
    return None


def replaced(pool: Pool) -> int:
    """How many workers a ``multiprocessing.Pool`` that does not recycle them has had to replace, at most."""
    if pool.kind != "multiprocessing.Pool" or pool.max_tasks is not None:
        return 0
    return max(0, int(pool.more.get("created", 0)) - (pool.max_workers or 0))


def _waits_for_shared_lock(thread: Thread) -> bool:
    return thread.wait.call == "futex" and bool(thread.wait.shared) and not thread.wait.is_timed


def _in_queue(thread: Thread) -> bool:
    return any(frame.file.endswith(_QUEUE_CODE) for frame in thread.frames)


def lock_of_the_dead(scene: Scene) -> Cause | None:
    """Processes wait for a queue's lock, and no process that lives can hold it."""
    waiting: dict[str, list[tuple[Process, Thread]]] = {}
    for process in scene.processes:
        for thread in process.threads:
            is_acquiring = thread.find("/synchronize.py", "__enter__", "acquire") is not None
            if is_acquiring and _waits_for_shared_lock(thread) and _in_queue(thread):
                waiting.setdefault(thread.wait.shared, []).append((process, thread))
    violent = _violent(scene)
    for lock, found in waiting.items():
        if _may_be_held(scene, lock):
            continue
        names = ", ".join(process.title for process, _ in found[:6])
        died = f"died before: {_told(violent)}" if violent else "its death was not seen: between two looks, or before"
        evidence = (
            f"waiting for one lock of a queue: {names}{', ...' if len(found) > 6 else ''}",
            "no process that lives is inside that queue's get() or put(), so none holds it",
            died,
        )
        title = "a worker died while it held the lock of a shared queue"
        return Cause("lock-of-the-dead", title, evidence, _SHARED_QUEUE)
    return None


_SHARED_QUEUE = (
    "today: end the program; the lock stays taken for ever",
    (
        "do not kill workers that share a queue (terminate(), a timeout that kills, the kernel for want of "
        "memory): let "
        "them end by themselves"
    ),
    (
        "for good: a pool in which each worker has a channel of its own: resilient_exec.ResilientPool, "
        "concurrent.futures "
        "(which at least notices the death)"
    ),
)


def _may_be_held(scene: Scene, lock: str) -> bool:
    """Whether some thread is inside a queue's code without waiting for this lock, or its place is not known."""
    for process in scene.processes:
        if process.role in HELPERS or process.state == "Z":
            continue
        for thread in process.threads:
            if thread.wait.shared == lock:
                continue
            if not thread.frames and thread.tid == process.pid:
                return True
            if _in_queue(thread) and not thread.find("/queues.py", "_feed"):
                return True
    return False


def half_a_message(scene: Scene) -> Cause | None:
    """A reader has the length of a message and waits for its body; whoever wrote it is dead."""
    violent = _violent(scene)
    writing = {
        thread.wait.target for process in scene.processes for thread in process.threads if thread.wait.call == "write"
    }
    for process in scene.processes:
        for thread in process.threads:
            frame = thread.find("/connection.py", "_recv_bytes")
            if frame is None or "_recv(size)" not in frame.text.replace(" ", "") or thread.wait.call != "read":
                continue
            if thread.wait.target in writing:
                continue
            others = [
                other.pid
                for other in scene.processes
                if other.pid != process.pid
                and other.role not in HELPERS
                and any(what == thread.wait.target and "w" in mode for what, mode in other.fds.values())
            ]
            if violent or not others:
                evidence = (
                    (
                        f"{process.title} has read the length of a message from {thread.wait.target}, and "
                        "waits for the rest "
                        f"({frame.file.rpartition('/')[2]}, line {frame.line}: {frame.text})"
                    ),
                    "nobody writes to that pipe" if others else "no other process has that pipe's other end any more",
                    *([f"died before: {_told(violent)}"] if violent else []),
                )
                title = "a worker died in the middle of a message: its reader waits for the other half"
                return Cause("half-a-message", title, evidence, _SHARED_QUEUE)
    return None


def lost_task(scene: Scene) -> Cause | None:
    """``multiprocessing.Pool``: a worker died with its task, its successor waits for another, nobody gives it back."""
    for pool in scene.fresh_pools:
        workers = [process for pid in pool.workers if (process := scene.process(pid)) is not None]
        owner = scene.process(pool.pid)
        violent = [death for death in _violent(scene) if pool.kind in death.role or "multiproc" in death.role]
        if pool.kind != "multiprocessing.Pool" or not pool.unfinished or not workers or owner is None:
            continue
        # Of a pool that recycles its workers nobody counts how many have died otherwise.
        may_have_died = violent or replaced(pool) or pool.max_tasks is not None
        if not may_have_died or pool.more.get("queued") or not _only_waits(owner):
            continue
        if all(map(_is_idle_worker, workers)):
            evidence = (
                f"a {pool.kind} in process {pool.pid}: {pool.text()}",
                f"all of its {len(workers)} workers wait for a task, and none is queued",
                f"died before: {_told(violent)}" if violent else _how_many_were_replaced(pool),
            )
            remedy = (
                (
                    "find out why the worker died (os._exit, a crash in C, memory, a kill): its task is lost, and "
                    "multiprocessing.Pool waits for its result for ever (CPython gh-66587)"
                ),
                (
                    "a pool that notices: concurrent.futures.ProcessPoolExecutor breaks as a whole, "
                    "resilient_exec.ResilientPool tries the task again and says which it was"
                ),
            )
            return Cause("lost-task", "a worker died with its task, and nobody will bring the result", evidence, remedy)
    return None


def _how_many_were_replaced(pool: Pool) -> str:
    if pool.max_tasks is not None:
        return f"it replaces each worker after {pool.max_tasks} tasks; one has ended before it was done with its task"
    return f"it has replaced {replaced(pool)} of its workers"


def _only_waits(owner: Process) -> bool:
    """Whether the pool's threads stand in none of the program's code: a callback, a generator of tasks."""
    code = "multiprocessing/pool.py"
    handlers = [thread for thread in owner.threads if thread.find(code, "_handle_results", "_handle_tasks")]
    found = {frame.name for thread in handlers for frame in thread.frames if frame.is_in(code)}
    clean = all(is_library(frame) for thread in handlers for frame in thread.frames)
    return clean and {"_handle_results", "_handle_tasks"} <= found and "_guarded_task_generation" not in found


def _is_idle_worker(process: Process) -> bool:
    main = process.main
    if main is None or main.find("multiprocessing/pool.py", "worker") is None:
        return False
    return main.frames[0].is_in("/connection.py") or main.find("/queues.py", "get") is not None
