"""The conduct of the competitors of a tournament: who was on stage in failures, their health, who is disqualified.

Findings of earlier runs of the same tournament are included (:mod:`.blame.history`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from resilient_exec.adapters.negmas.blame import growth, health
from resilient_exec.adapters.negmas.blame.culprit import Source, on_stage, source_of
from resilient_exec.adapters.negmas.blame.disqualify import Disqualification
from resilient_exec.adapters.negmas.blame.history import ConductLog, Line, load_measured
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
class _WorldSetState:
    """What is known about one world set."""

    competitors: tuple[str, ...]
    scored: bool = False
    culprit: OnStage | None = None  # who was on stage in the last attempt, if the world set has failed for good
    final: bool = False  # whether the world set has failed for good


def _by_growth(folder: Path, attempts: Sequence[AttemptReport], stage: tuple[OnStage, ...]) -> tuple[OnStage, ...]:
    """Return who is to blame: where memory was lacking, the competitor that has taken it, else who was on stage."""
    seen = {who.attempt: who for who in stage}
    found: list[OnStage | None] = []
    for attempt in attempts:
        who = seen.get(attempt.number)
        if attempt.outcome == "out_of_memory":
            who = growth.blame(folder, who, attempt.number, attempt.peak_memory)
        found.append(who)
    return tuple(who for who in found if who is not None)


class Conduct:
    """The conduct of the competitors of one tournament.

    Args:
        competitors: full names of their types; others are added when a world set with them is reported.
        folder: of the tournament, with the files of earlier runs; ``None``: nothing is read or written.
        step_timeout: seconds after which a step of an agent is counted as slow; ``None``: never.
        disqualify_after: number of spoiled world sets after which a competitor is disqualified; ``None``: never.
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
        self._log = ConductLog(folder)
        self._book = health.Book(competitors, step_timeout)
        self._sources: dict[str, Source] = {}
        self._states: dict[str, _WorldSetState] = {}  # by place
        self._recorded: set[tuple[Hashable, int]] = set()  # failed attempts, by task key and number
        for line in self._log.lines():
            self._apply(line)

    # -- reports about world sets; ``place`` is the name of a world set's folder

    def record_scored_before(self, folder: Path, competitors: tuple[str, ...]) -> None:
        """Record a world set whose results in ``folder`` are from an earlier run."""
        self._record_score(folder.name, competitors, load_measured(folder))

    def record_failed_attempts(
        self, world_set: WorldSet, key: Hashable, attempts: Sequence[AttemptReport]
    ) -> tuple[OnStage, ...]:
        """Record who was on stage in the failed attempts of the task ``key`` (each attempt once), and return all."""
        types = dict.fromkeys(kind for kind in own_types(world_set.worlds) if isinstance(kind, str))
        stage = on_stage(attempts, [self._source(kind) for kind in types])
        stage = _by_growth(world_set.folder, attempts, stage)
        held = {attempt.number: attempt.peak_memory for attempt in attempts}
        new = [who for who in stage if (key, who.attempt) not in self._recorded]
        self._recorded.update((key, who.attempt) for who in new)
        place, competitors = world_set.folder.name, world_set.competitors
        self._record([Line(place, competitors, who, held.get(who.attempt, 0)) for who in new])
        return stage

    def _source(self, kind: str) -> Source:
        if kind not in self._sources:
            self._sources[kind] = source_of(kind)
        return self._sources[kind]

    def record_settled(self, place: str, task_report: TaskReport, measured: Iterable[Measured] = ()) -> tuple[str, ...]:
        """Record the end of a world set; returns the competitors that are disqualified because of it."""
        before = self.disqualification.disqualified
        if task_report.status == "scored":
            self._record_score(place, task_report.competitors, measured)
        elif task_report.attempts:
            last = task_report.on_stage[-1] if task_report.on_stage else None
            # If nobody was seen on stage in the last attempt, it is not known who caused its failure.
            known = last if last is not None and last.attempt == task_report.attempts else None
            self._record([Line(place, task_report.competitors, known, final=True)])
        return tuple(name for name in self.disqualification.disqualified if name not in before)

    def _record(self, lines: list[Line]) -> None:
        for line in lines:
            self._apply(line)
        self._log.append(lines)

    def _apply(self, line: Line) -> None:
        state = self._states.setdefault(line.place, _WorldSetState(line.competitors))
        who = line.on_stage
        if not line.final:
            if who is not None:
                self._book.row(who.competitor).failed(who, line.held)
            return
        state.culprit, state.final = who, True
        if who is not None and who.competitor in line.competitors:
            self.disqualification.record_spoiled(who.competitor, line.place)

    def _record_score(self, place: str, competitors: tuple[str, ...], measured: Iterable[Measured]) -> None:
        agents = list(measured)
        self._states[place] = _WorldSetState(competitors, scored=True)
        self.disqualification.record_score(place)
        for name in competitors:
            self._book.measured(name, [agent for agent in agents if agent.competitor == name])

    def lost(self) -> dict[str, tuple[tuple[str, ...], OnStage | None]]:
        """World sets that have failed for good, by the name of their folder: their competitors, and the culprit."""
        return {place: (state.competitors, state.culprit) for place, state in self._states.items() if state.final}

    def reason_to_exclude(self, competitors: Iterable[str]) -> str:
        """Why a world set with these competitors is not run; ``""``: it is run."""
        return self.disqualification.reason(competitors)

    def finish(self) -> tuple[health.Health, ...]:
        """The health of all competitors; it is also written to files beside the results."""
        for state in self._states.values():
            for name in state.competitors:
                row = self._book.row(name)
                row.worlds += 1
                row.scored += state.scored
            if state.culprit is not None:
                self._book.row(state.culprit.competitor).has_spoiled(state.culprit.fault)
        for name in self.disqualification.disqualified:
            self._book.row(name).disqualified = True
        rows = self._book.rows()
        if self._folder is not None:
            health.write(rows, self._folder)
        return rows


def of_finished(
    folder: Path, params: Mapping[str, Any], competitors: Mapping[str, tuple[str, ...]], step_timeout: float | None
) -> tuple[health.Health, ...]:
    """The health of the competitors of a finished tournament, from the files in its folder.

    Args:
        folder: of the tournament.
        params: the tournament's parameters, as negmas has stored them.
        competitors: those in each world set, by the name of its folder.
        step_timeout: as in :class:`Conduct`.
    """
    conduct = Conduct(params.get("competitors") or (), folder, step_timeout=step_timeout)
    for place, names in competitors.items():
        conduct.record_scored_before(folder / place, names)
    return conduct.finish()
