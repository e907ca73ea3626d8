"""Turns the last outcome of a task into the exception that its future raises.

Its message is one line: which task, what happened, in which attempt, and what to do.  The dossier hangs on it as a
note, so that a traceback shows it below.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from resilient_exec.model import task as outcomes
from resilient_exec.model.dossier import reason
from resilient_exec.model.errors import (
    AttemptError,
    InternalError,
    MemoryLimitExceeded,
    NotSendable,
    ResilientError,
    TaskKilled,
    TaskTimeout,
    WorkerDied,
)
from resilient_exec.model.summary import named

if TYPE_CHECKING:
    from resilient_exec.core.messages import Settle
    from resilient_exec.model.dossier import Dossier

__all__ = ["error_of"]

_KIND: dict[type, tuple[type[AttemptError], str]] = {  # the error, and what to do about it
    outcomes.Died: (WorkerDied, "its dossier shows what is known; RetryPolicy(deaths=...) grants more attempts"),
    outcomes.TimedOut: (TaskTimeout, "its dossier shows where it stood; a longer {what} would let it run on"),
    outcomes.OutOfMemory: (MemoryLimitExceeded, "options(memory_limit=...) gives it more"),
    outcomes.Evicted: (MemoryLimitExceeded, "run fewer workers, or set a memory_limit"),
    outcomes.Killed: (TaskKilled, ""),
    outcomes.Lost: (WorkerDied, "something stops or kills the workers between tasks"),
    outcomes.NotSent: (NotSendable, ""),
}


def error_of(settle: Settle, dossier: Dossier | None = None) -> BaseException:
    """The exception for a task that neither returned nor was cancelled."""
    outcome = settle.outcome
    if isinstance(outcome, outcomes.Raised):
        if isinstance(outcome.exception, NotSendable):
            outcome.exception.complete(settle.key, settle.attempts, settle.story, dossier)
        return outcome.exception
    if isinstance(outcome, ResilientError):
        return outcome
    if outcome is None or type(outcome) not in _KIND:
        return InternalError(f"task {named(settle.key)} settled with {outcome!r}, which is no outcome")
    cls, remedy = _KIND[type(outcome)]
    error = cls(
        _message(settle, outcome, remedy),
        key=settle.key,
        attempt=settle.attempts,
        story=settle.story,
        stacks=outcomes.evidence_of(outcome).stacks,
        dossier=dossier,
    )
    if isinstance(outcome, outcomes.Died):
        error.__dict__["exitcode"] = outcome.exitcode
    elif isinstance(outcome, outcomes.NotSent | outcomes.TimedOut):
        error.__cause__ = outcome.cause
    return error


def _message(settle: Settle, outcome: outcomes.Outcome, remedy: str) -> str:
    name = f"task {named(settle.key)}{f' ({_one_line(settle.label)})' if settle.label else ''}"
    what = reason(outcome.kind, outcomes.detail_of(outcome) or {})
    remark = outcomes.evidence_of(outcome).remark
    if remark:
        what += f" ({remark})"
    if isinstance(outcome, outcomes.TimedOut):
        remedy = remedy.format(what=outcome.what)
    which = ""
    if settle.attempts:
        of = f" of {settle.attempts}" if outcome.kind != "killed" else ""
        which = f"; attempt {settle.attempts}{of}, {settle.elapsed:.3g} s after it first began"
    return f"{name} {what}{which}{'; ' + remedy if remedy else ''}"


def _one_line(label: str) -> str:
    return " ".join(label.split())
