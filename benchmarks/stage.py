"""What it costs to note who is on stage: the same worlds with and without, at the same time on the same CPU.

    python benchmarks/stage.py [--track std|oneshot] [--rounds 7] [--worlds 6] [--steps 10] [--neither]

Worlds that are the same (one seed, one order of sets; negmas' draw for each second that passes is calmed) run in two
processes at once, watched in one of them, and CPU seconds are compared.  Both keep to one CPU, which they share: what
strikes the speed of the machine strikes both.  In each round the processes are new.

The same is then measured in place: clocks before and behind each of the hooked functions, outside and inside the hook;
what passes between the two, less what passes there without a hook, is the hook's.  That does not see what the rest of
the world loses by it.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import os
import random
import statistics
import tempfile
import time
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from _at_once import compare, start, wait_for_the_others

from resilient_exec.adapters.negmas.blame import entries
from resilient_exec.wire.register import Register, register_file
from resilient_exec.worker import context

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

SEED = 7


class Calm:
    """A stand-in for ``random`` in negmas' mechanisms."""

    def __getattr__(self, name: str) -> Any:
        return getattr(random, name)

    @staticmethod
    def random() -> float:
        """Always the same."""
        return 0.5


TRACKS = {
    "std": ("scml.std", "SCML2024StdWorld", ("GreedyStdAgent", "SyncRandomStdAgent")),
    "oneshot": ("scml.oneshot", "SCML2024OneShotWorld", ("GreedyOneShotAgent", "RandDistOneShotAgent")),
}


def make(track: str, steps: int, seed: int) -> tuple[Any, list[str]]:
    """A world that has not begun, and the names of its agents' types."""
    package, class_name, names = TRACKS[track]
    kinds = [getattr(importlib.import_module(f"{package}.agents"), name) for name in names]
    kind = getattr(importlib.import_module(package), class_name)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  it is the one that negmas draws from
    world = kind(**kind.generate(kinds, n_steps=steps), no_logs=True)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    return world, [f"{k.__module__}.{k.__name__}" for k in kinds]


def prepare(cpu: int) -> None:
    """Make this process one like a worker's, on that CPU, with negmas calmed."""
    warnings.simplefilter("ignore")
    os.sched_setaffinity(0, {cpu})
    os.chdir(tempfile.mkdtemp())
    importlib.import_module("negmas.mechanisms").random = Calm()  # type: ignore[attr-defined]
    context.set_notes(Register(register_file()))


def side(parent: Connection, track: str, steps: int, worlds: int, cpu: int, *, watched: bool) -> None:
    """In a process of its own: a world to get warm, then those that count; sends their CPU seconds and scores."""
    prepare(cpu)
    make(track, steps, SEED)[0].run()
    gc.collect()
    wait_for_the_others(parent)
    seconds, scores = 0.0, []
    for index in range(worlds):
        world, types = make(track, steps, SEED + index)
        before = time.process_time()
        with entries.watch(types) if watched else contextlib.nullcontext():
            world.run()
        seconds += time.process_time() - before
        scores.append(list(world.scores().values()))
    parent.send((seconds, scores))


Hooked = tuple[Any, str]


class Between:
    """Seconds between two pairs of clocks, the outer ones around a function's hook and the inner ones in it."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def put(self, hooked: list[Hooked], sign: int, undo: contextlib.ExitStack) -> None:
        """Put clocks around these functions as they are now: outer ones with sign 1, inner ones with -1."""
        for owner, name in hooked:
            original = vars(owner)[name]
            setattr(owner, name, self._clocked(original, sign))
            undo.callback(setattr, owner, name, original)

    def _clocked(self, original: Any, sign: int) -> Any:
        clock = time.perf_counter

        def clocked(*args: Any, **kwargs: Any) -> Any:
            self.seconds -= sign * clock()
            try:
                return original(*args, **kwargs)
            finally:
                self.seconds += sign * clock()

        return clocked


def hook_in_place(parent: Connection, track: str, steps: int, cpu: int) -> None:
    """In a process of its own: CPU seconds of a world, and seconds in the hooks, without and with."""
    prepare(cpu)
    hooked = entries.hooked()
    told = []
    for watched in (False, False, True):  # the first one is to get warm
        between = Between()
        world, types = make(track, steps, SEED)
        gc.collect()
        with contextlib.ExitStack() as undo:
            between.put(hooked, -1, undo)
            if watched:
                undo.enter_context(entries.watch(types))
            between.put(hooked, 1, undo)
            before = time.process_time()
            for _ in range(steps):
                world.step()
            told.append((time.process_time() - before, between.seconds))
    parent.send(told[1:])


def in_place(track: str, steps: int, cpu: int) -> tuple[float, float]:
    """Seconds that the hooks of a world cost, and CPU seconds of that world without them."""
    process, near = start(hook_in_place, track, steps, cpu)
    (_, without), (world, with_) = near.recv()
    process.join()
    return with_ - without, world - with_


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--track", choices=TRACKS, default="std")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--worlds", type=int, default=6, help="of a round, for each side")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--neither", action="store_true", help="watch neither side: how far equal ones differ")
    arguments = parser.parse_args()
    os.environ["PYTHONHASHSEED"] = "0"  # of the processes to come
    cpu = min(os.sched_getaffinity(0))
    what = f"{arguments.track}, {arguments.worlds} worlds of {arguments.steps} steps"
    print(f"{what}, CPU s: without, {'without again' if arguments.neither else 'with'}, ratio")
    sides = [{"watched": False}, {"watched": not arguments.neither}]
    compare(arguments.rounds, side, arguments.track, arguments.steps, arguments.worlds, cpu, sides=sides)
    if arguments.neither:
        return
    places = [in_place(arguments.track, arguments.steps, cpu) for _ in range(arguments.rounds)]
    ratios = [1 + hooks / world for hooks, world in places]
    print(
        f"{arguments.track}, in place: {statistics.median(hooks for hooks, _ in places) * 1000:.0f} ms in the hooks; "
        f"median ratio {statistics.median(ratios):.4f}, from {min(ratios):.4f} to {max(ratios):.4f}"
    )


if __name__ == "__main__":
    main()
