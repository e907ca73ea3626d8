"""The arguments that only a pool has: their checks, and what they come to."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from resilient_exec.core.states import Limits
from resilient_exec.pool.options import as_tuple, choice, count, environment, seconds, size
from resilient_exec.supervisor.callbacks import warn_of_stalls
from resilient_exec.supervisor.memory_guard import Pressure
from resilient_exec.wire.register import AHEAD

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from resilient_exec.model.ports import Observer

__all__ = ["check_observers", "default_workers", "memory_guard", "pool_limits", "worker_variables"]

# Each library reads its own when it is loaded.  Those of the second line follow OMP_NUM_THREADS where they have none.
_THREADS_OF_THEIR_OWN = ("OMP_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "NUMBA_NUM_THREADS")
_THREADS_AS_OPENMP = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def default_workers() -> int:
    """The CPUs that this process may use, by affinity and cgroups."""
    import loky

    return int(loky.cpu_count())


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
    start_timeout: float,
    max_memory_per_worker: int | str | None,
    on_stall: str,
) -> Limits:
    """What the core goes by, checked."""
    start_seconds = seconds("start_timeout", start_timeout)
    if start_seconds is None:
        raise TypeError("start_timeout must be a number of seconds; a start without a limit could hang for ever")
    if max_tasks_per_worker is not None:
        count("max_tasks_per_worker", max_tasks_per_worker)
    return Limits(
        lanes=lanes,
        max_tasks_per_worker=max_tasks_per_worker,
        start_timeout=start_seconds,
        max_memory_per_worker=size("max_memory_per_worker", max_memory_per_worker),
        kill_stalled=choice("on_stall", on_stall, ("report", "kill")) == "kill",
        depth=AHEAD,
        first_depth=1,
    )


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
