"""Measures what a fresh process with negmas and scml costs: after a kill, and for every world of a tournament.

    python benchmarks/restart.py [--rounds 5] [--tournaments 10] [--track std|oneshot] [--steps 10] [--configs 2]

First table: the worker is killed by SIGKILL while it idles, and the next task needs ``negmas.tournaments`` and
``scml.utils``.  Measured are the seconds from the kill to its result, one pool after the other.

Second table: two runs of the same tournament (seeded; the scores are compared).  In one, workers are reused, in the
other each world has a process of its own.  Both run at the same time on the same CPU, with one worker each, so that
changes of the machine's speed affect both.  Compared is the CPU time of all their processes.  Since worlds only
compute, this is their wall time if each has a CPU.

It needs negmas and scml (``resilient-exec[scml]``); pebble is compared if it is installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import multiprocessing
import os
import random
import resource
import signal
import statistics
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import numpy as np
from _at_once import compare, wait_for_the_others

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.connection import Connection

PRELOAD = ("negmas.tournaments.tournaments", "scml.utils")


def use() -> int:
    """The task: imports modules that take seconds to import."""
    for name in PRELOAD:
        importlib.import_module(name)
    return os.getpid()


@contextmanager
def ours(preload: tuple[str, ...]) -> Iterator[Callable[[], int]]:
    """This package's pool."""
    from resilient_exec import ResilientPool

    with ResilientPool(1, preload=preload) as pool:
        yield lambda: pool.submit(use).result()


@contextmanager
def loky() -> Iterator[Callable[[], int]]:
    """Loky's reusable executor, which is replaced when it is broken."""
    from loky import get_reusable_executor

    yield lambda: int(get_reusable_executor(1).submit(use).result())
    get_reusable_executor(1).shutdown(kill_workers=True)


@contextmanager
def pebble() -> Iterator[Callable[[], int]]:
    """Pebble's pool; it breaks when an idle worker is killed, and is then replaced."""
    from pebble import ProcessPool

    pool = ProcessPool(1, context=multiprocessing.get_context("spawn"))

    def call() -> int:
        nonlocal pool
        try:
            return int(pool.schedule(use).result())
        except Exception:  # broken by the kill
            pool = ProcessPool(1, context=multiprocessing.get_context("spawn"))
            return int(pool.schedule(use).result())

    try:
        yield call
    finally:
        pool.stop()  # type: ignore[no-untyped-call]
        pool.join()


CONTENDERS: dict[str, tuple[str, Callable[[], Any]]] = {
    "resilient_exec, preloaded": ("resilient_exec", lambda: ours(PRELOAD)),
    "resilient_exec, cold": ("resilient_exec", lambda: ours(())),
    "loky": ("loky", loky),
    "pebble (spawn)": ("pebble", pebble),
}


def restart(call: Callable[[], int]) -> float:
    """Seconds from the death of the worker to the next result."""
    victim = call()
    begin = time.perf_counter()
    with suppress(ProcessLookupError):  # the worker has ended by itself
        os.kill(victim, signal.SIGKILL)
    while True:
        with suppress(Exception):  # the pool has noticed the death during this call
            if call() != victim:
                return time.perf_counter() - begin


TRACKS = {
    "std": ("anac2024_std", "scml.std.agents", ("GreedyStdAgent", "RandomStdAgent", "SyncRandomStdAgent")),
    "oneshot": ("anac2024_oneshot", "scml.oneshot.agents", ("GreedyOneShotAgent", "RandomOneShotAgent")),
}


def tournament(parent: Connection, track: str, steps: int, configs: int, cpu: int, *, fresh: bool) -> None:
    """In a process of its own: run a tournament on one CPU; send its CPU seconds per world, and the scores.

    Args:
        parent: where to send that.
        track: a key of ``TRACKS``.
        steps: of each world.
        configs: ``n_configs`` of the tournament.
        cpu: the CPU's number.
        fresh: whether each world has a process of its own.
    """
    run, package, names = TRACKS[track]
    competitors = [getattr(importlib.import_module(package), name) for name in names]

    import resilient_exec.adapters.negmas as adapter

    os.sched_setaffinity(0, {cpu})  # child processes inherit it
    wait_for_the_others(parent)
    random.seed(1)  # the worlds and their names are drawn from it
    np.random.seed(1)  # noqa: NPY002  it is the one that negmas draws from
    before = cpu_seconds()
    with adapter.options(max_workers=1, fresh_process=fresh, seed=1), tempfile.TemporaryDirectory() as folder:
        results = getattr(importlib.import_module("scml.utils"), run)(
            competitors,
            n_configs=configs,
            n_runs_per_world=1,
            n_steps=steps,
            n_competitors_per_world=2,
            tournament_path=folder,
            parallelism="resilient",
        )
        report = adapter.last_report()
    if report is None or report.scored != report.planned:
        raise SystemExit("not all worlds scored: nothing to compare")
    scores = sorted(results.scores["score"])
    parent.send(((cpu_seconds() - before) / report.planned, scores))


def cpu_seconds() -> float:
    """CPU seconds of this process and of its descendants that have ended and were waited for."""
    each = (resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(used.ru_utime + used.ru_stime for used in each)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="kills of each pool's worker (default: %(default)s)")
    parser.add_argument("--tournaments", type=int, default=10, help="rounds; 0: none (default: %(default)s)")
    parser.add_argument("--track", choices=TRACKS, default="std")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--configs", type=int, default=2, help="n_configs of a tournament (default: %(default)s)")
    arguments = parser.parse_args()
    contenders = {name: make for name, (module, make) in CONTENDERS.items() if importlib.util.find_spec(module)}
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for name, make in contenders.items():
        with make() as call:
            call()
            seconds[name] = [restart(call) for _ in range(arguments.rounds)]
    base = statistics.median(next(iter(seconds.values())))
    print(f"a result after a kill, {arguments.rounds} kills each, Python {sys.version.split()[0]}")
    for name, measured in seconds.items():
        median = statistics.median(measured)
        print(f"{name:28}{median:8.3f} s   x {median / base:.1f}")
    if not arguments.tournaments:
        return
    print(f"{arguments.track}, {arguments.steps} steps, CPU s a world: workers reused, a fresh process for each, ratio")
    os.environ["PYTHONHASHSEED"] = "0"  # for child processes: what agents do depends on the order of sets
    what = (arguments.track, arguments.steps, arguments.configs, min(os.sched_getaffinity(0)))
    compare(arguments.tournaments, tournament, *what, sides=[{"fresh": False}, {"fresh": True}])


if __name__ == "__main__":
    main()
