"""What a pool works with from its first task on: the supervisor, and what turns calls into tasks.

It is imported with the first task, while the forkserver starts: what it imports takes as long as that.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, TypeVar

from resilient_exec.core.lane_port import ChunkParcel, Parcel
from resilient_exec.core.messages import ShutdownAsked
from resilient_exec.core.states import Limits
from resilient_exec.lane.lane import LaneSettings, LokyLane
from resilient_exec.lane.lease import WorkerSettings
from resilient_exec.lane.loky_start import import_loky
from resilient_exec.model.errors import PoolBroken
from resilient_exec.model.summary import Summary
from resilient_exec.model.task import NotSent
from resilient_exec.pool.alikes import Alikes
from resilient_exec.pool.calling import callers_line
from resilient_exec.pool.chunk_packing import PackedCalls
from resilient_exec.pool.mapping import run_chunk
from resilient_exec.pool.names import Names
from resilient_exec.pool.options import UNSET
from resilient_exec.pool.seeding import Seeded
from resilient_exec.pool.snapshot import counts_of, in_words
from resilient_exec.pool.task_options import Options
from resilient_exec.supervisor import exit_hook
from resilient_exec.supervisor.callbacks import warn_of_stalls
from resilient_exec.supervisor.chunk_future import ChunkFuture
from resilient_exec.supervisor.future import ResilientFuture
from resilient_exec.supervisor.loop import Supervisor
from resilient_exec.supervisor.memory_guard import Pressure
from resilient_exec.wire.payload import Unsendable, pack_call

if TYPE_CHECKING:
    from collections.abc import Callable

    from resilient_exec.lane.forkserver_client import Forking
    from resilient_exec.pool.arguments import Plan
    from resilient_exec.pool.log_receiver import LogReceiver
    from resilient_exec.supervisor.alike import Alike

__all__ = ["Engine"]

T = TypeVar("T")
_DEPTH = 32  # attempts that a worker holds at most, beside bundles


class Engine:
    """The supervisor of a pool, and the numbers and keys of its tasks.  It refers to no pool."""

    def __init__(self, plan: Plan) -> None:
        forking: Forking | None = plan.workers["forking"]
        self._fresh_locks, self._script = plan.workers["fresh_locks"], plan.workers["script"]
        self.options = Options(**plan.options)
        self._seeded = Seeded(plan.seed) if plan.seed is not None else None
        self.logs = _receiver() if plan.logs else None
        workers = self._workers(plan)
        if forking is None or workers["initializer"] is not None:
            import_loky()  # at the exit of the interpreter, when pending work is finished, that would raise
        reserve = plan.memory_reserve
        guard = None if reserve is None else Pressure() if isinstance(reserve, str) else Pressure(reserve)
        limits = Limits(**plan.limits, depth=_DEPTH, first_depth=1)
        observers = (*plan.observers, warn_of_stalls) if plan.stall_timeout is not None else plan.observers
        at_end = forking.close if forking is not None else _nothing
        weigh = plan.limits["max_memory_per_worker"] is not None
        apart = bool(observers or weigh or self._seeded or self.logs)  # where each task goes by itself
        self._alikes = Alikes(self._script, wanted=not apart)
        settings = LaneSettings(WorkerSettings(**workers), plan.stall_timeout, weigh=weigh)
        make_lane = functools.partial(LokyLane, settings=settings)
        supervisor = self.supervisor = Supervisor(limits, make_lane, observers, guard, at_end)
        self._names = Names(self._seeded, supervisor.has_default_key)
        if forking is not None:  # whose words reach the log in a way in which no handler holds it up
            forking.log = supervisor.log.run
        exit_hook.end_at_exit(supervisor)
        if self.logs is not None:
            self.logs.start(supervisor)

    def _workers(self, plan: Plan) -> dict[str, Any]:
        """How workers are made: with what the pool has to set up in front of the user's initializer."""
        workers = dict(plan.workers)
        if plan.seed is not None or self.logs is not None:
            from resilient_exec.worker.setup import set_up

            forwarding = self.logs.forwarding if self.logs is not None else None
            workers["initargs"] = (plan.seed, forwarding, workers["initializer"], workers["initargs"])
            workers["initializer"] = set_up
        return workers

    def end(self, *, cancel: bool = False, kill: bool = False, why: str) -> None:
        """Have it end when the last task is done; ``cancel`` those that wait, ``kill`` those that run."""
        self.supervisor.post(ShutdownAsked(cancel=cancel, kill=kill, why=why))

    def join(self) -> None:
        """Wait until no worker is left, and for its threads."""
        self.supervisor.ended.wait()
        self.supervisor.join()
        if self.logs is not None:
            self.logs.join()

    def state(self) -> str:
        """How many tasks are in which state, and whether it is broken."""
        broken = ", broken" if self.supervisor.core.broken is not None else ""
        return f"{in_words(counts_of(self.supervisor))}{broken}"

    def check_works(self) -> None:
        """Raise ``PoolBroken`` if no worker can be started any more."""
        broken = self.supervisor.core.broken
        if broken is not None:
            raise PoolBroken(broken)

    def enqueue(
        self, options: Options | None, fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> ResilientFuture[T]:
        """Take one task in; its future.  ``options``: ``None``: the pool's own."""
        if options is None:
            options = self.options
        alike = self._alikes.find(options, fn, args, kwargs)
        if alike is not None:
            return self.enqueue_alike(alike, args)
        if fn is run_chunk and not kwargs:
            return self._enqueue_chunk(options, *args)  # type: ignore[return-value]
        call: Any = b""
        problem = None
        try:
            call = pack_call(fn, args, kwargs, fresh_locks=self._fresh_locks, script=self._script)
        except Unsendable as unsendable:
            text = f"cannot be sent to a worker: {unsendable}; it was submitted in {callers_line()}"
            problem = NotSent(text, unsendable.__cause__)
        label = options.label or label_of(fn)
        self._alikes.note(options, fn, label)
        number, key, name, packed = self._names.of(options)
        parcel = Parcel(call, packed)
        future: ResilientFuture[T] = ResilientFuture(key, label, Summary(args, kwargs), self.supervisor, number)
        if options.retry.total is not None:
            future._most = options.retry.total
        self._announce(options, future, parcel)
        self.supervisor.submit(options.task(number, label, key, name, parcel), problem)
        return future

    def enqueue_alike(self, alike: Alike, args: tuple[Any, ...]) -> ResilientFuture[Any]:
        """Take one in that may go in a bundle with others."""
        number = self._names.number()
        future: ResilientFuture[Any] = ResilientFuture(number, alike.label, args, self.supervisor, number)
        future._most, future._alike = alike.most, alike
        self.supervisor.submit_alike(future)
        return future

    def _enqueue_chunk(
        self, options: Options, fn: Callable[..., T], calls: list[tuple[Any, ...]]
    ) -> ResilientFuture[list[T]]:
        packed = PackedCalls(fn, calls, fresh_locks=self._fresh_locks, script=self._script)
        label = options.label or label_of(fn)
        number, key, name, packed_key = self._names.of(options, len(calls))
        parcel = ChunkParcel(packed.head, packed.places, packed.calls, packed_key)
        numbered, size = options.key is UNSET, len(calls)
        told = (key, label, packed.arguments, self.supervisor, number, size)
        future: ChunkFuture[T] = ChunkFuture(*told, numbered=numbered)
        self._announce(options, future, parcel)
        task = options.task(number, label, key, name, parcel)
        task.calls, task.group = size, packed.group(number, numbered=numbered)
        for part, problem in packed.parts(task, callers_line):
            self.supervisor.submit(part, problem)
        return future

    def _announce(self, options: Options, future: ResilientFuture[Any], parcel: Parcel | ChunkParcel) -> None:
        """A task is about to be submitted: its key is taken, its label known."""
        parcel.future = future
        if options.key is not UNSET:
            self._names.keys.claim(future.key, parcel)
        if self.logs is not None:
            self.logs.labels.add(future)


def label_of(fn: Callable[..., Any]) -> str:
    """What a call is called in events and errors."""
    return getattr(fn, "__qualname__", "") or type(fn).__qualname__


def _receiver() -> LogReceiver:
    from resilient_exec.pool.log_receiver import LogReceiver

    return LogReceiver()


def _nothing() -> None:
    pass
