"""What it costs to note who is on stage: the same world with and without, step by step by turns.

    python benchmarks/stage.py [--track std|oneshot] [--rounds 5] [--steps 10]

Two worlds that are the same (one seed, one order of sets; negmas' draw for each second that passes is calmed) take
their steps by turns, each in a process of its own, one of them watched: what else the machine does strikes both.  Both
keep to one CPU, as workers do when all of them are at work: negmas hands each offer to a thread, and what that costs on
two CPUs depends on where the kernel puts it.  In each round the processes are new.  Times are CPU seconds, and include
coming into force and ending.  Of each step the least time of all rounds counts.

A machine whose speed changes by the second hides a few percent.  So the same is then measured in place: clocks before
and behind each of the hooked functions, outside and inside the hook; what passes between the two, less what passes
there without a hook, is the hook's.  That is steady, and does not see what the rest of the world loses by it.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import multiprocessing
import os
import random
import statistics
import tempfile
import time
import warnings
from typing import Any

import numpy as np

from resilient_exec import context
from resilient_exec.adapters.negmas import entries, stage
from resilient_exec.evidence import Register, register_file

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


def side(steps_of: Any, track: str, steps: int, cpu: int, *, watched: bool) -> None:
    """In a process of its own: a world to get warm, then one that takes a step whenever it is told to."""
    prepare(cpu)
    make(track, steps, SEED)[0].run()
    world, types = make(track, steps, SEED)
    gc.collect()
    steps_of.recv()
    before = time.process_time()
    with stage.watch(types) if watched else contextlib.nullcontext():
        for _ in range(steps):
            world.step()
            now = time.process_time()
            steps_of.send(now - before)
            steps_of.recv()
            before = time.process_time()
    steps_of.send(time.process_time() - before)
    steps_of.recv()


def run(track: str, steps: int, cpu: int, index: int) -> tuple[list[float], list[float]]:
    """CPU seconds of each step, and of the end, without and with."""
    spawn = multiprocessing.get_context("spawn")
    ends, processes = [], []
    for watched in (False, True):
        near, far = spawn.Pipe()
        process = spawn.Process(target=side, args=(far, track, steps, cpu), kwargs={"watched": watched})
        process.start()
        far.close()
        ends.append(near)
        processes.append(process)
    times: tuple[list[float], list[float]] = ([], [])
    for step in range(steps + 1):
        for which in (0, 1) if (index + step) % 2 else (1, 0):
            ends[which].send("step")
            times[which].append(ends[which].recv())
    for near, process in zip(ends, processes, strict=True):
        near.send("end")
        process.join()
    return times


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


def hook_in_place(steps_of: Any, track: str, steps: int, cpu: int) -> None:
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
                undo.enter_context(stage.watch(types))
            between.put(hooked, 1, undo)
            before = time.process_time()
            for _ in range(steps):
                world.step()
            told.append((time.process_time() - before, between.seconds))
    steps_of.send(told[1:])


def in_place(track: str, steps: int, cpu: int) -> tuple[float, float]:
    """Seconds that the hooks of a world cost, and CPU seconds of that world without them."""
    spawn = multiprocessing.get_context("spawn")
    near, far = spawn.Pipe()
    process = spawn.Process(target=hook_in_place, args=(far, track, steps, cpu))
    process.start()
    far.close()
    (_, without), (world, with_) = near.recv()
    process.join()
    return with_ - without, world - with_


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--track", choices=TRACKS, default="std")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10)
    arguments = parser.parse_args()
    os.environ["PYTHONHASHSEED"] = "0"  # of the two processes
    cpu = min(os.sched_getaffinity(0))
    rounds = []
    for index in range(arguments.rounds):
        rounds.append(run(arguments.track, arguments.steps, cpu, index))
        print(f"round {index + 1}: without {sum(rounds[-1][0]):.3f} s, with {sum(rounds[-1][1]):.3f} s", flush=True)
    without, with_ = (sum(map(min, zip(*(each[way] for each in rounds), strict=True))) for way in (0, 1))
    print(
        f"{arguments.track}, {arguments.steps} steps: without {without:.3f} s, with {with_:.3f} s; ratio "
        f"{with_ / without:.4f} (the least time of each step, of {len(rounds)} rounds)"
    )
    places = [in_place(arguments.track, arguments.steps, cpu) for _ in range(arguments.rounds)]
    ratios = [1 + hooks / world for hooks, world in places]
    print(
        f"{arguments.track}, in place: {statistics.median(hooks for hooks, _ in places) * 1000:.0f} ms in the hooks; "
        f"median ratio {statistics.median(ratios):.4f}, from {min(ratios):.4f} to {max(ratios):.4f}"
    )


if __name__ == "__main__":
    main()
