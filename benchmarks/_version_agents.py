"""Competitors of `versions.py`: in a sabotaged run one call of them kills its process, and another one hangs.

They are in a module of their own, since workers import them by name.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from negmas.inout import Scenario
from negmas.outcomes import make_issue, make_os
from negmas.preferences import LinearAdditiveUtilityFunction
from negmas.sao import AspirationNegotiator, BoulwareTBNegotiator
from scml.oneshot.agents import GreedyOneShotAgent, RandomOneShotAgent
from scml.std.agents import GreedyStdAgent, RandomStdAgent

FAULTS = "RESILIENT_EXEC_VERSIONS_FAULTS"
"""Environment variable: the folder in which each fault makes a file when it happens; if not set, no fault happens."""


def misbehave() -> None:
    """Cause the first fault that has not happened yet in any process of this run: kill this process, or hang."""
    folder = os.environ.get(FAULTS)
    for fault in ("kill", "hang") if folder else ():
        try:
            os.close(os.open(Path(str(folder)) / fault, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            continue
        if fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        while True:
            time.sleep(0.1)


class Healthy(GreedyOneShotAgent):  # type: ignore[misc]
    """Plays well."""


class Saboteur(RandomOneShotAgent):  # type: ignore[misc]
    """Plays at random, or not at all."""

    def step(self) -> None:
        """At the end of a day."""
        misbehave()
        super().step()


class HealthyStd(GreedyStdAgent):  # type: ignore[misc]
    """Plays well."""


class SaboteurStd(RandomStdAgent):  # type: ignore[misc]
    """Plays at random, or not at all."""

    def step(self) -> None:
        """At the end of a day."""
        misbehave()
        super().step()


class HealthyNegotiator(BoulwareTBNegotiator):  # type: ignore[misc]
    """Negotiates well."""


class SaboteurNegotiator(AspirationNegotiator):  # type: ignore[misc]
    """Negotiates, or not at all."""

    def propose(self, *args: Any, **kwargs: Any) -> Any:
        """An offer."""
        misbehave()
        return super().propose(*args, **kwargs)


def scenarios(number: int) -> list[Scenario]:
    """That many small scenarios with two issues."""
    found = []
    for i in range(number):
        space = make_os([make_issue(5, "price"), make_issue(4, "quantity")], name=f"scenario{i}")
        values = [
            {"price": {k: ((k * (i + 2) + j) % 5) / 5 for k in range(5)}, "quantity": {k: k / 4 for k in range(4)}}
            for j in range(2)
        ]
        ufuns = tuple(
            LinearAdditiveUtilityFunction(value, outcome_space=space, reserved_value=0.0, name=f"u{i}{j}")
            for j, value in enumerate(values)
        )
        found.append(Scenario(outcome_space=space, ufuns=ufuns))
    return found
