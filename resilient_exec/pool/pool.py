"""The pool: a ``concurrent.futures.Executor`` whose tasks may hang, crash and die.

It checks arguments.  What it works with (:mod:`.pool.engine`: the supervisor, and what pickles calls in the caller's
thread, so that what cannot be pickled shows the caller's line) is imported and made with its first task, while the
forkserver starts.  So what is imported here is on the way of every first result, and kept small
(``tests/pool/test_first_task.py``).
"""

from __future__ import annotations

import contextlib
import os
from concurrent.futures import Executor

from resilient_exec.model.errors import PoolBroken, PoolClosed
from resilient_exec.pool.arguments import (
    DEFAULT_RETRY,
    Plan,
    check_initargs,
    check_observers,
    default_workers,
    forkserver_of,
    memory_reserve_of,
    pool_limits,
    seed_of,
    task_options,
    worker_variables,
)
from resilient_exec.pool.cancellation import cancelling_task, cancels
from resilient_exec.pool.once import Once
from resilient_exec.pool.options import choice, count, seconds
from resilient_exec.pool.refusals import check_program, refuse_unknown
from resilient_exec.pool.reserve import Reserve
from resilient_exec.pool.submission import Front
from resilient_exec.supervisor import exit_hook
from resilient_exec.supervisor.latch import is_supervising
from resilient_exec.wire.script import check_not_importing, find_script

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeVar

    T = TypeVar("T")
    from collections.abc import Callable, Iterable, Mapping
    from typing import Never, Self

    from resilient_exec.model.policies import RetryPolicy
    from resilient_exec.model.ports import Observer
    from resilient_exec.pool.engine import Engine
    from resilient_exec.pool.task_options import Options
    from resilient_exec.supervisor.future import ResilientFuture
    from resilient_exec.supervisor.loop import Supervisor

__all__ = ["ResilientPool"]

_SHUT = "cannot schedule new futures after shutdown"
_FIRST_TASK = 4  # descriptors that the first task needs, for an import and for the loop; another would have to fail
_LOOK_UP = 0.2  # s, between two looks whether the asyncio task that waits for a pool was cancelled meanwhile


def _note_fork() -> None:
    global _here  # noqa: PLW0603  a fork has one thread
    _here = object()


