"""The values that a report is made of: what became of one world set or negotiation, and of one that was run twice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from resilient_exec.adapters.negmas.blame.notes import OnStage

__all__ = ["FailedAttempt", "Status", "TaskReport", "Verified"]

Status = Literal["scored", "scored before", "failed", "interrupted", "not run", "left to negmas"]

_WHY = {
    "": "",
    "same": " (with the same hash seed: somebody goes by the clock, or by a generator of its own)",
    "another": " (with another hash seed only: somebody goes by the order of hashes, as of a set of strings)",
}


@dataclass(frozen=True, kw_only=True)
class FailedAttempt:
    """The evidence about one attempt that failed, or was interrupted.

    Attributes:
        number: 1 for the first attempt of this run.
        outcome: ``raised died timed_out out_of_memory evicted killed not_sent lost``.
        reason: the same in words.
        pid: of the worker.
        start: when it began, local time with its offset (ISO 8601).
        duration: seconds.
        exitcode: of the worker where it died; negative for a signal.
        signal: that signal's name.
        stacks: of the worker just before it was killed: the thread that ran the world first, idle threads left out.
        traceback: of the exception that the world raised.
        memory: the memory curve: ``(seconds since it began, bytes resident)``.
        peak_memory: the most that was seen, bytes.
        remark: what else was found out.
        log: the file with what it printed; ``""``: it printed nothing, or nothing is kept.
        evidence: the file with all of this as text.
    """

    number: int
    outcome: str
    reason: str = ""
    pid: int | None = None
    start: str = ""
    duration: float = 0.0
    exitcode: int | None = None
    signal: str | None = None
    stacks: str = ""
    traceback: str = ""
    memory: Sequence[tuple[float, int]] = ()
    peak_memory: int = 0
    remark: str = ""
    log: str = ""
    evidence: str = ""


@dataclass(frozen=True, kw_only=True)
class TaskReport:
    """One world set, or one negotiation.

    Attributes:
        name: of the world set's folder in the tournament's folder; of a negotiation: its run id.
        run_id: as in negmas' ``scores.csv`` and ``results.json``.
        path: of that folder; ``""`` for a negotiation.
        worlds: names of the worlds of the set (of the scenario, for a negotiation).
        competitors: the types of the competitors in it.
        status: ``scored``; ``scored before`` (found finished on resume); ``failed`` (for good); ``interrupted`` (it ran
            when the tournament was ended); ``not run``; ``left to negmas`` (a negotiation that cannot be pickled, which
            negmas' own function has run or failed).
        start, end: when its first attempt began and its last one ended, local time with its offset (ISO 8601);
            ``""``: it was not run in this run of the tournament.
        duration: seconds from ``start`` to ``end``.
        attempts: attempts begun in this run of the tournament.
        history: how each failed attempt ended.
        failed_attempts: the evidence about each of them.
        reason: why there is no score.
        signal: the signal that killed the last attempt, if one did.
        exitcode: the exit code of the worker that died in the last attempt.
        stacks: the Python stacks of the worker, taken just before it was killed.
        traceback: of the exception that the world raised.
        on_stage: whose code was running in each attempt that failed, as far as that is known.
        printed: bytes that were printed in its last attempt, if it has a score.
        log: the file with what its last attempt printed; ``""``: nothing, or it is not kept.
    """

    name: str
    run_id: str = ""
    path: str = ""
    worlds: tuple[str, ...] = ()
    competitors: tuple[str, ...] = ()
    status: Status = "scored"
    start: str = ""
    end: str = ""
    duration: float | None = None
    attempts: int = 0
    history: tuple[str, ...] = ()
    failed_attempts: tuple[FailedAttempt, ...] = ()
    reason: str = ""
    signal: str | None = None
    exitcode: int | None = None
    stacks: str = ""
    traceback: str = ""
    on_stage: tuple[OnStage, ...] = ()
    printed: int | None = None
    log: str = ""

    @property
    def is_scored(self) -> bool:
        """Whether there is a score, from this run or an earlier one."""
        return self.status in {"scored", "scored before"}

    @property
    def culprit(self) -> OnStage | None:
        """Whose code was running in the last attempt; ``None``: nobody knows."""
        last = self.on_stage[-1] if self.on_stage else None
        return last if last is not None and last.attempt in (0, self.attempts) else None

    def __str__(self) -> str:
        times = f" after {self.attempts} attempts" if self.attempts > 1 else ""
        stage = f"; on stage: {self.on_stage[-1]}" if self.on_stage else ""
        return f"{self.name} [{', '.join(self.competitors)}]: {self.status}{times}: {self.reason}{stage}"


@dataclass(frozen=True)
class Verified:
    """A world set that was run twice.

    Attributes:
        name: of the world set's folder.
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
