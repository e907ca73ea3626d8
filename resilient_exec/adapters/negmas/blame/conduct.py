"""The conduct of the competitors of a tournament: who was on stage, how healthy they are, who is out.

What earlier runs of the same tournament have found out counts as well (:mod:`.blame.history`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from resilient_exec.adapters.negmas.blame import health
from resilient_exec.adapters.negmas.blame.culprit import Source, on_stage, source_of
from resilient_exec.adapters.negmas.blame.disqualify import Disqualification
from resilient_exec.adapters.negmas.blame.history import Chronicle, Line, measured_in
from resilient_exec.adapters.negmas.blame.notes import own_types

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping, Sequence
    from pathlib import Path

    from resilient_exec.adapters.negmas.blame.notes import OnStage
    from resilient_exec.adapters.negmas.blame.stage import Measured
    from resilient_exec.adapters.negmas.report.task_report import TaskReport
    from resilient_exec.adapters.negmas.worlds.plan import WorldSet
    from resilient_exec.model.dossier import AttemptReport

__all__ = ["Conduct", "of_finished"]


@dataclass
class _Fate:
    """What is known of one world set."""

    competitors: tuple[str, ...]
    scored: bool = False
    culprit: OnStage | None = None  # it has no score for its sake


class Conduct:
    """Of the competitors of one tournament.

    Args:
        competitors: their types; those of no tournament are met one by one.
        folder: of the tournament, with what earlier runs have left there; ``None``: nothing is read or written.
        step_timeout: seconds after which a step of an agent is counted as slow; ``None``: never.
        disqualify_after: worlds that a competitor may spoil before it plays no more; ``None``: any number.
    """

    def __init__(
        self,
        competitors: Iterable[str],
        folder: Path | None = None,
        *,
        step_timeout: float | None = None,
        disqualify_after: int | None = None,
    ) -> None:
        self.disqualification = Disqualification(disqualify_after)
        self._folder = folder
        self._chronicle = Chronicle(folder)
        self._book = health.Book(competitors, step_timeout)
        self._sources: dict[str, Source] = {}
        self._fates: dict[str, _Fate] = {}  # by place
        self._taken: set[tuple[Hashable, int]] = set()  # attempts that have been taken down
        for line in self._chronicle.lines():
            self._take_down(line)

    # -- what becomes of the world sets; a place is the name of a world set's folder

    def scored_before(self, folder: Path, competitors: tuple[str, ...]) -> None:
        """The world set of that folder has its results from an earlier run."""
        self._scored(folder.name, competitors, measured_in(folder))

    def failed_attempts(
        self, world_set: WorldSet, key: Hashable, attempts: Sequence[AttemptReport]
    ) -> tuple[OnStage, ...]:
        """Who was on stage in those of the attempts of the task ``key`` that failed; each is taken down once."""
        types = dict.fromkeys(kind for kind in own_types(world_set.worlds) if isinstance(kind, str))
        stage = on_stage(attempts, [self._source(kind) for kind in types])
        held = {attempt.number: attempt.peak_memory for attempt in attempts}
        new = [who for who in stage if (key, who.attempt) not in self._taken]
        self._taken.update((key, who.attempt) for who in new)
        place, competitors = world_set.folder.name, world_set.competitors
        self._write([Line(place, competitors, who, held.get(who.attempt, 0)) for who in new])
        return stage

    def _source(self, kind: str) -> Source:
        if kind not in self._sources:
            self._sources[kind] = source_of(kind)
        return self._sources[kind]

    def settled(self, place: str, told: TaskReport, measured: Iterable[Measured] = ()) -> tuple[str, ...]:
        """Take down what became of a world set; those that are disqualified for it."""
        out = self.disqualification.out
        if told.status == "scored":
            self._scored(place, told.competitors, measured)
        elif told.attempts:
            last = told.on_stage[-1] if told.on_stage else None
            # Else nobody knows whose doing the last attempt was.
            known = last if last is not None and last.attempt == told.attempts else None
            self._write([Line(place, told.competitors, known, final=True)])
        return tuple(name for name in self.disqualification.out if name not in out)

    def _write(self, lines: list[Line]) -> None:
        for line in lines:
            self._take_down(line)
        self._chronicle.append(lines)

    def _take_down(self, line: Line) -> None:
        fate = self._fates.setdefault(line.place, _Fate(line.competitors))
        who = line.on_stage
        if not line.final:
            if who is not None:
                self._book.row(who.competitor).failed(who, line.held)
            return
        fate.culprit = who
        if who is not None and who.competitor in line.competitors:
            self.disqualification.spoiled(who.competitor, line.place)

    def _scored(self, place: str, competitors: tuple[str, ...], measured: Iterable[Measured]) -> None:
        agents = list(measured)
        self._fates[place] = _Fate(competitors, scored=True)
        self.disqualification.made_good(place)
        for name in competitors:
            self._book.measured(name, [agent for agent in agents if agent.competitor == name])

    def excluded(self, competitors: Iterable[str]) -> str:
        """Why a world with these is not run; ``""``: it is run."""
        return self.disqualification.reason(competitors)

    def finish(self) -> tuple[health.Health, ...]:
        """The health of all, which is written beside the results, too."""
        for fate in self._fates.values():
            for name in fate.competitors:
                row = self._book.row(name)
                row.worlds += 1
                row.scored += fate.scored
            if fate.culprit is not None:
                self._book.row(fate.culprit.competitor).has_spoiled(fate.culprit.fault)
        for name in self.disqualification.out:
            self._book.row(name).disqualified = True
        rows = self._book.rows()
        if self._folder is not None:
            health.write(rows, self._folder)
        return rows


def of_finished(
    folder: Path, params: Mapping[str, Any], competitors: Mapping[str, tuple[str, ...]], step_timeout: float | None
) -> tuple[health.Health, ...]:
    """The health of the competitors of a tournament of which nothing is left to run, from what lies in its folder.

    Args:
        folder: of the tournament.
        params: as negmas has stored them.
        competitors: in each world set, by the name of its folder.
        step_timeout: as in :class:`Conduct`.
    """
    conduct = Conduct(params.get("competitors") or (), folder, step_timeout=step_timeout)
    for place, names in competitors.items():
        conduct.scored_before(folder / place, names)
    return conduct.finish()
