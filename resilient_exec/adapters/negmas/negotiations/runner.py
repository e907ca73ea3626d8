"""Negotiation tournaments: the replacement of the process pool that ``cartesian_tournament`` uses.

Since 0.15.7 negmas runs negotiations with a function, ``run_isolated_tasks``; before, with a ``ProcessPoolExecutor``.
There is a replacement for each.  Both keep what negmas documents: its records, callbacks, seeds and time limits.  If
``options(timeout=...)`` is given, too, the shorter limit is used.

A negotiation that fails for good gets negmas' own failure record, whatever the reason.  (Older negmas by itself drops
it, and its handler of timeouts calls ``failed_run_record`` without the arguments that it needs.)
"""

from __future__ import annotations

import functools
import inspect
import math
import queue
import sys
import time
from collections import deque
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from resilient_exec.adapters.negmas import checks
from resilient_exec.adapters.negmas.negotiations import seeding as negotiation_seeds
from resilient_exec.adapters.negmas.negotiations.session import Session, record_of, shortest_limit
from resilient_exec.adapters.negmas.negotiations.watched import watched
from resilient_exec.adapters.negmas.worlds import seeding
from resilient_exec.model.errors import NotSendable, TaskTimeout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import TracebackType

    from resilient_exec import ResilientFuture

__all__ = ["NegotiationPool", "run_isolated_tasks"]

_TASKS_PER_WORKER = 50  # negmas' own DEFAULT_MAX_TASKS_PER_WORKER, since 0.15.7
_LONGEST_WAIT = 60.0  # s between two readings of the clock


# -- negmas 0.15.7 and later


def run_isolated_tasks(
    tasks: Iterable[tuple[Any, Callable[..., Any], tuple[Any, ...], dict[str, Any]]],
    *,
    max_workers: int,
    timeout: float | None = None,
    total_timeout: float | None = None,
    max_tasks: int | None = None,
    window: int | None = None,
    on_result: Callable[[Any, Any, int, int], None] | None = None,
    on_timeout: Callable[[Any, int, int], None] | None = None,
    on_error: Callable[[BaseException, Any, int, int], None] | None = None,
    track: Callable[..., Iterable[Any]] | None = None,
    description: str = "Running",
    allow_inline_fallback: bool | None = None,
) -> int:
    """The function of this name in negmas, on a resilient pool; see there for the arguments.

    Tasks that cannot be pickled are given to negmas' own function, which runs them in this process or fails them,
    depending on ``allow_inline_fallback``.
    """
    run = _IsolatedTasks(list(tasks), window or 4 * max(1, max_workers), on_result, on_timeout, on_error)
    negotiations = run.negotiations()
    if path := next((info["path"] for info in negotiations if info.get("path")), None):
        checks.check_begun(Path(path), negotiations)
    limit = shortest_limit(total_timeout, None)
    session = Session(max(1, max_workers), timeout, max_tasks)
    ended_by = ""
    try:
        session.check(run.competitors())
        steps: Iterable[Any] = run.steps(session, math.inf if limit is None else time.perf_counter() + limit)
        if track is not None:
            steps = track(steps, total=len(run.tasks), description=description)
        deque(steps, maxlen=0)  # no loop here: on Python 3.14 a Ctrl-C where a loop jumps back skips the `finally`
        ended_by = "" if run.is_complete else "total_timeout"
    except BaseException as error:
        ended_by = type(error).__name__
        raise
    finally:
        session.close(kill=bool(ended_by), ended_by=ended_by)
    # negmas 0.15.7 does not have this parameter, and does not pass it.
    how = {} if allow_inline_fallback is None else {"allow_inline_fallback": allow_inline_fallback}
    run.leave_to_negmas(timeout, track, description, **how)
    return len(run.tasks)


