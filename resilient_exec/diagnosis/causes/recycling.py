"""``ProcessPoolExecutor(max_tasks_per_child=...)`` that has lost its workers: three defects of CPython, told apart.

* gh-115634: a worker reaches its limit while tasks are queued, and the executor takes a stale token for an idle worker.
* gh-119592: the same after ``shutdown(wait=False)``; the thread that would start the next worker fails.
* gh-152967: the executor was garbage-collected, and nobody is left to start the next worker.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from resilient_exec.diagnosis.cause import Cause

if TYPE_CHECKING:
    from resilient_exec.diagnosis.facts import Pool, Process, Scene

__all__ = ["workers_not_replaced"]

_MANAGER = "concurrent/futures/process.py"
_WAITING = ("as_completed", "result", "wait", "exception", "shutdown", "_result_or_cancel")
_OTHER_POOL = (
    "or run the work on a pool that replaces its workers: resilient_exec.ResilientPool(max_tasks_per_worker=N)"
)


@dataclass(frozen=True)
class _Defect:
    name: str
    title: str
    fixed: str
    today: str


_STALE_TOKEN = _Defect(
    "gh-115634",
    "an executor with max_tasks_per_child has lost all its workers and replaces none (CPython gh-115634)",
    "for good: Python 3.13.15, 3.14.7, 3.15, or newer ones of these (pull request 140900); 3.11 and 3.12 keep it",
    "today: take max_tasks_per_child away, or submit no more than the executor can do at once, and submit again later",
)
_SHUT = _Defect(
    "gh-119592",
    "an executor with max_tasks_per_child was told shutdown(wait=False), has lost all its workers and replaces none "
    "(CPython gh-119592)",
    "for good: Python 3.14.7, 3.15, or newer ones of these (pull request 152978); 3.11 to 3.13 keep it",
    "today: take max_tasks_per_child away, or wait for the futures before shutdown() (`with` does)",
)
_COLLECTED = _Defect(
    "gh-152967",
    "an executor with max_tasks_per_child was garbage-collected with work pending, has lost all its workers and "
    "replaces none (CPython gh-152967)",
    "for good: Python 3.14.7, 3.15, or newer ones of these (pull request 152978; the futures fail there); 3.11 to 3.13 "
    "keep it",
    "today: keep a reference to the executor until its futures are done (`with` does), or take max_tasks_per_child "
    "away",
)


def workers_not_replaced(scene: Scene) -> Cause | None:
    """``max_tasks_per_child``, workers gone, work pending: which of the three defects it is."""
    alive = {process.pid for process in scene.processes if process.state not in ("Z", "X")}
    for pool in scene.fresh_pools:
        if (
            pool.kind == "ProcessPoolExecutor"
            and pool.max_tasks is not None
            and pool.unfinished
            and _has_reached_the_limit(pool)
            and not pool.more.get("broken")
            and not alive.intersection(pool.workers)
            and not _has_worker(scene, pool.pid)
        ):
            return _told(scene, pool, _which(pool))
    known = {pool.pid for pool in scene.pools}
    for process in scene.processes:
        if process.pid not in known and _waits_without_workers(scene, process):
            return _told_by_stacks(process)
    return None


def _has_reached_the_limit(pool: Pool) -> bool:
    """Whether a worker may have left: before, it was only not there yet."""
    is_alone = pool.more.get("manager_alive") is False
    return is_alone or pool.done is None or pool.done >= (pool.max_tasks or 0)


def _which(pool: Pool) -> _Defect:
    if pool.more.get("collected"):
        return _COLLECTED
    if pool.more.get("shut_without_wait") and not pool.more.get("idle_tokens"):
        return _SHUT
    return _STALE_TOKEN


def _has_worker(scene: Scene, pid: int) -> bool:
    """Whether the process has a child that may be a worker: of another pool, perhaps."""
    workers = {worker for pool in scene.pools for worker in pool.workers}
    return any(
        process.parent == pid and process.pid not in workers and "_process_worker" in _functions(process)
        for process in scene.processes
    )


def _functions(process: Process) -> set[str]:
    return {frame.name for thread in process.threads for frame in thread.frames}


def _told(scene: Scene, pool: Pool, defect: _Defect) -> Cause:
    process = scene.process(pool.pid)
    version = ".".join(map(str, process.version)) if process is not None and process.version else "not known"
    workers = f" and {pool.max_workers} workers" if pool.max_workers else ""
    evidence = [
        f"an executor in process {pool.pid} has max_tasks_per_child={pool.max_tasks}{workers}; {pool.text()}",
        f"none of its workers is alive: each has left after {pool.max_tasks} tasks, and none was started in its place",
        f"no future was done for {scene.still:.0f} s; Python {version}",
    ]
    if defect is _COLLECTED:
        evidence.append("the executor itself is gone (garbage-collected), its futures are still waited for")
    if defect is _SHUT:
        evidence.append("shutdown(wait=False) was called while work was pending")
        if pool.more.get("manager_alive") is False:
            evidence.append("the thread that starts its workers has ended (its traceback is in the program's stderr)")
    tokens = pool.more.get("idle_tokens")
    if tokens:
        evidence.append(f"the executor believes that {tokens} workers are idle (its semaphore), so it starts none")
    if pool.done is not None and pool.max_workers and pool.done == (pool.max_tasks or 0) * pool.max_workers:
        evidence.append(f"{pool.done} done = {pool.max_tasks} tasks for each of {pool.max_workers} workers")
    return Cause(defect.name, defect.title, tuple(evidence), (defect.fixed, defect.today, _OTHER_POOL))


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


def _told_by_stacks(process: Process) -> Cause:
    evidence = (
        f"process {process.pid} waits for futures, and the manager thread of its executor for results",
        "it has no worker process at all; only max_tasks_per_child lets workers leave an executor that is in use",
        "counts of its futures are not known: it was not started under `resilient-exec watch --`",
        "if its executor was told shutdown(wait=False), or dropped, the defect is gh-119592 or gh-152967",
    )
    remedy = (_STALE_TOKEN.fixed, _STALE_TOKEN.today, _OTHER_POOL)
    return Cause(_STALE_TOKEN.name, _STALE_TOKEN.title, evidence, remedy)
