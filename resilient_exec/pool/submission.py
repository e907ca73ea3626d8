"""What a pool and its views have in common: ``submit``, ``arun``, ``map``, ``settled`` and ``options``.

Everything is built on one call, ``_enqueue``, and on the options that go with it.
"""

from __future__ import annotations

import itertools
import queue
import sys
import time
from abc import abstractmethod
from collections import deque

from resilient_exec.pool.options import UNSET, count
from resilient_exec.supervisor.latch import deadline_after

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeVar

    T = TypeVar("T")
    from collections.abc import Callable, Hashable, Iterable, Iterator

    from resilient_exec.model.policies import RetryPolicy
    from resilient_exec.pool.task_options import Options
    from resilient_exec.supervisor.future import ResilientFuture
    from resilient_exec.supervisor.settled import Settled

__all__ = ["Front", "PoolView"]

_AHEAD = 2  # calls per lane that `settled` keeps waiting or running


class Front:
    """Submits, maps and settles with the options that it carries."""

    _options: Options | None = None  # of a view; None: the pool's own
    _max_workers: int

    @abstractmethod
    def _options_here(self) -> Options:
        """With which tasks are submitted through this."""

    @abstractmethod
    def _enqueue(
        self, options: Options | None, fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> ResilientFuture[T]:
        """Take one task in."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> ResilientFuture[T]:
        """Have ``fn(*args, **kwargs)`` run in a worker; its future.

        The call is pickled now.  Where that fails the error (``NotSendable``) is in the future.  Large arrays among the
        arguments (numpy's, of 64 KiB and more) are not copied, but read when an attempt is sent: do not change them
        before the task has settled.  (The standard library reads all arguments later than this, too.)  All keywords
        are the task's own: options are set with :meth:`options`.

        Raises:
            PoolClosed: the pool takes no more tasks.
            PoolBroken: no worker can be started.
            ValueError: an unsettled task has the same ``key``.
        """
        return self._enqueue(self._options, fn, args, kwargs)

    async def arun(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        """``await pool.arun(fn, *args, **kwargs)``: have it run in a worker; its value.

        For asyncio.  The call is submitted, as by :meth:`submit`, when the coroutine first runs.  Cancelling it (by
        ``asyncio.timeout``, a ``TaskGroup``, Ctrl-C in ``asyncio.run``, or by hand) cancels a waiting task and kills a
        running one, and the coroutine ends when that is dead with all that it had started; cancelled once more, it
        does not wait for that.

        Raises:
            BaseException: what ``fn`` raised, as it was raised; a ``StopIteration`` as the ``__cause__`` of a
                ``RuntimeError``, since no coroutine can raise it.
            AttemptError, NotSendable: as ``future.result()`` raises them.
            concurrent.futures.CancelledError: ``shutdown(cancel_futures=True)`` took the task away.
            PoolClosed, PoolBroken, ValueError: as by :meth:`submit`.
        """
        from resilient_exec.pool.awaiting import outcome_of

        outcome = outcome_of(self.submit(fn, *args, **kwargs))
        del fn, args, kwargs  # nothing here keeps them while the task runs
        return await outcome

    def options(
        self,
        *,
        timeout: float | None = UNSET,
        soft_timeout: float | None = UNSET,
        memory_limit: int | str | None = UNSET,
        retry: RetryPolicy | int = UNSET,
        key: Hashable = UNSET,
        label: str = UNSET,
        priority: float = UNSET,
        cost: float | str = UNSET,
        speculate: bool = UNSET,
    ) -> PoolView:
        """A view of the same pool with other options for the tasks that are submitted through it.

        Args:
            timeout: seconds for each attempt, from its begin; then its worker is killed.  ``None``: no limit.
            soft_timeout: seconds after which ``SoftTimeout`` is raised in the task, which then may put things in order.
            memory_limit: bytes, or a text such as ``"2GiB"``: what its worker and all that it starts may hold.
            retry: a policy, or a number of attempts in all after deaths of the worker, timeouts and memory limits; what
                the task itself raises is tried again with ``RetryPolicy(errors=...)`` only.
            key: names the task among the unsettled ones; by default its number in the pool.
            label: what errors and events call the task.
            priority: larger goes first; by default 0.
            cost: how dear the task is, compared with others of the same priority: the dearest goes first, so that none
                of them is left over at the end.  Any measure will do: seconds, rows, steps.  ``"learned"``: the time
                that the last tasks of the same label have taken in this pool, in seconds, to a factor of two; one with
                a label of which nothing is known yet goes first.
            speculate: the tasks may run twice.  While nothing waits and a worker has nothing to do, an attempt that
                takes far longer than others of the same label gets a twin, another attempt beside it.  The first that
                returns or raises wins; the other is killed, uncharged, before the future is done.  So do this only with
                tasks that do no harm when they run twice at the same time, or are killed.
        """
        changed = self._options_here().with_(
            timeout=timeout,
            soft_timeout=soft_timeout,
            memory_limit=memory_limit,
            retry=retry,
            key=key,
            label=label,
            priority=priority,
            cost=cost,
            speculate=speculate,
        )
        return PoolView(self, changed)

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """``map(fn, *iterables)`` in the workers; the values in order of the input, as the standard library's.

        Args:
            fn: what is called.
            *iterables: its arguments; the shortest ends them.
            timeout: seconds from now in which a value must be there, else ``TimeoutError``.  (This is not the limit of
                an attempt: see :meth:`options`.)
            chunksize: calls that are sent to a worker at once, which costs less where they are quick.  ``None``: the
                pool chooses, by how long they take: some 30 ms of work at a time, fewer towards the end, one where a
                call takes longer.
            buffersize: calls (with a number as ``chunksize``: chunks) that are submitted ahead of the value that is
                asked for; ``None``: all, at once.

        When the timeout strikes, a call raises, or the iterator is closed, what still waits is cancelled.

        In a chunk each call is what it is alone: ``timeout=``, ``soft_timeout=``, ``memory_limit=`` and ``retry=`` of
        the options hold for each; one that raises, hangs or kills its worker has that outcome, and is tried again, by
        itself; its neighbours' values stay, or they run elsewhere, charged with nothing.  Each has its own key (its
        number, unless the options give one), story, dossier and random numbers.  Calls that wait behind one that takes
        long are given to a worker that has nothing to do.  A mistake that a call leaves in its process is found some
        milliseconds later, not before the next quick call.
        """
        from resilient_exec.pool.mapping import checked_chunksize, map_in_chunks, run_chunk

        chunksize = checked_chunksize(chunksize)
        if buffersize is not None:
            buffersize = min(count("buffersize", buffersize), sys.maxsize)
        deadline = deadline_after(timeout)
        calls = zip(*iterables, strict=False)
        if chunksize == 1:
            submissions = (self.submit(fn, *args) for args in calls)
            return _in_order(submissions, deadline, buffersize)
        return map_in_chunks(lambda some: self.submit(run_chunk, fn, some), calls, chunksize, deadline, buffersize)

    def settled(self, fn: Callable[..., T], *iterables: Iterable[Any]) -> Iterator[Settled[T]]:
        """Run ``fn`` over the iterables and give each call as it settles, in whatever order that is.

        A task's failure is a value here: it is never raised.  The input may be endless: two calls per lane are
        submitted ahead.  When the iterator is closed, what still waits is cancelled.
        """
        done: queue.SimpleQueue[ResilientFuture[T]] = queue.SimpleQueue()
        index_of: dict[ResilientFuture[T], int] = {}
        try:
            yield from self._settle_all(fn, zip(*iterables, strict=False), done, index_of)
        finally:
            for waiting in index_of:
                waiting.cancel()

    # Not inside that `try`: on Python 3.14 a Ctrl-C where a loop jumps back skips the `finally`.
    def _settle_all(
        self,
        fn: Callable[..., T],
        calls: Iterator[tuple[Any, ...]],
        done: queue.SimpleQueue[ResilientFuture[T]],
        index_of: dict[ResilientFuture[T], int],
    ) -> Iterator[Settled[T]]:
        ahead, numbers = _AHEAD * self._max_workers, itertools.count()
        while True:
            for args in itertools.islice(calls, ahead - len(index_of)):
                future = self.submit(fn, *args)
                index_of[future] = next(numbers)
                future._on_done(done)
                del args, future
            if not index_of:
                return
            yield _next_settled(done, index_of)


def _in_order(submissions: Iterator[ResilientFuture[T]], deadline: float | None, ahead: int | None) -> Iterator[T]:
    """Submit (all at once, or ``ahead`` of the reader) and give the results in order."""
    futures = deque(itertools.islice(submissions, ahead))
    futures.reverse()  # as the standard library: popping from the right drops the reference at once

    def results() -> Iterator[T]:
        try:
            yield from _each_result(futures, submissions, deadline, ahead)
        finally:
            for future in futures:
                future.cancel()

    return results()


# Not inside that `try`: on Python 3.14 a Ctrl-C where a loop jumps back skips the `finally`.
def _each_result(
    futures: deque[ResilientFuture[T]],
    submissions: Iterator[ResilientFuture[T]],
    deadline: float | None,
    ahead: int | None,
) -> Iterator[T]:
    while futures:
        left = None if deadline is None else deadline - time.monotonic()
        if ahead is not None:
            futures.extendleft(itertools.islice(submissions, 1))
        yield _result(futures.pop(), left)  # not held here while the reader looks at it


def _next_settled(done: queue.SimpleQueue[ResilientFuture[T]], index_of: dict[ResilientFuture[T], int]) -> Settled[T]:
    from resilient_exec.supervisor.settled import Settled

    future = done.get()
    return Settled.of(index_of.pop(future), future)


def _result(future: ResilientFuture[T], timeout: float | None) -> T:
    try:
        try:
            return future.result(timeout)
        finally:
            future.cancel()
    finally:
        del future  # breaks the cycle of the traceback with this frame


class PoolView(Front):
    """A pool with other options, made by ``pool.options(...)``.  It owns nothing: shut the pool down, not the view."""

    _options: Options

    def __init__(self, pool: Front, options: Options) -> None:
        self._owner = pool
        self._options = options
        self._max_workers = pool._max_workers

    def _options_here(self) -> Options:
        return self._options

    def __repr__(self) -> str:
        plain = type(self._options)()
        chosen = vars(self._options)
        changed = (f"{name}={value!r}" for name, value in chosen.items() if value != getattr(plain, name))
        owner = self._owner
        while isinstance(owner, PoolView):
            owner = owner._owner
        return f"<PoolView {', '.join(changed)} of {owner!r}>"

    def _enqueue(
        self, options: Options | None, fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> ResilientFuture[T]:
        return self._owner._enqueue(options, fn, args, kwargs)
