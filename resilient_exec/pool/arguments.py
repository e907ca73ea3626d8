"""The arguments that only a pool has: their checks, and what they come to."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from resilient_exec.core.states import Limits
from resilient_exec.lane.interpreter import fill_standard_descriptors
from resilient_exec.lane.loky_start import import_loky
from resilient_exec.pool.options import as_tuple, choice, count, environment, module_names, seconds, size
from resilient_exec.process.cpus import usable_cpus
from resilient_exec.supervisor.callbacks import warn_of_stalls
from resilient_exec.supervisor.memory_guard import Pressure
from resilient_exec.wire.register import AHEAD

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from resilient_exec.lane.forkserver_client import Forking
    from resilient_exec.lane.lane import LokyLane
    from resilient_exec.model.ports import Observer
    from resilient_exec.pool.log_receiver import LogReceiver
    from resilient_exec.pool.seeding import Seeded
    from resilient_exec.supervisor.event_loop import EventLoop
    from resilient_exec.wire.script import Script

__all__ = ["check_initargs", "check_observers", "default_workers", "ends_with", "forkserver_of", "in_front_of"]
__all__ += ["have_log", "lane_maker", "memory_guard", "pool_limits", "receiver", "worker_variables"]

# Each library reads its own when it is loaded.  Those of the second line follow OMP_NUM_THREADS where they have none.
_THREADS_OF_THEIR_OWN = ("OMP_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "NUMBA_NUM_THREADS")
_THREADS_AS_OPENMP = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


_TIMES = ("start_timeout", "start_patience", "stop_timeout")


def default_workers() -> int:
    """The CPUs that this process may use, by affinity and cgroups."""
    return usable_cpus()


def worker_variables(env: Mapping[str, str] | None, most_threads: int | str | None, lanes: int) -> dict[str, str]:
    """What the workers' environment has besides this process's: ``env``, and the limits of numerical libraries.

    A limit that they would find in this process's environment stays, unless ``most_threads`` is a number.
    """
    given = environment("env", env)
    if most_threads is None:
        return given
    if most_threads == "auto":
        there = os.environ.keys() | given.keys()
        names = _THREADS_OF_THEIR_OWN + (() if "OMP_NUM_THREADS" in there else _THREADS_AS_OPENMP)
        threads = max(1, default_workers() // lanes)
        return {name: str(threads) for name in names if name not in there} | given
    try:
        threads = count("inner_max_num_threads", most_threads)
    except TypeError as error:
        raise TypeError(f"{error}; 'auto' and None are allowed, too") from None
    return dict.fromkeys(_THREADS_OF_THEIR_OWN + _THREADS_AS_OPENMP, str(threads)) | given


def pool_limits(
    lanes: int,
    max_tasks_per_worker: int | None,
    times: tuple[float, float, float],
    max_memory_per_worker: int | str | None,
    on_stall: str,
) -> Limits:
    """What the core goes by, checked; ``times`` are ``start_timeout``, ``start_patience`` and ``stop_timeout``."""
    start_timeout, start_patience, stop_timeout = map(_time, _TIMES, times)
    if max_tasks_per_worker is not None:
        count("max_tasks_per_worker", max_tasks_per_worker)
    return Limits(
        lanes=lanes,
        max_tasks_per_worker=max_tasks_per_worker,
        start_timeout=start_timeout,
        start_patience=start_patience,
        stop_timeout=stop_timeout,
        max_memory_per_worker=size("max_memory_per_worker", max_memory_per_worker),
        kill_stalled=choice("on_stall", on_stall, ("report", "kill")) == "kill",
        depth=AHEAD,
        first_depth=1,
    )


def receiver(logs: str | None) -> LogReceiver | None:
    """Return what takes the log records of tasks; ``None``: they are not wanted here."""
    if logs is None:
        return None
    choice("logs", logs, ("forward",))
    from resilient_exec.pool.log_receiver import LogReceiver

    return LogReceiver()


def in_front_of(
    initializer: Callable[..., object] | None,
    initargs: tuple[Any, ...],
    seed: Seeded | None,
    logs: LogReceiver | None,
) -> tuple[Callable[..., object] | None, tuple[Any, ...]]:
    """What each worker calls at its start: the user's initializer, with what the pool has to set up in front of it."""
    if (initializer, seed, logs) == (None, None, None):
        return None, initargs
    import_loky()  # its pickler takes what a worker starts with
    if seed is None and logs is None:
        return initializer, initargs
    from resilient_exec.worker.setup import set_up

    return set_up, (
        seed.seed if seed is not None else None,
        logs.forwarding if logs is not None else None,
        initializer,
        initargs,
    )


