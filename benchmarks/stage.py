"""What it costs to note who is on stage: the same 10-step world with and without, by turns.

    python benchmarks/stage.py [--track std|oneshot] [--rounds 5] [--steps 10]

Each world is run in this process, seeded by its round, first one way, then the other, and in the next round the other
way first.  negmas draws a random number for each second of wall time, which is calmed, so that both do the same.
Times are CPU seconds of ``world.run()``; the ratio is the median of those of the rounds.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import os
import random
import statistics
import tempfile
import time
import warnings
from typing import Any

from resilient_exec import context
from resilient_exec.adapters.negmas import stage
from resilient_exec.evidence import REGISTER_SIZE, Register, anonymous_file


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
    import numpy as np

    package, class_name, names = TRACKS[track]
    kinds = [getattr(importlib.import_module(f"{package}.agents"), name) for name in names]
    kind = getattr(importlib.import_module(package), class_name)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  it is the one that negmas draws from
    world = kind(**kind.generate(kinds, n_steps=steps), no_logs=True)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    return world, [f"{k.__module__}.{k.__name__}" for k in kinds]


def run(track: str, steps: int, seed: int, *, watched: bool) -> tuple[float, int]:
    """CPU seconds of one world, and how many steps of agents were measured."""
    world, types = make(track, steps, seed)
    gc.collect()
    if not watched:
        began = time.process_time()
        world.run()
        return time.process_time() - began, 0
    began = time.process_time()
    with stage.watch(types) as watch:
        world.run()
        measured = watch.measured()
    return time.process_time() - began, sum(len(agent.cpu) for agent in measured)


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
    context.set_notes(Register(anonymous_file("register", REGISTER_SIZE)).note)
    times: dict[bool, list[float]] = {False: [], True: []}
    run(arguments.track, arguments.steps, 0, watched=True)  # all is imported, all caches are warm
    for index in range(arguments.rounds):
        for watched in (index % 2 == 0, index % 2 == 1):
            took, _ = run(arguments.track, arguments.steps, index, watched=watched)
            times[watched].append(took)
        print(f"round {index + 1}: without {times[False][-1]:.3f} s, with {times[True][-1]:.3f} s", flush=True)
    without, with_ = (statistics.median(times[watched]) for watched in (False, True))
    ratios = [b / a for a, b in zip(times[False], times[True], strict=True)]
    print(
        f"{arguments.track}, {arguments.steps} steps: without {without:.3f} s, with {with_:.3f} s (medians); ratio "
        f"{statistics.median(ratios):.4f} (median of {', '.join(f'{ratio:.3f}' for ratio in sorted(ratios))})"
    )


if __name__ == "__main__":
    main()
