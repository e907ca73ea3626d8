"""Competitors of `tournament.py`: three LitaAgents, and four of scml's own agents; they sabotage some worlds.

Which worlds are sabotaged, and by which of four faults, depends on their names alone, and not on the order of
execution.  It is one in twenty.
"""

from __future__ import annotations

import os
import signal
import time
import zlib
from typing import Any

from _calm import calm
from scml.std import GreedyStdAgent, GreedySyncAgent, RandomStdAgent, SyncRandomStdAgent
from scml_agents.scml2025.standard.team_276 import LitaAgentCIR, LitaAgentY, LitaAgentYR

__all__ = ["COMPETITORS", "FAULTS", "SABOTAGED", "fault_of"]

calm()  # here, since every process of a tournament imports this module, in stock negmas and in ours

SABOTAGED = "RESILIENT_EXEC_TOURNAMENT_SABOTAGED"
"""Environment variable; worlds are sabotaged only if it is set."""
FAULTS = ("SIGKILL", "exit", "hang", "KeyboardInterrupt")


def fault_of(world: str) -> str:
    """The fault in the world of that name; ``""``: none."""
    number = zlib.crc32(world.encode())
    return FAULTS[number // 20 % len(FAULTS)] if number % 20 == 0 else ""


class _Sabotage:
    """Makes an agent cause the world's fault in the second step."""

    awi: Any

    def step(self) -> None:
        """One step of the agent."""
        if os.environ.get(SABOTAGED) and self.awi.current_step == 1:
            _do(fault_of(self.awi._world.name))
        super().step()  # type: ignore[misc]  # the agent's


def _do(fault: str) -> None:
    match fault:
        case "SIGKILL":
            os.kill(os.getpid(), signal.SIGKILL)
        case "exit":
            os._exit(1)
        case "hang":
            time.sleep(1e6)
        case "KeyboardInterrupt":
            raise KeyboardInterrupt


class Greedy(_Sabotage, GreedyStdAgent):  # type: ignore[misc]
    """A competitor."""


class GreedySync(_Sabotage, GreedySyncAgent):  # type: ignore[misc]
    """A competitor."""


class Random(_Sabotage, RandomStdAgent):  # type: ignore[misc]
    """A competitor."""


class SyncRandom(_Sabotage, SyncRandomStdAgent):  # type: ignore[misc]
    """A competitor."""


class LitaCIR(_Sabotage, LitaAgentCIR):  # type: ignore[misc]
    """A competitor."""


class LitaY(_Sabotage, LitaAgentY):  # type: ignore[misc]
    """A competitor."""


class LitaYR(_Sabotage, LitaAgentYR):  # type: ignore[misc]
    """A competitor."""


COMPETITORS = (LitaCIR, LitaY, LitaYR, Greedy, GreedySync, Random, SyncRandom)
