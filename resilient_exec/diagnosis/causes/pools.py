"""Pools whose own tables show why they stand still: no thread for results, tasks that wait for tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resilient_exec.diagnosis.cause import Cause
from resilient_exec.diagnosis.facts import describe_function

if TYPE_CHECKING:
    from resilient_exec.diagnosis.facts import Pool, Scene, Thread

__all__ = ["result_handler_dead", "waits_for_itself"]


def result_handler_dead(scene: Scene) -> Cause | None:
    """``multiprocessing.Pool`` whose thread for results is dead: one could not be unpickled."""
    for pool in scene.fresh_pools:
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
    for pool in scene.fresh_pools:
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
