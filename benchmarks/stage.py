"""What it costs to note who is on stage: the same world with and without, step by step by turns.

    python benchmarks/stage.py [--track std|oneshot] [--rounds 5] [--steps 10]

Two worlds that are the same (the same seed; each has its own state of the random generators; negmas' draw for each
second that passes is calmed) take their steps by turns, one of them watched: what else the machine does strikes both.
This process keeps to one CPU, as a worker does when all of them are at work: negmas hands each offer to a thread, and
what that costs on two CPUs depends on where the kernel puts it.  Times are CPU seconds.  Of each step the least time of
all rounds counts; coming into force and ending count too.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import os
import random
import tempfile
import time
import warnings
from typing import Any

import numpy as np

from resilient_exec import context
from resilient_exec.adapters.negmas import stage
from resilient_exec.evidence import REGISTER_SIZE, Register, anonymous_file

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


class Side:
    """One of the two worlds, with its random numbers."""

    def __init__(self, track: str, steps: int, *, watched: bool) -> None:
        self.world, types = make(track, steps, SEED)
        self.types = types if watched else None
        self.state = (random.getstate(), np.random.get_state())  # noqa: NPY002  it is the one that negmas draws from

    def step(self) -> tuple[float, float]:
        """CPU seconds of what :func:`stage.watch` does before and after, and of the world's next step."""
        random.setstate(self.state[0])
        np.random.set_state(self.state[1])  # noqa: NPY002
        began = time.process_time()
        with stage.watch(self.types) if self.types else contextlib.nullcontext():
            entered = time.process_time()
            self.world.step()
            left = time.process_time()
        ended = time.process_time()
        self.state = (random.getstate(), np.random.get_state())  # noqa: NPY002
        return entered - began + ended - left, left - entered


def run(track: str, steps: int, index: int) -> tuple[list[float], list[float], float]:
    """CPU seconds of each step without and with, and of what surrounds the world once."""
    sides = [Side(track, steps, watched=watched) for watched in (False, True)]
    times: tuple[list[float], list[float]] = ([], [])
    around = []
    for step in range(steps):
        for side in (0, 1) if (index + step) % 2 else (1, 0):
            gc.collect()
            frame, took = sides[side].step()
            times[side].append(took)
            if side == 1:
                around.append(frame)
    return (*times, min(around))


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--track", choices=TRACKS, default="std")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    importlib.import_module("negmas.mechanisms").random = Calm()  # type: ignore[attr-defined]
    os.chdir(tempfile.mkdtemp())
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    context.set_notes(Register(anonymous_file("register", REGISTER_SIZE)).note)
    run(arguments.track, arguments.steps, 0)  # all is imported, all caches are warm
    rounds = []
    for index in range(arguments.rounds):
        rounds.append(run(arguments.track, arguments.steps, index))
        without, with_, around = rounds[-1]
        print(f"round {index + 1}: without {sum(without):.3f} s, with {sum(with_) + around:.3f} s", flush=True)
    without = sum(min(times) for times in zip(*(each[0] for each in rounds), strict=True))
    around = min(each[2] for each in rounds)
    with_ = sum(min(times) for times in zip(*(each[1] for each in rounds), strict=True)) + around
    print(
        f"{arguments.track}, {arguments.steps} steps: without {without:.3f} s, with {with_:.3f} s ({around:.3f} s of "
        f"which around the world); ratio {with_ / without:.4f} (the least time of each step, of {len(rounds)} rounds)"
    )


if __name__ == "__main__":
    main()
