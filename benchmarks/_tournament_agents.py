"""Competitors for `tournament.py`: three LitaAgents, four of scml's own agents, and what sabotages some worlds.

Which worlds are sabotaged follows from their names alone, so that it does not depend on who runs them, nor in which
order: one in twenty, and each of four faults in turn.
"""

from __future__ import annotations

import os
import signal
import time
import zlib
from typing import Any

from scml.std import GreedyStdAgent, GreedySyncAgent, RandomStdAgent, SyncRandomStdAgent
from scml_agents.scml2025.standard.team_276 import LitaAgentCIR, LitaAgentY, LitaAgentYR

__all__ = ["COMPETITORS", "FAULTS", "SABOTAGED", "fault_of"]

SABOTAGED = "RESILIENT_EXEC_TOURNAMENT_SABOTAGED"
"""Set in the environment where worlds are to be sabotaged."""
FAULTS = ("SIGKILL", "exit", "hang", "KeyboardInterrupt")


def fault_of(world: str) -> str:
    """What an agent does in the world of that name; ``""``: nothing."""
    number = zlib.crc32(world.encode())
    return FAULTS[number // 20 % len(FAULTS)] if number % 20 == 0 else ""


class _Sabotage:
    """Does in the second step what the world's name says."""

    awi: Any

    def step(self) -> None:
        """One day."""
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
