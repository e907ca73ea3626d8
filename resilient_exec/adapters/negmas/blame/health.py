"""The health of each competitor: how often its code failed, how long its steps took, which worlds it has spoiled.

Counted from what workers measured in worlds that ended, and from who was on stage in attempts that failed (of a
process that died no measurements come back).  ``health.json`` and ``.csv`` lie in ``resilient/`` (``places.py``).
"""

from __future__ import annotations

import csv
import io
import json
import logging
import math
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from resilient_exec.adapters import places

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from resilient_exec.adapters.negmas.blame.notes import OnStage

__all__ = ["FILE_NAME", "Book", "Health", "percentile", "write"]

FILE_NAME = "health"
_COUNTS = {"timed_out": "hangs", "died": "crashes", "out_of_memory": "memory_kills", "raised": "ended_worlds"}
_logger = logging.getLogger(__name__)


@dataclass
class Health:
    """One competitor in one tournament, over all runs of that tournament.

    Attributes:
        competitor: its type.
        worlds: world sets with it of which an attempt has come to an end, of whatever kind; each counts once.
        scored: those of them that have a score.
        exceptions: what it raised in worlds that were scored (negmas goes on without that answer).
        ended_worlds: attempts that ended with an exception of its own.
        hangs, crashes, memory_kills: attempts that were killed at their limit, in which the process died, or that
            held too much memory, while it was on stage.
        steps: steps of its agents that were measured.
        cpu_median, cpu_p95, cpu_worst: CPU seconds of a step of one agent.
        wall_median, wall_p95, wall_worst: seconds of a step of one agent, waiting included.
        slow_steps: steps that took longer than ``step_timeout``.
        peak_memory: the most bytes that a worker held when it left the stage, or when it was killed with it there.
        grown: the most bytes by which a worker grew in one world while one agent of it was on stage.
        spoiled: worlds that have no score for its sake, now: it was on stage in the last attempt.
        spoiled_by: these, by what happened.
        disqualified: whether it was (``disqualify_after``).
    """

    competitor: str
    worlds: int = 0
    scored: int = 0
    exceptions: int = 0
    ended_worlds: int = 0
    hangs: int = 0
    crashes: int = 0
    memory_kills: int = 0
    steps: int = 0
    cpu_median: float = 0.0
    cpu_p95: float = 0.0
    cpu_worst: float = 0.0
    wall_median: float = 0.0
    wall_p95: float = 0.0
    wall_worst: float = 0.0
    slow_steps: int = 0
    peak_memory: int = 0
    grown: int = 0
    spoiled: int = 0
    spoiled_by: dict[str, int] = field(default_factory=dict)
    disqualified: bool = False

    @property
    def is_sound(self) -> bool:
        """Whether nothing is to be said against it."""
        return not (self.exceptions or self.ended_worlds or self.failures or self.slow_steps or self.spoiled)

    @property
    def failures(self) -> int:
        """Attempts in which it took the process with it, or had to be killed."""
        return self.hangs + self.crashes + self.memory_kills

    def failed(self, who: OnStage, held: int) -> None:
        """It was on stage when an attempt failed, whose process had held so many bytes."""
        name = _COUNTS.get(who.fault)
        if name is not None:
            setattr(self, name, getattr(self, name) + 1)
        if who.fault == "out_of_memory":
            self.peak_memory = max(self.peak_memory, held)

    def has_spoiled(self, fault: str) -> None:
        """A world has no score for its sake."""
        self.spoiled += 1
        self.spoiled_by[fault] = self.spoiled_by.get(fault, 0) + 1


class Book:
    """Keeps count while a tournament runs."""

    def __init__(self, competitors: Iterable[str], step_timeout: float | None) -> None:
        self._rows = {name: Health(name) for name in sorted(competitors)}
        self._cpu: dict[str, list[float]] = {}
        self._wall: dict[str, list[float]] = {}
        self._step_timeout = math.inf if step_timeout is None else step_timeout

    def row(self, competitor: str) -> Health:
        """Return the health of that competitor, which is made where it is missing."""
        return self._rows.setdefault(competitor, Health(competitor))

    def measured(self, competitor: str, agents: Iterable[Any]) -> None:
        """Add what its agents took in one world (:class:`~.blame.stage.Measured`)."""
        row = self.row(competitor)
        for agent in agents:
            self._cpu.setdefault(competitor, []).extend(agent.cpu)
            self._wall.setdefault(competitor, []).extend(agent.wall)
            row.steps += len(agent.cpu)
            row.exceptions += agent.exceptions
            row.slow_steps += sum(took > self._step_timeout for took in agent.wall)
            row.peak_memory = max(row.peak_memory, agent.peak)
            row.grown = max(row.grown, agent.grown)

    def rows(self) -> tuple[Health, ...]:
        """Return all competitors, ordered by name."""
        for name, samples in self._cpu.items():
            row, ordered = self._rows[name], sorted(samples)
            row.cpu_median, row.cpu_p95, row.cpu_worst = (percentile(ordered, share) for share in (0.5, 0.95, 1.0))
        for name, samples in self._wall.items():
            row, ordered = self._rows[name], sorted(samples)
            row.wall_median, row.wall_p95, row.wall_worst = (percentile(ordered, share) for share in (0.5, 0.95, 1.0))
        return tuple(self._rows.values())


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest of the values that so many of them do not surpass; 0 if there are none."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0


def write(rows: Iterable[Health], folder: Path) -> None:
    """As JSON and CSV beside the results; a disk that is full costs these files only."""
    plain = [asdict(row) for row in rows]
    text = io.StringIO()
    table = csv.DictWriter(text, [column.name for column in fields(Health)], lineterminator="\n")
    table.writeheader()
    for row in plain:
        faults = " ".join(f"{fault}={count}" for fault, count in row["spoiled_by"].items())
        table.writerow({**row, "spoiled_by": faults})
    for ending, content in ((".json", json.dumps(plain, indent=1) + "\n"), (".csv", text.getvalue())):
        try:
            places.replace(folder, f"{FILE_NAME}{ending}", content)
        except OSError as error:
            _logger.warning("the competitors' health could not be written to %s: %s", folder, error)
