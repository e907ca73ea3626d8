"""What is planned: one world set, which is one task; its limit and its competitors.

The limit of a task is the largest ``time_limit`` that a world of its set declares, times 1.05, and that for each
world of the set, since a set's worlds run one after the other.  (Stock gives each set the limit of one world.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from resilient_exec.adapters.negmas import report

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["WorldSet", "competitors_of", "world_timeout"]

_EXTRA = 1.05  # negmas' own: a world ends by itself at its limit, if it can


@dataclass
class WorldSet:
    """One task to be.

    Attributes:
        index: its place in the tournament.
        worlds: the configurations of its worlds.
        run_id: its name in negmas' files.
        folder: of its worlds and results.
        competitors: the types of the competitors in it.
        blocked_since: when it was first found to be run by somebody else (``perf_counter``).
    """

    index: int
    worlds: list[dict[str, Any]]
    run_id: str
    folder: Path
    competitors: tuple[str, ...]
    blocked_since: float | None = None

    def report(self, **fields: Any) -> report.TaskReport:
        """What became of it."""
        names = tuple(world["world_params"]["name"] for world in self.worlds)
        return report.TaskReport(name=self.run_id, worlds=names, competitors=self.competitors, **fields)


def world_timeout(worlds: list[dict[str, Any]]) -> float | None:
    """Seconds that a world set may take by the limits that its worlds declare; ``None`` where none does."""
    declared = [world.get("world_params", {}).get("time_limit") for world in worlds]
    finite = [limit for limit in declared if limit is not None and 0 < limit < math.inf]
    return max(finite) * _EXTRA * len(worlds) if finite else None


def competitors_of(worlds: list[dict[str, Any]], of_tournament: frozenset[str] | None) -> tuple[str, ...]:
    """Types of the agents in the worlds: of the tournament's competitors among them, or of all, if there is none."""
    types: list[Any] = []
    for world in worlds:
        params = world.get("agent_params") or [{}] * len(world.get("agent_types", ()))
        for kind, param in zip(world.get("agent_types", ()), params, strict=False):
            # An agent of the one-shot kind is hidden in an adapter; its own type is a parameter of that.
            types.append((param or {}).get("controller_type", kind))
    names = report.named(types)
    return tuple(name for name in names if name in (of_tournament or ())) or names
