"""The conduct of the competitors while their tournament runs: who was on stage, how healthy they are, who is out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from resilient_exec.adapters.negmas import health
from resilient_exec.adapters.negmas.blame import Source, on_stage, source_of
from resilient_exec.adapters.negmas.disqualify import Disqualification
from resilient_exec.adapters.negmas.onstage import own_types

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from resilient_exec.adapters.negmas.onstage import OnStage
    from resilient_exec.adapters.negmas.report import TaskReport
    from resilient_exec.dossier import AttemptReport

__all__ = ["Conduct"]


class Conduct:
    """Of the competitors of one tournament.

    Args:
        competitors: their types; those of no tournament are met one by one.
        step_timeout: seconds after which a step of an agent is counted as slow; ``None``: never.
        disqualify_after: worlds that a competitor may spoil before it plays no more; ``None``: any number.
    """

    def __init__(
        self, competitors: Iterable[str], *, step_timeout: float | None = None, disqualify_after: int | None = None
    ) -> None:
        self.disqualification = Disqualification(disqualify_after)
        self._book = health.Book(competitors, step_timeout)
        self._sources: dict[str, Source] = {}

    def on_stage(self, worlds: list[dict[str, Any]], attempts: Iterable[AttemptReport]) -> tuple[OnStage, ...]:
        """Who was on stage in those of the attempts that failed."""
        types = dict.fromkeys(kind for kind in own_types(worlds) if isinstance(kind, str))
        return on_stage(attempts, [self._source(kind) for kind in types])

    def _source(self, kind: str) -> Source:
        if kind not in self._sources:
            self._sources[kind] = source_of(kind)
        return self._sources[kind]

    def settled(
        self, told: TaskReport, attempts: Sequence[AttemptReport] = (), measured: Iterable[Any] = ()
    ) -> tuple[str, ...]:
        """Take down what became of a world set; those that are disqualified for it."""
        held = {attempt.number: attempt.peak_memory for attempt in attempts}
        agents = list(measured)
        for name in told.competitors:
            row = self._book.row(name)
            row.worlds += told.attempts > 0
            row.scored += told.status == "scored"
            self._book.measured(name, [agent for agent in agents if agent.competitor == name])
        for who in told.on_stage:
            self._book.row(who.competitor).failed(who, held.get(who.attempt, 0))
        return self._spoiled(told) if told.status == "failed" else ()

    def _spoiled(self, told: TaskReport) -> tuple[str, ...]:
        if not told.on_stage or told.on_stage[-1].attempt != told.attempts:
            return ()  # nobody knows whose doing the last attempt was
        last = told.on_stage[-1]
        row = self._book.row(last.competitor)
        row.spoiled += 1
        row.spoiled_by[last.fault] = row.spoiled_by.get(last.fault, 0) + 1
        if last.competitor in told.competitors and self.disqualification.spoiled(last.competitor):
            row.disqualified = True
            return (last.competitor,)
        return ()

    def excluded(self, competitors: Iterable[str]) -> str:
        """Why a world with these is not run; ``""``: it is run."""
        return self.disqualification.reason(competitors)

    def finish(self, folder: Path) -> tuple[health.Health, ...]:
        """The health of all, which is written beside the results, too."""
        rows = self._book.rows()
        health.write(rows, folder)
        return rows
