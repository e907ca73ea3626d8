"""What is planned: one world set, which is one task; its limit and its competitors.

The limit of a task is the largest ``time_limit`` that a world of its set declares, times 1.05, and that for each
world of the set, since a set's worlds run one after the other.  (Stock gives each set the limit of one world.)
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from resilient_exec.adapters.negmas.blame.notes import own_types
from resilient_exec.adapters.negmas.report import report
from resilient_exec.adapters.negmas.report.task_report import TaskReport
from resilient_exec.adapters.negmas.settings import UNSET
from resilient_exec.adapters.negmas.worlds import markers

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from resilient_exec.adapters.negmas.settings import Settings
    from resilient_exec.model.policies import RetryPolicy

__all__ = ["WorldSet", "competitors_by_folder", "competitors_of", "world_sets", "world_timeout"]

_EXTRA = 1.05  # negmas' own: a world ends by itself at its limit, if it can


@dataclass
class WorldSet:
    """One world set, as it is planned.

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

    def timeout(self, chosen: Settings) -> float | None:
        """Seconds for an attempt; ``None``: no limit."""
        return world_timeout(self.worlds) if chosen.timeout is UNSET else chosen.timeout

    def attempts_left(self, max_attempts: float) -> float:
        """How often it may still be started."""
        return max_attempts if max_attempts >= sys.maxsize else max_attempts - markers.count_attempts(self.folder)

    def policy(self, chosen: Settings, max_attempts: float) -> RetryPolicy:
        """Return which failures are tried again, and how often."""
        left, policy = self.attempts_left(max_attempts), chosen.retry
        if left >= sys.maxsize:
            return policy
        return replace(policy, total=int(left) if policy.total is None else min(policy.total, int(left)))

    def report(self, **fields: Any) -> TaskReport:
        """Return the report of this world set, with these fields."""
        names = tuple(world["world_params"]["name"] for world in self.worlds)
        fields |= {"run_id": self.run_id, "path": str(self.folder), "worlds": names, "competitors": self.competitors}
        return TaskReport(name=self.folder.name, **fields)


def world_sets(negmas: Any, assigned: Iterable[list[dict[str, Any]]], competitors: Iterable[str]) -> Iterator[WorldSet]:
    """Yield the world sets of a tournament, in its order.

    Args:
        negmas: the module ``negmas.tournaments.tournaments``.
        assigned: the configurations.
        competitors: of the tournament.
    """
    of_tournament = frozenset(competitors)
    for index, worlds in enumerate(assigned):
        folder = markers.set_folder(worlds)
        yield WorldSet(index, worlds, negmas._run_id(worlds), folder, competitors_of(worlds, of_tournament))


def world_timeout(worlds: list[dict[str, Any]]) -> float | None:
    """Seconds that a world set may take by the limits that its worlds declare; ``None`` where none does."""
    declared = [world.get("world_params", {}).get("time_limit") for world in worlds]
    finite = [limit for limit in declared if limit is not None and 0 < limit < math.inf]
    return max(finite) * _EXTRA * len(worlds) if finite else None


def competitors_of(worlds: list[dict[str, Any]], of_tournament: frozenset[str]) -> tuple[str, ...]:
    """Types of the agents in the worlds: of the tournament's competitors among them, or of all, if there is none.

    One that only fills a world (``is_default``) is not scored for it, though it may compete elsewhere.
    """
    competing = report.named(own_types(worlds, fillers=False))
    return tuple(name for name in competing if name in of_tournament) or report.named(own_types(worlds))


def competitors_by_folder(negmas: Any, folder: Path) -> dict[str, tuple[str, ...]]:
    """The competitors of each world set of the tournament in ``folder``, by the name of the world set's folder."""
    params = negmas.load(folder / negmas.PARAMS_FILE) or {}
    of_tournament = frozenset(params.get("competitors") or ())
    assigned = negmas.load(folder / negmas.ASSIGNED_CONFIGS_JSON_FILE) or []
    return {markers.set_folder(worlds).name: competitors_of(worlds, of_tournament) for worlds in assigned}
