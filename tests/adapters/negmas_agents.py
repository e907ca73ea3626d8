"""Competitors for the tests: healthy ones, and one that does in each world what a plan says.

The plan is a JSON file named by the environment, so that workers find it: ``{world name: fault}``.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from scml.oneshot.agents import GreedyOneShotAgent, RandomOneShotAgent
from scml.std.agents import GreedyStdAgent, RandomStdAgent

PLAN = "RESILIENT_TESTS_PLAN"


class Healthy(RandomOneShotAgent):
    """Plays at random."""


class Thrifty(GreedyOneShotAgent):
    """Plays greedily."""


class Watcher(RandomOneShotAgent):
    """Offers by the clock."""

    def propose(self, negotiator_id, state):
        random.seed(time.perf_counter_ns())
        return super().propose(negotiator_id, state)


class Hasher(RandomOneShotAgent):
    """Plays by the order of a set of strings."""

    def before_step(self):
        super().before_step()
        random.seed("".join({"a", "b", "c", "d", "e", "f", "g", "h"}) + f"{self.awi.current_step}")


class HealthyStd(RandomStdAgent):
    """Plays at random, in the other league."""


class ThriftyStd(GreedyStdAgent):
    """Plays greedily, in the other league."""


class Saboteur(RandomOneShotAgent):
    """Plays at random until the third step, then does what the plan has for its world.

    It keeps a diary beside the world's own files, as competitors do: one line a step, appended.
    """

    def before_step(self):
        super().before_step()
        with (Path(self.awi._world.log_folder) / "diary.txt").open("a") as diary:
            print(self.awi.current_step, file=diary)
        if self.awi.current_step == 2:
            plan = os.environ.get(PLAN)
            fault = json.loads(Path(plan).read_text()).get(self.awi._world.name) if plan else None
            if fault is not None:
                commit(fault, plan, self.awi._world.name)


def commit(fault, plan, world):
    """Do to this process what the plan says."""
    if fault == "hang":
        hang()
    if fault == "exit":
        os._exit(3)
    if fault == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if fault == "interrupt":
        raise KeyboardInterrupt("as if the user had pressed Ctrl-C")
    if fault == "grow":
        grow()
    if fault == "flood":
        for _ in range(10):
            print("\n".join(["flood" * 20] * 10_000))
    if fault == "say":
        print(f"said in {world}")
        print(f"muttered in {world}", file=sys.stderr)
    if fault == "kill once":
        try:
            os.close(os.open(f"{plan}.{world}", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return
        os.kill(os.getpid(), signal.SIGKILL)


def hang():
    """Never return."""
    while True:
        time.sleep(0.1)


def grow():
    """Take memory without end."""
    held = []
    while True:
        held.append(b"x" * (16 << 20))
        time.sleep(0.005)
