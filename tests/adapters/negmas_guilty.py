"""Competitors that do their harm in all the places from which an agent's code is called; two in one module.

The plan is the same as that of ``negmas_agents``: ``{world name: "place fault ..."}``.  Only :class:`Heir` carries
it out, by code that it inherits from the other competitor of this module, which plays fair.
"""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

from negmas import ResponseType
from negmas_agents import PLAN, hang
from scml.oneshot.agents import RandomOneShotAgent


class Model(RandomOneShotAgent):
    """Plays fair, though all the harm that its heir does is written here."""

    guilty = False

    def init(self):
        super().init()
        self.do("init")

    def before_step(self):
        super().before_step()
        self.do("before_step")

    def step(self):
        self.do("step")
        super().step()

    def propose(self, *args, **kwargs):
        self.do("propose")
        return super().propose(*args, **kwargs)

    def respond(self, *args, **kwargs):
        self.do("respond")
        return ResponseType.REJECT_OFFER  # so that all are asked, again and again

    def do(self, place):
        plan = os.environ.get(PLAN)
        if not self.guilty or not plan:
            return
        wanted = json.loads(Path(plan).read_text()).get(self.awi._world.name, "")
        if wanted.startswith(f"{place} ") and self.awi.current_step >= (0 if place == "init" else 1):
            for fault in wanted.split()[1:]:
                getattr(self, fault)()

    def kill(self):
        os.kill(os.getpid(), signal.SIGKILL)

    def die_until_noted(self):
        """Die, until the tournament's folder has a line about that; then wait no more."""
        begun = Path(f"{os.environ[PLAN]}.begun")
        if not begun.exists():
            begun.touch()
            self.kill()
        world = Path(self.awi._world.log_folder)
        while not any((place / "resilient" / "conduct.jsonl").exists() for place in world.parents):
            time.sleep(0.01)
        begun.write_text("noted")

    def hang(self):
        hang()

    def interrupt(self):
        raise KeyboardInterrupt("as if the user had pressed Ctrl-C")

    def take(self):
        held = []
        while True:
            held.append(b"x" * (16 << 20))
            time.sleep(0.005)

    def grow(self):
        type(self).held = b"x" * (150 << 20)

    def dawdle(self):
        time.sleep(1.2)


class Heir(Model):
    """Does the harm."""

    guilty = True
