"""The arguments that only a pool has: their checks, and what they come to.

They are checked when the pool is made; what is made of them is imported with its first task (:mod:`.pool.engine`).
So this imports little, and no ``dataclasses``.
"""

from __future__ import annotations

import operator
import os

import resilient_exec
from resilient_exec.lane.interpreter import fill_standard_descriptors
from resilient_exec.pool.options import (
    as_tuple,
    check_order,
    choice,
    count,
    environment,
    module_names,
    seconds,
    size,
)
from resilient_exec.process.cpus import usable_cpus

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from resilient_exec.lane.forkserver_client import Forking
    from resilient_exec.model.policies import RetryPolicy
    from resilient_exec.model.ports import Observer
    from resilient_exec.wire.script import Script

__all__ = [
    "DEFAULT_RETRY",
    "Plan",
    "check_initargs",
    "check_observers",
    "default_workers",
    "forkserver_of",
    "memory_reserve_of",
    "pool_limits",
    "seed_of",
    "task_options",
    "worker_variables",
]

# Each library reads its own when it is loaded.  Those of the second line follow OMP_NUM_THREADS where they have none.
_THREADS_OF_THEIR_OWN = ("OMP_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "NUMBA_NUM_THREADS")
_THREADS_AS_OPENMP = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


_TIMES = ("start_timeout", "start_patience", "stop_timeout")


class _DefaultRetry:
    def __repr__(self) -> str:
        return "RetryPolicy()"


DEFAULT_RETRY: Any = _DefaultRetry()


class Plan:
    """The checked arguments of a pool.

    Attributes:
        limits: what the core goes by: arguments of ``Limits``.
        options: those of its tasks, by name, as far as they are not the default ones.
        workers: how its workers are made: arguments of ``WorkerSettings``.
        observers: what is told each event.
        stall_timeout: seconds, or ``None``.
        memory_reserve: bytes, ``"auto"``, or ``None``.
        logs: whether the log records of tasks are forwarded.
        seed: from which random numbers follow; ``None``: none.
    """

    def __init__(
        self,
        limits: dict[str, Any],
        options: dict[str, Any],
        workers: dict[str, Any],
        observers: tuple[Observer, ...],
        *,
        stall_timeout: float | None,
        memory_reserve: int | str | None,
        logs: bool,
        seed: int | None,
    ) -> None:
        self.limits, self.options, self.workers = limits, options, workers
        self.stall_timeout, self.memory_reserve = stall_timeout, memory_reserve
        self.observers, self.logs, self.seed = observers, logs, seed


def task_options(
    *, timeout: float | None, soft_timeout: float | None, retry: RetryPolicy | int, memory_limit: int | str | None
) -> dict[str, Any]:
    """The options that tasks have by default, checked; the retry policy only where it is not the default one."""
    found: dict[str, Any] = {
        "timeout": seconds("timeout", timeout),
        "soft_timeout": seconds("soft_timeout", soft_timeout),
        "memory_limit": size("memory_limit", memory_limit),
    }
    check_order(found["soft_timeout"], found["timeout"])
    if retry is not DEFAULT_RETRY:
        from resilient_exec.model.policies import as_policy

        found["retry"] = as_policy(retry)
    return found


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
) -> dict[str, Any]:
    """What the core goes by, checked, as arguments of ``Limits``.

    ``times`` are ``start_timeout``, ``start_patience`` and ``stop_timeout``.
    """
    start_timeout, start_patience, stop_timeout = map(_time, _TIMES, times)
    if max_tasks_per_worker is not None:
        count("max_tasks_per_worker", max_tasks_per_worker)
    return {
        "lanes": lanes,
        "max_tasks_per_worker": max_tasks_per_worker,
        "start_timeout": start_timeout,
        "start_patience": start_patience,
        "stop_timeout": stop_timeout,
        "max_memory_per_worker": size("max_memory_per_worker", max_memory_per_worker),
        "kill_stalled": choice("on_stall", on_stall, ("report", "kill")) == "kill",
    }


def _time(name: str, value: float) -> float:
    if name == "start_patience" and value == 0:
        return 0.0
    checked = seconds(name, value)
    if checked is None:
        raise TypeError(f"{name} must be a number of seconds; without a limit a pool could hang for ever")
    return checked


def check_observers(given: Iterable[Observer]) -> tuple[Observer, ...]:
    """The observers, checked."""
    observers = as_tuple("observers", given)
    for observer in observers:
        if not callable(observer):
            raise TypeError(f"an observer must be a callable that takes an event; got {observer!r}")
    return observers


def memory_reserve_of(reserve: int | str | None) -> int | str | None:
    """The reserve in bytes; ``"auto"`` and ``None`` stay."""
    return "auto" if reserve == "auto" else size("memory_reserve", reserve)


def seed_of(seed: int | None) -> int | None:
    """``seed``, checked; ``None``: there is none."""
    if seed is None:
        return None
    if isinstance(seed, bool) or not hasattr(seed, "__index__"):
        raise TypeError(f"seed must be a whole number, or None; got {seed!r}")
    return operator.index(seed)


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
    """What forks the workers of a pool; ``None``: they are started by exec.

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
            # Each worker would import with the script what that names of this package: up to 65 ms of each start.
            homes = {home for name, home in resilient_exec._HOME.items() if name in script.source}
            forking.own = tuple(f"resilient_exec.{home}" for home in sorted({"pool.pool", *homes}))
        return forking
    if wanted:
        tell_that_there_is_none(modules)
    return None
