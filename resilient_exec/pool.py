"""The public front: a ``concurrent.futures.Executor`` whose tasks may hang, crash and die.

It checks arguments, pickles calls in the caller's thread (so that what cannot be pickled shows the caller's line),
and hands everything else to the supervisor.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import queue
import time
import weakref
from collections import deque
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from resilient_exec import exit_hook
from resilient_exec.errors import PoolBroken, PoolClosed
from resilient_exec.future import ResilientFuture, Settled
from resilient_exec.messages import ShutdownAsked
from resilient_exec.payload import Unsendable, pack_call
from resilient_exec.policies import RetryPolicy, as_policy
from resilient_exec.states import Limits, State
from resilient_exec.supervisor import Supervisor
from resilient_exec.task import NotSent, Task

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator
    from typing import Self

    from resilient_exec.lane import LokyLane
    from resilient_exec.messages import Stimulus
    from resilient_exec.ports import Observer

__all__ = ["PoolView", "ResilientPool"]

T = TypeVar("T")
_AHEAD = 2  # calls per lane that `settled` keeps waiting or running


class _Unset:
    def __repr__(self) -> str:
        return "<as the pool has it>"


UNSET: Any = _Unset()


@dataclass(frozen=True)
class _Options:
    """How one task is to be run."""

    timeout: float | None = None
    retry: RetryPolicy = RetryPolicy()  # noqa: RUF009  frozen
    key: Hashable = UNSET
    label: str = ""
    priority: float = 0

    def with_(self, **changes: Any) -> _Options:
        given = {name: value for name, value in changes.items() if value is not UNSET}
        if "timeout" in given:
            given["timeout"] = _seconds("timeout", given["timeout"])
        if "retry" in given:
            given["retry"] = as_policy(given["retry"])
        if "priority" in given and not isinstance(given["priority"], int | float):
            raise TypeError(f"priority must be a number, larger goes first; got {given['priority']!r}")
        if "key" in given:
            hash(given["key"])  # raises a TypeError that names the type
        return replace(self, **given)


def _seconds(name: str, value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number of seconds or None; got {value!r}")
    if not value > 0 or math.isinf(value):
        raise ValueError(f"{name} must be a finite number of seconds greater than 0, or None; got {value!r}")
    return float(value)


def _count(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number; got {value!r}")
    if value <= 0:
        raise ValueError(f"{name} must be greater than 0, got {value!r}")
    return value


def _run_chunk(fn: Callable[..., T], chunk: list[tuple[Any, ...]]) -> list[T]:
    return [fn(*args) for args in chunk]


class _Front:
    """What a pool and its views have in common: everything is built on ``submit`` and the options."""

    _options: _Options

    @property
    def _pool(self) -> ResilientPool:
        raise NotImplementedError

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> ResilientFuture[T]:
        """Have ``fn(*args, **kwargs)`` run in a worker; its future.

        The call is pickled now.  Where that fails the error (``NotSendable``) is in the future.  All keywords are the
        task's own: options are set with :meth:`options`.

        Raises:
            PoolClosed: the pool takes no more tasks.
            PoolBroken: no worker can be started.
            ValueError: an unsettled task has the same ``key``.
        """
        return self._pool._submit(self._options, fn, args, kwargs)

    def options(
        self,
        *,
        timeout: float | None = UNSET,
        retry: RetryPolicy | int = UNSET,
        key: Hashable = UNSET,
        label: str = UNSET,
        priority: float = UNSET,
    ) -> PoolView:
        """A view of the same pool with other options for the tasks that are submitted through it.

        Args:
            timeout: seconds for each attempt, from its begin; then its worker is killed.  ``None``: no limit.
            retry: a policy, or a number of attempts in all.
            key: names the task among the unsettled ones; by default its number in the pool.
            label: what errors and events call the task.
            priority: larger goes first; by default 0.
        """
        changed = self._options.with_(timeout=timeout, retry=retry, key=key, label=label, priority=priority)
        return PoolView(self._pool, changed)

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """``map(fn, *iterables)`` in the workers; the values in order of the input, as the standard library's.

        Args:
            fn: what is called.
            *iterables: its arguments; the shortest ends them.
            timeout: seconds from now in which a value must be there, else ``TimeoutError``.  (This is not the limit of
                an attempt: see :meth:`options`.)
            chunksize: calls per task.  A chunk is one task: it fails, and is tried again, as a whole.
            buffersize: calls that are submitted ahead of the value that is asked for; ``None``: all, at once.

        When the timeout strikes, a call raises, or the iterator is closed, what still waits is cancelled.
        """
        if chunksize < 1:
            raise ValueError(f"chunksize must be >= 1, got {chunksize!r}")
        if buffersize is not None:
            _count("buffersize", buffersize)
        deadline = None if timeout is None else time.monotonic() + timeout
        calls = zip(*iterables, strict=False)
        if chunksize == 1:
            submissions = (self.submit(fn, *args) for args in calls)
            return _in_order(submissions, deadline, buffersize)
        chunks: Iterator[list[tuple[Any, ...]]] = iter(lambda: list(itertools.islice(calls, chunksize)), [])
        lists: Iterator[list[T]] = _in_order((self.submit(_run_chunk, fn, c) for c in chunks), deadline, buffersize)
        return itertools.chain.from_iterable(lists)

    def settled(self, fn: Callable[..., T], *iterables: Iterable[Any]) -> Iterator[Settled[T]]:
        """Run ``fn`` over the iterables and give each call as it settles, in whatever order that is.

        A task's failure is a value here: it is never raised.  The input may be endless: two calls per lane are
        submitted ahead.  When the iterator is closed, what still waits is cancelled.
        """
        calls = zip(*iterables, strict=False)
        ahead = _AHEAD * self._pool._max_workers
        done: queue.SimpleQueue[ResilientFuture[T]] = queue.SimpleQueue()
        index_of: dict[ResilientFuture[T], int] = {}
        numbers = itertools.count()
        try:
            while True:
                for args in itertools.islice(calls, ahead - len(index_of)):
                    future = self.submit(fn, *args)
                    index_of[future] = next(numbers)
                    future._on_done(done)
                if not index_of:
                    return
                future = done.get()
                settled = Settled.of(index_of.pop(future), future)
                del future
                yield settled
        finally:
            for future in index_of:
                future.cancel()


def _in_order(submissions: Iterator[ResilientFuture[T]], deadline: float | None, ahead: int | None) -> Iterator[T]:
    """Submit (all at once, or ``ahead`` of the reader) and give the results in order."""
    futures = deque(itertools.islice(submissions, ahead))
    futures.reverse()  # as the standard library: popping from the right drops the reference at once

    def results() -> Iterator[T]:
        try:
            while futures:
                left = None if deadline is None else deadline - time.monotonic()
                result = _result(futures.pop(), left)
                if ahead is not None:
                    futures.extendleft(itertools.islice(submissions, 1))
                yield result
                del result
        finally:
            for future in futures:
                future.cancel()

    return results()


def _result(future: ResilientFuture[T], timeout: float | None) -> T:
    try:
        try:
            return future.result(timeout)
        finally:
            future.cancel()
    finally:
        del future  # breaks the cycle of the traceback with this frame


class PoolView(_Front):
    """A pool with other options, made by ``pool.options(...)``.  It owns nothing: shut the pool down, not the view."""

    def __init__(self, pool: ResilientPool, options: _Options) -> None:
        self._owner = pool
        self._options = options

    @property
    def _pool(self) -> ResilientPool:
        return self._owner


class ResilientPool(_Front, Executor):
    """A process pool for long, unreliable tasks.

    Args:
        max_workers: lanes; by default ``loky.cpu_count()``, which respects affinity and cgroups.
        timeout: seconds for each attempt, from its begin; then its worker is killed with all that it has started,
            whatever it is doing.  ``None``: no limit.
        start_timeout: seconds for a worker to start and to run ``initializer``.
        retry: a :class:`RetryPolicy`, or a number of attempts in all.  By default a task whose worker died is tried
            again twice, one that timed out once, and its own exceptions are final.
        max_tasks_per_worker: attempts after which a worker is replaced; ``None``: never.
        initializer: called with ``initargs`` in each worker when it starts.
        observers: each is called with every :class:`Event`, on a thread of its own.

    Raises:
        ValueError, TypeError: an argument is out of range or of the wrong type; the text names it.

    Workers are started by exec, never by fork, and only when there is work.  They see the parent's ``sys.path``,
    directory and environment, but not its ``__main__``, which is never imported again: what lives there travels by
    value.  They ignore SIGINT.  A worker never outlives this process.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        *,
        timeout: float | None = None,
        start_timeout: float = 120,
        retry: RetryPolicy | int = RetryPolicy(),  # noqa: B008  frozen
        max_tasks_per_worker: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        observers: Iterable[Observer] = (),
    ) -> None:
        self._options = _Options().with_(timeout=timeout, retry=retry)
        self._max_workers = _default_workers() if max_workers is None else _count("max_workers", max_workers)
        if max_tasks_per_worker is not None:
            _count("max_tasks_per_worker", max_tasks_per_worker)
        if initializer is not None and not callable(initializer):
            raise TypeError(f"initializer must be a callable, got {initializer!r}")
        start_seconds = _seconds("start_timeout", start_timeout)
        if start_seconds is None:
            raise TypeError("start_timeout must be a number of seconds; a start without a limit could hang for ever")
        limits = Limits(lanes=self._max_workers, max_tasks_per_worker=max_tasks_per_worker, start_timeout=start_seconds)
        self._pid = os.getpid()
        self._numbers = itertools.count()
        self._shut = False

        def make_lane(number: int, post: Callable[[Stimulus], None]) -> LokyLane:
            from resilient_exec.lane import LokyLane

            return LokyLane(number, post, initializer, tuple(initargs))

        self._supervisor = Supervisor(limits, make_lane, observers)
        exit_hook.end_at_exit(self._supervisor)
        # A pool that is dropped finishes its pending work, then ends; the supervisor's thread does not keep the pool.
        self._finalizer = weakref.finalize(self, _end_dropped, self._supervisor, self._pid)
        self._finalizer.atexit = False

    @property
    def _pool(self) -> ResilientPool:
        return self

    def _submit(
        self, options: _Options, fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> ResilientFuture[T]:
        self._check_open()
        call, problem = b"", None
        try:
            call = pack_call(fn, args, kwargs)
        except Unsendable as unsendable:
            problem = NotSent(f"cannot be sent to a worker: {unsendable}", unsendable.__cause__)
        label = options.label or getattr(fn, "__qualname__", "") or type(fn).__qualname__
        while True:
            key = next(self._numbers) if options.key is UNSET else options.key
            future: ResilientFuture[T] = ResilientFuture(key, label, self._supervisor)
            task = Task(key, options.retry, options.timeout, options.priority, label)
            if self._supervisor.submit(task, future, call, problem):
                return future
            if options.key is not UNSET:
                raise ValueError(
                    f"an unsettled task has the key {key!r} already; wait for it, or give this one another key"
                )

    def _check_open(self) -> None:
        if self._pid != os.getpid():
            raise PoolClosed(
                f"this pool belongs to process {self._pid}, of which this one ({os.getpid()}) is a fork; make a new one"
            )
        if exit_hook.exiting():
            raise PoolClosed("cannot schedule new futures after interpreter shutdown")
        if self._shut:
            raise PoolClosed("cannot schedule new futures after shutdown")
        broken = self._supervisor.core.broken
        if broken is not None:
            raise PoolBroken(broken)

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
        self._finalizer.detach()
        why = "shutdown(kill=True)" if kill else "shutdown(cancel_futures=True)" if cancel_futures else "shutdown()"
        self._supervisor.post(ShutdownAsked(cancel=cancel_futures, kill=kill, why=why))
        if wait:
            self._supervisor.ended.wait()
            self._supervisor.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, exc_type: type[BaseException] | None, *_: object) -> None:
        """Wait for all tasks; but by ``KeyboardInterrupt``, now or while waiting, cancel what waits, kill what runs."""
        if exc_type is not None and issubclass(exc_type, KeyboardInterrupt):
            self.shutdown(kill=True, cancel_futures=True)
            return
        try:
            self.shutdown()
        except KeyboardInterrupt:
            self.shutdown(kill=True, cancel_futures=True)
            raise

    def snapshot(self) -> dict[str, Any]:
        """The pool at this moment: counts of tasks, and for each lane what it is doing.

        Returns:
            ``pending`` (queued), ``running`` (sent or begun), ``backing_off``, ``done``, ``failed``, ``cancelled``,
            ``dropped_events`` (that observers were too slow for), and ``lanes``: for each its ``lane`` number,
            ``state``, ``pid``, and the ``key``, ``attempt`` and ``elapsed`` (s) of the task it runs; with psutil's
            figures ``rss`` (bytes) and ``cpu`` (s) of its worker, ``None`` where there is none.
        """
        supervisor = self._supervisor
        counts, ended = supervisor.core.counts, supervisor.core.ended
        return {
            "pending": counts[State.QUEUED],
            "running": counts[State.SENT] + counts[State.RUNNING] + counts[State.DOOMED],
            "backing_off": counts[State.BACKING_OFF],
            "done": ended["done"],
            "failed": ended["failed"],
            "cancelled": ended["cancelled"],
            "dropped_events": supervisor.dropped_events,
            "lanes": [{**lane, **_usage(lane["pid"])} for lane in supervisor.core.lanes(supervisor.now())],
        }


def _usage(pid: int | None) -> dict[str, Any]:
    import psutil

    if pid is not None:
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            times = process.cpu_times()
            return {"rss": process.memory_info().rss, "cpu": times.user + times.system}
    return {"rss": None, "cpu": None}


def _default_workers() -> int:
    import loky

    return int(loky.cpu_count())


def _end_dropped(supervisor: Supervisor, pid: int) -> None:
    if pid == os.getpid():
        supervisor.post(ShutdownAsked(why="the pool was dropped"))