class _IsolatedTasks:
    """One call of :func:`run_isolated_tasks`; all methods run in the caller's thread."""

    def __init__(
        self,
        tasks: list[tuple[Any, Callable[..., Any], tuple[Any, ...], dict[str, Any]]],
        window: int,
        on_result: Callable[[Any, Any, int, int], None] | None,
        on_timeout: Callable[[Any, int, int], None] | None,
        on_error: Callable[[BaseException, Any, int, int], None] | None,
    ) -> None:
        self.tasks = tasks
        self.is_complete = False
        self._window = window
        self._on_result = on_result or (lambda *_: None)
        self._on_timeout = on_timeout or (lambda *_: None)
        self._on_error = on_error or (lambda *_: None)
        self._waiting = iter(range(len(tasks)))
        self._running: dict[ResilientFuture[Any], int] = {}
        self._inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()  # futures that are done
        self._unsendable: list[int] = []

    def negotiations(self) -> list[dict[str, Any]]:
        """The arguments of ``run_negotiation``, for each task that is a negotiation."""
        return [info for i in range(len(self.tasks)) if "partners" in (info := self._info(i))]

    def competitors(self) -> list[Any]:
        """The competitors of all tasks that are negotiations; with repetitions."""
        return [kind for info in self.negotiations() for kind in info["partners"] or ()]

    def steps(self, session: Session, deadline: float) -> Iterator[None]:
        """Run the tasks, and yield after each task that has settled.

        Args:
            session: with the pool.
            deadline: by ``time.perf_counter``; tasks that have not settled then are reported as not run.
        """
        self._submit(session)
        while self._running:
            now = time.perf_counter()
            if now > deadline:
                self._report_not_run(session)
                return
            try:
                future = self._inbox.get(timeout=min(_LONGEST_WAIT, deadline - now))
            except queue.Empty:
                continue
            self._record_settled(session, future)
            yield
            self._submit(session)
        self.is_complete = True

    def _submit(self, session: Session) -> None:
        while len(self._running) < self._window and (i := next(self._waiting, None)) is not None:
            _, _, args, kwargs = self.tasks[i]
            future = session.pool.submit(self._seeded(i), *args, **kwargs)
            self._running[future] = i
            future.add_done_callback(self._inbox.put)

    def _report_not_run(self, session: Session) -> None:
        for i in [*self._running.values(), *self._waiting]:
            session.report_task(self._info(i), len(self.tasks), status="not run", reason="total_timeout was over")

    def _info(self, i: int) -> dict[str, Any]:
        info = self.tasks[i][0]
        return info if isinstance(info, dict) else {}

    def _record_settled(self, session: Session, future: ResilientFuture[Any]) -> None:
        i = self._running.pop(future)
        info, n = self.tasks[i][0], len(self.tasks)
        unsent = future.exception()
        if isinstance(unsent, NotSendable) and not future.attempts:
            self._unsendable.append(i)
            session.report_task(self._info(i), n, status="left to negmas", reason=str(unsent))
            return
        error = session.record_settled(future, self._info(i), n)
        if error is None:
            self._on_result(info, record_of(future.result()), i, n)
        elif isinstance(error, TaskTimeout):
            self._on_timeout(info, i, n)
        else:
            self._on_error(error, info, i, n)

    def _seeded(self, i: int) -> Callable[..., Any]:
        """The function of a task, with its seed: that of the options, or else that of negmas' own setting."""
        fn, seeds = watched(self.tasks[i][1], self._info(i)), negotiation_seeds.current()
        if seeds is not None:
            return seeds.task(fn, self._info(i))
        seed = seeding.negmas_seed(i)
        return fn if seed is None else functools.partial(_run_seeded, seed, fn)

    def leave_to_negmas(self, timeout: float | None, track: Any, description: str, **how: Any) -> None:
        """Give negmas' own function the tasks that cannot be pickled, with their own numbers and seeds."""
        if not self._unsendable:
            return
        from negmas.helpers.parallel import run_isolated_tasks as stock

        numbers, n = self._unsendable, len(self.tasks)
        left = []
        for i in numbers:
            info, _, args, kwargs = self.tasks[i]
            left.append((info, self._seeded(i), args, kwargs))
        stock(
            left,
            max_workers=1,
            timeout=timeout,
            on_result=lambda info, result, j, _: self._on_result(info, result, numbers[j], n),
            on_timeout=lambda info, j, _: self._on_timeout(info, numbers[j], n),
            on_error=lambda error, info, j, _: self._on_error(error, info, numbers[j], n),
            track=track,
            description=description,
            **how,
        )


def _run_seeded(seed: int, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    seeding.reseed(seed)
    return fn(*args, **kwargs)


# -- negmas 0.11 to 0.15.0


class NegotiationPool:
    """The replacement of ``concurrent.futures.ProcessPoolExecutor`` in negmas' module ``cartesian``.

    Args:
        cartesian: that module.
        max_workers: as in ``ProcessPoolExecutor``.
        max_tasks_per_child: ``None``: workers are never replaced.  Otherwise at least 50 is used, as negmas does since
            0.15.7; earlier versions pass 10, but a new worker takes seconds for its imports.
    """

    def __init__(self, cartesian: Any, max_workers: int | None = None, max_tasks_per_child: int | None = None) -> None:
        import loky  # with negotiations only

        # cartesian_tournament computes the limit of a negotiation, but does not pass it: it is read from its frame.
        limit = sys._getframe(1).f_locals.get("timeout")
        self._cartesian = cartesian
        self._planned = 0
        max_tasks = max_tasks_per_child and max(max_tasks_per_child, _TASKS_PER_WORKER)
        self._session = Session(max_workers or loky.cpu_count(), limit, max_tasks)

    def submit(self, fn: Callable[..., Any], /, **info: Any) -> Future[Any]:
        """Submit a negotiation; a failure record is made from its arguments."""
        self._session.check(info.get("partners") or ())
        self._planned += 1
        seeds = self._session.seeds
        call = watched(fn, info)
        call = call if seeds is None else seeds.task(call, info)
        return _Negotiation(self, self._session.pool.submit(call, **info), info)

    def record(self, future: ResilientFuture[Any], info: dict[str, Any]) -> Any:
        """The record of a negotiation that has settled: its result, or a failure record."""
        error = self._session.record_settled(future, info, self._planned)
        if error is None:
            return record_of(future.result())
        accepted = inspect.signature(self._cartesian.failed_run_record).parameters
        fields = {name: value for name, value in info.items() if name in accepted}
        return self._cartesian.failed_run_record(**fields, timeout=self._session.timeout or 0.0, error=str(error))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002
        """Shut down, with the standard library's arguments."""
        self._session.pool.shutdown(wait, cancel_futures=cancel_futures)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session.close(kill=kind is not None, ended_by=kind.__name__ if kind is not None else "")


class _Negotiation(Future[Any]):
    """A future of :class:`NegotiationPool`: done when the negotiation has settled, with a result or an error."""

    def __init__(self, pool: NegotiationPool, inner: ResilientFuture[Any], info: dict[str, Any]) -> None:
        super().__init__()
        self._pool, self._inner, self._info = pool, inner, info
        inner.add_done_callback(lambda _: self.set_result(None))

    def result(self, timeout: float | None = None) -> Any:
        # The record is made here, in the caller's thread, because a failure record runs constructors of competitors.
        super().result(timeout)
        return self._pool.record(self._inner, self._info)
