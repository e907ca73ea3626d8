"""Executors whose own tables show why they stand still."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resilient_exec.diagnosis.cause import Cause
from resilient_exec.diagnosis.facts import describe_function

if TYPE_CHECKING:
    from resilient_exec.diagnosis.facts import Pool, Process, Scene, Thread

__all__ = ["result_handler_dead", "waits_for_itself", "workers_not_replaced"]

_FIX = (
    (
        "for good: a Python in which gh-115634 is mended (pull request 140900, July 2026: a later 3.13, 3.14 "
        "or 3.15 than "
        "that; 3.11 and 3.12 get security fixes only)"
    ),
    (
        "today: take max_tasks_per_child away, or submit no more than the executor can do at once and then go on "
        "submitting"
    ),
    "or run the work on a pool that replaces its workers: resilient_exec.ResilientPool(max_tasks_per_worker=N)",
)
_MANAGER = "concurrent/futures/process.py"
_WAITING = ("as_completed", "result", "wait", "exception", "shutdown", "_result_or_cancel")


def workers_not_replaced(scene: Scene) -> Cause | None:
    """gh-115634: ``max_tasks_per_child``, workers gone, work pending."""
    alive = {process.pid for process in scene.processes if process.state not in ("Z", "X")}
    for pool in scene.pools:
        if (
            pool.kind == "ProcessPoolExecutor"
            and pool.max_tasks is not None
            and pool.unfinished
            and not pool.more.get("broken")
            and not alive.intersection(pool.workers)
            and not _has_worker(scene, pool.pid)
        ):
            return _not_replaced(scene, pool)
    known = {pool.pid for pool in scene.pools}
    for process in scene.processes:
        if process.pid not in known and _waits_without_workers(scene, process):
            return _not_replaced_unseen(process)
    return None


def _has_worker(scene: Scene, pid: int) -> bool:
    """Whether the process has a child that may be a worker: of another pool, perhaps."""
    workers = {worker for pool in scene.pools for worker in pool.workers}
    return any(
        process.parent == pid and process.pid not in workers and "_process_worker" in _functions(process)
        for process in scene.processes
    )


def _functions(process: Process) -> set[str]:
    return {frame.name for thread in process.threads for frame in thread.frames}


def _not_replaced(scene: Scene, pool: Pool) -> Cause:
    process = scene.process(pool.pid)
    version = ".".join(map(str, process.version)) if process is not None and process.version else "not known"
    evidence = [
        (
            f"an executor in process {pool.pid} has max_tasks_per_child={pool.max_tasks} and {pool.max_workers} "
            f"workers; {pool.text()}"
        ),
        f"none of its workers is alive: each has left after {pool.max_tasks} tasks, and none was started in its place",
        f"no future was done for {scene.still:.0f} s; Python {version}",
    ]
    tokens = pool.more.get("idle_tokens")
    if tokens:
        evidence.append(f"the executor believes that {tokens} workers are idle (its semaphore), so it starts none")
    if pool.done is not None and pool.max_workers and pool.done == pool.max_tasks * pool.max_workers:  # type: ignore[operator]
        evidence.append(f"{pool.done} done = {pool.max_tasks} tasks for each of {pool.max_workers} workers")
    return Cause("gh-115634", _TITLE, tuple(evidence), _FIX)


_TITLE = "an executor with max_tasks_per_child has lost all its workers and replaces none (CPython gh-115634)"


def _waits_without_workers(scene: Scene, process: Process) -> bool:
    """Seen in the stacks alone: a manager waits for results, somebody for futures, and there is no worker."""
    managers = [thread for thread in process.threads if thread.find(_MANAGER, "wait_result_broken_or_wakeup")]
    waiting = [thread for thread in process.threads if thread.find("concurrent/futures/_base.py", *_WAITING)]
    waiting += [thread for thread in process.threads if thread.find(_MANAGER, "shutdown")]
    children = [other for other in scene.processes if other.parent == process.pid]
    helpers = ("resource tracker", "forkserver")
    served = {other.pid for other in children if other.role == "forkserver"}
    workers = [other for other in children if other.role not in helpers]
    workers += [other for other in scene.processes if other.parent in served]
    return len(managers) == 1 and bool(waiting) and not workers


def _not_replaced_unseen(process: Process) -> Cause:
    evidence = (
        f"process {process.pid} waits for futures, and the manager thread of its executor for results",
        "it has no worker process at all; only max_tasks_per_child lets workers leave an executor that is in use",
        "counts of its futures are not known: it was not started under `resilient-exec watch --`",
    )
    return Cause("gh-115634", _TITLE, evidence, _FIX)


def result_handler_dead(scene: Scene) -> Cause | None:
    """``multiprocessing.Pool`` whose thread for results is dead: one could not be unpickled."""
    for pool in scene.pools:
        handlers = pool.more.get("handlers") or {}
        if pool.unfinished and handlers.get("results") is False and handlers.get("workers"):
            evidence = (
                f"a {pool.kind} in process {pool.pid}: {pool.text()}",
                "its thread Pool._handle_results has ended, the other two run: nobody takes results any more",
                (
                    "the thread's traceback is in the program's stderr: a result, or an exception, that "
                    "raised while it was "
                    "unpickled"
                ),
            )
            remedy = (
                (
                    "make what the task returns or raises picklable in both directions: an exception needs "
                    "__reduce__ or "
                    "args that its __init__ takes (pickle.loads(pickle.dumps(value)) shows it)"
                ),
                (
                    "a pool that gives such a result to its caller as an error: concurrent.futures, "
                    "resilient_exec.ResilientPool"
                ),
            )
            title = f"the thread of a {pool.kind} that takes results is dead: no result will arrive any more"
            return Cause("result-handler-dead", title, evidence, remedy)
    return None


def waits_for_itself(scene: Scene) -> Cause | None:
    """Each worker of a thread pool waits for a task of the same pool, which has no worker left."""
    for pool in scene.pools:
        others = [other for other in scene.pools if other.pid == pool.pid and other is not pool and other.unfinished]
        process = scene.process(pool.pid)
        if process is None or not pool.pending or others or not pool.max_workers:
            continue
        waiting = [thread for thread in process.threads if _waits_in_worker(pool, thread)]
        if len(waiting) >= pool.max_workers:
            places = sorted({describe_function(thread) for thread in waiting})
            evidence = (
                f"a {pool.kind} in process {pool.pid} with {pool.max_workers} workers: {pool.text()}",
                f"all of its {len(waiting)} workers wait for a task that has not begun: {'; '.join(places)[:300]}",
                "no other pool of that process has work, so the task is in the queue of this one",
            )
            remedy = (
                "let tasks return what is to be done next, and let the caller submit it",
                "or give the inner tasks a pool of their own",
            )
            title = "the tasks of a full pool wait for tasks of the same pool, which no worker is left to do"
            return Cause("pool-waits-for-itself", title, evidence, remedy)
    return None


def _waits_in_worker(pool: Pool, thread: Thread) -> bool:
    if pool.kind == "ThreadPoolExecutor":
        waits = [frame.future for frame in thread.frames if frame.future is not None]
        return thread.ident in pool.threads and bool(waits) and waits[0][1] == "PENDING"
    if pool.kind == "multiprocessing.pool.ThreadPool":
        inner = thread.find("multiprocessing/pool.py", "get", "next")
        return (
            inner is not None
            and thread.find("multiprocessing/pool.py", "worker") is not None
            and pool.pending > len(pool.threads)
        )
    return False
