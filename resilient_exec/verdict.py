"""Turns the last outcome of a task into the exception that its future raises."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from resilient_exec import task as outcomes
from resilient_exec.errors import (
    AttemptError,
    InternalError,
    NotSendable,
    ResilientError,
    TaskKilled,
    TaskTimeout,
    WorkerDied,
    signal_name,
)

if TYPE_CHECKING:
    from resilient_exec.messages import Settle

__all__ = ["error_of"]


def error_of(settle: Settle) -> BaseException:
    """The exception for a task that neither returned nor was cancelled."""
    outcome = settle.outcome
    match outcome:
        case outcomes.Raised():
            return outcome.exception
        case ResilientError():
            return outcome
        case outcomes.Died():
            error: AttemptError = _attempt_error(WorkerDied, settle, _death(outcome), outcome.stacks)
            error.__dict__["exitcode"] = outcome.exitcode
        case outcomes.TimedOut():
            killed = f"its worker (pid {outcome.pid}) was killed"
            text = f"was still running after its timeout of {outcome.limit:g} s; {killed}"
            error = _attempt_error(TaskTimeout, settle, text, outcome.stacks)
        case outcomes.Killed():
            error = _attempt_error(TaskKilled, settle, f"was ended by {outcome.why}", outcome.stacks)
        case outcomes.Lost():
            text = f"never began: its worker went away each time before it could ({outcome.why})"
            error = _attempt_error(WorkerDied, settle, text)
        case outcomes.NotSent():
            error = _attempt_error(NotSendable, settle, outcome.message)
            error.__cause__ = outcome.cause
        case _:
            return InternalError(f"task {settle.key!r} settled with {outcome!r}, which is no outcome")
    return error


def _death(outcome: outcomes.Died) -> str:
    how = signal_name(outcome.exitcode)
    if how is not None:
        text = f"its worker (pid {outcome.pid}) was killed by {how}"
    elif outcome.exitcode is not None:
        text = f"its worker (pid {outcome.pid}) exited with status {outcome.exitcode}"
    else:
        text = f"its worker (pid {outcome.pid}) ended, nobody knows how"
    return f"died with it: {text}{': ' + outcome.why if outcome.why else ''}"


def _attempt_error(cls: type[AttemptError], settle: Settle, what: str, stacks: str = "") -> Any:
    of = f"; attempt {settle.attempts}" if settle.attempts else ""
    name = f"task {settle.key!r}{f' ({settle.label})' if settle.label else ''}"
    message = f"{name} {what}{of}, {settle.elapsed:.3g} s after it first began" if of else f"{name} {what}"
    if stacks:
        message += f"\n\nThe worker's Python stacks just before it was killed:\n{stacks.rstrip()}"
    return cls(message, key=settle.key, attempt=settle.attempts, story=settle.story, stacks=stacks)