class ResilientPool(Front, Executor):
    """A process pool for long, unreliable tasks.

    Args:
        max_workers: lanes; by default ``loky.cpu_count()``, which respects affinity and cgroups.
        timeout: seconds for each attempt, from its begin; then its worker is killed with all that it has started,
            whatever it is doing.  ``None``: no limit.
        soft_timeout: seconds after which :class:`SoftTimeout` is raised inside the task, in its main thread, once in
            an attempt; it must be less than ``timeout``.  ``None``: never.
        start_timeout: seconds for a worker to start and to run ``initializer``.
        start_patience: seconds; if for so long no worker could be started, the pool is broken, and all its tasks fail
            with :class:`PoolBroken`.  A failure that would come again (an import that is not there, a mistake in
            ``initializer``) is waited for no longer than three starts.
        stop_timeout: seconds for a worker to end by itself when it is no longer needed: for what tasks have registered
            with ``atexit``, and for threads that they have left.  Then it is killed, with a warning in the log.
        retry: who gets another attempt.  A number: so many attempts in all, where the worker dies, the ``timeout``
            strikes or the ``memory_limit`` is exceeded.  *It does not cover what the task itself raises*: an exception
            is the task's outcome, and final, unless a policy says otherwise, ``RetryPolicy(errors=2)`` (for some of
            them only: ``retry_if=``).  By default a task whose worker died is tried again twice, one that timed out or
            ran out of memory once.
        memory_limit: bytes, or a text such as ``"2GiB"``: what the worker and all processes that it starts may hold
            together, each shared page counted once (the proportional set size).  More: the worker is killed, and the
            task fails with :class:`MemoryLimitExceeded` if it is not tried again.  Behind it stands the kernel's limit
            on what one process may map, at twice as much: an allocation beyond that raises ``MemoryError`` in the task.
        memory_reserve: bytes, or a text, of the machine's (or cgroup's) memory that are to stay free: with less no
            attempt is started while another runs; with less than half of it the youngest is evicted, and tried again
            later, uncharged.  ``"auto"``: 4 % of all memory, at most 512 MiB.  ``None``: no such guard.
        stall_timeout: seconds; an attempt that has used less than 1 % of a CPU and done no I/O for so long is reported
            by an event ``stalled`` with its stacks, and by a warning in the log.  ``None``: never.
        on_stall: ``"report"``, or ``"kill"``: it also fails, as if its timeout were over.
        max_tasks_per_worker: attempts after which a worker is replaced; ``None``: never.
        max_memory_per_worker: bytes, or a text: a worker that holds more between two attempts is replaced.
        initializer: called with ``initargs`` in each worker when it starts.
        main: what workers have of the program's own module, ``__main__``.  ``"import"``: each imports it, before the
            initializer, as multiprocessing's spawn does: its top level runs in each worker, under the name
            ``__mp_main__``, so that settings, caches, locks and global variables are there; classes and functions
            travel by name.  What is defined or changed behind the guard is not there, and what is defined there
            travels by value.  ``"value"``: it is not imported, and whatever lives in it travels by value, with the
            globals that it uses.  ``"auto"``: imported, if it is a script or module (``-m``) with a guard at its top
            level, ``if __name__ == "__main__":``, behind which all pools are made; else (a notebook, an interactive
            session, ``-c``, a script without a guard) by value.  If its import raises, tasks of modules go on, and
            those of the script fail with its words; with ``"import"`` no worker starts then.
        env: variables that the workers' environment is to have besides this process's own, or instead of it.
        inner_max_num_threads: threads that numerical libraries (OpenMP, OpenBLAS, MKL, BLIS, Accelerate, numba,
            numexpr) start in each worker.  ``"auto"``: the CPUs divided by the lanes, at least 1, so that all workers
            together do not have more threads than CPUs; a limit that stands in this process's environment, such as
            ``OMP_NUM_THREADS``, or in ``env``, counts instead.  A number: so many, whatever this process's environment
            says.  ``None``: nothing is set.  (The number may show in the last bits of what they compute.)
        forkserver: start workers by forking them from a small private process that has what a worker needs, which
            takes some ten milliseconds; it is there from the first worker (or the first look of :meth:`preloaded`) on.
            ``False``: each is started by exec.  Where there can be no forkserver (other systems than Linux, sandboxes
            without pidfds or ``/proc``) that is done anyway, and the log says so once.
        preload: names of modules that the forkserver imports, too, in place of each worker for seconds.  A module that
            leaves a thread running is refused.  One with a ``?`` behind its name is left out, with a warning in the
            log, if importing it fails or starts threads.
        output: what becomes of what workers print.  ``"inherit"``: it goes where this process's output goes, and a
            worker stands still while nobody reads that.  ``"capture"``: the last lines of a failed attempt are in its
            dossier.  ``"discard"``: nothing is kept.  With these two nobody ever waits.
        logs: ``"forward"``: what tasks log reaches this process's loggers and their handlers, by their levels, from a
            thread of the pool's, with ``task_key``, ``task_attempt`` and ``task_label`` in each record; exceptions
            are text.  No task waits for a handler: what handlers are too slow for is dropped, and counted.  ``None``:
            records go to whatever handlers there are in the workers (see ``initializer``).
        fresh_locks: let ``threading`` locks in arguments and results travel, as new locks that nobody holds.
        seed: a whole number, from which each task's own random numbers follow, ``task_context().rng`` and
            ``.seed_sequence``: from it and from the task's key, so that they are the same in each attempt, in whatever
            order, worker and chunk.  Without a key it is the task's number, which counts the calls submitted to this
            pool so far: where their order depends on time (several threads, the body of a ``settled`` loop), give keys.
            ``None``: they are new each time.
        observers: each is called with every :class:`Event`, on a thread of its own.

    Raises:
        ValueError, TypeError: an argument is out of range or of the wrong type (or ``main="import"``, and there is
            nothing to import); the text names it.
        NotSendable: ``initializer`` or one of ``initargs`` does not pickle; the text names it.

    Workers are never forked from this process, and are started only when there is work.  They see the parent's
    ``sys.path``, directory and environment.  SIGINT does nothing in them, and each is in a process group of its own.  A
    worker never outlives this process.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        *,
        timeout: float | None = None,
        soft_timeout: float | None = None,
        start_timeout: float = 120,
        start_patience: float = 30,
        stop_timeout: float = 5,
        retry: RetryPolicy | int = DEFAULT_RETRY,
        memory_limit: int | str | None = None,
        memory_reserve: int | str | None = "auto",
        stall_timeout: float | None = None,
        on_stall: str = "report",
        max_tasks_per_worker: int | None = None,
        max_memory_per_worker: int | str | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        main: str = "auto",
        env: Mapping[str, str] | None = None,
        inner_max_num_threads: int | str | None = "auto",
        forkserver: bool = True,
        preload: Iterable[str] = (),
        output: str = "inherit",
        logs: str | None = None,
        fresh_locks: bool = False,
        seed: int | None = None,
        observers: Iterable[Observer] = (),
        **unknown: Never,
    ) -> None:
        refuse_unknown(unknown, ResilientPool.__init__.__kwdefaults__ or ())
        check_program()
        options = task_options(timeout=timeout, soft_timeout=soft_timeout, retry=retry, memory_limit=memory_limit)
        lanes = self._max_workers = default_workers() if max_workers is None else count("max_workers", max_workers)
        times = (start_timeout, start_patience, stop_timeout)
        limits = pool_limits(lanes, max_tasks_per_worker, times, max_memory_per_worker, on_stall)
        stall = seconds("stall_timeout", stall_timeout)
        observers, reserve = check_observers(observers), memory_reserve_of(memory_reserve)
        script = find_script(choice("main", main, ("auto", "import", "value")))
        self._script, variables = script, worker_variables(env, inner_max_num_threads, lanes)
        forking = self._forking = forkserver_of(forkserver, preload, variables, limits["start_timeout"], script)
        workers = {
            "initializer": initializer,
            "initargs": check_initargs(initializer, initargs, script),
            "output": choice("output", output, ("inherit", "capture", "discard")),
            "fresh_locks": bool(fresh_locks),
            "env": variables,
            "forking": forking,
            "script": script,
        }
        logged, seed = logs is not None and bool(choice("logs", logs, ("forward",))), seed_of(seed)
        self._plan = Plan(
            limits, options, workers, observers, stall_timeout=stall, memory_reserve=reserve, logs=logged, seed=seed
        )
        self._once, self._reserve = Once(), Reserve(_FIRST_TASK)
        self._engine: Engine | None = None
        self._pid, self._here, self._shut = os.getpid(), _here, False

    def _enqueue(
        self, options: Options | None, fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> ResilientFuture[T]:
        self._check_open()
        check_not_importing()
        engine = self._engine
        if engine is None or (self._forking is not None and not self._forking.has_begun):
            engine = self._made(for_work=True)
            self._check_open()  # it may have been shut down meanwhile
        return engine.enqueue(options, fn, args, kwargs)

    def _made(self, *, for_work: bool = False) -> Engine:
        """What this pool works with, made now where it is not there yet.

        Args:
            for_work: whether there is a task; then the forkserver is started, too, before anything else.
        """
        once, forking = self._once, self._forking
        try:
            engine: Engine = once.get(lambda: self._make(for_work=for_work))
        finally:
            if once.has_failed and once is self._once:
                self._once = Once()  # for the next task, should that fare better
        if for_work and forking is not None and not forking.has_begun:
            forking.begin()
        return engine

    def _make(self, *, for_work: bool) -> Engine:
        self._check_open()
        forking = self._forking
        try:
            if for_work and forking is not None:
                forking.begin()  # it imports what it needs while this process does
            self._reserve.release()
            from resilient_exec.pool.engine import Engine
            from resilient_exec.pool.live import register

            engine = Engine(self._plan)
        except BaseException:
            if forking is not None:
                forking.cool()
            raise
        # A pool that is dropped finishes its pending work, then ends; the supervisor's thread does not keep the pool.
        self._finalizer = register(self, _end_dropped, engine, self._pid)
        self._engine = engine
        if self._shut:  # meanwhile, by a finalizer that ran in this thread and could not wait
            engine.end(why="shutdown()")
        return engine

    @property
    def _supervisor(self) -> Supervisor:
        return self._made().supervisor

    def _options_here(self) -> Options:
        if self._engine is not None:
            return self._engine.options
        from resilient_exec.pool.task_options import Options

        return Options(**self._plan.options)

    def _check_open(self) -> None:
        if self._here is not _here:
            raise PoolClosed(
                f"this pool belongs to process {self._pid}, of which this one ({os.getpid()}) is a fork; make a new one"
            )
        if exit_hook.exiting():
            raise PoolClosed("cannot schedule new futures after interpreter shutdown")
        if self._shut:
            raise PoolClosed(_SHUT)
        if self._engine is not None:
            self._engine.check_works()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False, kill: bool = False) -> None:  # noqa: FBT001, FBT002
        """Take no more tasks, and end the workers when the last is done.

        Args:
            wait: return only when everything has settled and no worker is left.
            cancel_futures: cancel the tasks that wait; one that waits for another attempt settles with ``TaskKilled``.
            kill: also kill the tasks that run; they settle with ``TaskKilled``.

        May be called again, to cancel or kill what an earlier call left to finish.
        """
        self._shut = True
        if self._pid != os.getpid():
            return  # in a forked child there is nothing of this pool
        engine = self._engine or self._engine_on_its_way()
        if engine is None:
            self._reserve.release()
            return
        self._finalizer.detach()
        why = "shutdown(kill=True)" if kill else "shutdown(cancel_futures=True)" if cancel_futures else "shutdown()"
        engine.end(cancel=cancel_futures, kill=kill, why=why)
        if wait and not is_supervising():  # a finalizer may run in a thread of a pool's, which cannot wait for itself
            engine.join()

    def _engine_on_its_way(self) -> Engine | None:
        """What another thread is just making; ``None``: there never was a task."""
        if self._once.has_begun and not is_supervising():
            with contextlib.suppress(Exception):
                return self._made()
        if self._forking is not None:
            self._forking.close()
        return None

    def preloaded(self) -> tuple[str, ...] | None:
        """Have the forkserver started, and ``preload`` done, now, rather than with the first task, and wait for it.

        What the pool itself works with is imported, too, which takes the first :meth:`submit` some 60 ms otherwise: an
        event loop may want to have that behind it.

        Returns:
            The modules with a ``?`` that had to be left out; ``None``: this pool has no forkserver.

        Raises:
            PoolBroken: a module could not be imported, or not within ``start_timeout``; in its own words.
        """
        self._check_open()
        self._made()
        if self._forking is None:
            return None
        try:
            return self._forking.warm(lambda: not self._shut)
        except (RuntimeError, OSError) as error:
            self._forking.cool()
            raise PoolBroken(f"the modules to preload could not be: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, exc_type: type[BaseException] | None, *_: object) -> None:
        """Wait for all tasks; but when cancelled, now or while waiting, cancel what waits, and kill what runs.

        By ``KeyboardInterrupt``; by the cancellation of the asyncio or trio task that runs this, which is what a Ctrl-C
        is there; by ``SoftTimeout``, in a pool inside a task of another one.
        """
        if cancels(exc_type):
            self.shutdown(kill=True, cancel_futures=True)
            return
        try:
            self._wait_beside(cancelling_task())
            self.shutdown()
        except BaseException as error:
            if cancels(type(error)):
                self.shutdown(kill=True, cancel_futures=True)
            raise

    def _wait_beside(self, task: Any) -> None:  # on Python 3.14 a Ctrl-C where a loop jumps back skips its `except`
        """Wait for the end, and look meanwhile whether the asyncio task that does so, if one does, was cancelled."""
        if task is None or self._engine is None:
            return
        self.shutdown(wait=False)
        while not self._engine.supervisor.ended.wait(_LOOK_UP):
            if task.cancelling():
                self.shutdown(wait=False, kill=True, cancel_futures=True)

    def snapshot(self) -> dict[str, Any]:
        """The pool at this moment: counts of tasks, and for each lane what it is doing.  ``print`` it.

        Returns:
            ``pending`` (queued), ``running`` (sent or begun), ``backing_off``, ``done``, ``failed``, ``cancelled``,
            ``dropped_events`` (that observers were too slow for), ``dropped_logs`` (records that handlers were too slow
            for, with ``logs="forward"``), and ``lanes``: for each its ``lane`` number,
            ``state``, ``pid``, and the ``key``, ``attempt`` and ``elapsed`` (s) of the task it runs; with psutil's
            figures ``rss`` (bytes) and ``cpu`` (s) of its worker, ``None`` where there is none.
        """
        from resilient_exec.pool.snapshot import Snapshot

        engine = self._engine
        if engine is None:
            return Snapshot.of_none()
        return Snapshot.of(engine.supervisor, engine.logs.dropped if engine.logs is not None else 0)

    def __reduce__(self) -> Any:
        raise TypeError("a pool cannot be pickled: a task that needs one makes it, or calls get_reusable_pool(...)")

    def __repr__(self) -> str:
        engine = self._engine
        state = engine.state() if engine is not None else "0 pending, 0 running"
        is_over = engine is None or engine.supervisor.ended.is_set()
        ended = "" if not self._shut else ", ended" if is_over else ", ending"
        return f"<{type(self).__name__} {_workers(self._max_workers)}, {state}{ended}>"


_here = object()  # another one in each fork of this process: to compare it asks no system
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)


def _workers(number: int) -> str:
    return f"{number} worker{'' if number == 1 else 's'}"


def _end_dropped(engine: Engine, pid: int) -> None:
    if pid == os.getpid():
        engine.end(why="the pool was dropped")
