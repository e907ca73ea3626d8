"""The values that a report is made of: what became of one world set or negotiation, and of one that was run twice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from resilient_exec.adapters.negmas.blame.notes import OnStage

__all__ = ["Status", "TaskReport", "Verified"]

Status = Literal["scored", "scored before", "failed", "not run", "left to negmas"]

_WHY = {
    "": "",
    "same": " (with the same hash seed: somebody goes by the clock, or by a generator of its own)",
    "another": " (with another hash seed only: somebody goes by the order of hashes, as of a set of strings)",
}


@dataclass(frozen=True, kw_only=True)
class TaskReport:
    """One world set, or one negotiation.

    Attributes:
        name: the run id, as in negmas' ``scores.csv`` and ``results.json``.
        worlds: names of the worlds of the set (of the scenario, for a negotiation).
        competitors: the types of the competitors in it.
        status: ``scored``; ``scored before`` (found finished on resume); ``failed`` (for good); ``not run``; ``left to
            negmas`` (a negotiation that cannot be pickled, which negmas' own function has run or failed).
        attempts: attempts begun in this run of the tournament.
        history: how each failed attempt ended.
        reason: why there is no score.
        signal: the signal that killed the last attempt, if one did.
        exitcode: the exit code of the worker that died in the last attempt.
        stacks: the Python stacks of the worker, taken just before it was killed.
        traceback: of the exception that the world raised.
        on_stage: whose code was running in each attempt that failed, as far as that is known.
        printed: bytes that were printed in it, as far as ``output_limit`` did not cut them, if it has a score.
    """

    name: str
    worlds: tuple[str, ...] = ()
    competitors: tuple[str, ...] = ()
    status: Status = "scored"
    attempts: int = 0
    history: tuple[str, ...] = ()
    reason: str = ""
    signal: str | None = None
    exitcode: int | None = None
    stacks: str = ""
    traceback: str = ""
    on_stage: tuple[OnStage, ...] = ()
    printed: int | None = None

    @property
    def is_scored(self) -> bool:
        """Whether there is a score, from this run or an earlier one."""
        return self.status in {"scored", "scored before"}

    def __str__(self) -> str:
        times = f" after {self.attempts} attempts" if self.attempts > 1 else ""
        stage = f"; on stage: {self.on_stage[-1]}" if self.on_stage else ""
        return f"{self.name} [{', '.join(self.competitors)}]: {self.status}{times}: {self.reason}{stage}"


@dataclass(frozen=True)
class Verified:
    """A world set that was run twice.

    Attributes:
        name: the run id.
        competitors: in it.
        difference: what was different the second time; ``""``: nothing.
        under: the hash seed with which it was: the ``same``, or only with ``another`` one; ``""``: no difference.
    """

    name: str
    competitors: tuple[str, ...]
    difference: str = ""
    under: Literal["", "same", "another"] = ""

    def __str__(self) -> str:
        why = _WHY[self.under] if self.difference else ""
        return f"{self.name} [{', '.join(self.competitors)}]: {self.difference or 'the same scores'}{why}"
