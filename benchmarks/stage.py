"""Measures what it costs to note who is on stage: the same worlds with and without it, on the same CPU.

    python benchmarks/stage.py [--track std|oneshot] [--rounds 7] [--worlds 6] [--steps 10] [--neither]

Equal worlds (same seed, same order of sets, and no random draws by the clock in negmas) run in two processes at the
same time, with the notes in one of them.  CPU seconds are compared.  Both processes share one CPU, so that changes of
the machine's speed affect both.  Each round uses new processes.

A second measurement is made in place: clocks are read before and after each hooked function, outside and inside the
hook.  The time between the two clocks, minus the same time without the hook, is the cost of the hook.  This does not
include what the rest of the world loses, by displaced caches for example.
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
from _calm import calm

from resilient_exec.adapters.negmas.blame import entries
from resilient_exec.wire.register import Register, register_file
from resilient_exec.worker import context

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

SEED = 7


TRACKS = {
    "std": ("scml.std", "SCML2024StdWorld", ("GreedyStdAgent", "SyncRandomStdAgent")),
    "oneshot": ("scml.oneshot", "SCML2024OneShotWorld", ("GreedyOneShotAgent", "RandDistOneShotAgent")),
}


def make(track: str, steps: int, seed: int) -> tuple[Any, list[str]]:
    """A world that has not begun, and the full names of its agents' types."""
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
    """Prepare this process like a worker, on that CPU, with constant random numbers in negmas' mechanisms."""
    warnings.simplefilter("ignore")
    os.sched_setaffinity(0, {cpu})
    os.chdir(tempfile.mkdtemp())
    calm()
    context.set_notes(Register(register_file()))


def side(parent: Connection, track: str, steps: int, worlds: int, cpu: int, *, watched: bool) -> None:
    """In a process of its own: run a world as a warm-up, then ``worlds`` more; send their CPU seconds and scores."""
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


class HookTime:
    """Seconds spent in hooks: between clocks around a function's hook, and clocks inside of it."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def put(self, hooked: list[Hooked], sign: int, undo: contextlib.ExitStack) -> None:
        """Put clocks around these functions as they are now: sign 1 is for the outer clocks, -1 for the inner ones."""
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
    """In a process of its own: send CPU seconds of a world, and seconds in hooks, without and with the hooks."""
    prepare(cpu)
    hooked = entries.hooked()
    measured = []
    for watched in (False, False, True):  # the first one is a warm-up
        between = HookTime()
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
            measured.append((time.process_time() - before, between.seconds))
    parent.send(measured[1:])


def in_place(track: str, steps: int, cpu: int) -> tuple[float, float]:
    """Seconds spent in the hooks of a world, and CPU seconds of that world without them."""
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
    parser.add_argument("--neither", action="store_true", help="both without notes: shows how much equal runs differ")
    arguments = parser.parse_args()
    os.environ["PYTHONHASHSEED"] = "0"  # for child processes
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
