"""What a task costs here and with its peers: no-op tasks, two workers, all in one run, in turn.

    python benchmarks/overhead.py [--tasks 3000] [--rounds 5]

Peers that are not installed are left out (``pip install pebble`` brings the nearest).  Each round runs all of them
one after the other, so that a machine whose speed drifts is as unfair to one as to the other; what counts is the
ratio within a round.  Printed: tasks per second (median of the rounds) and the median of the ratios to the standard
library's.
"""

from __future__ import annotations

import argparse
import importlib.util
import multiprocessing
import statistics
import sys
import time
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WORKERS = 2


def nothing(number: int) -> int:
    """The task."""
    return number


@contextmanager
def ours(**options: Any) -> Iterator[Callable[[int], Any]]:
    """This package's pool."""
    from resilient_exec import ResilientPool

    with ResilientPool(WORKERS, **options) as pool:
        yield lambda number: pool.submit(nothing, number)


@contextmanager
def stdlib() -> Iterator[Callable[[int], Any]]:
    """The standard library's, started by spawn as here."""
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(WORKERS, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield lambda number: pool.submit(nothing, number)


@contextmanager
def loky() -> Iterator[Callable[[int], Any]]:
    """What this package stands on."""
    from loky import ProcessPoolExecutor

    with ProcessPoolExecutor(WORKERS) as pool:
        yield lambda number: pool.submit(nothing, number)


@contextmanager
def pebble(timeout: float | None = None) -> Iterator[Callable[[int], Any]]:
    """The nearest relative; with a limit per task if asked."""
    from pebble import ProcessPool

    with ProcessPool(WORKERS, context=multiprocessing.get_context("spawn")) as pool:
        yield lambda number: pool.schedule(nothing, args=(number,), timeout=timeout)


CONTENDERS: dict[str, tuple[str, Callable[[], AbstractContextManager[Callable[[int], Any]]]]] = {
    "stdlib (spawn)": ("concurrent", stdlib),
    "loky": ("loky", loky),
    "pebble": ("pebble", pebble),
    "pebble, timeout": ("pebble", lambda: pebble(60)),
    "resilient_exec": ("resilient_exec", ours),
    "resilient_exec, timeout": ("resilient_exec", lambda: ours(timeout=60)),
}


def speed(make: Callable[[], AbstractContextManager[Callable[[int], Any]]], tasks: int) -> float:
    """Tasks per second, once the workers are warm."""
    with make() as submit:
        for future in [submit(number) for number in range(50)]:
            future.result()
        begin = time.perf_counter()
        for future in [submit(number) for number in range(tasks)]:
            future.result()
        return tasks / (time.perf_counter() - begin)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    contenders = {name: make for name, (module, make) in CONTENDERS.items() if importlib.util.find_spec(module)}
    rounds = [
        {name: speed(make, arguments.tasks) for name, make in contenders.items()} for _ in range(arguments.rounds)
    ]
    base = next(iter(contenders))
    print(
        f"{arguments.tasks} no-op tasks, {WORKERS} workers, {arguments.rounds} rounds, Python {sys.version.split()[0]}"
    )
    for name in contenders:
        ratio = statistics.median(r[name] / r[base] for r in rounds)
        print(f"{name:26}{statistics.median(r[name] for r in rounds):8,.0f} tasks/s   x {ratio:.2f}")


if __name__ == "__main__":
    main()
