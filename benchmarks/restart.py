"""What a fresh process costs with negmas and scml in it: after a kill, and for every world of a tournament.

    python benchmarks/restart.py [--rounds 5] [--tournaments 3] [--configs 4]

First table: the worker is killed by SIGKILL, and the next task, which needs ``negmas.tournaments`` and ``scml.utils``,
is waited for: seconds from the kill to its result, one pool after the other.  Second table: clean tournaments
(``anac2024_std``, 10 steps), alternating: workers that are reused, and a fresh process for each world; time, and CPU
time, which varies less where other work goes on.
It needs negmas and scml (``resilient-exec[scml]``); pebble is compared where it is installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import multiprocessing
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PRELOAD = ("negmas.tournaments.tournaments", "scml.utils")


def use() -> int:
    """The task: needs what takes seconds to import."""
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
    """Loky's reusable executor, asked again when it is broken."""
    from loky import get_reusable_executor

    yield lambda: int(get_reusable_executor(1).submit(use).result())
    get_reusable_executor(1).shutdown(kill_workers=True)


@contextmanager
def pebble() -> Iterator[Callable[[], int]]:
    """Pebble's pool; it breaks when an idle worker is killed, and is made anew."""
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
    with suppress(ProcessLookupError):  # a worker that has ended by itself meanwhile
        os.kill(victim, signal.SIGKILL)
    while True:
        with suppress(Exception):  # a pool that has just noticed the death
            if call() != victim:
                return time.perf_counter() - begin


TOURNAMENT = """
import json, sys, tempfile, time
import resilient_exec.adapters.negmas as adapter
from scml.std.agents import GreedyStdAgent, RandomStdAgent, SyncRandomStdAgent
from scml.utils import anac2024_std

if __name__ == "__main__":
    begin = time.perf_counter()
    with adapter.options(fresh_process=sys.argv[1] == "fresh", seed=1), tempfile.TemporaryDirectory() as folder:
        anac2024_std(
            [GreedyStdAgent, RandomStdAgent, SyncRandomStdAgent], n_configs=int(sys.argv[2]), n_runs_per_world=1,
            n_steps=10, n_competitors_per_world=2, tournament_path=folder, parallelism="resilient",
        )
        seconds = time.perf_counter() - begin
        report = adapter.last_report()
    print(json.dumps({"seconds": seconds, "scored": report.scored, "planned": report.planned}))
"""


def cpu_of_children() -> float:
    """CPU seconds of all processes that have ended and were waited for, by us or by those that we have waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def tournament(how: str, configs: int) -> tuple[float, float]:
    """Seconds and CPU seconds per world of one tournament; raises if a world has no score."""
    before = cpu_of_children()
    with tempfile.TemporaryDirectory() as folder:
        script = os.path.join(folder, "tournament.py")
        with open(script, "w") as file:
            file.write(TOURNAMENT)
        out = subprocess.run([sys.executable, script, how, str(configs)], check=True, stdout=subprocess.PIPE).stdout
    told = json.loads(out.decode().strip().splitlines()[-1])
    if told["scored"] != told["planned"]:
        raise SystemExit(f"{told['scored']} of {told['planned']} worlds scored: nothing to compare")
    return told["seconds"] / told["planned"], (cpu_of_children() - before) / told["planned"]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="kills of each pool's worker (default: %(default)s)")
    parser.add_argument("--tournaments", type=int, default=3, help="of each kind; 0: none (default: %(default)s)")
    parser.add_argument("--configs", type=int, default=4, help="n_configs of a tournament (default: %(default)s)")
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
    print("seconds a world, and CPU seconds: workers reused, a fresh process for each, ratio")
    ratios = []
    for index in range(arguments.tournaments):
        order = ("reused", "fresh") if index % 2 else ("fresh", "reused")  # a machine's speed may drift
        took = {how: tournament(how, arguments.configs) for how in order}
        ratios.append([fresh / reused for reused, fresh in zip(took["reused"], took["fresh"], strict=True)])
        for reused, fresh, ratio in zip(took["reused"], took["fresh"], ratios[-1], strict=True):
            print(f"{reused:8.2f}{fresh:8.2f}{ratio:8.3f}", end="")
        print(flush=True)
    wall, cpu = (statistics.median(each) for each in zip(*ratios, strict=True))
    print(f"median ratio: time {wall:.3f}, CPU time {cpu:.3f}")


if __name__ == "__main__":
    main()