def _time(name: str, value: float) -> float:
    if name == "start_patience" and value == 0:
        return 0.0
    checked = seconds(name, value)
    if checked is None:
        raise TypeError(f"{name} must be a number of seconds; without a limit a pool could hang for ever")
    return checked


def check_observers(given: Iterable[Observer], stall_timeout: float | None) -> tuple[Observer, ...]:
    """The observers, checked; with the one that warns, where stalls are looked for."""
    observers = as_tuple("observers", given)
    for observer in observers:
        if not callable(observer):
            raise TypeError(f"an observer must be a callable that takes an event; got {observer!r}")
    return (*observers, warn_of_stalls) if stall_timeout is not None else observers


def memory_guard(reserve: int | str | None) -> Pressure | None:
    """The guard for the machine's memory, as far as it is wanted."""
    if reserve == "auto":
        return Pressure()
    checked = size("memory_reserve", reserve)
    return Pressure(checked) if checked is not None else None


def lane_maker(stall: float | None, weigh: bool, *worker: Any) -> Callable[[int, EventLoop], LokyLane]:  # noqa: FBT001
    """What makes a lane.  The supervisor keeps it, so it refers to no pool, which could not be dropped then."""

    def make_lane(number: int, loop: EventLoop) -> LokyLane:
        from resilient_exec.lane.lane import LaneSettings, LokyLane
        from resilient_exec.lane.lease import WorkerSettings

        return LokyLane(number, loop, LaneSettings(WorkerSettings(*worker), stall, weigh))

    return make_lane


def check_initargs(
    initializer: Callable[..., object] | None, given: tuple[Any, ...], script: Script | None
) -> tuple[Any, ...]:
    """The initializer's arguments, checked with it."""
    if initializer is not None and not callable(initializer):
        raise TypeError(f"initializer must be a callable, got {initializer!r}")
    initargs = as_tuple("initargs", given)
    if initializer is not None:
        from resilient_exec.lane.initializer import check_initializer

        check_initializer(initializer, initargs, script)
    return initargs


def forkserver_of(
    wanted: bool,  # noqa: FBT001  the pool's argument
    preload: Iterable[str],
    env: Mapping[str, str],
    start_timeout: float,
    script: Script | None,
) -> Forking | None:
    """What forks the workers of a pool; ``None``: they are started by exec.  This process is made ready for either.

    Args:
        wanted: the pool's ``forkserver=``.
        preload: the pool's ``preload=``.
        env: variables of the workers' environment.
        start_timeout: s, for it to be ready.
        script: what its workers import.
    """
    if not isinstance(wanted, bool):
        raise TypeError(f"forkserver must be True or False, got {wanted!r}")
    modules = module_names("preload", preload)
    if modules and not wanted:
        raise ValueError(
            f"preload={modules!r} is imported by the forkserver, and forkserver=False says that there is to be none: "
            "leave one of the two out"
        )
    from resilient_exec.lane.forkserver_client import Forking, can_fork, tell_that_there_is_none

    fill_standard_descriptors()
    if wanted and can_fork():
        forking = Forking(modules, env, start_timeout)
        if script is not None and "resilient_exec" in script.source:
            # Each worker would import all of the pool with the script: 65 ms for each start and restart.
            forking.own = ("resilient_exec.pool.pool",)
        return forking
    if wanted:
        tell_that_there_is_none(modules)
    import_loky()
    return None


def have_log(forking: Forking | None, log: Callable[[Callable[[], object]], object]) -> None:
    """Have what forks workers write to the log by ``log(job)``, so that no handler holds it up."""
    if forking is not None:
        forking.log = log


def ends_with(forking: Forking | None) -> Callable[[], object]:
    """Return what is to be called when the last lane of a pool has ended."""
    return (lambda: None) if forking is None else forking.close
